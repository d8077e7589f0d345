"""Real anatomy to train on: every template and subject once, upright in the canonical frame, as small volumes of bytes.

A *picture* is a volume of bytes on a cube of :data:`SIDE` voxels (more for networks that convert contrast) that reaches ``HALF_SIDE``
brain radii either way of the mask's centre: an image (1–255 within the mask) or a label map, in which voxels left of the midplane have
:data:`LEFT` added, so that the two halves can be given the same contrast or different ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ..errors import UsageError
from ..geometry.so3 import Array
from ..imaging.moments import moments
from ..imaging.volume import Volume
from ..models.coordinates import HALF_SIDE
from .archive import load_archive, save_archive
from .split import Split

SIDE = 80
LEFT = 128
KINDS = ("labels", "T2w", "T1w")
MAX_LABELS = LEFT - 1


@dataclass(frozen=True)
class Picture:
    """What one volume is.

    ``name`` is a cohort (``CRL+27``) or a subject (``sub-A11``), ``group`` its atlas or data set, ``part`` of the split ``train`` or
    ``validation``, ``age`` in weeks, ``kind`` ``labels``, ``T2w`` or ``T1w``, ``mask`` its row among the masks, ``radius_mm`` the
    length that is 1 in the picture.
    """

    name: str
    group: str
    part: str
    age: float
    kind: str
    mask: int
    radius_mm: float

    @property
    def template(self) -> bool:
        """Whether this is a template of an atlas, rather than of a subject."""
        return self.name.startswith(f"{self.group}+")


@dataclass(frozen=True, eq=False)
class Sources:
    """``pictures[i]`` describes ``voxels[i]`` (D, D, D) uint8; ``masks`` (M, D, D, D) uint8, 255 inside. ``terms``: group → of use."""

    pictures: tuple[Picture, ...]
    voxels: np.ndarray
    masks: np.ndarray
    terms: Mapping[str, str] = field(default_factory=dict)

    def groups(self, part: str) -> tuple[str, ...]:
        """Groups with pictures in ``part``, sorted."""
        return tuple(sorted({p.group for p in self.pictures if p.part == part}))

    def pick(self, *, part: str = "train", leave_out: tuple[str, ...] = (), kinds: tuple[str, ...] = KINDS) -> Array:
        """Rows of the pictures of ``part`` and ``kinds``, without the groups in ``leave_out``.

        Raises :class:`~posepipe.errors.UsageError` when nothing is left, or for a group that is not there.
        """
        unknown = sorted(set(leave_out) - {p.group for p in self.pictures})
        if unknown:
            known = ", ".join(sorted({p.group for p in self.pictures}))
            msg = f"{', '.join(unknown)} cannot be left out: the sources hold {known}"
            raise UsageError(msg)
        keep = [i for i, p in enumerate(self.pictures) if p.part == part and p.kind in kinds and p.group not in leave_out]
        if not keep:
            msg = (
                f"the sources have no {' or '.join(kinds)} to {part.replace('validation', 'validate')} with, "
                f"{', '.join(leave_out) or 'nothing'} left out; make sources with more atlases or subjects, or with another split"
            )
            raise UsageError(msg)
        return np.array(keep)

    def atlas_radii(self, leave_out: tuple[str, ...] = ()) -> Array:
        """For each picture (N,) the brain radius in mm that atlases have at its age: the mean of the templates of an age, those of
        ``leave_out`` excepted, interpolated between ages. Raises :class:`~posepipe.errors.UsageError` where there is no template."""
        of: dict[float, list[float]] = {}
        for p in self.pictures:
            if p.template and p.part == "train" and p.group not in leave_out:
                of.setdefault(p.age, []).append(p.radius_mm)
        if not of:
            msg = "sizes by age need templates of an atlas to train with, and the sources have none; gather sources with --atlases"
            raise UsageError(msg)
        ages = sorted(of)
        return np.interp([p.age for p in self.pictures], ages, [float(np.mean(of[age])) for age in ages])

    @property
    def side(self) -> int:
        """Voxels along an edge of the pictures, D."""
        return int(self.voxels.shape[1])

    def save(self, path: str | Path) -> Path:
        """Write one compressed file by atomic replace; raises :class:`~posepipe.errors.UsageError` for a name that does not end in .npz."""
        about = {"pictures": [asdict(p) for p in self.pictures], "terms": dict(self.terms)}
        return save_archive(path, about, {"voxels": self.voxels, "masks": self.masks})

    @classmethod
    def load(cls, path: str | Path) -> Sources:
        """Raises :class:`~posepipe.errors.UsageError` for anything but a file of :meth:`save`."""

        def made(about: dict[str, Any], file: Any) -> Sources:
            pictures = tuple(Picture(**p) for p in about["pictures"])
            return cls(pictures, file["voxels"], file["masks"], about.get("terms", {}))

        return load_archive(path, "sources", made)


class Collector:
    """Gathers pictures of ``side`` voxels an edge; :meth:`sources` hands them over. ``say`` is told of each brain, what became of it and
    why."""

    def __init__(self, split: Split, say: Callable[[str], None] = print, *, side: int = SIDE) -> None:
        self._split, self._say, self._side = split, say, side
        self._pictures: list[Picture] = []
        self._voxels: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []
        self._terms: dict[str, str] = {}

    def wants(self, name: str) -> bool:
        """Whether ``name`` may be used; one kept for testing is told as left out."""
        test = self._split.part(name) == "test"
        if test:
            self.leave_out(name, "kept for testing by the split")
        return not test

    def leave_out(self, name: str, why: str) -> None:
        """Tell that ``name`` is not used."""
        self._say(f"{name}: left out, {why}")

    def terms(self, group: str, text: str) -> None:
        """Note the terms of use of a ``group``."""
        self._terms[group] = text

    def add(
        self, name: str, group: str, age: float, mask: Volume, to_canonical: Array, images: dict[str, Volume], labels: dict[str, Volume]
    ) -> None:
        """One brain: ``to_canonical`` (3, 3) turns its RAS world upright; ``images`` by contrast and any number of ``labels`` on the
        grid of ``mask``. Brains kept for testing are left out."""
        if not self.wants(name):
            return
        part = self._split.part(name)
        about = moments(mask)
        frame = Frame(to_canonical, about.center, about.radius, self._side)
        inside = frame.resample(mask.with_data(mask.data.astype(np.float32)), smooth=True)
        row = len(self._masks)
        self._masks.append((255 * inside).round().astype(np.uint8))
        for kind, volume in images.items():
            low, high = np.percentile(volume.data[mask.data > 0], [0.5, 99.5])
            scaled = np.clip((volume.data - low) / max(high - low, 1e-6), 0, 1)
            picture = frame.resample(volume.with_data(np.where(mask.data > 0, scaled, 0).astype(np.float32)), smooth=True)
            # the mask was blurred alike, so that the quotient keeps its brightness up to the rim
            picture = np.clip(picture / np.maximum(inside, 0.3), 0, 1)
            self._append(Picture(name, group, part, age, kind, row, about.radius), 1 + 254 * picture, inside > 0.02)
        for file, volume in labels.items():
            values = np.unique(volume.data)
            if len(values) > MAX_LABELS + 1:
                self.leave_out(f"{name}: {file}", f"it has {len(values)} labels, at most {MAX_LABELS + 1} can be told apart")
                continue
            index = np.searchsorted(values, volume.data).astype(np.float32)
            picture = frame.resample(volume.with_data(index), smooth=False)
            # canonical axes are RAS: the first half of x is the left of the head
            left = (np.arange(self._side)[:, None, None] < self._side / 2) & (picture > 0)
            self._append(Picture(name, group, part, age, "labels", row, about.radius), picture + LEFT * left, inside > 0.5)
        kinds = " ".join([*images, *(["labels"] * len(labels))])
        self._say(f"{name}: {kinds}, {age:g} weeks, {part}")

    def _append(self, picture: Picture, values: np.ndarray, inside: np.ndarray) -> None:
        self._pictures.append(picture)
        self._voxels.append(np.where(inside, values, 0).round().astype(np.uint8))

    def sources(self) -> Sources:
        """Everything gathered so far; raises :class:`~posepipe.errors.UsageError` when that is nothing."""
        if not self._pictures:
            msg = "nothing to train with: no brain was found that the split does not keep for testing and whose pose is known"
            raise UsageError(msg)
        terms = {g: self._terms.get(g, "not stated") for g in sorted({p.group for p in self._pictures})}
        return Sources(tuple(self._pictures), np.stack(self._voxels), np.stack(self._masks), terms)


@dataclass(frozen=True, eq=False)
class Frame:
    """Canonical coordinates of one brain: ``p = R (x − center) / radius``, x in RAS mm, on a cube of ``side`` voxels an edge."""

    rotation: Array
    center: Array
    radius: float
    side: int = SIDE

    def resample(self, volume: Volume, *, smooth: bool) -> np.ndarray:
        """``volume`` on the canonical cube (D, D, D); blurred and trilinear with ``smooth``, else nearest."""
        step = 2 * HALF_SIDE / self.side
        first = -HALF_SIDE + step / 2
        to_voxel = np.linalg.inv(volume.affine)
        matrix = to_voxel[:3, :3] @ (self.rotation.T * self.radius * step)
        start = self.rotation.T @ np.full(3, first) * self.radius + self.center
        offset = to_voxel[:3, :3] @ start + to_voxel[:3, 3]
        data = volume.data
        if smooth:
            wide = self.radius * step / volume.spacing
            data = ndimage.gaussian_filter(data, 0.42 * np.sqrt(np.maximum(wide**2 - 1, 0)))
        return ndimage.affine_transform(data, matrix, offset, (self.side,) * 3, order=1 if smooth else 0)
