"""What the networks look at: one form of input for all, and what the paper's networks make of it."""

from __future__ import annotations

from torch import Tensor

PEDESTAL = 2.5
"""Added inside the mask, in standard deviations: most of the brain then stands out from the empty outside."""


def outlined(cube: Tensor) -> Tensor:
    """One channel (B, 1, S, S, S) for :class:`~posepipe.models.posenet.PoseNet` and
    :class:`~posepipe.models.correction.CorrectionNet`: 0 outside, brighter inside, so that the outline shows.

    ``cube`` (B, 2, S, S, S) holds intensities standardised inside the mask (0 outside), and the mask.
    """
    return cube[:, :1] + PEDESTAL * cube[:, 1:]
