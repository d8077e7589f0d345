"""The results in an output dataset, identified by their forward transforms: the current one of each image, and superseded ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import BidsError
from ..files import name_stem
from .entities import join_name, split_name
from .image import InputImage
from .names import BRAIN_MASK_KEY, LEVEL_KEY, OutputNames, as_written, requested
from .sidecars import read_json

_OF_TRANSFORMS = {"from", "to", "mode"}
_CONTRASTS = ("T1w", "T2w")


@dataclass(frozen=True)
class Result:
    """One pose of one image: ``sidecar`` is that of the forward transform; ``names.image`` is derived from its name."""

    sidecar: Path
    names: OutputNames

    @property
    def stem(self) -> str:
        """Name of the image without its extension."""
        return name_stem(self.names.image.path)

    @property
    def atlas(self) -> str:
        """Name of the atlas."""
        return self.names.template_space[0]


def results_in(out_dir: Path, anat: Path) -> list[Result]:
    """Every result in the folder ``anat`` of the output dataset ``out_dir``, sorted by name; the files are not opened."""
    found = []
    for path in sorted(anat.glob("sub-*_xfm.json")):
        split = split_name(path.name)
        # the inverse comes from a template's space, never from T1w or T2w
        if split is None or split.unparsed or not split.entities.keys() >= _OF_TRANSFORMS or split.entities["from"] not in _CONTRASTS:
            continue
        entities = {key: label for key, label in split.entities.items() if key not in _OF_TRANSFORMS}
        image = anat / join_name(entities, split.entities["from"], ".nii.gz")
        atlas, _, cohort = split.entities["to"].partition("+")
        owner = InputImage(image, image.relative_to(out_dir), entities, split.entities["from"])
        found.append(Result(path, OutputNames(out_dir, owner, (atlas, cohort or None))))
    return found


def written_instead(sidecar: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What the sidecars of the resampled image and of the mask would tell, from that of the forward transform, where they were not written
    (``--level``); None where they were."""
    if LEVEL_KEY not in sidecar:
        return None
    mask = sidecar.get(BRAIN_MASK_KEY)
    return {key: value for key, value in sidecar.items() if key.startswith("Template")}, dict(mask) if isinstance(mask, Mapping) else {}


def current(results: Iterable[Result]) -> tuple[list[Result], list[Result]]:
    """The current result of each image and atlas among the ``results`` of one folder, and the superseded ones, left by a stopped run or an
    older version.

    The current result is that of the reoriented image; if that is not conclusive, the one written last.
    """
    by_image: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        by_image.setdefault((result.stem, result.atlas), []).append(result)
    kept, older = [], []
    for some in by_image.values():
        last = some[0] if len(some) == 1 else max(some, key=lambda r: (_is_turned_by(r), r.sidecar.stat().st_mtime_ns))
        kept.append(last)
        older += [result for result in some if result is not last]
    return kept, older


def _is_turned_by(result: Result) -> bool:
    for further in (False, True):
        with contextlib.suppress(BidsError):
            if is_turned_by(replace(result.names, further=further)):
                return True
    return False


def is_turned_by(names: OutputNames) -> bool:
    """Whether the reoriented image was written with this template's transform, which its name does not contain.

    Raises :class:`~posepipe.errors.BidsError` for a sidecar that cannot be read.
    """
    turned = str(read_json(names.sidecar(names.reoriented)).get("Transform", ""))
    return turned.endswith(f"/{names.forward.name}")


def remove_superseded(names: OutputNames, files: Iterable[Path], is_superseded: Callable[[str, Mapping[str, Any]], bool]) -> list[str]:
    """Remove the outputs of superseded results of this image, except files shared with current ones; returns the spaces of removed results.

    ``files`` are those of the current result, at ``names``, and of what the same run makes of the image at other atlases. ``is_superseded``
    is called for each other result, with its atlas and the forward transform's sidecar (empty if unreadable). Raises OSError for a file
    that cannot be removed.
    """
    kept = set(files)
    with contextlib.suppress(BidsError):  # outputs requested earlier are kept if they are of the current pose
        kept |= _files_of(names, read_json(names.sidecar(names.forward)))
    gone, own = [], name_stem(names.image.path)
    # only T1w images have a synthetic T2w output; for a T2w image the file belongs to another image
    possible = set(names.every_file) - (set() if names.image.suffix == "T1w" else {names.synth, names.sidecar(names.synth)})
    if not names.further:  # as a further atlas of an earlier run it had other names; the names of a first atlas may be another's by now
        possible |= set(replace(names, further=True).every_file) - {names.synth, names.sidecar(names.synth)}
    for result in results_in(names.out_dir, names.folder):
        if result.stem != own or result.names.forward == names.forward:
            continue
        sidecar: dict[str, Any] = {}
        with contextlib.suppress(BidsError):
            sidecar = read_json(result.sidecar)
        if is_superseded(result.atlas, sidecar):
            possible |= set(as_written(result.names, sidecar).files(**requested(sidecar)))
            gone.append(result.names.template)
        else:
            kept |= _files_of(as_written(result.names, sidecar), sidecar)
    # the sidecars of transforms first: they define a result
    for path in sorted(possible - kept, key=lambda path: not path.name.endswith("_xfm.json")):
        path.unlink(missing_ok=True)
    return gone


def _files_of(names: OutputNames, sidecar: Mapping[str, Any]) -> set[Path]:
    """The files of the result with this ``sidecar``."""
    synth, slices = bool(sidecar.get("ContrastConversion")), bool(sidecar.get("Slices"))
    return set(names.files(synth=synth, slices=slices, **requested(sidecar)))
