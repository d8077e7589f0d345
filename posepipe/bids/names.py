"""Names of all outputs. They are unique, and the input can be derived from each name.

- Every entity of the input is kept, in BIDS order.
- The resampled image is on the template's grid, for which ``space-``, ``cohort-``, ``res-`` and ``den-`` of the input are not
  valid: their labels move into ``desc-`` (input ``space-T2w_res-05`` → ``desc-spaceT2w+res05``).
- ``desc-`` of the input stays in front, joined by ``+``: ``desc-preproc`` → ``desc-preproc+reoriented``,
  ``desc-preproc+brain``.
- Transforms in other formats than ITK's have its name but for the extension (:data:`~posepipe.settings.XFM_FORMATS`): one sidecar tells of
  all of them.
- ``desc-brain_mask``, ``desc-atlas_dseg`` and ``desc-slices_pose`` do not say the contrast, and a T1w and a T2w image often share all
  entities: those of a T1w image always carry ``mod-T1w``, those of a T2w image never do, whatever else the dataset holds.
- Of several atlases (``--atlas A B``) the first that has a template of the age has these names. At a further one, what depends on the pose
  without naming the template names it too: ``space-B_cohort-30_desc-reoriented``, ``space-B_cohort-30_desc-slices``, ``seg-B+30+tissues``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import BidsError
from ..files import name_stem, temporary_name
from ..settings import FULL, LABEL_MAPS, OUTPUT_LEVELS, TRANSFORMS, XFM_FORMATS
from .entities import join_name
from .image import InputImage

LONGEST_NAME = 255
"""Bytes in the name of a file: the limit of every common file system (NAME_MAX of Linux)."""
FORMATS_KEY, LABELS_KEY, NAMES_KEY = "TransformFiles", "Labels", "NamesSHA256"
"""Of the forward transform's sidecar: transforms in other formats, label maps, and the hash of a label map's names."""
LEVEL_KEY, BRAIN_MASK_KEY, FURTHER_KEY, TAKEN_KEY = "Level", "BrainMask", "NamedBySpace", "TakenFrom"
"""Of the forward transform's sidecar: the ``--level`` and what is known of the mask, where it was not the full level; true for a further
atlas of one run; the result of an earlier run that this is a copy of."""
_GRID_ENTITIES = ("space", "cohort", "res", "den")


@dataclass(frozen=True)
class OutputNames:
    """Paths of everything that is written for one image.

    ``template_space`` is the atlas and its cohort as in ``tpl-ATLAS_cohort-COHORT`` (None: an atlas without cohorts). ``further``: the
    atlas is not the first one of those that were asked for and have a template of the age.
    """

    out_dir: Path
    image: InputImage
    template_space: tuple[str, str | None]
    further: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "out_dir", Path(self.out_dir))

    @property
    def folder(self) -> Path:
        """``sub-01/[ses-1/]anat``."""
        return _unit_folder(self.out_dir, self.image.subject, self.image.session) / "anat"

    @property
    def template(self) -> str:
        """The template as transforms name it: ``CRL+29``."""
        return "+".join(part for part in self.template_space if part)

    @property
    def forward(self) -> Path:
        """ITK transform that resamples the image onto the template (atlas points → image points)."""
        return self._xfm(self.image.suffix, self.template)

    @property
    def backward(self) -> Path:
        """Its inverse."""
        return self._xfm(self.template, self.image.suffix)

    @property
    def resampled(self) -> Path:
        """The image on the template's grid."""
        return self._in_space(self.image.suffix)

    @property
    def reoriented(self) -> Path:
        """The image's own voxels under a new affine."""
        if self.further:
            return self._in_space(self.image.suffix, label="reoriented")
        return self._with_desc("reoriented", self.image.suffix)

    @property
    def mask(self) -> Path:
        """The brain mask, on the image's own grid."""
        return self._with_desc("brain", "mask", **self._contrast)

    @property
    def synth(self) -> Path:
        """The converted contrast; written for T1w images that were converted only."""
        return self._with_desc("synth", "T2w")

    @property
    def slices(self) -> Path:
        """Table of the poses of its slices; written for stacks of slices only."""
        if self.further:
            return self._in_space("pose", ".tsv", label="slices", **self._contrast)
        return self._with_desc("slices", "pose", ".tsv", **self._contrast)

    def labels(self, kind: str) -> Path:
        """The atlas's label map ``kind`` (tissues, regions) on the image's own grid; written on request only."""
        parts = [self.image.entities.get("seg"), self.template if self.further else None, kind]
        return self._with_desc("atlas", "dseg", **self._contrast, seg="+".join(filter(None, parts)))

    def label_table(self, kind: str) -> Path:
        """Names of the labels in that map."""
        path = self.labels(kind)
        return path.with_name(name_stem(path) + ".tsv")

    @property
    def subject_page(self) -> Path:
        """The report of the image's participant and session."""
        return subject_page(self.out_dir, self.image.subject, self.image.session)

    def log_dir(self, run_id: str) -> Path:
        """Folder of one run's settings and crash files."""
        return _unit_folder(self.out_dir, self.image.subject, self.image.session) / "log" / run_id

    @staticmethod
    def sidecar(path: Path) -> Path:
        """The JSON file beside an output.

        >>> OutputNames.sidecar(Path("sub-01_T2w.nii.gz")).name
        'sub-01_T2w.json'
        """
        return path.with_name(name_stem(path) + ".json")

    def files(
        self,
        *,
        synth: bool = False,
        slices: bool = False,
        formats: Iterable[str] = (),
        labels: Mapping[str, Mapping[str, str]] | None = None,
        level: str = FULL,
    ) -> tuple[Path, ...]:
        """Every file that an image has that was finished with ``--level`` ``level``, sidecars included.

        ``synth``: the converted contrast too; ``slices``: poses of its slices too; ``formats``: transforms in these formats;
        ``labels``: these label maps too, as ``Labels`` of the forward transform's sidecar has them.
        """
        full = level == FULL
        made = [self.forward, *([self.resampled] if full else []), *([] if level == TRANSFORMS else [self.reoriented])]
        made += [*([self.mask] if full else []), *([self.synth] if synth and full else [])]
        made += [*([self.slices] if slices else []), self.backward]
        others = [in_format(path, form) for path in (self.forward, self.backward) for form in formats if form != "itk"]
        others += [self.label_table(kind) for kind, request in (labels or {}).items() if NAMES_KEY in request]
        made += [self.labels(kind) for kind in labels or {}]
        return (*made, *others, *(self.sidecar(path) for path in made))

    @property
    def every_file(self) -> tuple[Path, ...]:
        """Every file that may be there of a finished image."""
        return self.files(synth=True, slices=True, formats=XFM_FORMATS, labels={kind: {NAMES_KEY: ""} for kind in LABEL_MAPS})

    def check_length(self) -> None:
        """Check the length of the names of all outputs.

        Raises :class:`~posepipe.errors.BidsError` for an image whose name is too long.
        """
        paths = (*self.every_file, self.subject_page, *(self.folder.parents))
        longest = max((path.name for path in paths), key=lambda name: len(name.encode()))
        over = len(temporary_name(longest).encode()) - LONGEST_NAME
        if over > 0:
            msg = f"{self.image.path}: the names of its outputs would be too long, such as {longest}; shorten its name by {over} signs"
            raise BidsError(msg)

    @property
    def _contrast(self) -> dict[str, str]:
        """Entities that distinguish T1w and T2w outputs with the same suffix."""
        if self.image.suffix == "T2w":
            return {}
        own = self.image.entities.get("mod")
        return {"mod": f"{own}+{self.image.suffix}" if own else self.image.suffix}

    def _xfm(self, source: str, target: str) -> Path:
        entities = {**self.image.entities, "from": source, "to": target, "mode": "image"}
        return self.folder / join_name(entities, "xfm", ".txt")

    def _in_space(self, suffix: str, extension: str = ".nii.gz", *, label: str | None = None, **extra: str) -> Path:
        """A name in the template's space."""
        own, (atlas, cohort) = self.image.entities, self.template_space
        moved = [key + own[key] for key in _GRID_ENTITIES if key in own]
        entities = {k: v for k, v in own.items() if k not in (*_GRID_ENTITIES, "desc")} | extra | {"space": atlas}
        if cohort:
            entities["cohort"] = cohort
        desc = "+".join(filter(None, [*moved, own.get("desc"), label]))
        if desc:
            entities["desc"] = desc
        return self.folder / join_name(entities, suffix, extension)

    def _with_desc(self, label: str, suffix: str, extension: str = ".nii.gz", **extra: str) -> Path:
        own = self.image.entities.get("desc")
        entities = {**self.image.entities, **extra, "desc": f"{own}+{label}" if own else label}
        return self.folder / join_name(entities, suffix, extension)


def in_format(transform: Path, form: str) -> Path:
    """The transform at ``transform`` in another format: the same name with another extension, so that both share a sidecar.

    >>> in_format(Path("sub-01_from-T2w_to-CRL+29_mode-image_xfm.txt"), "fsl").name
    'sub-01_from-T2w_to-CRL+29_mode-image_xfm.mat'
    """
    return transform.with_name(transform.name.removesuffix(XFM_FORMATS["itk"]) + XFM_FORMATS[form])


def requested(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """What was written on request of the image with this ``sidecar`` of the forward transform, as :meth:`OutputNames.files` takes it."""
    formats, labels = sidecar.get(FORMATS_KEY), sidecar.get(LABELS_KEY)
    level = sidecar.get(LEVEL_KEY)
    return {
        "formats": [form for form in formats if form in XFM_FORMATS] if isinstance(formats, Mapping) else [],
        "labels": {kind: labels[kind] for kind in labels if kind in LABEL_MAPS} if isinstance(labels, Mapping) else {},
        "level": level if level in OUTPUT_LEVELS else FULL,
    }


def as_written(names: OutputNames, sidecar: Mapping[str, Any]) -> OutputNames:
    """``names`` as of the result with this ``sidecar`` of the forward transform."""
    return replace(names, further=sidecar.get(FURTHER_KEY) is True)


def subject_page(out_dir: str | Path, subject: str, session: str | None = None) -> Path:
    """Path of the report of one participant and session, ``OUT_DIR/sub-01[_ses-1].html``."""
    return Path(out_dir) / (f"sub-{subject}" + (f"_ses-{session}" if session else "") + ".html")


def _unit_folder(out_dir: Path, subject: str, session: str | None) -> Path:
    folder = out_dir / f"sub-{subject}"
    return folder / f"ses-{session}" if session else folder


def duplicates(images: Iterable[InputImage]) -> dict[Path, BidsError]:
    """Images that exist both as ``.nii`` and as ``.nii.gz``: the path of each such file → the error that names both."""
    files: dict[Path, list[Path]] = {}
    for image in images:
        files.setdefault(image.path.with_name(name_stem(image.path)), []).append(image.path)
    return {
        path: BidsError(f"{' and '.join(map(str, paths))} are one image by their name, and either may be the right one; remove one of them")
        for paths in files.values()
        if len(paths) > 1
        for path in paths
    }


def collisions(outputs: Iterable[tuple[InputImage, Iterable[Path]]]) -> dict[Path, BidsError]:
    """Images that share an output path: the path of each such image → the error that names both, e.g. ``sub-01_res-05_T2w`` and
    ``sub-01_desc-res05_T2w``. ``outputs`` are pairs of an image and all its output paths."""
    owner: dict[Path, InputImage] = {}
    found: dict[Path, BidsError] = {}
    for image, paths in outputs:
        for path in paths:
            other = owner.setdefault(path, image)
            if other.path != image.path:
                msg = f"{other.path} and {image.path} would both be written to {path}; rename one, or choose with --bids-filter-file"
                for one in (other, image):
                    found.setdefault(one.path, BidsError(msg))
    return found
