"""A grey ellipsoid with one bright blob at a known position."""

from __future__ import annotations

import numpy as np

from posepipe.geometry import Rigid
from posepipe.imaging.volume import Volume

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


def make_scene() -> tuple[Volume, Volume, Volume, Volume]:
    """Image and mask turned by TRUTH, on an LAS-like grid with unequal voxels; template and mask."""
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = [-40, -42, -38]
    data, mask = head(grid((81, 85, 77), affine))
    template, template_mask = Volume(data, affine), Volume(mask, affine)
    affine = np.array([[-1.3, 0, 0, 100], [0, 1.1, 0, -75], [0, 0, 1.6, -45], [0, 0, 0, 1]], float)
    data, mask = head((~TRUTH).apply(grid((105, 100, 75), affine)))
    return Volume(data, affine), Volume(mask, affine), template, template_mask
