"""Centre, size and principal axes of a mask, in world millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import MaskError
from ..geometry.so3 import Array
from .volume import Volume


@dataclass(frozen=True, eq=False)
class Moments:
    """``center`` (3,) RAS mm; ``covariance`` (3, 3) mm²; ``millilitres`` inside."""

    center: Array
    covariance: Array
    millilitres: float

    @property
    def radius(self) -> float:
        """Radius in mm of the ball with the same mean square distance from its centre, √(5/3 · trace)."""
        return float(np.sqrt(5 / 3 * np.trace(self.covariance)))

    @property
    def axes(self) -> Array:
        """Principal axes as columns (3, 3) of a proper rotation, longest first."""
        _, vectors = np.linalg.eigh(self.covariance)
        vectors = vectors[:, ::-1]
        return vectors * np.array([1.0, 1.0, np.sign(np.linalg.det(vectors))])


def moments(mask: Volume) -> Moments:
    """Moments of the voxels of ``mask`` (bool or weights ≥ 0).

    Summed along the axes of the grid, so that a large mask needs three projections and no list of points.
    Raises :class:`~posepipe.errors.MaskError` for an empty mask.
    """
    w = mask.data.astype(np.float32)
    total = float(w.sum(dtype=np.float64))
    if total <= 0:
        msg = f"{mask.source}: the mask is empty"
        raise MaskError(msg)
    planes = [w.sum(2, dtype=np.float64), w.sum(1, dtype=np.float64), w.sum(0, dtype=np.float64)]  # xy, xz, yz
    index = [np.arange(n, dtype=float) for n in mask.shape]
    mean = np.array([planes[0].sum(1) @ index[0], planes[0].sum(0) @ index[1], planes[1].sum(0) @ index[2]]) / total
    x, y, z = (i - m for i, m in zip(index, mean, strict=True))
    c = np.empty((3, 3))
    c[0, 0], c[1, 1], c[2, 2] = planes[0].sum(1) @ x**2, planes[0].sum(0) @ y**2, planes[1].sum(0) @ z**2
    c[0, 1] = c[1, 0] = x @ planes[0] @ y
    c[0, 2] = c[2, 0] = x @ planes[1] @ z
    c[1, 2] = c[2, 1] = y @ planes[2] @ z
    a = mask.affine[:3, :3]
    # a voxel is a box, whose own second moment is 1/12 of the squared edge
    covariance = a @ (c / total + np.eye(3) / 12) @ a.T
    return Moments(a @ mean + mask.affine[:3, 3], covariance, total * mask.voxel_volume / 1000)
