"""Scenes: real scans with the whole field of view, a brain mask and, for some, the pose of the head, as training data for scan networks.

They show surroundings of the brain that the synthesis of heads does not cover.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from ..errors import UsageError
from ..geometry.so3 import Array
from ..imaging.volume import Volume
from .archive import load_archive, save_archive
from .synthetic_heads import PlacedHead

SPACING_MM = (2.0, 3.0)
"""Scenes are stored on isotropic grids with the finest spacing of the scan, limited to this range."""
REACH_MM = 170.0
"""Scenes are cropped to this distance from the brain's centre along each axis."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A real scan. ``image`` and ``mask`` (X, Y, Z) are uint8 with isotropic ``spacing`` in mm; 170 is the 98th percentile of the
    intensities, and 255 is brain. ``rotation`` (3, 3), if known, maps the canonical frame to the axes of the grid (with a reflection if
    the grid is left-handed). ``delineated``: the mask was delineated manually; else an atlas mask was placed by landmarks."""

    name: str
    group: str
    image: np.ndarray
    mask: np.ndarray
    spacing: float
    rotation: Array | None = None
    delineated: bool = True

    @cached_property
    def _inside(self) -> Array:
        inside: Array = np.argwhere(self.mask > 127).astype(float) * self.spacing
        return inside

    @property
    def center(self) -> Array:
        """Centre of the brain (3,), mm from the first voxel."""
        return np.asarray(self._inside.mean(0), dtype=float)

    @property
    def radius(self) -> float:
        """Brain radius, mm: of the ball with the same second moments as the mask."""
        return float(np.sqrt(5 / 3 * self._inside.var(0).sum()))

    def placed(self) -> PlacedHead:
        """The scene in the form that crops are sampled from."""
        both = torch.from_numpy(np.stack([self.image, self.mask]))
        axes = np.eye(3) if self.rotation is None else self.rotation
        return PlacedHead(both, self.radius / self.spacing * axes, self.center / self.spacing, posed=self.rotation is not None, kept=True)


@dataclass(frozen=True, eq=False)
class Scenes:
    """A set of ``scenes``; ``terms``: group → terms of use."""

    scenes: tuple[Scene, ...]
    terms: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scenes)

    def placed(self) -> dict[str, list[PlacedHead]]:
        """Group → scenes in the form that crops are sampled from."""
        groups: dict[str, list[PlacedHead]] = {}
        for scene in self.scenes:
            groups.setdefault(scene.group, []).append(scene.placed())
        return groups

    def without(self, names: Collection[str]) -> Scenes:
        """The scenes without those of the subjects ``names``, of all sessions and runs."""
        return Scenes(tuple(s for s in self.scenes if not {s.name, s.name.partition("_")[0]} & set(names)), self.terms)

    def delineated(self) -> Scenes:
        """The scenes with manually delineated masks."""
        return Scenes(tuple(s for s in self.scenes if s.delineated), self.terms)

    @classmethod
    def joined(cls, parts: Sequence[Scenes]) -> Scenes:
        """The scenes of all ``parts``; raises :class:`~posepipe.errors.UsageError` if there are none."""
        scenes = tuple(s for part in parts for s in part.scenes)
        if not scenes:
            msg = "no scenes: no scan was found that the split lets train and that has a brain mask or landmarks"
            raise UsageError(msg)
        return cls(scenes, {group: terms for part in parts for group, terms in part.terms.items()})

    def save(self, path: str | Path) -> Path:
        """Write one compressed file (.npz) by atomic replace."""
        about = {
            "terms": dict(self.terms),
            "scenes": [
                {
                    "name": s.name, "group": s.group, "spacing": s.spacing, "drawn": s.delineated,
                    "rotation": None if s.rotation is None else s.rotation.tolist(),
                }
                for s in self.scenes
            ],
        }
        return save_archive(path, about, {f"{kind}{i}": getattr(s, kind) for i, s in enumerate(self.scenes) for kind in ("image", "mask")})

    @classmethod
    def load(cls, path: str | Path) -> Scenes:
        """Read a file of :meth:`save`; raises :class:`~posepipe.errors.UsageError` for any other file."""

        def made(about: dict[str, Any], file: Any) -> Scenes:
            scenes = []
            for i, s in enumerate(about["scenes"]):
                turn, delineated = s.pop("rotation"), s.pop("drawn")
                known = None if turn is None else np.array(turn)
                scenes.append(Scene(image=file[f"image{i}"], mask=file[f"mask{i}"], rotation=known, delineated=delineated, **s))
            return cls(tuple(scenes), about["terms"])

        return load_archive(path, "scenes", made)


def scene_of(name: str, group: str, image: Volume, mask: Volume, rotation: Array | None = None, *, delineated: bool = True) -> Scene:
    """The scene of an image and its brain mask on the same grid. ``rotation`` (3, 3), if known, maps the canonical frame to the image's
    RAS world. ``delineated``: see :class:`Scene`."""
    spacing = float(np.clip(np.sort(image.spacing)[0], *SPACING_MM))
    zoom = image.spacing / spacing
    data = image.data.astype(np.float32)
    data = ndimage.gaussian_filter(np.maximum(data, 0), 0.42 * np.sqrt(np.maximum(1 / zoom**2 - 1, 0)))
    top = float(np.quantile(data[data > 0][::7], 0.98))
    counts = tuple(int(n) for n in np.maximum(np.round(np.array(image.shape) * zoom), 1))
    # voxel edges are aligned, not voxel centres: the first voxel begins at −½
    offset = 0.5 / zoom - 0.5
    small = ndimage.affine_transform(data / top * 170, np.diag(1 / zoom), offset, counts, order=1, mode="nearest")
    inside = ndimage.affine_transform(mask.data.astype(np.float32) * 255, np.diag(1 / zoom), offset, counts, order=1)
    where = np.argwhere(inside > 127).mean(0)
    reach = REACH_MM / spacing
    box = tuple(slice(max(int(c - reach), 0), int(c + reach) + 1) for c in where)
    turn = None if rotation is None else np.linalg.inv(image.affine[:3, :3] / image.spacing) @ rotation
    image_bytes, mask_bytes = (data.clip(0, 255).astype(np.uint8)[box] for data in (small, inside))
    return Scene(name, group, image_bytes, mask_bytes, spacing, turn, delineated)
