"""Differentiable weighted Procrustes (Umeyama 1991): rotation, translation and scale between two sets of matched points."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Similarity(NamedTuple):
    """``y ≈ scale · rotation · x + translation``: (B, 3, 3), (B, 3), (B,). ``residual`` (B,) is the weighted root mean square misfit."""

    rotation: Tensor
    translation: Tensor
    scale: Tensor
    residual: Tensor


def procrustes(x: Tensor, y: Tensor, weight: Tensor, *, scale: float | None = None) -> Similarity:
    """The similarity that takes points ``x`` (B, N, 3) to ``y`` (B, N, 3), each pair counted by ``weight`` (B, N) ≥ 0.

    Solved in float64 by singular value decomposition; the determinant of the rotation is always +1. Gradients are finite unless the
    points of a set are on one line; points in one plane suffice. A given ``scale`` is used as it is, and not estimated.

    >>> x = torch.randn(1, 50, 3)
    >>> turn = torch.tensor([[[0., -1, 0], [1, 0, 0], [0, 0, 1]]])
    >>> found = procrustes(x, 2 * x @ turn.mT + 1, torch.ones(1, 50))
    >>> bool(torch.allclose(found.rotation, turn, atol=1e-5)), round(float(found.scale), 4)
    (True, 2.0)
    """
    kind = x.dtype
    x, y, weight = x.double(), y.double(), weight.double()
    share = (weight / weight.sum(1, keepdim=True).clamp_min(1e-12))[..., None]
    mean_x, mean_y = (share * x).sum(1), (share * y).sum(1)
    dx, dy = x - mean_x[:, None], y - mean_y[:, None]
    covariance = dy.mT @ (share * dx)
    spread = (share * dx * dx).sum((1, 2)).clamp_min(1e-12)
    rotation = _Rotation.apply(covariance)
    size = (rotation.detach() * covariance).sum((1, 2)) / spread if scale is None else torch.full_like(spread, scale)
    translation = mean_y - size[:, None] * (rotation @ mean_x[..., None])[..., 0]
    misfit = dy - size[:, None, None] * dx @ rotation.mT
    residual = (share * misfit * misfit).sum((1, 2)).clamp_min(1e-18).sqrt()
    return Similarity(rotation.to(kind), translation.to(kind), size.to(kind), residual.to(kind))


class _Rotation(torch.autograd.Function):
    """The rotation R nearest to m, which maximises tr(Rᵀ m); the gradient is bounded where singular values coincide."""

    @staticmethod
    def forward(ctx: Any, m: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(m)
        sign = torch.det(u @ vh).sign()
        flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
        rotation = (u * flip[..., None, :]) @ vh
        ctx.save_for_backward(rotation, s * flip, vh)
        return rotation

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        # m = R P with P = V S Vᵀ: a change of m turns R by the skew part of Rᵀ dm, divided by s_i + s_j in the basis V
        rotation, s, vh = ctx.saved_tensors
        apart = (s[..., :, None] + s[..., None, :]).clamp_min(1e-4)
        inside = vh.mT @ ((vh @ (rotation.mT @ grad[0]) @ vh.mT) / apart) @ vh
        return rotation @ (inside - inside.mT)
