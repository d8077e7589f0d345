"""Learning to find a brain and its pose without a mask: crops of made-up heads, and of real scans whose brain is known."""

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
from .corruption import Corruption, guessed
from .made_heads import HeadSynthesis, PlacedHead
from .scan_corruption import ScanCorruption, epi_like
from .scenes import Scenes
from .sources import Sources
from .surroundings import Surroundings, scanned
from .synthesis import Recipe


@dataclass(frozen=True)
class Kind:
    """A kind of crop, a ``share`` of all: half its side from ``low`` to ``high``, and the ``spread`` of its centre about the brain's, all
    in brain radii; with a ``spread`` below 0 the brain lies anywhere in it, ``beside`` it may be out of sight. It is cut from heads that
    ``reach`` so far either way."""

    share: float
    low: float
    high: float
    spread: float
    reach: float
    beside: bool = False


LOCATING = (Kind(0.5, 1.4, 2.4, 0.3, 3.0), Kind(0.2, 2.4, 5.5, -1.0, 7.0), Kind(0.3, 1.4, 2.4, 0.0, 3.0, beside=True))
POSING = (Kind(0.65, 1.4, 1.85, 0.1, 3.0), Kind(0.2, 1.05, 1.4, 0.06, 2.2), Kind(0.15, 1.2, 2.0, 0.0, 3.0, beside=True))
"""Crops of the width that the networks of masked brains know, narrower ones for the outline, and some beside the brain, in which something
else was taken for it: the network is to say that it is none."""


@dataclass(frozen=True)
class ScanRecipe(Recipe):
    """How crops of ``size`` voxels a side are made, of which ``kinds``; ``scenes``: share of crops from real scans; ``pool``: how many
    made-up heads of each reach are kept, of ``head`` voxels a side; each step makes ``fresh`` new ones
    on average; ``gain``: standard deviation of the logarithm of the brightness, for what a whole scan holds is brighter or darker than a
    crop; ``pasted``: share of the made-up heads that are put into a real scan beside its brain. ``guess``: how what is thought to be
    brain before differs from the brain, None where nothing is. ``drawn``: of real scans only those with drawn masks teach; all may
    lie around a made-up head."""

    head: int = 72
    pool: int = 300
    fresh: float = 1.0
    gain: float = 0.0
    pasted: float = 0.0
    drawn: bool = False
    labels: float = 0.4
    stretch: float = 0.08
    deform: float = 0.06
    log_scale: float = 0.05
    scenes: float = 0.5
    kinds: tuple[Kind, ...] = POSING
    guess: Corruption | None = field(default_factory=lambda: Corruption(cut=0.3, leak=0.35, rim=0.9, rim_radii=0.18))
    surroundings: Surroundings = field(default_factory=lambda: Surroundings(stripped=0.2, air=0.2, alone=0.0, alike=0.3))
    corruption: ScanCorruption = field(default_factory=ScanCorruption)  # type: ignore[assignment]


PASTED_FROM, PASTED_RIM, PASTED_TRIES, PASTED_FULL = (1.6, 4.5), 0.5, 6, 0.3
"""A made-up head is put where a real scan shows what lies so many brain radii from its brain, with a rim of up to so many left about it;
where less than a third of that is in the scan, or it shows the brain, another place is tried, so often."""
OUTLINE = ScanRecipe(head=80, scenes=0.4, pasted=0.3, guess=None, drawn=True, kinds=(Kind(1.0, 1.05, 1.45, 0.12, 2.2),))
LOCATOR = ScanRecipe(
    fresh=0.3, gain=0.3, pasted=0.5, kinds=LOCATING, guess=None, surroundings=Surroundings(stripped=0.2, air=0.2, alike=0.3)
)


@dataclass(frozen=True, eq=False)
class ScanBatch:
    """``image`` (B, 1, S, S, S) as the network wants it; ``brain`` (alike): the share of each voxel that is brain; ``guess`` (alike): what
    is thought to be brain before.

    Of those that are ``posed`` (B,), the map from canonical points x to cube points is ``u = s R x + t``: ``rotation`` (B, 3, 3),
    ``translation`` (B, 3), ``scale`` (B,). ``whole`` (B,): the brain is in the crop, and large enough for its pose to count.
    """

    image: Tensor
    brain: Tensor
    guess: Tensor
    rotation: Tensor
    translation: Tensor
    scale: Tensor
    posed: Tensor
    whole: Tensor

    def position(self, side: int) -> Tensor:
        """Canonical coordinates (B, 3, side, side, side) of the cube's points."""
        u = cube_points(side, device=self.image.device)
        x = ((u[None] - self.translation[:, None]) / self.scale[:, None, None]) @ self.rotation
        return x.mT.reshape(-1, 3, side, side, side)


class ScanSynthesis:
    """An endless, seeded supply of crops with known brains, from ``sources`` and real ``scenes`` by ``recipe``."""

    def __init__(self, sources: Sources, recipe: ScanRecipe, *, scenes: Scenes | None = None, seed: int = 0, **options: Any) -> None:
        self.recipe = recipe
        self._heads = HeadSynthesis(sources, replace(recipe, size=recipe.head), recipe.surroundings, seed=seed, **options)
        self._rng = np.random.default_rng(seed + 1000)
        self._generator = torch.Generator().manual_seed(seed + 1000)
        self._real = (scenes.drawn() if recipe.drawn else scenes).placed() if scenes is not None else {}
        self._around = scenes.placed() if scenes is not None and recipe.pasted else {}
        self._pools: dict[float, list[PlacedHead]] = {kind.reach: [] for kind in recipe.kinds}

    def batch(self, n: int) -> ScanBatch:
        """``n`` new crops."""
        self._refresh()
        r = self.recipe
        kinds = [r.kinds[k] for k in self._rng.choice(len(r.kinds), n, p=[kind.share for kind in r.kinds])]
        real = (self._rng.random(n) < r.scenes) if self._real else np.zeros(n, dtype=bool)
        heads = [self._one_of(self._real) if real[i] else self._made_head(kinds[i].reach) for i in range(n)]
        rotation = random_rotations(n, self._rng)
        half = np.exp(self._rng.uniform(*(np.log([getattr(kind, end) for kind in kinds]) for end in ("low", "high"))))
        shift = np.stack([self._shift(kind, h) for kind, h in zip(kinds, half, strict=True)])
        scale = HALF_SIDE / half
        translation = shift * scale[:, None]
        points = self._bent(cube_points(r.size).expand(n, -1, -1))
        crops = torch.stack([
            self._crop(head, points[i], rotation[i], translation[i], scale[i]) for i, head in enumerate(heads)
        ])  # fmt: skip
        if self._around:
            for i in np.flatnonzero(~real & (self._rng.random(n) < r.pasted)):
                crops[i] = self._pasted(crops[i], points[i], half[i])
        image, brain = crops[:, :1].clamp(0, BRIGHT), crops[:, 1:].clamp(0, 1)
        curve = torch.as_tensor(np.exp(self._rng.normal(0, 0.3, (n, 1, 1, 1, 1))), dtype=torch.float32)
        image = epi_like(image**curve, brain, r.corruption, self._generator)
        image, brain = scanned(image, brain, r.surroundings, self._generator)
        posed = torch.tensor([h.posed for h in heads])
        near = torch.tensor([kind.spread > 0 for kind in kinds])
        whole = posed & near & (brain.flatten(1).mean(1) > 0.03)
        turn, move, size = (torch.as_tensor(x, dtype=torch.float32) for x in (rotation, translation, scale))
        image = scaled(image)
        if r.gain:
            gain = np.exp(self._rng.normal(-r.gain / 2, r.gain, (n, 1, 1, 1, 1)))
            image = (image * torch.as_tensor(gain, dtype=torch.float32)).clamp_max(BRIGHTEST)
        guess = torch.zeros_like(brain) if r.guess is None else self._guessed(brain, kinds, r.guess)
        return ScanBatch(image, brain, guess, turn, move, size, posed, whole)

    def timed(self, n: int) -> tuple[ScanBatch, float]:
        """``n`` new crops, and the seconds it took to make them."""
        start = time.perf_counter()
        batch = self.batch(n)
        return batch, time.perf_counter() - start

    def state(self) -> dict[str, Any]:
        """State of the random generators; the pools are filled anew."""
        return {"numpy": self._rng.bit_generator.state, "torch": self._generator.get_state(), "heads": self._heads.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Back to a state of :meth:`state`."""
        self._rng.bit_generator.state = state["numpy"]
        self._generator.set_state(state["torch"])
        self._heads.restore(state["heads"])

    def _shift(self, kind: Kind, half: float) -> Array:
        """Where the brain lies in a crop (3,), brain radii from its centre."""
        if kind.beside:
            way = self._rng.normal(size=3)
            return np.asarray(way / np.linalg.norm(way) * self._rng.uniform(0.8, 3.2))
        if kind.spread < 0:
            return np.asarray(self._rng.uniform(-0.9, 0.9, 3) * half)
        return np.asarray(np.clip(self._rng.normal(0, 1, 3), -3, 3) * kind.spread)

    def _pasted(self, made: Tensor, points: Tensor, half: float) -> Tensor:
        """A crop of a made-up head (2, S, S, S), ``half`` its side in brain radii, of which all beyond a rim about the brain is from beside
        the brain of a real scan; as it was where none is found."""
        scale = HALF_SIDE / half
        for _ in range(PASTED_TRIES):
            way = self._rng.normal(size=3)
            shift = way / np.linalg.norm(way) * self._rng.uniform(*PASTED_FROM)
            other = self._crop(self._one_of(self._around), points, random_rotations(1, self._rng)[0], shift * scale, scale)
            if float(other[1].mean()) < 0.003 and float((other[0] > 0.02).float().mean()) > PASTED_FULL:
                break
        else:
            return made
        rim = 2 * round(self._rng.uniform(0, PASTED_RIM) * self.recipe.size / 2 / half) + 1
        near = grown(made[None, 1:], rim)[0]
        gamma, gain = np.exp(self._rng.normal(0, [0.4, 0.3]))
        return torch.cat([near * made[:1] + (1 - near) * gain * other[:1].clamp_min(0) ** gamma, made[1:]])

    def _guessed(self, brain: Tensor, kinds: Sequence[Kind], how: Corruption) -> Tensor:
        """What is thought to be brain before: of crops beside a brain what another crop of the batch shows for one, turned."""
        other = brain.roll(1, 0).flip(2, 3)
        beside = torch.tensor([kind.beside for kind in kinds])[:, None, None, None, None]
        return guessed(torch.where(beside, other, brain), how, self._generator)

    def _refresh(self) -> None:
        """New heads for one of the pools, by how often it is used."""
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

    def _made_head(self, reach: float) -> PlacedHead:
        while len(self._pools[reach]) < min(LEAST, self.recipe.pool):
            self._add(reach, 4)
        return self._pools[reach][int(self._rng.integers(len(self._pools[reach])))]

    def _one_of(self, real: dict[str, list[PlacedHead]]) -> PlacedHead:
        """Data sets have equal chances by the square root of how many scans each has."""
        groups = sorted(real)
        weight = np.sqrt([len(real[g]) for g in groups])
        mine = real[groups[int(self._rng.choice(len(groups), p=weight / weight.sum()))]]
        return mine[int(self._rng.integers(len(mine)))]

    def _bent(self, points: Tensor) -> Tensor:
        """Points (B, N, 3), of some crops displaced along one axis, smoothly: the distortion of echo-planar images."""
        n, side = len(points), self.recipe.size
        return points + self.recipe.corruption.displacement(n, side, self._rng, self._generator)

    def _crop(self, head: PlacedHead, u: Tensor, rotation: Array, translation: Array, scale: float) -> Tensor:
        """Intensities, 1 where bright, and share of brain (2, S, S, S) at points ``u`` (N, 3) of a cube."""
        side = self.recipe.size
        mirror = np.diag(np.exp(self._rng.normal(0, self.recipe.stretch, 3)) * [self._rng.choice([-1.0, 1.0]), 1, 1])
        if head.endless:  # stretched when it was made
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
        # to what grid_sample wants: −1 to 1 from border to border, z, y, x
        matrix = (2 / shape)[:, None] * to_voxel
        start = (2 * offset + 1) / shape - 1
        grid = u @ torch.as_tensor(matrix.T[:, ::-1].copy(), dtype=torch.float32) + torch.as_tensor(start[::-1].copy(), dtype=torch.float32)
        grid = grid.reshape(1, side, side, side, 3)
        padding = "reflection" if head.endless else "zeros"
        out = F.grid_sample(data, grid, mode="bilinear", padding_mode=padding, align_corners=False)[0]
        return out / torch.tensor([170.0, 255.0]).reshape(2, 1, 1, 1)


def grown(share: Tensor, width: int) -> Tensor:
    """``share`` (B, 1, S, S, S), each voxel the greatest within a cube of ``width`` (odd) about it: one axis after another, which is
    many times as fast as all at once (30 times for a width of 21).

    >>> grown(torch.eye(3).reshape(1, 1, 1, 3, 3), 3).sum()
    tensor(9.)
    """
    for axis in range(3):
        kernel = [1, 1, 1]
        kernel[axis] = width
        share = F.max_pool3d(share, kernel, 1, [k // 2 for k in kernel])
    return share


BRIGHT = 1.5
LEAST = 24
"""A pool is used from so many heads on."""
