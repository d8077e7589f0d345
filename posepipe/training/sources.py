"""Source volumes: the real anatomy that training images are synthesised from, one entry for each image and label map.

A source volume holds bytes on a cube of :data:`SIDE` voxels an edge (more for contrast conversion), in the canonical frame (RAS axes). The
cube reaches ``HALF_SIDE`` brain radii to either side of the mask's centre. It is an image (1–255 inside the mask, 0 outside) or a label
map. In label maps :data:`LEFT` is added to voxels left of the midplane, so that the hemispheres can get equal or different contrasts.
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
class SourceVolume:
    """Description of one source volume.

    ``name``: cohort (``CRL+27``) or subject (``sub-A11``); ``group``: its atlas or data set; ``part`` of the split: ``train`` or
    ``validation``; ``age`` in weeks; ``kind``: ``labels``, ``T2w`` or ``T1w``; ``mask``: row of :attr:`Sources.masks`; ``radius_mm``: the
    brain radius, which is the unit of length of the volume.
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
        """Whether this is a template of an atlas."""
        return self.name.startswith(f"{self.group}+")


@dataclass(frozen=True, eq=False)
class Sources:
    """``volumes[i]`` describes ``voxels[i]`` (D, D, D) uint8; ``masks`` (M, D, D, D) uint8, 255 inside; ``terms``: group → terms of use."""

    volumes: tuple[SourceVolume, ...]
    voxels: np.ndarray
    masks: np.ndarray
    terms: Mapping[str, str] = field(default_factory=dict)

    def groups(self, part: str) -> tuple[str, ...]:
        """Groups with volumes in ``part``, sorted."""
        return tuple(sorted({p.group for p in self.volumes if p.part == part}))

    def pick(self, *, part: str = "train", leave_out: tuple[str, ...] = (), kinds: tuple[str, ...] = KINDS) -> Array:
        """Indices of the volumes of ``part`` and ``kinds``, without the groups in ``leave_out``.

        Raises :class:`~posepipe.errors.UsageError` when none is left, or for an unknown group.
        """
        unknown = sorted(set(leave_out) - {p.group for p in self.volumes})
        if unknown:
            known = ", ".join(sorted({p.group for p in self.volumes}))
            msg = f"{', '.join(unknown)} cannot be left out: the sources hold {known}"
            raise UsageError(msg)
        keep = [i for i, p in enumerate(self.volumes) if p.part == part and p.kind in kinds and p.group not in leave_out]
        if not keep:
            msg = (
                f"the sources have no {' or '.join(kinds)} to {part.replace('validation', 'validate')} with, "
                f"{', '.join(leave_out) or 'nothing'} left out; make sources with more atlases or subjects, or with another split"
            )
            raise UsageError(msg)
        return np.array(keep)

    def atlas_radii(self, leave_out: tuple[str, ...] = ()) -> Array:
        """Brain radius in mm of the atlas templates at the age of each volume (N,): mean over the training templates of an age without
        those of ``leave_out``, interpolated linearly between ages. Raises :class:`~posepipe.errors.UsageError` without templates."""
        of: dict[float, list[float]] = {}
        for p in self.volumes:
            if p.template and p.part == "train" and p.group not in leave_out:
                of.setdefault(p.age, []).append(p.radius_mm)
        if not of:
            msg = "sizes by age need templates of an atlas to train with, and the sources have none; gather sources with --atlases"
            raise UsageError(msg)
        ages = sorted(of)
        return np.interp([p.age for p in self.volumes], ages, [float(np.mean(of[age])) for age in ages])

    @property
    def side(self) -> int:
        """Voxels along an edge of the volumes: D."""
        return int(self.voxels.shape[1])

    def save(self, path: str | Path) -> Path:
        """Write one compressed file by atomic replace; raises :class:`~posepipe.errors.UsageError` for a name that does not end in .npz."""
        # the key keeps the name that it has in existing files
        about = {"pictures": [asdict(p) for p in self.volumes], "terms": dict(self.terms)}
        return save_archive(path, about, {"voxels": self.voxels, "masks": self.masks})

    @classmethod
    def load(cls, path: str | Path) -> Sources:
        """Read a file of :meth:`save`; raises :class:`~posepipe.errors.UsageError` for any other file."""

        def made(about: dict[str, Any], file: Any) -> Sources:
            volumes = tuple(SourceVolume(**p) for p in about["pictures"])
            return cls(volumes, file["voxels"], file["masks"], about.get("terms", {}))

        return load_archive(path, "sources", made)


class Collector:
    """Collects source volumes of ``side`` voxels an edge; :meth:`sources` returns them. ``say`` is called with a line for each brain: its
    volumes, or why it was left out."""

    def __init__(self, split: Split, say: Callable[[str], None] = print, *, side: int = SIDE) -> None:
        self._split, self._say, self._side = split, say, side
        self._volumes: list[SourceVolume] = []
        self._voxels: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []
        self._terms: dict[str, str] = {}

    def accepts(self, name: str) -> bool:
        """Whether the split lets ``name`` be used; a test brain is reported as left out."""
        test = self._split.part(name) == "test"
        if test:
            self.leave_out(name, "kept for testing by the split")
        return not test

    def leave_out(self, name: str, why: str) -> None:
        """Report that ``name`` is not used."""
        self._say(f"{name}: left out, {why}")

    def terms(self, group: str, text: str) -> None:
        """Set the terms of use of a ``group``."""
        self._terms[group] = text

    def add(
        self, name: str, group: str, age: float, mask: Volume, to_canonical: Array, images: dict[str, Volume], labels: dict[str, Volume]
    ) -> None:
        """Add one brain. ``to_canonical`` (3, 3): rotation of its RAS world to the canonical frame. ``images``: contrast → image, and
        ``labels``: file name → label map, all on the grid of ``mask``. Test brains are left out."""
        if not self.accepts(name):
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
            resampled = frame.resample(volume.with_data(np.where(mask.data > 0, scaled, 0).astype(np.float32)), smooth=True)
            # normalised interpolation: voxels at the edge of the mask keep their brightness
            resampled = np.clip(resampled / np.maximum(inside, 0.3), 0, 1)
            self._append(SourceVolume(name, group, part, age, kind, row, about.radius), 1 + 254 * resampled, inside > 0.02)
        for file, volume in labels.items():
            values = np.unique(volume.data)
            if len(values) > MAX_LABELS + 1:
                self.leave_out(f"{name}: {file}", f"it has {len(values)} labels; at most {MAX_LABELS + 1} are supported")
                continue
            index = np.searchsorted(values, volume.data).astype(np.float32)
            resampled = frame.resample(volume.with_data(index), smooth=False)
            # canonical axes are RAS: the first half of x is the left of the head
            left = (np.arange(self._side)[:, None, None] < self._side / 2) & (resampled > 0)
            self._append(SourceVolume(name, group, part, age, "labels", row, about.radius), resampled + LEFT * left, inside > 0.5)
        kinds = " ".join([*images, *(["labels"] * len(labels))])
        self._say(f"{name}: {kinds}, {age:g} weeks, {part}")

    def _append(self, about: SourceVolume, values: np.ndarray, inside: np.ndarray) -> None:
        self._volumes.append(about)
        self._voxels.append(np.where(inside, values, 0).round().astype(np.uint8))

    def sources(self) -> Sources:
        """The collected volumes; raises :class:`~posepipe.errors.UsageError` if there are none."""
        if not self._volumes:
            msg = "no source volumes: no brain was found whose pose is known and that the split does not keep for testing"
            raise UsageError(msg)
        terms = {g: self._terms.get(g, "not stated") for g in sorted({p.group for p in self._volumes})}
        return Sources(tuple(self._volumes), np.stack(self._voxels), np.stack(self._masks), terms)


@dataclass(frozen=True, eq=False)
class Frame:
    """Map of one brain's RAS world to canonical coordinates, ``p = R (x − center) / radius`` with x in mm, and a cube of ``side`` voxels an
    edge in them."""

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
