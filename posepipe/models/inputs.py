"""What the networks look at: one form of input for all, and what the paper's networks make of it."""

from __future__ import annotations

import torch
from torch import Tensor

PEDESTAL = 2.5
"""Added inside the mask, in standard deviations: most of the brain then stands out from the empty outside."""


SIZES = ("mask", "age")
"""What the cubes of the paper's networks are as large as: the mask of the brain, or the atlas of its age."""


def known_sizes(sizes: str) -> str:
    """``sizes``, if it is one of :data:`SIZES`; else raises :class:`ValueError`."""
    if sizes not in SIZES:
        msg = f"sizes must be one of {', '.join(SIZES)}, not {sizes!r}"
        raise ValueError(msg)
    return sizes


def outlined(cube: Tensor, pedestal: float = PEDESTAL) -> Tensor:
    """One channel (B, 1, S, S, S) for :class:`~posepipe.models.posenet.PoseNet` and
    :class:`~posepipe.models.correction.CorrectionNet`: 0 outside, brighter by ``pedestal`` inside, so that the outline shows.

    ``cube`` (B, 2, S, S, S) holds intensities standardised inside the mask (0 outside), and the mask.
    """
    return cube[:, :1] + pedestal * cube[:, 1:]


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
    """The same from a cube (B, 2, S, S, S) of intensities times mask, and mask, as interpolation leaves them."""
    mask = cube[:, 1:].clamp(0, 1)
    return standardised(torch.where(mask > 0.05, cube[:, :1] / mask.clamp_min(0.05), torch.zeros_like(mask)), mask)
