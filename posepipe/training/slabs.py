"""Training images for contrast conversion: random planes through brains that were imaged in both contrasts.

Planes have any orientation, so that the trained network can be used on a brain in any orientation.
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

SOURCE_CONTRAST, TARGET_CONTRAST = "T1w", "T2w"


@dataclass(frozen=True)
class SlabRecipe:
    """How slices are sampled and augmented.

    Geometry: ``size`` pixels a side; ``spacing`` (least, most) of pixels and slices in mm; ``shift``, standard deviation in mm of the
    in-plane distance from the brain's centre. Intensities are in [0, 1]: ``gamma``, standard deviation of the logarithm of the gamma;
    ``gain``, standard deviation of a factor about 1; ``bias`` and ``noise``, largest standard deviations of the logarithm of the bias field
    and of the noise. ``rim``: range of the threshold on the interpolated mask.
    """

    size: int = 128
    spacing: tuple[float, float] = (0.8, 1.3)
    shift: float = 6.0
    gamma: float = 0.25
    gain: float = 0.08
    bias: float = 0.25
    noise: float = 0.04
    rim: tuple[float, float] = (0.3, 0.9)

    def plain(self) -> SlabRecipe:
        """The same without intensity augmentation, at 1 mm: for validation."""
        return SlabRecipe(self.size, (1.0, 1.0), self.shift, 0.0, 0.0, 0.0, 0.0, (0.5, 0.5))


@dataclass(frozen=True, eq=False)
class Slab:
    """Three neighbouring slices, all in [0, 1]: ``network_input`` (B, 3, H, W), T1w contrast with augmented intensities; the middle slice
    without augmentation, ``t1w`` and ``t2w`` (B, 1, H, W); and the brain ``mask`` (B, 3, H, W)."""

    network_input: Tensor
    t1w: Tensor
    t2w: Tensor
    mask: Tensor

    @property
    def middle(self) -> Tensor:
        """Mask of the middle slice (B, 1, H, W)."""
        return self.mask[:, 1:2]


class Slabs:
    """Endless, seeded supply of slabs from the brains of ``sources`` that have both a T1w and a T2w volume.

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

    def unpaired(self, n: int) -> tuple[Slab, Slab]:
        """``n`` new slabs, and as many of other brains of the same groups (of the same brain where a group has one only).

        Both are from one data set, so that the T2w slices show the brightness that the T2w contrast of the T1w slices would have.
        """
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
        # normalised interpolation: voxels at the edge of the brain keep their brightness
        images = (both[:, :2] / both[:, 2:].clamp_min(0.3)).clamp(0, 1) * mask[:, None]
        middle = SLICES // 2
        return Slab(self._disturbed(images[:, 0], mask), images[:, 0, middle, None], images[:, 1, middle, None], mask)

    def timed(self, n: int) -> tuple[Slab, float]:
        """``n`` new slabs, and the seconds spent on them."""
        begun = time.perf_counter()
        slab = self.slab(n)
        return slab, time.perf_counter() - begun

    def timed_unpaired(self, n: int) -> tuple[Slab, Slab, float]:
        """Slabs of :meth:`unpaired`, and the seconds spent on them."""
        begun = time.perf_counter()
        one, other = self.unpaired(n)
        return one, other, time.perf_counter() - begun

    def state(self) -> dict[str, Any]:
        """State of the random generators, to resume from."""
        return {"numpy": self._rng.bit_generator.state, "torch": self._generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a state of :meth:`state`."""
        self._rng.bit_generator.state = state["numpy"]
        self._generator.set_state(state["torch"])

    def _cut(self, brain: int) -> Tensor:
        """T1w, T2w and mask (1, 3, 3, H, W) on three neighbouring planes through the brain."""
        r, rng = self.recipe, self._rng
        turn = random_rotations(1, rng)[0] @ np.diag([1.0, 1.0, rng.choice([-1.0, 1.0])])  # mirrored or not
        step = rng.uniform(*r.spacing)
        along = (np.arange(r.size) - (r.size - 1) / 2) * step
        depth = (np.arange(SLICES) - SLICES // 2) * step
        volume = self._brains[brain]
        radius = self._radii[brain]
        center = rng.normal(0, r.shift, 3)
        # the brain's half extent along the normal is about 1.3 radii; the outermost slices hold little brain
        center[2] = rng.uniform(-1.1, 1.1) * radius
        grid = torch.meshgrid(*(self._tensor(a) for a in (depth + center[2], along + center[1], along + center[0])), indexing="ij")
        at = torch.stack([grid[2], grid[1], grid[0]], -1) @ self._tensor(turn.T / (radius * HALF_SIDE))
        return F.grid_sample(volume[None].float(), at.flip(-1)[None], mode="bilinear", padding_mode="zeros", align_corners=False)

    def _disturbed(self, image: Tensor, mask: Tensor) -> Tensor:
        """``image`` (B, 3, H, W) with a random gamma, gain, bias field and noise."""
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
    for row in sources.pick(part=part, leave_out=leave_out, kinds=(SOURCE_CONTRAST, TARGET_CONTRAST)):
        source = sources.volumes[row]
        rows.setdefault(source.mask, {})[source.kind] = int(row)
    paired = [pair for pair in rows.values() if len(pair) == len((SOURCE_CONTRAST, TARGET_CONTRAST))]
    if not paired:
        msg = f"no brain of the sources has both a {SOURCE_CONTRAST} and a {TARGET_CONTRAST} volume ({part}); gather more subjects"
        raise UsageError(msg)
    brains, radii, groups = [], [], []
    for pair in paired:
        source = sources.volumes[pair[SOURCE_CONTRAST]]
        volumes = [(sources.voxels[pair[kind]].astype(np.float32) - 1).clip(0) / 254 for kind in (SOURCE_CONTRAST, TARGET_CONTRAST)]
        mask = sources.masks[source.mask].astype(np.float32) / 255
        # multiplied by the mask, for normalised interpolation
        stack = np.stack([*(v * mask for v in volumes), mask])
        brains.append(torch.as_tensor(stack, device=device).half() if device.type == "cuda" else torch.as_tensor(stack))
        radii.append(source.radius_mm)
        groups.append(source.group)
    return brains, radii, groups
