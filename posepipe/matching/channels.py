"""The two channels in which brains are compared: outline and texture, at one spacing.

*Outline*: the standardised intensity plus a foreground offset, on a background of 0. The brain's edge then contributes as much as its
inside, which gives a wide capture range. *Texture*: intensities normalised by their local mean and standard deviation, inside the eroded
mask. Texture does not depend on the bias field, the mask's boundary or the extra-axial CSF in the mask; it ranks the hypotheses and
determines the final accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..imaging.sampling import smooth, tensor
from ..models.inputs import FOREGROUND_OFFSET
from .brain import Brain

MARGIN_MM = 14.0
"""Empty border about the brain's box, mm, so that blurred channels end at 0."""
OUTLINE_BLUR_MM = 2.0
"""Blur of the outline at coarse steps, standard deviation in mm."""
TEXTURE_WINDOW_MM = 8.0
"""Window in which texture is standardised, standard deviation in mm (docs/decisions/002)."""
TEXTURE_EROSION_MM = 2.5
"""Erosion of the mask for the texture, mm (docs/decisions/002)."""
BRIGHTEST = 0.998
"""Quantile of the values above 0 at which the last histogram bin begins."""
FINE_EROSION_MM = 2.0
"""Erosion for the last steps: the pose error is then a few degrees, and the cortex near the mask's boundary improves the accuracy
(docs/decisions/008)."""


@dataclass(frozen=True, eq=False)
class Level:
    """One channel of a brain on a grid of ``spacing`` mm: ``value`` and ``weight`` (X, Y, Z), weight in [0, 1].

    ``as_template`` (X, Y, Z) is the weight that is used if this brain is the template. ``center`` (3,) and ``world_to_voxel`` (4, 4) as in
    :class:`~posepipe.matching.brain.Brain`.
    """

    value: Tensor
    weight: Tensor
    as_template: Tensor
    origin: Tensor
    spacing: float
    center: Tensor
    world_to_voxel: Tensor

    @cached_property
    def fields(self) -> Tensor:
        """The fields (5, X, Y, Z) that are sampled from a template: value, template weight, and the gradient of the value per mm."""
        return torch.cat([self.value[None], self.as_template[None], _gradient(self.value) / self.spacing])

    @cached_property
    def top(self) -> float:
        """Value at which the last histogram bin begins (:func:`top`)."""
        return top(self.value)

    @property
    def reach(self) -> float:
        """Half the longest side of the grid, mm."""
        return 0.5 * self.spacing * max(self.value.shape)

    def points(self, at_most: int) -> Points:
        """At most ``at_most`` voxels with weight above 0.05, a random subset with a fixed seed."""
        index = (self.weight > 0.05).nonzero()
        if len(index) > at_most:
            pick = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))[:at_most]
            index = index[pick.sort().values.to(index.device)]
        flat = tuple(index.T)
        where = index.to(torch.float32) * self.spacing + self.origin - self.center
        return Points(where, self.value[flat], self.weight[flat])


@dataclass(frozen=True, eq=False)
class Points:
    """Voxels of a moving image: ``where`` (N, 3) mm from its mask's centre, ``value`` (N,), ``weight`` (N,)."""

    where: Tensor
    value: Tensor
    weight: Tensor


def top(value: Tensor) -> float:
    """The quantile :data:`BRIGHTEST` of the numbers above 0 in ``value`` (any shape), from at most 50,000 of them; 1 if there are none."""
    some = value[value > 0].flatten()
    some = some[:: max(1, len(some) // 50_000)]
    return max(float(torch.quantile(some, BRIGHTEST)) if len(some) else 1.0, 1e-3)


def outline(brain: Brain, step: int = 1) -> Level:
    """Outline channel of ``brain``, every ``step``-th voxel; the weight extends a few mm beyond the mask."""
    image, mask, origin = _padded(brain)
    blur = OUTLINE_BLUR_MM if step > 1 else 0.5
    value = _blur((image + FOREGROUND_OFFSET) * mask, blur, brain)
    weight = ((_blur(mask, 5.0, brain) - 0.10) / 0.10).clamp(0, 1)
    return _level(brain, value, weight, torch.ones_like(weight), origin, step)


def texture(brain: Brain, step: int = 1, erosion_mm: float = TEXTURE_EROSION_MM) -> Level:
    """Texture channel of ``brain``, every ``step``-th voxel; weight is the mask eroded by about ``erosion_mm``."""
    image, mask, origin = _padded(brain, 1)
    # a blurred half-space is Φ(depth/σ): 0.8–0.88 lies about one σ inside the edge
    inner = ((_blur(mask, erosion_mm, brain) - 0.80) / 0.08).clamp(0, 1) * mask
    if float(inner.sum()) < 100:  # the eroded mask is empty for a thin mask
        inner = mask
    window = TEXTURE_WINDOW_MM / brain.spacing
    total, first, second = smooth(torch.stack([inner, image * inner, image * image * inner]), (window,) * 3)
    mean = first / total.clamp_min(1e-2)
    spread = (second / total.clamp_min(1e-2) - mean * mean).clamp_min(0)
    value = torch.where(inner > 0.01, (image - mean) / (spread + 0.05).sqrt(), torch.zeros_like(image))
    blur = 0.5 if step == 1 else 0.42 * brain.spacing * step
    share, value = smooth(torch.stack([inner, value * inner]), (blur / brain.spacing,) * 3)
    value = torch.where(share > 1e-2, value / share.clamp_min(1e-2), torch.zeros_like(value))
    return _level(brain, value, inner, inner, origin, step)


def channel(brain: Brain, value: Tensor) -> Level:
    """A channel from ``value`` (X, Y, Z) on the grid of ``brain``, such as a tissue fraction, with the weight of the outline channel."""
    pad = int(np.ceil(MARGIN_MM / brain.spacing))
    _, mask, origin = _padded(brain)
    weight = ((_blur(mask, 5.0, brain) - 0.10) / 0.10).clamp(0, 1)
    return _level(brain, _blur(F.pad(value, (pad,) * 6), 2.0, brain), weight, torch.ones_like(weight), origin, 1)


def _padded(brain: Brain, pad: int | None = None) -> tuple[Tensor, Tensor, np.ndarray]:
    """Image, mask and origin with ``pad`` empty voxels around them, by default :data:`MARGIN_MM`."""
    pad = int(np.ceil(MARGIN_MM / brain.spacing)) if pad is None else pad
    image, mask = F.pad(brain.image, (pad,) * 6), F.pad(brain.mask, (pad,) * 6)
    return image, mask, brain.origin - pad * brain.spacing


def _blur(x: Tensor, millimetres: float, brain: Brain) -> Tensor:
    return smooth(x[None], (millimetres / brain.spacing,) * 3)[0]


def _level(brain: Brain, value: Tensor, weight: Tensor, as_template: Tensor, origin: np.ndarray, step: int) -> Level:
    if step > 1:
        value, weight, as_template = (x[::step, ::step, ::step].contiguous() for x in (value, weight, as_template))
    spacing = brain.spacing * step
    value = value / ((value**2 * weight).sum() / weight.sum()).sqrt().clamp_min(1e-6)
    to_voxel = np.diag([1 / spacing] * 3 + [1.0])
    to_voxel[:3, 3] = -origin / spacing
    device = value.device
    return Level(
        value, weight, as_template, tensor(origin, device), spacing, tensor(brain.center, device), tensor(to_voxel, device)
    )


def _gradient(value: Tensor) -> Tensor:
    """Central differences (3, X, Y, Z) per voxel, 0 on the faces."""
    out = torch.zeros((3, *value.shape), dtype=value.dtype, device=value.device)
    out[0, 1:-1] = (value[2:] - value[:-2]) / 2
    out[1, :, 1:-1] = (value[:, 2:] - value[:, :-2]) / 2
    out[2, :, :, 1:-1] = (value[:, :, 2:] - value[:, :, :-2]) / 2
    return out
