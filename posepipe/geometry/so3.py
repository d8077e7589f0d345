"""Rotations of space: rotation vectors, matrices and the distance between them (numpy).

A *rotation vector* ``x`` is axis times angle, ``x = θ u`` with ``θ = ‖x‖`` in radians; rotation
matrices act on column vectors, ``y = R @ x``. The torch versions with gradients are in
:mod:`posepipe.geometry.so3_torch`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def hat(x: npt.ArrayLike) -> Array:
    """Skew-symmetric matrix ``[x]×`` of vectors ``x`` (..., 3) → (..., 3, 3).

    >>> hat([1., 2., 3.]) @ np.array([1., 2., 3.])
    array([0., 0., 0.])
    """
    x = np.asarray(x, dtype=float)
    out = np.zeros((*x.shape[:-1], 3, 3))
    out[..., 0, 1], out[..., 0, 2] = -x[..., 2], x[..., 1]
    out[..., 1, 0], out[..., 1, 2] = x[..., 2], -x[..., 0]
    out[..., 2, 0], out[..., 2, 1] = -x[..., 1], x[..., 0]
    return out


def exp(x: npt.ArrayLike) -> Array:
    """Rotation matrices (..., 3, 3) of rotation vectors ``x`` (..., 3), radians.

    Rodrigues' formula, ``R = I + (sin θ/θ) [x]× + ((1 − cos θ)/θ²) [x]×²`` (Salehi et al. 2018, eq. 3),
    with ``sinc`` forms that are exact at θ = 0.

    >>> np.round(exp([0, 0, np.pi / 2]), 12) @ [1, 0, 0]
    array([0., 1., 0.])
    """
    x = np.asarray(x, dtype=float)
    theta = np.linalg.norm(x, axis=-1)[..., None, None]
    k = hat(x)
    a = np.sinc(theta / np.pi)
    b = 0.5 * np.sinc(theta / (2 * np.pi)) ** 2
    return np.eye(3) + a * k + b * (k @ k)


def log(r: npt.ArrayLike) -> Array:
    """Rotation vectors (..., 3), angle in [0, π], of rotation matrices ``r`` (..., 3, 3).

    Computed from the unit quaternion by its largest component (Shepperd 1978), so that it is exact to rounding both at 0 and at π.

    >>> np.round(log(exp([0.1, -0.2, 0.3])), 12)
    array([ 0.1, -0.2,  0.3])
    """
    q = to_quaternion(r)
    q = np.where(q[..., :1] < 0, -q, q)
    norm = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    theta = 2 * np.arctan2(norm, q[..., :1])
    scale = np.where(norm > 1e-8, theta / np.where(norm > 1e-8, norm, 1.0), 2.0)
    return scale * q[..., 1:]


def to_quaternion(r: npt.ArrayLike) -> Array:
    """Unit quaternions ``(w, x, y, z)`` (..., 4) of rotation matrices ``r`` (..., 3, 3); the sign is arbitrary."""
    r = np.asarray(r, dtype=float)
    t = np.trace(r, axis1=-2, axis2=-1)
    d = np.diagonal(r, axis1=-2, axis2=-1)
    v = np.stack([r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], -1)
    s = r + np.swapaxes(r, -1, -2)
    k = np.empty((*r.shape[:-2], 4, 4))  # each row is 4 q_i q, the quaternion times its own component
    k[..., 0, 0] = 1 + t
    k[..., 0, 1:] = k[..., 1:, 0] = v
    k[..., 1:, 1:] = s
    for i in range(3):
        k[..., 1 + i, 1 + i] = 1 + 2 * d[..., i] - t
    best = np.argmax(np.diagonal(k, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(k, best[..., None, None], axis=-2)[..., 0, :]
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def from_quaternion(q: npt.ArrayLike) -> Array:
    """Rotation matrices (..., 3, 3) of quaternions ``(w, x, y, z)`` (..., 4) of any length but zero.

    >>> from_quaternion([0., 0., 0., 2.])
    array([[-1.,  0.,  0.],
           [ 0., -1.,  0.],
           [ 0.,  0.,  1.]])
    """
    unit: Array = np.asarray(q, dtype=float)
    unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
    w, v = unit[..., 0, None, None], unit[..., 1:]
    k = hat(v)
    return np.eye(3) + 2 * w * k + 2 * (k @ k)


def geodesic_distance(r1: npt.ArrayLike, r2: npt.ArrayLike) -> Array:
    """Angle in radians, [0, π], of the rotation between ``r1`` and ``r2`` (..., 3, 3); they broadcast.

    ``θ = ‖log(R₁ᵀ R₂)‖_F / √2`` (Salehi et al. 2018, eq. 7), by atan2 of the parts of the relative quaternion, which
    keeps full precision at 0 and at π, where arccos loses half the digits.

    >>> float(geodesic_distance(np.eye(3), exp([0, 0, 0.5])).round(12))
    0.5
    """
    r1, r2 = np.asarray(r1, dtype=float), np.asarray(r2, dtype=float)
    q = to_quaternion(np.swapaxes(r1, -1, -2) @ r2)
    return 2 * np.arctan2(np.linalg.norm(q[..., 1:], axis=-1), np.abs(q[..., 0]))


def project(m: npt.ArrayLike) -> Array:
    """Nearest rotation matrices (det +1) to matrices ``m`` (..., 3, 3), in the Frobenius norm (Kabsch 1976).

    >>> project(np.diag([2., 3., -1.])).round(12)
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]])
    """
    u, _, vt = np.linalg.svd(np.asarray(m, dtype=float))
    sign = np.ones(u.shape[:-1])
    sign[..., 2] = np.sign(np.linalg.det(u @ vt))
    return (u * sign[..., None, :]) @ vt
