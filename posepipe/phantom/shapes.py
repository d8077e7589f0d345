"""Implicit solids for the phantom: approximate signed distances in millimetres, negative inside.

Coordinates are three float32 arrays that broadcast against one another, so that whatever depends on two axes only is
computed on two.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[Any]
Number = float | Field
Place = tuple[Number, Number, Number]
GOLDEN = (1 + 5**0.5) / 2


@dataclass(frozen=True)
class Points:
    """World coordinates in mm as broadcastable float32 arrays: +x right, +y anterior, +z superior."""

    x: Field
    y: Field
    z: Field


def within(p: Points, low: Place, high: Place) -> tuple[Points, tuple[slice, slice, slice]]:
    """The part of the grid inside a box (corners in mm), and its slices in the whole grid."""
    cuts = []
    for axis, (c, a, b) in enumerate(zip((p.x, p.y, p.z), low, high, strict=True)):
        others = tuple(i for i in range(3) if i != axis)
        hit = np.flatnonzero(((c >= a) & (c <= b)).any(axis=others))
        cuts.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0))
    parts = [c[tuple(s if n > 1 else slice(None) for s, n in zip(cuts, c.shape, strict=True))] for c in (p.x, p.y, p.z)]
    return Points(*parts), (cuts[0], cuts[1], cuts[2])


def ellipsoid(p: Points, centre: Place, radii: Place) -> Field:
    """Ellipsoid with its axes along the world's: exact at the surface to first order."""
    terms = [(c - m) / r for c, m, r in zip((p.x, p.y, p.z), centre, radii, strict=True)]
    inner = [(c - m) / (r * r) for c, m, r in zip((p.x, p.y, p.z), centre, radii, strict=True)]
    k0 = np.sqrt(_sum_of_squares(*terms))
    k1 = np.sqrt(_sum_of_squares(*inner))
    k1 += 1e-4
    return k0 * (k0 - 1) / k1


def capsule(p: Points, a: Place, b: Place, ra: Number, rb: Number) -> Field:
    """Capsule from ``a`` to ``b`` with the radius changing from ``ra`` to ``rb``."""
    along = [q - s for q, s in zip(b, a, strict=True)]
    length = along[0] * along[0] + along[1] * along[1] + along[2] * along[2]
    d = [c - s for c, s in zip((p.x, p.y, p.z), a, strict=True)]
    h = (d[0] * along[0] + d[1] * along[1]) / length + d[2] * (along[2] / length)
    h = np.clip(h, 0, 1)
    square = _sum_of_squares(*[e - h * f for e, f in zip(d, along, strict=True)])
    return np.sqrt(square) - (ra + h * (rb - ra))


def tube(p: Points, nodes: list[tuple[Place, Number]]) -> Field:
    """Chain of capsules through ``nodes``, each a position and a radius."""
    pieces = [capsule(p, a, b, ra, rb) for (a, ra), (b, rb) in pairwise(nodes)]
    out = pieces[0]
    for piece in pieces[1:]:
        out = np.minimum(out, piece)
    return out


def smooth_union(a: Field, b: Field, k: float) -> Field:
    """Union whose seam is rounded over ``k`` mm."""
    h = np.maximum(k - np.abs(a - b), 0)
    return np.minimum(a, b) - h * h * (0.25 / k)


def smooth_cut(a: Field, b: Field, k: float) -> Field:
    """``a`` without ``b``, the edge rounded over ``k`` mm."""
    return -smooth_union(-a, b, k)


def stripes(p: Points, wavelength: float, n: int, shift: float) -> tuple[Field, Field]:
    """Distance in mm to the nearest of the winding sheets on which a sum of ``n`` oriented waves is zero.

    The waves have one ``wavelength`` (mm); their directions are a Fibonacci lattice on the sphere and their phases a
    golden-ratio sequence begun at ``shift``, so that the same arguments give the same sheets. Dividing by the local
    amplitude keeps the sheets apart by about half a wavelength, like gyri. Second comes their strength, 0 to 1, low
    where the waves cancel and sheets would cross. ``p`` must be three one-dimensional axes.
    """
    i = np.arange(n)
    up = 1 - (2 * i + 1) / n
    around = 2 * np.pi * i / GOLDEN + shift
    flat = np.sqrt(1 - up * up)
    k = 2 * np.pi / wavelength
    phase = 2 * np.pi * ((i * GOLDEN * GOLDEN + shift) % 1)
    waves = [
        np.exp(1j * (k * axis.ravel()[None] * direction[:, None])).astype(np.complex64)
        for axis, direction in ((p.x, flat * np.cos(around)), (p.y, flat * np.sin(around)), (p.z, up))
    ]
    waves[0] = waves[0] * np.exp(1j * phase)[:, None].astype(np.complex64)
    plane = waves[0][:, :, None] * waves[1][:, None, :]
    total = (plane.reshape(n, -1).T @ waves[2]).reshape((*plane.shape[1:], -1))
    amplitude = np.abs(total)
    strength = np.minimum(amplitude * (1.5 / n**0.5), 1)
    return np.abs(total.real) / (amplitude + 0.05) * np.float32(1.6 / k), strength * strength


def sheet(p: Points, normal: Place, centre: Place, radius: float) -> tuple[Field, Field]:
    """A wavy disc: distance in mm to it, unsigned, and how near its middle a point is (1 there, 0 at the rim)."""
    n = np.array(normal) / np.linalg.norm(np.array(normal))
    along = np.cross(n, np.array([1.0, 1.0, 1.0]) / 3**0.5)
    d = [c - m for c, m in zip((p.x, p.y, p.z), centre, strict=True)]
    across, far = ((d[0] * float(v[0]) + d[1] * float(v[1])) + d[2] * float(v[2]) for v in (n, along))
    apart = np.abs(across + 1.2 * np.sin(far * np.float32(0.5)))
    return apart, 1 - _sum_of_squares(*d) / (radius * radius)


def _sum_of_squares(x: Number, y: Number, z: Number) -> Field:
    return np.asarray((x * x + y * y) + z * z, dtype=np.float32)
