"""Where the voxels of an image lie, without the voxels: what formats of transforms that name voxels or volumes need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..geometry.so3 import Array
from .header import check_affine, open_image, right_angled
from .volume import Volume


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid: ``shape`` (voxels along each axis), ``affine`` (4, 4) from voxel indices to RAS mm, ``edges`` (3,) of a voxel in mm as
    the header has them (pixdim), ``source`` (the file, or what else is to be named).

    >>> Grid.of(Volume(np.zeros((4, 5, 6), np.float32), np.diag([2.0, 2.0, 3.0, 1.0]))).edges
    array([2., 2., 3.])
    """

    shape: tuple[int, int, int]
    affine: Array
    edges: Array
    source: str = "array"

    @classmethod
    def load(cls, path: str | Path) -> Grid:
        """Of an image file, as :func:`~posepipe.imaging.volume.load_volume` would place it; its voxels are not read.

        Raises :class:`~posepipe.errors.ImageError` for a file that is no image or has no usable header.
        """
        image = open_image(path)
        check_affine(image.affine, str(path))
        x, y, z = (int(n) for n in image.shape[:3])
        edges = np.abs(np.asarray(image.header.get_zooms()[:3], dtype=float))
        return cls((x, y, z), right_angled(image.affine), edges, str(path))

    @classmethod
    def of(cls, volume: Volume) -> Grid:
        """Of an image in memory."""
        return cls(volume.shape, right_angled(volume.affine), volume.spacing, volume.source)

    @property
    def is_right_handed(self) -> bool:
        """Whether the voxel axes turn as right, anterior, superior do (FSL's "neurological" storage)."""
        return bool(np.linalg.det(self.affine[:3, :3]) > 0)

    @property
    def corners(self) -> Array:
        """The eight corner voxels (8, 3), RAS mm."""
        index = np.array(np.meshgrid(*[[0, n - 1] for n in self.shape])).reshape(3, -1)
        return (self.affine[:3, :3] @ index).T + self.affine[:3, 3]

    def is_at(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Whether both have the same shape, and corner voxels within ``tolerance`` mm."""
        return self.shape == other.shape and bool(np.abs(self.corners - other.corners).max() <= tolerance)

    @property
    def world_to_fsl(self) -> Array:
        """(4, 4) from RAS mm to the coordinates of FSL's flirt: voxel indices times the voxel's edges (mm), x counted from the other end
        where the voxel axes are right-handed, since flirt works on left-handed grids alone."""
        scaled = np.diag([*self.edges, 1.0])
        flip = np.eye(4)
        if self.is_right_handed:
            flip[0, 0], flip[0, 3] = -1.0, (self.shape[0] - 1) * self.edges[0]
        return np.asarray(flip @ scaled @ np.linalg.inv(self.affine))


def grid_from_freesurfer(shape: npt.ArrayLike, edges: npt.ArrayLike, axes: npt.ArrayLike, middle: npt.ArrayLike, source: str) -> Grid:
    """The grid that FreeSurfer's volume geometry describes: ``edges`` (3,) mm, ``axes`` (3, 3) with the direction of each voxel axis in a
    column, ``middle`` (3,) where the voxel with index ``shape / 2`` lies, RAS mm."""
    size, steps = np.asarray(shape, dtype=float), np.asarray(axes, dtype=float) * np.asarray(edges, dtype=float)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, np.asarray(middle, dtype=float) - steps @ size / 2
    x, y, z = (int(n) for n in size)
    return Grid((x, y, z), affine, np.asarray(edges, dtype=float), source)
