"""Slices of a stack, their frames, and the twin pose: the mirror-ambiguous second pose with the same slice.

**Frames.** World points are RAS mm (docs/reference/outputs.md), and the pose of a slice is the rigid map ``x_image = R x_atlas + t`` from
atlas to image, as for a volume. The *slice frame* has its origin in the middle of the slice's pixel grid and the axes û, v̂ (along the
pixel axes) and n̂ = û × v̂, all in mm; it is right-handed even where the voxel axes of the stack are not, and then n̂ points to lower
slice numbers. A slice's pose in its frame is the map atlas → (u, v, w).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..errors import ImageError
from ..geometry import Rigid, so3
from ..geometry.so3 import Array
from ..imaging.inside import as_inside
from ..imaging.intensity import measured
from ..imaging.volume import Volume

SHEAR = 0.01
"""Cosine between the two pixel axes of a slice above which its pixels count as sheared, not rectangular; a number without unit. Headers
written in single precision stay below 1e-4; 0.01 is 0.6 degrees, where a pixel 60 mm from the middle is 0.6 mm off."""


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """The pixel grid of a slice: ``shape`` (n_u, n_v); ``affine`` (4, 4) from (i, j, 0) to RAS mm; ``thickness`` in mm.

    The third column of ``affine`` is the step to the next slice of the stack, mm. Raises
    :class:`~posepipe.errors.ImageError` for pixels that are not rectangular and a thickness that is not above 0.

    >>> grid = SliceGrid((5, 3), np.diag([2., 2., 4., 1.]), 4.)
    >>> grid.center
    array([4., 2., 0.])
    """

    shape: tuple[int, int]
    affine: Array
    thickness: float

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=float)
        object.__setattr__(self, "affine", affine)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
            msg = "a slice needs a finite (4, 4) affine that is not singular; repair the header"
            raise ImageError(msg)
        if not self.thickness > 0:
            msg = f"a slice is more than 0 mm thick, not {self.thickness:g}"
            raise ImageError(msg)
        u, v = (affine[:3, a] / np.linalg.norm(affine[:3, a]) for a in (0, 1))
        if abs(u @ v) > SHEAR:
            msg = f"the pixels of this slice are sheared (cosine of its axes {u @ v:.3f}); resample the image to a rectangular grid"
            raise ImageError(msg)

    @property
    def spacing(self) -> tuple[float, float]:
        """Pixel edges (u, v), mm."""
        u, v = np.linalg.norm(self.affine[:3, :2], axis=0)
        return float(u), float(v)

    @property
    def center(self) -> Array:
        """Middle of the pixel grid (3,), RAS mm: the origin of the slice frame."""
        return self.affine[:3, :2] @ ((np.array(self.shape) - 1) / 2) + self.affine[:3, 3]

    @property
    def axes(self) -> Array:
        """Columns û, v̂, n̂ (3, 3) in RAS: a proper rotation."""
        u, v = (self.affine[:3, a] / np.linalg.norm(self.affine[:3, a]) for a in (0, 1))
        return so3.project(np.stack([u, v, np.cross(u, v)], -1))

    @property
    def normal(self) -> Array:
        """n̂ (3,), RAS."""
        return self.axes[:, 2]

    @property
    def to_world(self) -> Rigid:
        """Slice frame → RAS, mm."""
        return Rigid(self.axes, self.center)

    @property
    def points(self) -> Array:
        """Pixel centres (n_u, n_v, 3), RAS mm."""
        i, j = np.meshgrid(*[np.arange(n, dtype=float) for n in self.shape], indexing="ij")
        return i[..., None] * self.affine[:3, 0] + j[..., None] * self.affine[:3, 1] + self.affine[:3, 3]

    def pose_in_frame(self, pose: Rigid) -> Rigid:
        """``pose`` (atlas → RAS) as the map atlas → slice frame."""
        return ~self.to_world @ pose

    def pose_in_world(self, pose: Rigid) -> Rigid:
        """``pose`` (atlas → slice frame) as the map atlas → RAS."""
        return self.to_world @ pose

    def moved(self, motion: Rigid) -> SliceGrid:
        """The same grid after ``motion`` (RAS mm → RAS mm), which carries points; a pose becomes ``motion @ pose``."""
        return SliceGrid(self.shape, motion.matrix @ self.affine, self.thickness)

    def corners(self) -> Array:
        """Centres of the four corner pixels (4, 3), RAS mm."""
        return self.points[[0, 0, -1, -1], [0, -1, 0, -1]]


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice: its ``grid``, ``image`` and ``mask`` (n_u, n_v), mask bool, and its number ``index`` (0-based) along the slice axis."""

    grid: SliceGrid
    image: npt.NDArray
    mask: npt.NDArray[np.bool_]
    index: int = 0

    def __post_init__(self) -> None:
        if self.image.shape != self.grid.shape or self.mask.shape != self.grid.shape:
            msg = f"image {self.image.shape} and mask {self.mask.shape} of a slice must have the shape of its grid {self.grid.shape}"
            raise ImageError(msg)

    @property
    def area(self) -> float:
        """Area of the mask, mm²."""
        u, v = self.grid.spacing
        return float(self.mask.sum()) * u * v

    def moved(self, motion: Rigid) -> Slice:
        """The same pixels on :meth:`SliceGrid.moved`."""
        return replace(self, grid=self.grid.moved(motion))

    @cached_property
    def mask_center(self) -> Array:
        """Centre of the mask (3,), RAS mm; of the grid where the mask is empty."""
        return self.grid.points[self.mask].mean(0) if self.mask.any() else self.grid.center


def slice_axis(volume: Volume) -> int:
    """The voxel axis along which ``volume`` is thickest; the last of those that are equal to 1 %.

    >>> slice_axis(Volume(np.zeros((4, 5, 6), np.float32), np.diag([1., 3., 1., 1.])))
    1
    """
    spacing = volume.spacing
    return int(np.flatnonzero(spacing > 0.99 * spacing.max())[-1])


def slices_of(volume: Volume, mask: Volume | None = None, *, axis: int | None = None, thickness: float | None = None) -> list[Slice]:
    """The slices of ``volume`` in order of their number along ``axis`` (default: :func:`slice_axis`).

    ``mask`` is on the same grid; the default is all pixels that are not empty. ``thickness`` in mm (sidecar ``SliceThickness``)
    defaults to the distance between slices. The pixel axes are the two other voxel axes, in cyclic order. Raises
    :class:`~posepipe.errors.ImageError` if the mask is on another grid.
    """
    if mask is not None and not mask.same_grid(volume, tolerance=0.05):
        msg = f"{mask.source}: this mask is not on the grid of {volume.source}; resample it to the image"
        raise ImageError(msg)
    axis = slice_axis(volume) if axis is None else axis
    order = [(axis + 1) % 3, (axis + 2) % 3, axis]
    data = volume.data.transpose(order)
    inside = (measured(volume.data) if mask is None else as_inside(mask).data).transpose(order)
    affine = volume.affine[:, [*order, 3]]
    thick = float(volume.spacing[axis]) if thickness is None else thickness
    out = []
    for k in range(data.shape[2]):
        own = affine.copy()
        own[:, 3] += k * affine[:, 2]
        out.append(Slice(SliceGrid((data.shape[0], data.shape[1]), own, thick), data[:, :, k], inside[:, :, k], k))
    return out


@dataclass(frozen=True, eq=False)
class MidsagittalPlane:
    """The plane about which an atlas's brain is nearly symmetric: unit ``normal`` (3,) and a ``point`` (3,) on it, atlas RAS mm."""

    normal: Array
    point: Array

    @classmethod
    def of(cls, to_canonical: npt.ArrayLike, center: npt.ArrayLike) -> MidsagittalPlane:
        """The plane x = 0 of the canonical frame: ``to_canonical`` (3, 3) is the template's rotation to it, ``center`` (3,) its brain's
        centre, RAS mm."""
        return cls(np.asarray(to_canonical, dtype=float)[0], np.asarray(center, dtype=float))

    def mirrored(self, points: npt.ArrayLike) -> Array:
        """``points`` (..., 3) mirrored in the plane, atlas RAS mm."""
        return _mirrored(np.asarray(points, dtype=float), self.normal, self.point)


def twin_pose(pose: Rigid, grid: SliceGrid, plane: MidsagittalPlane) -> Rigid:
    """The other pose (atlas → image) that gives the same slice if the brain is symmetric about ``plane``.

    It is the reflection in ``plane``, then ``pose``, then the reflection in the slice's plane, which leaves the slice's pixels unchanged.
    Two reflections make a proper rotation. The twin of the twin is ``pose``.
    """
    normal, inside = grid.normal, _householder(plane.normal)
    rotation = _householder(normal) @ pose.rotation @ inside
    # the first reflection leaves the plane's point unchanged
    lands = _mirrored(pose.apply(plane.point), normal, grid.center)
    return Rigid.about(rotation, plane.point, lands)


def twin_degrees(pose: Rigid, grid: SliceGrid, plane: MidsagittalPlane) -> float:
    """Angle between a pose and its twin, degrees in [0, 180]: twice that between the slice's normal and the brain's left–right axis, ±."""
    angle = 2 * np.arccos(np.clip(abs(grid.normal @ (pose.rotation @ plane.normal)), 0, 1))
    return float(np.degrees(min(angle, 2 * np.pi - angle)))


def _householder(normal: Array) -> Array:
    return np.eye(3) - 2 * np.outer(normal, normal)


def _mirrored(points: Array, normal: Array, point: Array) -> Array:
    return points - 2 * ((points - point) @ normal)[..., None] * normal
