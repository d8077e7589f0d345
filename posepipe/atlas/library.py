"""Lookup of the atlases on this machine; nothing is downloaded here."""

from __future__ import annotations

import difflib
import logging
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import AtlasError, UsageError
from ..paths import absolute_path
from .files import Found, scan_template
from .manifest import Manifest, load_canonical, load_manifests
from .sidecars import ATLAS_TOML, Description, file_sha256, read_description, read_fetched

logger = logging.getLogger(__name__)

CONTRASTS = ("T1w", "T2w")


@dataclass(frozen=True)
class Template:
    """One template on disk.

    ``age`` is in weeks; ``image`` the NIfTI file in ``contrast``; ``mask``, ``tissues`` and ``regions`` are on its
    grid. ``to_canonical`` (3, 3) is the
    rotation of this template's RAS world to the canonical frame, ``x_canonical = R x_template``; None if it is not known. ``notes`` are
    warnings about this template.
    """

    atlas: str
    cohort: str
    age: float
    contrast: str
    image: Path
    mask: Path | None = None
    tissues: Path | None = None
    to_canonical: npt.NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    regions: Path | None = None

    @property
    def space(self) -> str:
        """Name of the space, as in file names: ``CRL+29``."""
        return f"{self.atlas}+{self.cohort}"

    @property
    def folder(self) -> Path:
        """The ``tpl-NAME`` folder that its image lies in, or the image's own folder."""
        return next((folder for folder in self.image.parents if folder.name == f"tpl-{self.atlas}"), self.image.parent)

    @property
    def bids_uri(self) -> str:
        """BIDS URI of its image, in the dataset ``tpl-NAME``, which is :attr:`folder`."""
        return f"bids:tpl-{self.atlas}:{self.image.relative_to(self.folder).as_posix()}"


@dataclass(frozen=True)
class AtlasStatus:
    """One row of ``atlas list``: the state of an atlas on this machine."""

    name: str
    title: str
    stage: str
    weeks: tuple[float, float] | None
    contrasts: tuple[str, ...]
    found: tuple[str, ...]
    total: int
    where: tuple[Path, ...]
    licence: str
    how_to_get: str

    @property
    def is_complete(self) -> bool:
        """Whether all cohorts are on this machine."""
        return self.total > 0 and len(self.found) >= self.total


class AtlasLibrary:
    """Atlases in the folders ``dirs``, searched in that order; each ``tpl-NAME`` is scanned on first use.

    The image of each cohort and contrast comes from the first folder that has it, with mask and labels from the same folder. A
    ``tpl-NAME`` without a manifest needs ``template_description.json`` (cohorts with ages) or ``atlas.toml``. Files of 0 bytes and
    broken links, as TemplateFlow creates them, count as absent.
    """

    def __init__(self, dirs: Iterable[str | Path]) -> None:
        self.dirs = tuple(dict.fromkeys(map(absolute_path, dirs)))
        self.manifests: Mapping[str, Manifest] = load_manifests()
        self._canonical = load_canonical()
        self._scanned: dict[str, dict[tuple[str, str], Template]] = {}

    @classmethod
    def default(cls, extra_dirs: Sequence[str | Path] = ()) -> AtlasLibrary:
        """Look in ``extra_dirs``, then POSEPIPE_ATLAS_PATH, TemplateFlow's home, and the cache of ``atlas fetch``.

        Raises :class:`~posepipe.errors.UsageError` for one of ``extra_dirs`` that holds no ``tpl-NAME`` folder.
        """
        for extra in map(absolute_path, extra_dirs):
            if not any(extra.glob("tpl-*")):
                wrong = "no tpl-NAME folder in it, or none that may be read" if os.path.isdir(extra) else "no such folder"  # noqa: PTH112
                hint = f"; did you mean {extra.parent}?" if extra.name.startswith("tpl-") else ""
                msg = f"{extra}: {wrong}; --atlas-dir takes a folder that holds tpl-NAME folders{hint}"
                raise UsageError(msg)
        named = [part for part in os.environ.get("POSEPIPE_ATLAS_PATH", "").split(os.pathsep) if part]
        return cls([*extra_dirs, *named, templateflow_home(), atlas_cache()])

    def available(self) -> list[AtlasStatus]:
        """The state of every known atlas, and of atlases added by the user."""
        return [self.status(name) for name in (*self.manifests, *self.added())]

    def added(self) -> tuple[str, ...]:
        """Names of atlases without a manifest that ``atlas add`` made in one of the folders."""
        names: dict[str, None] = {}
        for folder in self.dirs:
            for entry in sorted(folder.glob("tpl-*/" + ATLAS_TOML)) if os.path.isdir(folder) else ():  # noqa: PTH112
                names[entry.parent.name.removeprefix("tpl-")] = None
        return tuple(sorted(set(names) - set(self.manifests)))

    def status(self, atlas: str) -> AtlasStatus:
        """The state of one atlas."""
        found = self._templates(atlas)
        manifest, described = self.manifests.get(atlas), self._description(atlas)
        ages = self.ages(atlas)
        return AtlasStatus(
            name=atlas,
            title=manifest.title if manifest else described.title,
            stage=self.stage(atlas),
            weeks=(min(ages.values()), max(ages.values())) if ages else None,
            contrasts=tuple(sorted({t.contrast for t in found.values()})) or (manifest.contrasts if manifest else ()),
            found=tuple(dict.fromkeys(t.cohort for t in sorted(found.values(), key=lambda t: t.age))),
            total=len(ages),
            where=tuple(dict.fromkeys(_home(t.image) for t in found.values())),
            licence=manifest.licence if manifest else described.licence,
            how_to_get=manifest.how_to_get if manifest else f"`posepipe-tools atlas add {atlas}`",
        )

    def stage(self, atlas: str) -> str:
        """``fetal``, ``neonatal``, or an empty string if not stated."""
        manifest = self.manifests.get(atlas)
        return manifest.stage if manifest else self._description(atlas).stage

    def ages(self, atlas: str) -> dict[str, float]:
        """All known cohorts of the atlas, on this machine or not: label → weeks."""
        ages = {label: c.age for label, c in self._description(atlas).cohorts.items()}
        if atlas in self.manifests:
            ages |= self.manifests[atlas].ages
        return dict(sorted(ages.items(), key=lambda item: item[1]))

    def templates(self, atlas: str, contrast: str) -> list[Template]:
        """Templates of ``atlas`` in ``contrast`` on this machine, by age.

        Raises :class:`~posepipe.errors.AtlasError` when there is none.
        """
        _check_contrast(contrast)
        found = self._found(atlas)
        chosen = [t for t in found.values() if t.contrast == contrast]
        if not chosen:
            have = ", ".join(sorted({t.contrast for t in found.values()}))
            msg = f"the atlas {atlas} has no {contrast} images in {self._where(atlas)}, only {have}"
            raise AtlasError(msg)
        return sorted(chosen, key=lambda t: t.age)

    def contrasts(self, atlas: str) -> tuple[str, ...]:
        """Contrasts of ``atlas`` on this machine; empty when it is not here."""
        return tuple(sorted({t.contrast for t in self._templates(atlas).values()}))

    def template(self, atlas: str, cohort: str | int, contrast: str) -> Template:
        """One template; raises :class:`~posepipe.errors.AtlasError` with the available cohorts if there is none."""
        of_contrast = {t.cohort: t for t in self.templates(atlas, contrast)}
        label = _same_label(str(cohort), of_contrast)
        if label is None:
            known = _same_label(str(cohort), self.ages(atlas))
            get = f"; get it: {self.manifests[atlas].how_to_get}" if known and atlas in self.manifests else ""
            msg = (
                f"the atlas {atlas} has no {contrast} image of cohort {cohort} on this machine "
                f"(here: {', '.join(of_contrast)}){get}"
            )
            raise AtlasError(msg)
        return of_contrast[label]

    def _found(self, atlas: str) -> dict[tuple[str, str], Template]:
        found = self._templates(atlas)
        if found:
            return found
        looked = ", ".join(str(d) for d in self.dirs) or "no folder at all"
        if atlas in self.manifests:
            get = self.manifests[atlas].how_to_get
            msg = f"the atlas {atlas} is not on this machine (looked in {looked}); get it: {get}"
            raise AtlasError(msg)
        if any(self._folders(atlas)):
            msg = (
                f"{self._where(atlas)}: no image posepipe can use: it needs tpl-{atlas}_cohort-X_T2w.nii.gz (or T1w), "
                "not empty, and the age of each cohort in template_description.json or atlas.toml "
                "(`posepipe-tools atlas add`)"
            )
            raise AtlasError(msg)
        names = [*self.manifests, *self.added()]
        close = difflib.get_close_matches(atlas.lower(), [n.lower() for n in names], n=1)
        hint = next((f"; did you mean {n}?" for n in names if close and n.lower() == close[0]), "")
        msg = f"no atlas named {atlas!r} (known: {', '.join(names)}; looked in {looked}){hint}"
        raise AtlasError(msg)

    def _templates(self, atlas: str) -> dict[tuple[str, str], Template]:
        """(cohort, contrast) → template, scanned once."""
        if atlas not in self._scanned:
            templates: dict[tuple[str, str], Template] = {}
            ages = self.ages(atlas)
            for folder in self._folders(atlas):
                for found in scan_template(folder, atlas):
                    label = _same_label(found.cohort, ages)
                    if label is not None and (label, found.contrast) not in templates:
                        templates[label, found.contrast] = self._template(atlas, label, ages[label], found)
            self._scanned[atlas] = templates
        return self._scanned[atlas]

    def _template(self, atlas: str, label: str, age: float, found: Found) -> Template:
        known = self._canonical.get((atlas, label))
        template = Template(atlas, label, age, found.contrast, found.image, found.mask, found.tissues, regions=found.regions)
        if known is None:
            return template
        digest = file_sha256(found.image)
        if digest in known.images or digest in read_fetched(found.image.parent):
            return replace(template, to_canonical=known.rotation)
        manifest = self.manifests.get(atlas)
        get = f"; {manifest.how_to_get} makes the known one" if manifest and manifest.source == "files" else ""
        note = (
            f"{found.image.name} is not the image of {atlas}, cohort {label}, whose rotation to the canonical frame is known (its SHA-256 "
            f"is another): the pose networks estimate its rotation{get}"
        )
        return replace(template, notes=(note,))

    def _folders(self, atlas: str) -> Iterator[Path]:
        for folder in self.dirs:
            if atlas.isalnum() and os.path.isdir(folder / f"tpl-{atlas}"):  # noqa: PTH112 - of Path it raises where one may not look
                yield folder / f"tpl-{atlas}"

    def _description(self, atlas: str) -> Description:
        """The merged descriptions of all folders of ``atlas``; for each cohort the first one wins."""
        found = [d for d in map(read_description, self._folders(atlas)) if d is not None]
        cohorts = {label: c for d in reversed(found) for label, c in d.cohorts.items()}
        first = found[0] if found else Description()
        return Description(first.title, first.stage, first.licence, cohorts)

    def _where(self, atlas: str) -> str:
        return ", ".join(str(f) for f in self._folders(atlas))


def templateflow_home() -> Path:
    """TemplateFlow's home by the rules of that package, without importing it, as the import may write to the folder."""
    return absolute_path(os.environ.get("TEMPLATEFLOW_HOME") or cache_home() / "templateflow")


def atlas_cache() -> Path:
    """Where ``atlas fetch`` and ``atlas add`` put atlases: ``$XDG_CACHE_HOME/posepipe/atlases``."""
    return cache_home() / "posepipe" / "atlases"


def cache_home() -> Path:
    """The user's cache folder: ``$XDG_CACHE_HOME``, else ``~/.cache``; without a home folder, as in a container that runs with an unknown
    user id, a folder for that id in the temporary folder."""
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return absolute_path(named)
    try:
        return absolute_path(Path.home() / ".cache")
    except RuntimeError:  # HOME is not set, and the user id is unknown
        return _cache_without_home(os.getuid())


@lru_cache(maxsize=1)
def _cache_without_home(uid: int) -> Path:
    folder = Path(tempfile.gettempdir()) / f"posepipe-cache-{uid}"
    if folder.is_symlink() or (folder.exists() and folder.stat().st_uid != uid):
        folder = folder.with_name(f"{folder.name}-{uuid.uuid4().hex}")  # a folder created by another user is not safe
    logger.warning("there is no home folder (HOME is not set, no user has the id %d): XDG_CACHE_HOME is taken to be %s", uid, folder)
    return folder


def _home(image: Path) -> Path:
    """The folder that holds the ``tpl-NAME`` of ``image``."""
    return next(p.parent for p in image.parents if p.name.startswith("tpl-"))


def _check_contrast(contrast: str) -> None:
    if contrast not in CONTRASTS:
        msg = f"the contrast is {' or '.join(CONTRASTS)}, not {contrast!r}"
        raise UsageError(msg)


def _same_label(label: str, labels: Iterable[str]) -> str | None:
    """The one of ``labels`` that is ``label``, or the same whole number written otherwise (``0`` for ``00``)."""
    labels = list(labels)
    if label in labels:
        return label
    same = [x for x in labels if x.isdigit() and label.isdigit() and int(x) == int(label)]
    return same[0] if len(same) == 1 else None
