"""Sampling rotations: uniform at random, by angle, and as an even, deterministic grid."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from . import so3
from .so3 import Array


def arvo(u: Array) -> Array:
    """Uniform rotations (..., 3, 3) from three uniforms in [0, 1) each, ``u`` (..., 3).

    A random rotation about z, then a Householder reflection that takes z to a random point of the sphere
    (Arvo, *Fast random rotation matrices*, Graphics Gems III, 1992).

    >>> bool(np.isclose(np.linalg.det(arvo(np.array([.1, .2, .3]))), 1))
    True
    """
    u = np.asarray(u, dtype=float)
    spin, around, lift = 2 * np.pi * u[..., 0], 2 * np.pi * u[..., 1], u[..., 2]
    c, s, zero, one = np.cos(spin), np.sin(spin), np.zeros_like(spin), np.ones_like(spin)
    turn = np.stack(
        [np.stack([c, s, zero], -1), np.stack([-s, c, zero], -1), np.stack([zero, zero, one], -1)], -2
    )
    v = np.stack([np.cos(around) * np.sqrt(lift), np.sin(around) * np.sqrt(lift), np.sqrt(1 - lift)], -1)
    return (2 * v[..., :, None] * v[..., None, :] - np.eye(3)) @ turn


def random_rotations(n: int, rng: np.random.Generator) -> Array:
    """``n`` independent uniform rotations (n, 3, 3).

    >>> random_rotations(5, np.random.default_rng(0)).shape
    (5, 3, 3)
    """
    return arvo(rng.random((n, 3)))


def rotations_in_bin(n: int, low: float, high: float, rng: np.random.Generator) -> Array:
    """``n`` uniform rotations (n, 3, 3), given that the angle lies in ``[low, high]`` degrees.

    The axis is uniform on the sphere; the angle has density ∝ 1 − cos θ on the interval (the Haar measure).
    """
    if not 0 <= low < high <= 180:
        msg = f"angles must satisfy 0 <= low < high <= 180 degrees, not {low} and {high}"
        raise ValueError(msg)
    fine = np.deg2rad(np.linspace(low, high, 4097))
    cdf = fine - np.sin(fine)
    theta = np.interp(rng.uniform(cdf[0], cdf[-1], n), cdf, fine)
    axis = rng.normal(size=(n, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    return so3.exp(axis * theta[:, None])


def super_fibonacci(n: int) -> Array:
    """An even grid of ``n`` rotations (n, 3, 3): the super-Fibonacci spiral on the quaternion sphere.

    Deterministic, any ``n``, discrepancy near the best known (Alexa, *Super-Fibonacci Spirals*, CVPR 2022). How fine it
    is: :func:`grid_radius`.

    >>> super_fibonacci(100).shape
    (100, 3, 3)
    """
    if n < 1:
        msg = f"a grid needs at least one rotation, not {n}"
        raise ValueError(msg)
    phi, psi = np.sqrt(2.0), 1.533751168755204288118041
    s = np.arange(n) + 0.5
    r, big = np.sqrt(s / n), np.sqrt(1 - s / n)
    alpha, beta = 2 * np.pi * s / phi, 2 * np.pi * s / psi
    q = np.stack([r * np.sin(alpha), r * np.cos(alpha), big * np.sin(beta), big * np.cos(beta)], -1)
    return so3.from_quaternion(q)


def grid_radius(n: int) -> float:
    """Angle in radians of the ball with 1/n of the volume of SO(3): about the distance of any rotation from an ``n``-point grid.

    >>> round(float(np.degrees(grid_radius(4608))), 1)
    9.2
    """
    # the ball of angle r holds (r − sin r)/π ≈ r³/6π of all rotations
    return float((6 * np.pi / n) ** (1 / 3))


def axis_rotations() -> Array:
    """The 24 rotations that permute and flip the axes, (24, 3, 3), identity first.

    >>> len(axis_rotations())
    24
    """
    out = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            m = np.zeros((3, 3))
            m[range(3), order] = signs
            if np.linalg.det(m) > 0:
                out.append(m)
    return np.stack(out)
