"""Network inputs: standardised intensities and mask for all networks; one channel with a foreground offset for the paper's networks."""

from __future__ import annotations

import torch
from torch import Tensor

FOREGROUND_OFFSET = 2.5
"""Constant added to the standardised intensities inside the mask, in standard deviations. Outside is 0, so most brain voxels become
brighter than the background and the outline of the mask is visible in one channel, for the networks and in registration."""

SIZES = ("mask", "age")
"""What sets the side of the cube of the paper's networks: the radius of the brain mask, or that of the atlas template of the same age."""


def known_sizes(sizes: str) -> str:
    """``sizes``, if it is one of :data:`SIZES`; else raises :class:`ValueError`."""
    if sizes not in SIZES:
        msg = f"sizes must be one of {', '.join(SIZES)}, not {sizes!r}"
        raise ValueError(msg)
    return sizes


def with_foreground_offset(cube: Tensor, foreground_offset: float = FOREGROUND_OFFSET) -> Tensor:
    """One channel (B, 1, S, S, S) for :class:`~posepipe.models.posenet.PoseNet` and
    :class:`~posepipe.models.correction.CorrectionNet`: ``intensity + foreground_offset · mask``.

    ``cube`` (B, 2, S, S, S) holds intensities standardised inside the mask (0 outside), and the mask in [0, 1]. Of slices
    (B, 2, S, S) alike.
    """
    return cube[:, :1] + foreground_offset * cube[:, 1:]


def standardised(image: Tensor, mask: Tensor) -> Tensor:
    """``image`` with mean 0 and standard deviation 1 inside ``mask``, 0 outside, and ``mask`` as second channel (B, 2, S, S, S).

    Both are (B, 1, S, S, S), of slices (B, 1, S, S); ``mask`` in [0, 1].
    """
    axes = tuple(range(2, image.ndim))
    total = mask.sum(axes, keepdim=True).clamp_min(1.0)
    mean = (image * mask).sum(axes, keepdim=True) / total
    spread = ((image - mean) ** 2 * mask).sum(axes, keepdim=True) / total
    value = ((image - mean) / spread.clamp_min(1e-6).sqrt()).clamp(-4, 4)
    return torch.cat([value * mask, mask], 1)


def sampled(cube: Tensor) -> Tensor:
    """Network input as of :func:`standardised` from a resampled cube (B, 2, S, S, S): intensities multiplied by the mask, and the mask.

    The intensities are divided by the interpolated mask, so that voxels on its edge keep their brightness.
    """
    mask = cube[:, 1:].clamp(0, 1)
    return standardised(torch.where(mask > 0.05, cube[:, :1] / mask.clamp_min(0.05), torch.zeros_like(mask)), mask)
