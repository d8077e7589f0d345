"""A grey ellipsoid with one bright blob: what is where in it is known."""

from __future__ import annotations

import numpy as np

from posepipe.geometry import Rigid

TRUTH = Rigid.from_rotvec([0.5, -0.4, 1.1], [35.0, -20.0, 12.0])
BLOB = np.array([14.0, 4.0, 3.0])  # in the template's world: right, a little anterior and superior of the centre


def grid(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """World coordinates (X, Y, Z, 3) of the voxel centres."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def head(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A grey ellipsoid with one bright blob at BLOB, and its mask, at template points (..., 3)."""
    mask = ((points / [26.0, 32.0, 24.0]) ** 2).sum(axis=-1) <= 1
    blob = np.exp(-((points - BLOB) ** 2).sum(axis=-1) / (2 * 2.5**2))
    return (100.0 * mask + 400.0 * blob).astype(np.float32), mask
