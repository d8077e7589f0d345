"""Smooth random fields and blur. Both are products with small matrices: on a CPU several times faster than torch's own functions."""

from __future__ import annotations

import torch
from torch import Tensor

from ..imaging.sampling import smooth


def smooth_field(n: int, channels: int, side: int, nodes: int, generator: torch.Generator, *, axes: int = 3) -> Tensor:
    """Standard normal values at ``nodes``³ nodes, interpolated linearly to (n, channels, side, side, side); ``axes`` 2: (…, side, side).

    >>> smooth_field(2, 3, 16, 4, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 16, 16, 16])
    """
    coarse = torch.randn(n, channels, *[nodes] * axes, generator=generator, device=generator.device)
    at = torch.linspace(0, nodes - 1, side, device=generator.device)
    weight = (1 - (at[:, None] - torch.arange(nodes, device=generator.device)).abs()).clamp_min(0)
    if axes == 2:
        return weight @ coarse @ weight.T
    return torch.einsum("ncxyz,ix,jy,kz->ncijk", coarse, weight, weight, weight)


def blurred(x: Tensor, voxels: float) -> Tensor:
    """Gaussian blur of ``x`` (B, 1, S, S, S), or of slices (B, 1, S, S), by ``voxels`` standard deviation."""
    if x.ndim == 4:
        return smooth(x[None, :, 0], (0, voxels, voxels))[0, :, None]
    return smooth(x[:, 0], (voxels,) * 3)[:, None]


def uniform(n: int, low: float, high: float, generator: torch.Generator, *, axes: int = 3) -> Tensor:
    """Uniform random values (n, 1, 1, 1, 1) from ``low`` to ``high``; with ``axes`` 2 (n, 1, 1, 1)."""
    return low + (high - low) * torch.rand(n, 1, *[1] * axes, generator=generator, device=generator.device)


def chance(n: int, probability: float, generator: torch.Generator, *, axes: int = 3) -> Tensor:
    """Random values (n, 1, 1, 1, 1): 1 with ``probability``, else 0; with ``axes`` 2 (n, 1, 1, 1)."""
    return (torch.rand(n, 1, *[1] * axes, generator=generator, device=generator.device) < probability).float()
