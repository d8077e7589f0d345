"""Training crops for the scan networks, which detect a brain and its pose without a mask: from synthetic heads and from real scans.

A *synthetic head* is a source volume with synthetic surroundings (:mod:`posepipe.training.synthetic_heads`); a *scene* is a real scan with
a known brain (:mod:`posepipe.training.scenes`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import random_rotations
from ..geometry.so3 import Array
from ..models.coordinates import HALF_SIDE, cube_points
from ..models.scans import BRIGHTEST, scaled
from .corruption import Corruption, perturbed_mask
from .scan_corruption import ScanCorruption, epi_like
from .scenes import Scenes
from .sources import Sources
from .surroundings import Surroundings, simulate_acquisition
from .synthesis import Recipe
from .synthetic_heads import HeadSynthesis, PlacedHead


@dataclass(frozen=True)
class CropKind:
    """A kind of crop, with its ``share`` of all crops. Lengths are in brain radii.

    Half the side is log-uniform from ``low`` to ``high``. ``spread``: standard deviation of the crop's centre about the brain's centre;
    negative: the brain's centre is anywhere in the crop. ``beside``: the crop's centre is 0.8 to 3.2 from the brain's, so that the crop
    may show no brain. ``reach``: half the side of the synthetic heads that such crops are sampled from.
    """

    share: float
    low: float
    high: float
    spread: float
    reach: float
    beside: bool = False


LOCATING = (CropKind(0.5, 1.4, 2.4, 0.3, 3.0), CropKind(0.2, 2.4, 5.5, -1.0, 7.0), CropKind(0.3, 1.4, 2.4, 0.0, 3.0, beside=True))
POSING = (CropKind(0.65, 1.4, 1.85, 0.1, 3.0), CropKind(0.2, 1.05, 1.4, 0.06, 2.2), CropKind(0.15, 1.2, 2.0, 0.0, 3.0, beside=True))
"""Crops for the scan network: as wide as those of the networks for masked brains; narrower ones, for the outline; and crops beside the
brain (negatives, as of a wrong candidate of the locator)."""


@dataclass(frozen=True)
class ScanRecipe(Recipe):
    """Distributions that crops of ``size`` voxels a side are sampled from.

    - ``kinds``: kinds of crops; ``scenes``: share of crops from real scans; ``delineated``: use real scans with manually delineated masks
      only (except as surroundings of pasted heads).
    - ``head``: side of synthetic heads in voxels; ``pool``: number of heads kept of each reach; ``fresh``: mean number of new heads in a
      step; ``pasted``: share of crops of synthetic heads that are pasted into a real scan beside its brain.
    - ``gain``: standard deviation of the logarithm of a brightness factor, since a whole scan and a crop are scaled differently.
    - ``previous_mask``: errors of the simulated mask of the previous forward pass; None: that channel is 0.
    - ``surroundings`` and ``corruption``: of the heads and of the crops. The rest: see :class:`~posepipe.training.synthesis.Recipe`.
    """

    head: int = 72
    pool: int = 300
    fresh: float = 1.0
    gain: float = 0.0
    pasted: float = 0.0
    delineated: bool = False
    labels: float = 0.4
    stretch: float = 0.08
    deform: float = 0.06
    log_scale: float = 0.05
    scenes: float = 0.5
    kinds: tuple[CropKind, ...] = POSING
    previous_mask: Corruption | None = field(default_factory=lambda: Corruption(cut=0.3, leak=0.35, rim=0.9, rim_radii=0.18))
    surroundings: Surroundings = field(default_factory=lambda: Surroundings(stripped=0.2, air=0.2, alone=0.0, alike=0.3))
    corruption: ScanCorruption = field(default_factory=ScanCorruption)  # type: ignore[assignment]


PASTED_FROM, PASTED_RIM, PASTED_TRIES, PASTED_FULL = (1.6, 4.5), 0.5, 6, 0.3
"""Pasting of a synthetic head into a real scan: distance of the place from the scan's brain (brain radii); largest width of the rim of the
synthetic head that is kept about its brain (brain radii); number of random places tried; least share of the crop that must lie inside the
scan, which must also show none of the scan's own brain."""
OUTLINE = ScanRecipe(head=80, scenes=0.4, pasted=0.3, previous_mask=None, delineated=True, kinds=(CropKind(1.0, 1.05, 1.45, 0.12, 2.2),))
LOCATOR = ScanRecipe(
    fresh=0.3, gain=0.3, pasted=0.5, kinds=LOCATING, previous_mask=None, surroundings=Surroundings(stripped=0.2, air=0.2, alike=0.3)
)


@dataclass(frozen=True, eq=False)
class ScanBatch:
    """``image`` (B, 1, S, S, S), scaled as network input; ``brain`` (alike): share of each voxel that is brain; ``previous_mask``
    (alike): simulated brain probability of the previous forward pass.

    Of those that are ``posed`` (B,), the map from canonical points x to cube points is ``u = s R x + t``: ``rotation`` (B, 3, 3),
    ``translation`` (B, 3), ``scale`` (B,). ``whole`` (B,): the brain is in the crop, and large enough for its pose to count.
    """

    image: Tensor
    brain: Tensor
    previous_mask: Tensor
    rotation: Tensor
    translation: Tensor
    scale: Tensor
    posed: Tensor
    whole: Tensor

    def position(self, side: int) -> Tensor:
        """Canonical coordinates (B, 3, side, side, side) of the crop's voxels."""
        u = cube_points(side, device=self.image.device)
        x = ((u[None] - self.translation[:, None]) / self.scale[:, None, None]) @ self.rotation
        return x.mT.reshape(-1, 3, side, side, side)


class ScanSynthesis:
    """Endless, seeded supply of crops with known brains, from ``sources`` and real ``scenes`` by ``recipe``."""

    def __init__(self, sources: Sources, recipe: ScanRecipe, *, scenes: Scenes | None = None, seed: int = 0, **options: Any) -> None:
        self.recipe = recipe
        self._heads = HeadSynthesis(sources, replace(recipe, size=recipe.head), recipe.surroundings, seed=seed, **options)
        self._rng = np.random.default_rng(seed + 1000)
        self._generator = torch.Generator().manual_seed(seed + 1000)
        self._real = (scenes.delineated() if recipe.delineated else scenes).placed() if scenes is not None else {}
        self._around = scenes.placed() if scenes is not None and recipe.pasted else {}
        self._pools: dict[float, list[PlacedHead]] = {kind.reach: [] for kind in recipe.kinds}

    def batch(self, n: int) -> ScanBatch:
        """``n`` new crops."""
        self._refresh()
        r = self.recipe
        kinds = [r.kinds[k] for k in self._rng.choice(len(r.kinds), n, p=[kind.share for kind in r.kinds])]
        real = (self._rng.random(n) < r.scenes) if self._real else np.zeros(n, dtype=bool)
        heads = [self._sample_scan(self._real) if real[i] else self._synthetic_head(kinds[i].reach) for i in range(n)]
        rotation = random_rotations(n, self._rng)
        half = np.exp(self._rng.uniform(*(np.log([getattr(kind, end) for kind in kinds]) for end in ("low", "high"))))
        shift = np.stack([self._shift(kind, h) for kind, h in zip(kinds, half, strict=True)])
        scale = HALF_SIDE / half
        translation = shift * scale[:, None]
        points = self._distorted_points(cube_points(r.size).expand(n, -1, -1))
        crops = torch.stack([
            self._crop(head, points[i], rotation[i], translation[i], scale[i]) for i, head in enumerate(heads)
        ])  # fmt: skip
        if self._around:
            for i in np.flatnonzero(~real & (self._rng.random(n) < r.pasted)):
                crops[i] = self._pasted(crops[i], points[i], half[i])
        image, brain = crops[:, :1].clamp(0, BRIGHT), crops[:, 1:].clamp(0, 1)
        curve = torch.as_tensor(np.exp(self._rng.normal(0, 0.3, (n, 1, 1, 1, 1))), dtype=torch.float32)
        image = epi_like(image**curve, brain, r.corruption, self._generator)
        image, brain = simulate_acquisition(image, brain, r.surroundings, self._generator)
        posed = torch.tensor([h.posed for h in heads])
        near = torch.tensor([kind.spread > 0 for kind in kinds])
        whole = posed & near & (brain.flatten(1).mean(1) > 0.03)
        turn, move, size = (torch.as_tensor(x, dtype=torch.float32) for x in (rotation, translation, scale))
        image = scaled(image)
        if r.gain:
            gain = np.exp(self._rng.normal(-r.gain / 2, r.gain, (n, 1, 1, 1, 1)))
            image = (image * torch.as_tensor(gain, dtype=torch.float32)).clamp_max(BRIGHTEST)
        previous_mask = torch.zeros_like(brain) if r.previous_mask is None else self._previous_mask(brain, kinds, r.previous_mask)
        return ScanBatch(image, brain, previous_mask, turn, move, size, posed, whole)

    def timed(self, n: int) -> tuple[ScanBatch, float]:
        """``n`` new crops, and the seconds spent on them."""
        start = time.perf_counter()
        batch = self.batch(n)
        return batch, time.perf_counter() - start

    def state(self) -> dict[str, Any]:
        """State of the random generators. The pools of heads are not part of it."""
        return {"numpy": self._rng.bit_generator.state, "torch": self._generator.get_state(), "heads": self._heads.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a state of :meth:`state`."""
        self._rng.bit_generator.state = state["numpy"]
        self._generator.set_state(state["torch"])
        self._heads.restore(state["heads"])

    def _shift(self, kind: CropKind, half: float) -> Array:
        """Random position (3,) of the brain's centre relative to the centre of a crop of half side ``half``, in brain radii."""
        if kind.beside:
            way = self._rng.normal(size=3)
            return np.asarray(way / np.linalg.norm(way) * self._rng.uniform(0.8, 3.2))
        if kind.spread < 0:
            return np.asarray(self._rng.uniform(-0.9, 0.9, 3) * half)
        return np.asarray(np.clip(self._rng.normal(0, 1, 3), -3, 3) * kind.spread)

    def _pasted(self, made: Tensor, points: Tensor, half: float) -> Tensor:
        """The crop ``made`` (2, S, S, S) of a synthetic head, with everything beyond a rim about the brain replaced by a crop of a real
        scan beside its brain. ``half``: half the side in brain radii. Unchanged if no place in a scan is found."""
        scale = HALF_SIDE / half
        for _ in range(PASTED_TRIES):
            way = self._rng.normal(size=3)
            shift = way / np.linalg.norm(way) * self._rng.uniform(*PASTED_FROM)
            other = self._crop(self._sample_scan(self._around), points, random_rotations(1, self._rng)[0], shift * scale, scale)
            if float(other[1].mean()) < 0.003 and float((other[0] > 0.02).float().mean()) > PASTED_FULL:
                break
        else:
            return made
        rim = 2 * round(self._rng.uniform(0, PASTED_RIM) * self.recipe.size / 2 / half) + 1
        near = dilated(made[None, 1:], rim)[0]
        gamma, gain = np.exp(self._rng.normal(0, [0.4, 0.3]))
        return torch.cat([near * made[:1] + (1 - near) * gain * other[:1].clamp_min(0) ** gamma, made[1:]])

    def _previous_mask(self, brain: Tensor, kinds: Sequence[CropKind], how: Corruption) -> Tensor:
        """Simulated mask of the previous forward pass: ``brain`` with errors by ``how``; in crops beside a brain the mirrored mask of
        another crop of the batch."""
        other = brain.roll(1, 0).flip(2, 3)
        beside = torch.tensor([kind.beside for kind in kinds])[:, None, None, None, None]
        return perturbed_mask(torch.where(beside, other, brain), how, self._generator)

    def _refresh(self) -> None:
        """Replace random heads of the pools by new ones, ``recipe.fresh`` on average."""
        kinds = self.recipe.kinds
        for k in self._rng.choice(len(kinds), self._rng.poisson(self.recipe.fresh), p=[kind.share for kind in kinds]):
            self._add(kinds[k].reach, 1)

    def _add(self, reach: float, n: int) -> None:
        pool = self._pools[reach]
        for head in self._heads.heads(n, reach):
            if len(pool) < self.recipe.pool:
                pool.append(head)
            else:
                pool[int(self._rng.integers(len(pool)))] = head

    def _synthetic_head(self, reach: float) -> PlacedHead:
        while len(self._pools[reach]) < min(LEAST, self.recipe.pool):
            self._add(reach, 4)
        return self._pools[reach][int(self._rng.integers(len(self._pools[reach])))]

    def _sample_scan(self, real: dict[str, list[PlacedHead]]) -> PlacedHead:
        """A random scan. The probability of a data set is proportional to the square root of its number of scans."""
        groups = sorted(real)
        weight = np.sqrt([len(real[g]) for g in groups])
        mine = real[groups[int(self._rng.choice(len(groups), p=weight / weight.sum()))]]
        return mine[int(self._rng.integers(len(mine)))]

    def _distorted_points(self, points: Tensor) -> Tensor:
        """``points`` (B, N, 3), in some crops with a smooth displacement along one axis: the distortion of echo-planar images."""
        n, side = len(points), self.recipe.size
        return points + self.recipe.corruption.displacement(n, side, self._rng, self._generator)

    def _crop(self, head: PlacedHead, u: Tensor, rotation: Array, translation: Array, scale: float) -> Tensor:
        """Intensities (about 1 where bright) and share of brain (2, S, S, S) of ``head`` at points ``u`` (N, 3) of a crop, placed by
        ``u = s R x + t``."""
        side = self.recipe.size
        mirror = np.diag(np.exp(self._rng.normal(0, self.recipe.stretch, 3)) * [self._rng.choice([-1.0, 1.0]), 1, 1])
        if head.endless:  # the scale of the axes was sampled when the head was synthesised
            mirror = np.diag(np.sign(np.diag(mirror)))
        # u → x = Rᵀ(u − t)/s → voxel
        to_voxel = head.matrix @ mirror @ rotation.T / scale
        offset = head.origin - to_voxel @ translation
        volume = head.volume
        step = 2 * HALF_SIDE / side * np.abs(np.linalg.det(to_voxel)) ** (1 / 3)
        shape = np.array(volume.shape[1:])
        coarse = step > 1.6 and shape.min() > 8
        block = np.minimum(max(round(step), 1), shape) if coarse else np.ones(3, int)
        data = head.means(tuple(int(b) for b in block))
        to_voxel, offset = to_voxel / block[:, None], (offset + 0.5) / block - 0.5
        shape = np.array(data.shape[2:])
        # coordinates of grid_sample: −1 to 1 from border to border, in the order z, y, x
        matrix = (2 / shape)[:, None] * to_voxel
        start = (2 * offset + 1) / shape - 1
        grid = u @ torch.as_tensor(matrix.T[:, ::-1].copy(), dtype=torch.float32) + torch.as_tensor(start[::-1].copy(), dtype=torch.float32)
        grid = grid.reshape(1, side, side, side, 3)
        padding = "reflection" if head.endless else "zeros"
        out = F.grid_sample(data, grid, mode="bilinear", padding_mode=padding, align_corners=False)[0]
        return out / torch.tensor([170.0, 255.0]).reshape(2, 1, 1, 1)


def dilated(share: Tensor, width: int) -> Tensor:
    """Grey dilation of ``share`` (B, 1, S, S, S): the maximum within a cube of ``width`` voxels (odd). One axis after another, which is 30
    times as fast as all at once for a width of 21.

    >>> dilated(torch.eye(3).reshape(1, 1, 1, 3, 3), 3).sum()
    tensor(9.)
    """
    for axis in range(3):
        kernel = [1, 1, 1]
        kernel[axis] = width
        share = F.max_pool3d(share, kernel, 1, [k // 2 for k in kernel])
    return share


BRIGHT = 1.5
LEAST = 24
"""Least number of heads in a pool before crops are sampled from it."""
