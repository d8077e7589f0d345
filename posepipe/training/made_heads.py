"""Whole heads made up about real brains, kept in pools: to make one costs much more than to crop it, so each serves many crops."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from ..geometry import random_rotations
from ..geometry.so3 import Array
from ..models.coordinates import HALF_SIDE
from .sources import LEFT, SIDE, Picture, Sources
from .surroundings import Surroundings, surrounded
from .synthesis import Recipe, Synthesis, read_pictures

FLUID_WEEKS = 37.0
"""Masks of younger brains, as a fetus has them, take in all fluid about the brain; those of newborns at term end at the cortex."""
SUBJECTS = 0.8
"""Share of single subjects among the brains of newborns, the others being templates: blurred by averaging, with masks of many kinds."""


@dataclass(frozen=True, eq=False)
class PlacedHead:
    """``volume`` (2, X, Y, Z) uint8, intensities (170 where bright) and share of brain (255 where full). A point x of the canonical frame,
    in brain radii, lies at voxel ``matrix`` (3, 3) · x + ``origin`` (3,). ``posed``: its rotation is known; ``endless``: what lies beyond
    the volume is like what lies within, not empty. Means over blocks of the volume are kept where ``kept``."""

    volume: Tensor
    matrix: Array
    origin: Array
    posed: bool = True
    endless: bool = False
    kept: bool = False
    _means: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)

    def means(self, block: tuple[int, ...]) -> Tensor:
        """Means (1, 2, X', Y', Z') over blocks of so many voxels along each axis."""
        if block not in self._means:
            data = self.volume[None].float()
            data = F.avg_pool3d(data, block) if max(block) > 1 else data
            if not self.kept:
                return data
            self._means[block] = data
        return self._means[block]


class HeadSynthesis(Synthesis):
    """Makes up heads, bodies and uteri about the brains of its sources; see :mod:`~posepipe.training.surroundings`."""

    def __init__(self, sources: Sources, recipe: Recipe, how: Surroundings, **options: Any) -> None:
        super().__init__(sources, recipe, **options)
        self._how = how
        self.step = 1
        far = np.stack([_distance(m) for m in sources.masks])
        self._far = self._tensor(far)
        self._fluid = np.array([_fluid(p, v, far[p.mask]) for p, v in zip(sources.pictures, sources.voxels, strict=True)])

    def heads(self, n: int, reach: float) -> list[PlacedHead]:
        """``n`` new heads, turned anyhow, in cubes that reach ``reach`` brain radii either way."""
        labelled = self._rng.random(n) < self.recipe.labels
        rows = np.where(labelled, self._drawn(self._labels, n), self._drawn(self._images, n))
        rotation = random_rotations(n, self._rng)
        shift = 0.1 * HALF_SIDE * self._rng.uniform(-1, 1, (n, 3))
        size = HALF_SIDE / reach * np.exp(self._rng.normal(0, self.recipe.log_scale, n))
        points = self._source_points(self._tensor(rotation), self._tensor(shift), self._tensor(size))
        far = self._distances(rows, points)
        where = points.flip(-1).movedim(-1, 1) * HALF_SIDE
        pictures, between, tables = self._pictures(rows)
        image, mask = read_pictures(pictures, points.sub_(between))
        code = torch.as_tensor(self._fluid[rows], device=self._device)
        fluid = torch.where(code < 0, -1.0, tables.gather(1, code.clamp_min(0)[:, None])[:, 0])
        image, mask = surrounded(image, mask, far, where, self._how, self._generator, fluid[:, None, None, None, None])
        both = (torch.cat([image * 170, mask * 255], 1).clamp(0, 255) + 0.5).byte()
        side = self.recipe.size
        step = 2 * HALF_SIDE / side
        return [
            PlacedHead(both[i], size[i] / step * rotation[i], shift[i] / step + (side - 1) / 2, endless=True) for i in range(n)
        ]

    def _drawn(self, rows: Array, n: int) -> Array:
        """``n`` of ``rows``; masks that take in all fluid and those that end at the cortex have equal chances, and of the latter a share
        of :data:`SUBJECTS` are single subjects'."""
        fluid = self._fluid[rows] >= 0
        one = np.array([self._sources.pictures[row].name.startswith("sub-") for row in rows])
        chances = [_chance(kind, share) for kind, share in ((fluid, 0.5), (one[~fluid], SUBJECTS))]
        which = np.where(self._rng.random(n) < chances[0], 0, np.where(self._rng.random(n) < chances[1], 1, 2))
        out = np.empty(n, dtype=int)
        for kind, mine in enumerate((fluid, ~fluid & one, ~fluid & ~one)):
            if mine.any():
                out[which == kind] = self._rng.choice(rows[mine], int((which == kind).sum()))
        return out

    def _distances(self, rows: Array, points: Tensor) -> Tensor:
        """How far ``points`` are from the surface of the brain, in brain radii; below 0 inside."""
        of = self._sources.pictures
        field = torch.stack([self._far[of[row].mask] for row in rows])[:, None]
        inside = F.grid_sample(field, points, mode="bilinear", padding_mode="border", align_corners=False)
        beyond = (points.abs() - 1).clamp_min(0).norm(dim=-1)[:, None] * HALF_SIDE
        return inside + beyond


def _chance(some: Array, share: float) -> float:
    """``share``, unless all or none are of the kind of ``some``."""
    return share if some.any() and not some.all() else float(some.any())


def _distance(mask: np.ndarray) -> Array:
    """Signed distance (D/2, D/2, D/2) from the surface of ``mask`` (D, D, D) uint8, in brain radii, means of blocks of eight voxels."""
    inside = mask > 127
    # the surface lies half a voxel before the first voxel outside
    far = np.where(inside, 0.5 - ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside) - 0.5)
    half = len(mask) // 2
    means: Array = far.reshape(half, 2, half, 2, half, 2).mean((1, 3, 5)) * (2 * HALF_SIDE / SIDE)
    return means.astype(np.float32)


def _fluid(picture: Picture, voxels: np.ndarray, far: Array) -> int:
    """The byte of ``voxels`` (D, D, D) that is fluid about the brain, ``far`` (D/2, D/2, D/2) from its surface; −1 where the mask ends
    at the brain itself (:data:`FLUID_WEEKS`). In T2w it is bright, in T1w dark; of labels it is the one that lies outermost."""
    if picture.age >= FLUID_WEEKS:
        return -1
    half = voxels[::2, ::2, ::2]
    if picture.kind == "labels":
        shares = [np.bincount(half[here] % LEFT, minlength=LEFT)[1:] / here.sum() for here in ((far < 0) & (far > -0.12), far < -0.3)]
        return int((shares[0] - shares[1]).argmax()) + 1
    return int(np.quantile(half[(far < 0) & (half > 0)], 0.97 if picture.kind == "T2w" else 0.03))
