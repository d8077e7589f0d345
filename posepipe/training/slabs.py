"""Slices to learn a contrast from: random planes through brains that were imaged in both contrasts.

Planes lie in any orientation, since heads do: what is learnt holds for a brain however it is turned.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from ..geometry.sampling import random_rotations
from ..models.contrast import SLICES
from ..models.coordinates import HALF_SIDE
from .sources import Sources

FROM, INTO = "T1w", "T2w"


@dataclass(frozen=True)
class SlabRecipe:
    """How slices are made: ``size`` pixels a side and ``spacing`` (least, most) mm apart, ``shift`` mm of standard deviation off the
    brain's middle. The brightness curve is a gamma whose logarithm has the standard deviation ``gamma``, ``gain`` is that of a factor;
    ``bias`` and ``noise`` are the largest of their kind, ``rim`` the range of the share of brain that a voxel must hold to be seen."""

    size: int = 128
    spacing: tuple[float, float] = (0.8, 1.3)
    shift: float = 6.0
    gamma: float = 0.25
    gain: float = 0.08
    bias: float = 0.25
    noise: float = 0.04
    rim: tuple[float, float] = (0.3, 0.9)

    def plain(self) -> SlabRecipe:
        """The same without disturbance: to validate with."""
        return SlabRecipe(self.size, (1.0, 1.0), self.shift, 0.0, 0.0, 0.0, 0.0, (0.5, 0.5))


@dataclass(frozen=True, eq=False)
class Slab:
    """Neighbouring slices ``start`` (B, 3, H, W) in T1w contrast, as a scanner may have seen them; the middle one in both contrasts,
    undisturbed, ``first`` and ``second`` (B, 1, H, W); and where the brain is, ``mask`` (B, 3, H, W). All in [0, 1]."""

    start: Tensor
    first: Tensor
    second: Tensor
    mask: Tensor

    @property
    def middle(self) -> Tensor:
        """Mask of the middle slice (B, 1, H, W)."""
        return self.mask[:, 1:2]


class Slabs:
    """Endless slabs from the brains of ``sources`` that have a T1w and a T2w picture each.

    Raises :class:`~posepipe.errors.UsageError` if no brain of ``part`` has both.
    """

    def __init__(
        self,
        sources: Sources,
        recipe: SlabRecipe,
        *,
        part: str = "train",
        leave_out: tuple[str, ...] = (),
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.recipe, self._device = recipe, torch.device(device)
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator(self._device).manual_seed(seed)
        self._brains, self._radii, self._groups = _brains(sources, part, leave_out, self._device)

    def __len__(self) -> int:
        return len(self._brains)

    def slab(self, n: int) -> Slab:
        """``n`` new slabs."""
        return self._slab(self._rng.integers(len(self._brains), size=n))

    def apart(self, n: int) -> tuple[Slab, Slab]:
        """``n`` new slabs, and as many of other brains of the same groups, where a group has more than one: brains of one data set look
        alike, and without pairs nothing else tells how bright the other contrast is."""
        one = self._rng.integers(len(self._brains), size=n)
        return self._slab(one), self._slab([self._other(int(i)) for i in one])

    def _other(self, brain: int) -> int:
        like = [i for i, group in enumerate(self._groups) if group == self._groups[brain] and i != brain]
        return int(self._rng.choice(like)) if like else brain

    def _slab(self, brains: Sequence[int] | np.ndarray) -> Slab:
        n = len(brains)
        both = torch.cat([self._cut(int(i)) for i in brains])
        low, high = self.recipe.rim
        mask = (both[:, 2] > self._uniform(n, low, high)).float()
        # brain and emptiness were averaged alike: the quotient keeps its brightness up to the rim
        images = (both[:, :2] / both[:, 2:].clamp_min(0.3)).clamp(0, 1) * mask[:, None]
        middle = SLICES // 2
        return Slab(self._disturbed(images[:, 0], mask), images[:, 0, middle, None], images[:, 1, middle, None], mask)

    def timed(self, n: int) -> tuple[Slab, float]:
        """``n`` new slabs, and the seconds it took to make them."""
        begun = time.perf_counter()
        slab = self.slab(n)
        return slab, time.perf_counter() - begun

    def timed_apart(self, n: int) -> tuple[Slab, Slab, float]:
        """Slabs of :meth:`apart`, and the seconds it took to make them."""
        begun = time.perf_counter()
        one, other = self.apart(n)
        return one, other, time.perf_counter() - begun

    def state(self) -> dict[str, Any]:
        """State of the random generators, to go on from."""
        return {"numpy": self._rng.bit_generator.state, "torch": self._generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Back to a state of :meth:`state`."""
        self._rng.bit_generator.state = state["numpy"]
        self._generator.set_state(state["torch"])

    def _cut(self, brain: int) -> Tensor:
        """Both contrasts and the mask (1, 3, 3, H, W) on three neighbouring planes, their middle within the brain."""
        r, rng = self.recipe, self._rng
        turn = random_rotations(1, rng)[0] @ np.diag([1.0, 1.0, rng.choice([-1.0, 1.0])])  # mirrored or not
        step = rng.uniform(*r.spacing)
        along = (np.arange(r.size) - (r.size - 1) / 2) * step
        depth = (np.arange(SLICES) - SLICES // 2) * step
        volume = self._brains[brain]
        radius = self._radii[brain]
        center = rng.normal(0, r.shift, 3)
        # the brain's half extent along the normal is about 1.3 radii, and its ends show little
        center[2] = rng.uniform(-1.1, 1.1) * radius
        grid = torch.meshgrid(*(self._tensor(a) for a in (depth + center[2], along + center[1], along + center[0])), indexing="ij")
        at = torch.stack([grid[2], grid[1], grid[0]], -1) @ self._tensor(turn.T / (radius * HALF_SIDE))
        return F.grid_sample(volume[None].float(), at.flip(-1)[None], mode="bilinear", padding_mode="zeros", align_corners=False)

    def _disturbed(self, image: Tensor, mask: Tensor) -> Tensor:
        """``image`` (B, 3, H, W) with another brightness curve, gain, bias field and noise."""
        r, n, size = self.recipe, len(image), self.recipe.size
        gamma = (r.gamma * self._normal(n, 1, 1, 1)).exp()
        gain = 1 + r.gain * self._normal(n, 1, 1, 1)
        field = F.interpolate(self._normal(n, 1, 4, 4), (size, size), mode="bilinear", align_corners=True)
        bias = (self._uniform(n, 0, r.bias) * field).exp()
        noise = self._uniform(n, 0, r.noise) * self._normal(*image.shape)
        return ((image.clamp_min(1e-4) ** gamma * gain * bias + noise) * mask).clamp(0, 1)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, device=self._device)

    def _uniform(self, n: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=self._generator, device=self._device)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(array, dtype=np.float32), device=self._device)


def _brains(sources: Sources, part: str, leave_out: tuple[str, ...], device: torch.device) -> tuple[list[Tensor], list[float], list[str]]:
    """T1w, T2w and mask (3, D, D, D) of each brain that has both, its radius in mm, and its group."""
    rows: dict[int, dict[str, int]] = {}
    for row in sources.pick(part=part, leave_out=leave_out, kinds=(FROM, INTO)):
        picture = sources.pictures[row]
        rows.setdefault(picture.mask, {})[picture.kind] = int(row)
    paired = [pair for pair in rows.values() if len(pair) == len((FROM, INTO))]
    if not paired:
        msg = f"no brain of the sources has both a {FROM} and a {INTO} picture ({part}), from which to learn; gather more subjects"
        raise UsageError(msg)
    brains, radii, groups = [], [], []
    for pair in paired:
        picture = sources.pictures[pair[FROM]]
        volumes = [(sources.voxels[pair[kind]].astype(np.float32) - 1).clip(0) / 254 for kind in (FROM, INTO)]
        mask = sources.masks[picture.mask].astype(np.float32) / 255
        # weighted, so that interpolation does not draw the rim into the dark
        stack = np.stack([*(v * mask for v in volumes), mask])
        brains.append(torch.as_tensor(stack, device=device).half() if device.type == "cuda" else torch.as_tensor(stack))
        radii.append(picture.radius_mm)
        groups.append(picture.group)
    return brains, radii, groups
