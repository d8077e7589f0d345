"""Matching of brain masks in derivative datasets (``-d``) to images.

A mask matches the image that its sidecar names as the only source, else the images with the same entities. Lookups use one
dictionary per participant and session, so that the time is linear in the number of images.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ..errors import BidsError, UsageError
from ..files import name_stem
from ..paths import split_derivative
from .entities import split_name
from .image import InputImage
from .links import Folders, not_fetched
from .reading import read_object
from .tables import shortened

logger = logging.getLogger(__name__)

_MASK_FILE = re.compile(r"sub-.+_mask\.nii(?:\.gz)?")
_CONTRASTS = {"T1w", "T2w"}
_NATIVE_SPACES = {"orig", "native", "scanner", "individual"}
_SOURCE_KEYS = ("Sources", "RawSources", "Rawsources")
Key = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class _Mask:
    """A brain mask: the entities an image must share (``key``), and the contrast and source that it names, if any."""

    path: Path
    key: Key
    contrast: str | None
    source: str | None


def parse_derivative(spec: str | Path) -> tuple[str, Path]:
    """``[NAME=]PATH`` of ``-d`` as a name (default: the folder's) and an absolute path.

    Raises :class:`~posepipe.errors.UsageError` for a folder that is not there or that holds no ``sub-*``.
    """
    name, path = split_derivative(spec)
    try:
        there = any(e.is_folder and e.name.startswith("sub-") for e in Folders().entries(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"-d {spec}: no such folder: {path}; give that of a derivative dataset"
        raise UsageError(msg) from error
    except OSError as error:
        msg = f"-d {spec}: {path} cannot be read ({error.strerror}); make it readable"
        raise UsageError(msg) from error
    if not there:
        msg = f"-d {spec}: {path} has no sub-* folders; point to one dataset, such as derivatives/masks"
        raise UsageError(msg)
    return name or path.name, path


def attach_masks(
    images: Sequence[InputImage], present: Sequence[InputImage], derivatives: Sequence[str | Path]
) -> list[Path | BidsError | None]:
    """The brain mask of each of ``images`` in the derivative datasets, or None; an error if it cannot be determined, because two masks
    match equally well or a file was not fetched.

    ``present`` are all images of the same participants, filtered or not: a mask that matches several of them by its name is not used, and
    this is logged.
    """
    folders = [parse_derivative(spec)[1] for spec in derivatives]
    if not folders:
        return [None] * len(images)
    everything: dict[tuple[str, str | None], list[InputImage]] = defaultdict(list)
    for image in present:
        everything[image.subject, image.session].append(image)
    index: dict[tuple[str, str | None], _MaskIndex | BidsError] = {}
    found: list[Path | BidsError | None] = []
    for image in images:
        unit = (image.subject, image.session)
        try:
            if unit not in index:
                index[unit] = _MaskIndex(folders, everything[unit])
            masks = index[unit]
            found.append(masks.mask_of(image) if isinstance(masks, _MaskIndex) else masks)
        except BidsError as error:
            index.setdefault(unit, error)
            found.append(error)
    if not any(found):
        logger.warning("no brain mask in %s belongs to any of the images", ", ".join(map(str, folders)))
    return found


def unused_masks(present: Sequence[InputImage], derivatives: Sequence[str | Path]) -> Iterator[tuple[Path, str]]:
    """Masks of the participants and sessions of ``present`` that match none of these images, with the reasons. Unreadable masks are
    skipped, as they are errors of the images."""
    units: dict[tuple[str, str | None], list[InputImage]] = defaultdict(list)
    for image in present:
        units[image.subject, image.session].append(image)
    for images in units.values():
        with suppress(BidsError):
            folders = [parse_derivative(spec)[1] for spec in derivatives]
            yield from ((path, "a brain mask that matches none of the images") for path in _MaskIndex(folders, images).unused)
            for folder in folders:
                yield from ((p, "its name does not say that it is a brain's (desc-brain)") for p in _other_masks(folder, images[0]))


def unknown_participants(derivatives: Sequence[str | Path], subjects: Sequence[str]) -> list[str]:
    """A line for each derivative dataset with participants that are not among ``subjects``."""
    lines = []
    for folder in (parse_derivative(spec)[1] for spec in derivatives):
        names = [name for name in Folders().folders(folder, "sub-") if name[4:] not in set(subjects)]
        if names:
            lines.append(f"{folder}: what is there of {shortened(names)}, which the dataset has not, is not used")
    return lines


class _MaskIndex:
    """The masks of one participant and session, by the image they name and by their entities."""

    def __init__(self, folders: Sequence[Path], images: Sequence[InputImage]) -> None:
        by_name = {image.path.name: image for image in images}
        first = images[0]
        self._bound: dict[str, list[_Mask]] = defaultdict(list)
        self._by_key: dict[Key, list[_Mask]] = defaultdict(list)
        for folder in folders:
            for mask in _masks_in(folder, first.subject, first.session):
                if mask.source in by_name:
                    self._bound[str(mask.source)].append(mask)
                else:
                    self._by_key[mask.key].append(mask)
        self._fits: dict[Path, int] = defaultdict(int)
        for image in images:
            for key in _keys(image):
                for mask in self._by_key.get(key, ()):
                    self._fits[mask.path] += mask.contrast in {None, image.suffix}

    @property
    def unused(self) -> list[Path]:
        """The masks that fit no image."""
        return sorted(mask.path for masks in self._by_key.values() for mask in masks if not self._fits[mask.path])

    def mask_of(self, image: InputImage) -> Path | None:
        bound = self._bound.get(image.path.name)
        if bound:
            return _only(image, bound).path
        for key in _keys(image):
            candidates = [m for m in self._by_key.get(key, ()) if m.contrast in {None, image.suffix}]
            # a mask that says its contrast is a better match than one that leaves it open
            candidates = [m for m in candidates if m.contrast] or candidates
            if candidates:
                return self._unless_shared(image, _only(image, candidates))
        return None

    def _unless_shared(self, image: InputImage, mask: _Mask) -> Path | None:
        if mask.key == frozenset(image.entities.items()) or self._fits[mask.path] == 1:
            return mask.path
        logger.warning(
            "%s: not used for %s, its name fits %d images; name the one image in its sidecar's Sources",
            mask.path,
            image.relative,
            self._fits[mask.path],
        )
        return None


def _only(image: InputImage, masks: Sequence[_Mask]) -> _Mask:
    if len(masks) > 1:
        names = " and ".join(str(mask.path) for mask in masks)
        msg = f"{image.path}: {len(masks)} brain masks match equally well: {names}; keep one, or give fewer -d"
        raise BidsError(msg)
    return masks[0]


def _keys(image: InputImage) -> Iterator[Key]:
    """Entity sets that a mask of ``image`` may carry, the most specific first; all hold participant and session."""
    fixed = {k: v for k, v in image.entities.items() if k in {"sub", "ses"}}
    others = [item for item in image.entities.items() if item[0] not in fixed]
    for size in range(len(others), -1, -1):
        for chosen in combinations(others, size):
            yield frozenset((*fixed.items(), *chosen))


def _masks_in(folder: Path, subject: str, session: str | None) -> Iterator[_Mask]:
    for path in _mask_files(folder, subject, session):
        mask = _parse(path)
        if mask is not None and ("ses" in dict(mask.key)) == (session is not None):
            yield mask


def _other_masks(folder: Path, image: InputImage) -> list[Path]:
    return [path for path in _mask_files(folder, image.subject, image.session) if _parse(path) is None]


def _mask_files(folder: Path, subject: str, session: str | None) -> list[Path]:
    anat = folder / f"sub-{subject}" / (f"ses-{session}" if session else "") / "anat"
    if problem := not_fetched(anat):
        raise BidsError(problem)
    try:
        return [anat / e.name for e in Folders().entries(anat) if _MASK_FILE.fullmatch(e.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        msg = f"{anat}: cannot be read ({error.strerror}); make it readable, or leave out its -d"
        raise BidsError(msg) from error


def _parse(path: Path) -> _Mask | None:
    """A brain mask from its name, in BIDS's or MIALSRTK's spelling (``…_T2w_desc-brain_mask``); None for others."""
    split = split_name(path.name)
    if split is None or any(token not in _CONTRASTS for token in split.unparsed):
        return None
    entities = dict(split.entities)
    label, (*kept, what) = entities.pop("label", None), entities.get("desc", "").split("+")
    if what == "brain" and label in {None, "brain"}:
        del entities["desc"]
        if kept:  # posepipe's own masks: desc-LABEL+brain belongs to the image with desc-LABEL
            entities["desc"] = "+".join(kept)
    elif label != "brain":
        return None
    contrast = entities.pop("mod", None) or (split.unparsed[0] if split.unparsed else None)
    if entities.get("space") in _NATIVE_SPACES:
        del entities["space"]
    elif entities.get("space") in _CONTRASTS:  # on the grid of that contrast
        contrast = contrast or entities.pop("space")
    source = _one_source(path)
    return _Mask(path, frozenset(entities.items()), contrast, source)


def _one_source(path: Path) -> str | None:
    """File name of the one image that the mask's sidecar names; None without a sidecar, or if it names several."""
    sidecar = path.with_name(name_stem(path) + ".json")
    if problem := not_fetched(sidecar):
        raise BidsError(problem)
    try:
        content = read_object(sidecar) or {}
    except BidsError as error:
        logger.warning("%s; the mask is matched by its name", error)
        return None
    for key in _SOURCE_KEYS:
        value: Any = content.get(key)
        sources = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        # the mask of a reconstruction may list all of its stacks: that binds it to none of them
        images = [str(s).rpartition("/")[2] for s in sources if str(s).endswith((".nii", ".nii.gz"))]
        if images:
            return images[0] if len(images) == 1 else None
    return None
