"""Poses and planes of heads that move, for the tests of tracking."""

from __future__ import annotations

import numpy as np

from posepipe.geometry import Rigid, random_rotations, so3
from posepipe.geometry.so3 import Array
from posepipe.slices.acquisition import interleaved
from posepipe.slices.frames import SliceGrid


def off(pose: Rigid, center: Array, degrees: float, mm: float, rng: np.random.Generator) -> Rigid:
    """``pose`` turned by ``degrees`` about the brain's centre, which is moved by ``mm``."""
    axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    at = pose.apply(center)
    return Rigid.about(so3.exp(axis * np.radians(degrees)), at, at + mm * way) @ pose


def planes_of_stack(center: Array, rng: np.random.Generator, n: int = 24) -> list[SliceGrid]:
    """Parallel slices 3.3 mm apart, of any orientation, in order of acquisition (two interleaves)."""
    axes, out = random_rotations(1, rng)[0], []
    for k in interleaved(n):
        affine = np.eye(4)
        affine[:3, :3] = axes * [1.2, 1.2, 3.3]
        affine[:3, 3] = center + axes @ [-57.0, -57.0, 3.3 * (k - n / 2)]
        out.append(SliceGrid((96, 96), affine, 3.0))
    return out
