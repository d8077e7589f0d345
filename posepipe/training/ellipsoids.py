"""Ellipsoids on the grid of a batch of crops."""

from __future__ import annotations

import torch
from torch import Tensor


class Ellipsoids:
    """Ellipsoids at points ``where`` (B, 3, S, S, S), all by one product: (x − p)²/a² is linear in x² and x."""

    def __init__(self, where: Tensor) -> None:
        self._shape = (len(where), -1, *where.shape[2:])
        x = where.reshape(len(where), 3, -1)
        self._terms = torch.cat([x.square(), x, x[:, :1].abs(), torch.ones_like(x[:, :1])], 1)

    def depth(self, center: Tensor, axes: Tensor, *, paired: bool = False) -> Tensor:
        """(B, K, S, S, S): squared distance from ``center`` (B, K, 3) in halves of ``axes`` (alike), below 1 inside; ``paired``: on both
        sides of the midplane."""
        inverse = axes**-2
        linear = -2 * center * inverse
        side, both = linear[..., :1], torch.zeros_like(linear[..., :1])
        if paired:
            side, both = both, side
        constant = (center.square() * inverse).sum(-1, keepdim=True)
        return (torch.cat([inverse, side, linear[..., 1:], both, constant], -1) @ self._terms).reshape(self._shape)
