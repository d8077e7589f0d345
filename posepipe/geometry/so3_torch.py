"""Rotations in torch, batched and with finite gradients everywhere, 0 and π included.

Shapes and frames as in :mod:`posepipe.geometry.so3`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hat(x: Tensor) -> Tensor:
    """Skew-symmetric matrices (..., 3, 3) of vectors ``x`` (..., 3)."""
    zero = torch.zeros_like(x[..., 0])
    rows = [
        torch.stack([zero, -x[..., 2], x[..., 1]], -1),
        torch.stack([x[..., 2], zero, -x[..., 0]], -1),
        torch.stack([-x[..., 1], x[..., 0], zero], -1),
    ]
    return torch.stack(rows, -2)


def exp(x: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of rotation vectors ``x`` (..., 3), radians (Salehi et al. 2018, eq. 3).

    Near θ = 0 the coefficients come from their Taylor series in θ², whose gradient is finite.

    >>> exp(torch.zeros(3)).equal(torch.eye(3))
    True
    """
    t2 = (x * x).sum(-1)[..., None, None]
    small = t2 < 1e-4
    safe = torch.where(small, torch.ones_like(t2), t2)
    theta = safe.sqrt()
    a = torch.where(small, 1 - t2 / 6 + t2 * t2 / 120, theta.sin() / theta)
    b = torch.where(small, 0.5 - t2 / 24 + t2 * t2 / 720, 2 * (theta / 2).sin() ** 2 / safe)
    k = hat(x)
    return torch.eye(3, dtype=x.dtype, device=x.device) + a * k + b * (k @ k)


def log(r: Tensor) -> Tensor:
    """Rotation vectors (..., 3), angle in [0, π], of rotation matrices ``r`` (..., 3, 3).

    Computed from the quaternion row of largest component, which is well away from 0, so that value and gradient
    are finite everywhere (at θ = π the branch, and so the sign, is arbitrary, as it must be).
    """
    d = torch.diagonal(r, dim1=-2, dim2=-1)
    t = d.sum(-1)
    v = torch.stack([r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], -1)
    s = r + r.transpose(-1, -2)
    s = s - torch.diag_embed(torch.diagonal(s, dim1=-2, dim2=-1)) + torch.diag_embed(1 + 2 * d - t[..., None])
    top = torch.cat([(1 + t)[..., None], v], -1)[..., None, :]
    k = torch.cat([top, torch.cat([v[..., None], s], -1)], -2)
    best = torch.diagonal(k, dim1=-2, dim2=-1).argmax(-1)
    q = torch.take_along_dim(k, best[..., None, None], dim=-2)[..., 0, :]
    q = q / q.norm(dim=-1, keepdim=True)
    q = torch.where(q[..., :1] < 0, -q, q)
    n2 = (q[..., 1:] ** 2).sum(-1, keepdim=True)
    small = n2 < 1e-10
    n = torch.where(small, torch.ones_like(n2), n2).sqrt()
    scale = torch.where(small, 2 + n2 / 3, 2 * torch.atan2(n, q[..., :1]) / n)
    return scale * q[..., 1:]


def geodesic_distance(r1: Tensor, r2: Tensor, eps: float = 1e-12) -> Tensor:
    """Angle in radians between rotations ``r1`` and ``r2`` (..., 3, 3) (Salehi et al. 2018, eq. 7).

    ``2 atan2(‖R₁ − R₂‖/2√2, √(1 + tr)/2)`` with both roots padded by ``eps``, so that the gradient is finite at 0 and
    at π; so the distance of equal rotations is ``2 √eps``, not 0.

    >>> r = torch.eye(3, dtype=torch.float64, requires_grad=True)
    >>> geodesic_distance(r, torch.eye(3, dtype=torch.float64)).backward()
    >>> bool(r.grad.isfinite().all())
    True
    """
    d = r1 - r2
    half_sin = ((d * d).sum((-2, -1)) / 8 + eps).sqrt()
    half_cos = (((r1 * r2).sum((-2, -1)) + 1).clamp_min(0) / 4 + eps).sqrt()
    return 2 * torch.atan2(half_sin, half_cos)
