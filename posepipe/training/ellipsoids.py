"""Ellipsoids on the grid of a batch of crops."""

from __future__ import annotations

import torch
from torch import Tensor


class Ellipsoids:
    """Evaluates ellipsoids at points ``where`` (B, 3, S, S, S) by one matrix product: (x − p)²/a² is linear in x² and x."""

    def __init__(self, where: Tensor) -> None:
        self._shape = (len(where), -1, *where.shape[2:])
        x = where.reshape(len(where), 3, -1)
        self._terms = torch.cat([x.square(), x, x[:, :1].abs(), torch.ones_like(x[:, :1])], 1)

    def depth(self, center: Tensor, axes: Tensor, *, paired: bool = False) -> Tensor:
        """Σ (x − p)²/a² (B, K, S, S, S) of K ellipsoids with ``center`` p (B, K, 3) and half ``axes`` a (alike); below 1 inside.
        ``paired``: also of the ellipsoid mirrored at the midplane, by using ``|x|`` for x."""
        inverse = axes**-2
        linear = -2 * center * inverse
        side, both = linear[..., :1], torch.zeros_like(linear[..., :1])
        if paired:
            side, both = both, side
        constant = (center.square() * inverse).sum(-1, keepdim=True)
        return (torch.cat([inverse, side, linear[..., 1:], both, constant], -1) @ self._terms).reshape(self._shape)
