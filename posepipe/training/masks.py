"""Learning to find and mask the brain: scans made up about real anatomy, and real scans whose brain is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from ..geometry import random_rotations
from ..geometry.so3 import Array
from ..models.coordinates import HALF_SIDE
from ..models.masks import COARSE_MM, scaled
from ..models.precision import autocast
from .scenes import Scenes
from .sources import LEFT, SIDE, Picture, Sources
from .surroundings import Surroundings, scanned, surrounded
from .synthesis import Recipe, Synthesis, read_pictures

RADII_MM = (24.0, 60.0)
"""Brain radii from 20 weeks to term and beyond."""
FLUID_WEEKS = 37.0
"""Masks of younger brains, as a fetus has them, take in all fluid about the brain; those of newborns at term end at the cortex."""

SUBJECTS = 0.8
"""Share of single subjects among the brains of newborns, the others being templates: blurred by averaging, with masks of many kinds."""
STRAY_RADII, STRAY_SIZE = 2.5, 0.45
"""How far from a brain a look may stray, and by how much the logarithm of its width."""


@dataclass(frozen=True)
class MaskRecipe(Recipe):
    """How scans are made. ``far``: the whole scan at :data:`~posepipe.models.masks.COARSE_MM` mm, the brain anywhere in it; else the
    neighbourhood of a brain, ``near`` times as wide as the pose networks' cube. ``scenes``: share of images made from real scans.
    ``stray``: share of neighbourhoods half a brain off, too wide or too narrow, or of something else altogether, as they are where the
    look before saw badly."""

    far: bool = False
    near: float = 0.9
    labels: float = 0.4
    shift: float = 0.16
    log_scale: float = 0.12
    stretch: float = 0.08
    deform: float = 0.06
    scenes: float = 0.25
    stray: float = 0.0
    surroundings: Surroundings = field(default_factory=Surroundings)


FINE = MaskRecipe(stray=0.3, surroundings=Surroundings(alike=0.3, grain=2.0))
"""For looks about a place where a brain may be: also beside one, and where there is none (docs/experiments-masks.md, 12)."""
EDGE = MaskRecipe(
    near=0.8,
    labels=0.15,
    shift=0.08,
    log_scale=0.1,
    scenes=0.15,
    surroundings=Surroundings(alone=0.0, decoys=0.3, faded=0.15, thick=0.2, moved=0.1, slab=0.15),
)
"""For the outline of a brain that was found: nearer, and mostly without what only raw stacks show."""


@dataclass(frozen=True, eq=False)
class Scan:
    """``image`` (B, 1, S, S, S) as the networks want it, and ``brain`` (alike): the share of each voxel that is brain."""

    image: Tensor
    brain: Tensor


class MaskSynthesis(Synthesis):
    """An endless, seeded supply of scans with known brains, from ``sources`` and real ``scenes`` by ``recipe``."""

    recipe: MaskRecipe

    def __init__(self, sources: Sources, recipe: MaskRecipe, *, scenes: Scenes | None = None, **options: Any) -> None:
        super().__init__(sources, recipe, **options)
        self.step = 2 if recipe.far else 1
        self._scenes = scenes if scenes is not None and len(scenes) else None
        far = np.stack([_distance(m) for m in sources.masks])
        self._far = self._tensor(far)
        self._fluid = np.array([_fluid(p, v, far[p.mask]) for p, v in zip(sources.pictures, sources.voxels, strict=True)])

    def scan(self, n: int) -> Scan:
        """``n`` new scans."""
        real = int((self._rng.random(n) < self.recipe.scenes).sum()) if self._scenes else 0
        parts = [self._made_up(n - real)] if real < n else []
        if real:
            parts.append(self._real(real))
        image, brain = (torch.cat(x) for x in zip(*parts, strict=True))
        image, brain = scanned(image, brain, self.recipe.surroundings, self._generator)
        return Scan(scaled(image), brain)

    def timed_scan(self, n: int) -> tuple[Scan, float]:
        """``n`` new scans, and the seconds it took to make them."""
        start = self._now()
        scan = self.scan(n)
        return scan, self._now() - start

    def _made_up(self, n: int) -> tuple[Tensor, Tensor]:
        labelled = self._rng.random(n) < self.recipe.labels
        rows = np.where(labelled, self._drawn(self._labels, n), self._drawn(self._images, n))
        points = self._source_points(*self._poses(n))
        far = self._distances(rows, points)
        where = points.flip(-1).movedim(-1, 1) * HALF_SIDE
        pictures, between, tables = self._pictures(rows)
        image, mask = read_pictures(pictures, points.sub_(between))
        code = torch.as_tensor(self._fluid[rows], device=self._device)
        fluid = torch.where(code < 0, -1.0, tables.gather(1, code.clamp_min(0)[:, None])[:, 0])
        return surrounded(image, mask, far, where, self.recipe.surroundings, self._generator, fluid[:, None, None, None, None])

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

    def _poses(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        if not self.recipe.far:
            rotation, moved, size = super()._poses(n)
            which, way, wide = self._astray(n)
            astray = torch.as_tensor(which, device=self._device)
            size = torch.where(astray, self._tensor(1 / wide), size) / self.recipe.near
            return rotation, torch.where(astray[:, None], self._tensor(way) * size[:, None], moved), size
        half = self.recipe.size * COARSE_MM / 2
        low, high = np.log(RADII_MM)
        radius = np.exp(self._rng.uniform(low, high, n))
        shift = np.clip(self._rng.normal(0, 0.45, (n, 3)), -0.95, 0.95) * HALF_SIDE
        return self._tensor(random_rotations(n, self._rng)), self._tensor(shift), self._tensor(HALF_SIDE * radius / half)

    def _astray(self, n: int) -> tuple[np.ndarray, Array, Array]:
        """Which of ``n`` looks go astray (n,), how far from the brain they then are (n, 3), in its radii, and how much wider (n,)."""
        way = self._rng.normal(size=(n, 3))
        way *= self._rng.uniform(0, STRAY_RADII, (n, 1)) / np.linalg.norm(way, axis=1, keepdims=True)
        return self._rng.random(n) < self.recipe.stray, way, np.exp(self._rng.uniform(-STRAY_SIZE, STRAY_SIZE, n))

    def _real(self, n: int) -> tuple[Tensor, Tensor]:
        """Real scans turned, sized and cut like the made-up ones, with a contrast of their own."""
        assert self._scenes is not None
        side, near, out = self.recipe.size, HALF_SIDE * self.recipe.near, []
        for astray, way, wide in zip(*self._astray(n), strict=True):
            scene = self._scenes.draw(self._rng)
            size = math.exp(float(np.clip(self._rng.normal(0, 0.12), -0.3, 0.3)))
            half = self.recipe.size * COARSE_MM / 2 if self.recipe.far else near * scene.radius * math.exp(self._rng.normal(0, 0.1))
            spread = 0.35 * half if self.recipe.far else self.recipe.shift * scene.radius
            center = scene.center + np.clip(self._rng.normal(0, 1, 3), -2, 2) * spread
            if astray and not self.recipe.far:
                center, half, size = scene.center + way * scene.radius, near * scene.radius * wide, 1.0
            stretch = np.exp(self._rng.normal(0, self.recipe.stretch, (3, 1)))
            turn = stretch * random_rotations(1, self._rng)[0] * self._rng.choice([-1.0, 1.0], (1, 3))
            out.append(scene.read(turn, center, half / size, side))
        image, brain = (self._tensor(np.stack(x))[:, None] for x in zip(*out, strict=True))
        curve = self._tensor(np.exp(self._rng.normal(0, 0.35, (n, 1, 1, 1, 1))))
        return image.clamp(0, 1.5) ** curve, brain


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


class MaskTask:
    """A :class:`~posepipe.models.masks.MaskNet` on scans from ``training``; ``validation`` is a fixed list of scans.

    Loss: cross-entropy of each voxel, and one minus the soft Dice overlap of each scan.
    """

    def __init__(self, network: nn.Module, training: MaskSynthesis, validation: list[Scan], *, bf16: bool = True) -> None:
        self.network: nn.Module = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._training, self._validation, self._bf16 = training, validation, bf16

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`; both stages are alike."""
        scan, seconds = self._training.timed_scan(n)
        logits = self._forward(self.network, scan)
        entropy = F.binary_cross_entropy_with_logits(logits, scan.brain)
        overlap = dice(torch.sigmoid(logits), scan.brain)
        figures = {"entropy": float(entropy.detach()), "dice": float(overlap.detach().mean()), "seconds": seconds}
        return entropy + (1 - overlap).mean(), figures

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Mean and 10th percentile of the Dice overlap over scans that show at least some brain, and the share of empty ones in which
        brain is seen."""
        overlaps, alarms = [], []
        for scan in self._validation:
            found = (self._forward(network, scan) > 0).float()
            some = scan.brain.flatten(1).sum(1) > 50
            overlaps.append(dice(found, (scan.brain > 0.5).float())[some])
            alarms.append((found.flatten(1).sum(1) > 50)[~some])
        overlap, alarm = torch.cat(overlaps), torch.cat(alarms).float()
        figures = {"dice": float(overlap.mean()), "dice10": float(overlap.quantile(0.1))}
        return figures | ({"alarms": float(alarm.mean())} if len(alarm) else {})

    def state(self) -> dict[str, Any]:
        """See :class:`~posepipe.training.engine.Task`."""
        return self._training.state()

    def restore(self, state: dict[str, Any]) -> None:
        """See :class:`~posepipe.training.engine.Task`."""
        self._training.restore(state)

    def _forward(self, network: nn.Module, scan: Scan) -> Tensor:
        x = scan.image.contiguous(memory_format=torch.channels_last_3d)
        with autocast(x.device, wanted=self._bf16):
            logits: Tensor = network(x)
        return logits


def dice(a: Tensor, b: Tensor) -> Tensor:
    """Overlap (B,) of ``a`` and ``b`` (B, 1, S, S, S) in [0, 1]; 1 where both are all but empty.

    >>> one = torch.ones(1, 1, 4, 4, 4)
    >>> dice(one, one), dice(one, 0 * one).round(decimals=2)
    (tensor([1.]), tensor([0.0200]))
    """
    a, b = a.flatten(1), b.flatten(1)
    return (2 * (a * b).sum(1) + 1) / (a.sum(1) + b.sum(1) + 1)
