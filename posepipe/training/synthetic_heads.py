"""Synthetic heads: source volumes with synthetic surroundings, as large volumes that many crops are sampled from.

Synthesising a head takes much longer than sampling a crop from it, so heads are kept in pools (:class:`~.scans.ScanSynthesis`).
"""

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
from .sources import LEFT, SIDE, Sources, SourceVolume
from .surroundings import Surroundings, add_surroundings
from .synthesis import Recipe, Synthesis, sample_volumes

FLUID_WEEKS = 37.0
"""Postmenstrual age in weeks. Brain masks of younger brains (fetuses) include the extra-axial CSF; those from this age on (newborns at
term) end at the cortex."""
SUBJECTS = 0.8
"""Share of subjects among the sampled brains of newborns. The others are templates, which are blurred by averaging and whose masks follow
various definitions."""


@dataclass(frozen=True, eq=False)
class PlacedHead:
    """A synthetic head or a scene that crops are sampled from.

    ``volume`` (2, X, Y, Z) uint8: intensities (170 is bright) and share of brain (255 is all). A point x of the canonical frame, in brain
    radii, is at voxel ``matrix`` (3, 3) · x + ``origin`` (3,). ``posed``: the rotation is known. ``endless``: crops are padded by
    reflection, else by 0. ``kept``: averages over blocks of voxels are kept for later crops.
    """

    volume: Tensor
    matrix: Array
    origin: Array
    posed: bool = True
    endless: bool = False
    kept: bool = False
    _means: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)

    def means(self, block: tuple[int, ...]) -> Tensor:
        """The volume averaged over blocks of ``block`` voxels (1, 2, X', Y', Z')."""
        if block not in self._means:
            data = self.volume[None].float()
            data = F.avg_pool3d(data, block) if max(block) > 1 else data
            if not self.kept:
                return data
            self._means[block] = data
        return self._means[block]


class HeadSynthesis(Synthesis):
    """Seeded supply of synthetic heads: brains of the sources with surroundings by :mod:`~posepipe.training.surroundings`."""

    def __init__(self, sources: Sources, recipe: Recipe, how: Surroundings, **options: Any) -> None:
        super().__init__(sources, recipe, **options)
        self._how = how
        self.step = 1
        far = np.stack([_distance(m) for m in sources.masks])
        self._far = self._tensor(far)
        self._fluid = np.array([_fluid(p, v, far[p.mask]) for p, v in zip(sources.volumes, sources.voxels, strict=True)])

    def heads(self, n: int, reach: float) -> list[PlacedHead]:
        """``n`` new heads with random rotations, in cubes that reach ``reach`` brain radii to either side of the centre."""
        labelled = self._rng.random(n) < self.recipe.labels
        rows = np.where(labelled, self._balanced_rows(self._labels, n), self._balanced_rows(self._images, n))
        rotation = random_rotations(n, self._rng)
        shift = 0.1 * HALF_SIDE * self._rng.uniform(-1, 1, (n, 3))
        size = HALF_SIDE / reach * np.exp(self._rng.normal(0, self.recipe.log_scale, n))
        points = self._source_points(self._tensor(rotation), self._tensor(shift), self._tensor(size))
        far = self._distances(rows, points)
        where = points.flip(-1).movedim(-1, 1) * HALF_SIDE
        volumes, between, tables = self._with_random_contrast(rows)
        image, mask = sample_volumes(volumes, points.sub_(between))
        code = torch.as_tensor(self._fluid[rows], device=self._device)
        fluid = torch.where(code < 0, -1.0, tables.gather(1, code.clamp_min(0)[:, None])[:, 0])
        image, mask = add_surroundings(image, mask, far, where, self._how, self._generator, fluid[:, None, None, None, None])
        both = (torch.cat([image * 170, mask * 255], 1).clamp(0, 255) + 0.5).byte()
        side = self.recipe.size
        step = 2 * HALF_SIDE / side
        return [
            PlacedHead(both[i], size[i] / step * rotation[i], shift[i] / step + (side - 1) / 2, endless=True) for i in range(n)
        ]

    def _balanced_rows(self, rows: Array, n: int) -> Array:
        """``n`` random elements of ``rows``. Half of them have masks that include the extra-axial CSF; of the others the share
        :data:`SUBJECTS` are subjects, the rest templates."""
        fluid = self._fluid[rows] >= 0
        one = np.array([self._sources.volumes[row].name.startswith("sub-") for row in rows])
        chances = [_chance(kind, share) for kind, share in ((fluid, 0.5), (one[~fluid], SUBJECTS))]
        which = np.where(self._rng.random(n) < chances[0], 0, np.where(self._rng.random(n) < chances[1], 1, 2))
        out = np.empty(n, dtype=int)
        for kind, mine in enumerate((fluid, ~fluid & one, ~fluid & ~one)):
            if mine.any():
                out[which == kind] = self._rng.choice(rows[mine], int((which == kind).sum()))
        return out

    def _distances(self, rows: Array, points: Tensor) -> Tensor:
        """Signed distance (B, 1, S, S, S) of ``points`` (B, S, S, S, 3) from the surface of the brain, in brain radii; negative inside."""
        of = self._sources.volumes
        field = torch.stack([self._far[of[row].mask] for row in rows])[:, None]
        inside = F.grid_sample(field, points, mode="bilinear", padding_mode="border", align_corners=False)
        beyond = (points.abs() - 1).clamp_min(0).norm(dim=-1)[:, None] * HALF_SIDE
        return inside + beyond


def _chance(some: Array, share: float) -> float:
    """``share`` if both kinds occur in ``some``; else 1 or 0, for the kind that occurs."""
    return share if some.any() and not some.all() else float(some.any())


def _distance(mask: np.ndarray) -> Array:
    """Signed distance (D/2, D/2, D/2) from the surface of ``mask`` (D, D, D) uint8, in brain radii, averaged over blocks of 2³ voxels."""
    inside = mask > 127
    # the surface is half a voxel from the centre of the first voxel outside
    far = np.where(inside, 0.5 - ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside) - 0.5)
    half = len(mask) // 2
    means: Array = far.reshape(half, 2, half, 2, half, 2).mean((1, 3, 5)) * (2 * HALF_SIDE / SIDE)
    return means.astype(np.float32)


def _fluid(source: SourceVolume, voxels: np.ndarray, far: Array) -> int:
    """Byte of ``voxels`` (D, D, D) that stands for extra-axial CSF; −1 if the mask does not include it (:data:`FLUID_WEEKS`).

    ``far`` (D/2, D/2, D/2): signed distance from the surface of the mask. T2w: the 97th percentile inside the mask; T1w: the 3rd; label
    maps: the label whose share is largest near the surface relative to the interior.
    """
    if source.age >= FLUID_WEEKS:
        return -1
    half = voxels[::2, ::2, ::2]
    if source.kind == "labels":
        shares = [np.bincount(half[here] % LEFT, minlength=LEFT)[1:] / here.sum() for here in ((far < 0) & (far > -0.12), far < -0.3)]
        return int((shares[0] - shares[1]).argmax()) + 1
    return int(np.quantile(half[(far < 0) & (half > 0)], 0.97 if source.kind == "T2w" else 0.03))
