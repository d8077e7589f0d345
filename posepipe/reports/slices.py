"""Slices of volumes on the template's world axes: where to cut, and what each cut shows.

**Frame: RAS millimetres. Slices are drawn the neurological way round: the subject's right is on the right.** Axial
slices have anterior on top, coronal and sagittal slices superior on top, sagittal slices anterior on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import MaskError
from ..imaging.volume import Float, Volume

Array = npt.NDArray[np.float64]

#: name → (axis drawn to the right, axis drawn upwards, axis cut across), of 0 = R, 1 = A, 2 = S.
PLANES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
_NEGATIVE, _POSITIVE = "LPI", "RAS"
_MARGIN = 8.0  # mm of background kept around the brain
_STEPS = {1: (0.0,), 2: (-0.2, 0.2), 3: (-0.25, 0.0, 0.25)}  # of the brain's extent across the plane


@dataclass(frozen=True, eq=False)
class Slice:
    """A rectangle of square pixels in world space: ``points`` (H, W, 3) are the pixel centres, RAS mm, row 0 on top.

    ``name`` is the plane, ``at`` the position (mm) along the axis cut across, ``pixel`` the edge of a pixel (mm).
    """

    name: str
    at: float
    pixel: float
    points: Array

    @property
    def sides(self) -> str:
        """Letters of what lies to the left, right, top and bottom.

        >>> Slice("axial", 0.0, 1.0, np.zeros((2, 2, 3))).sides
        'LRAP'
        """
        right, up, _ = PLANES[self.name]
        return _NEGATIVE[right] + _POSITIVE[right] + _POSITIVE[up] + _NEGATIVE[up]

    @property
    def title(self) -> str:
        """Plane and position, with the direction spelt out.

        >>> Slice("sagittal", -12.3, 1.0, np.zeros((2, 2, 3))).title
        'Sagittal, 12 mm L'
        """
        across = PLANES[self.name][2]
        letter = (_POSITIVE if self.at >= 0 else _NEGATIVE)[across]
        distance = f"{abs(self.at):.0f}"
        return f"{self.name.capitalize()}, {distance} mm" + (f" {letter}" if distance != "0" else "")


def centroid(mask: Volume) -> Array:
    """Centre (3,) of the voxels of ``mask`` above 0.5, RAS mm; :class:`~posepipe.errors.MaskError` if none is."""
    inside = _inside(mask)
    total = inside.sum()
    index = np.array([(inside.sum(axis=others) @ np.arange(n)) / total for others, n in _axes(mask)])
    return mask.affine[:3, :3] @ index + mask.affine[:3, 3]


def extent(mask: Volume) -> tuple[Array, Array]:
    """Lowest and highest corner (3,) each of the box around ``mask``, along the world axes, RAS mm."""
    inside = _inside(mask)
    ends = [np.flatnonzero(inside.any(axis=others))[[0, -1]] + [-0.5, 0.5] for others, _ in _axes(mask)]
    corners = np.array(np.meshgrid(*ends)).reshape(3, -1)
    world = mask.affine[:3, :3] @ corners + mask.affine[:3, 3:]
    return world.min(axis=1), world.max(axis=1)


def cuts(template_mask: Volume, *, per_plane: int = 3, pixels: int = 1600) -> list[Slice]:
    """``per_plane`` (1, 2 or 3) slices of each plane about the centroid of ``template_mask``, plane by plane.

    All share one pixel size, chosen so that side by side they are ``pixels`` wide. Each shows the whole brain, and room
    enough for a brain of that size turned another way.
    """
    if per_plane not in _STEPS:
        msg = f"a page shows 1, 2 or 3 slices per plane, not {per_plane}"
        raise ValueError(msg)
    low, high = extent(template_mask)
    half = (high - low) / 2
    room = np.maximum(half, 0.85 * half.max()) + _MARGIN
    room[1:] = room[1:].max()  # anterior and superior are drawn upwards: rows of one height
    middle = (low + high) / 2
    pixel = per_plane * sum(2 * room[right] for right, _, _ in PLANES.values()) / pixels
    through = centroid(template_mask)
    found = []
    for name, (right, up, across) in PLANES.items():
        columns = middle[right] + pixel * _steps(room[right], pixel)
        rows = middle[up] - pixel * _steps(room[up], pixel)
        for step in _STEPS[per_plane]:
            at = float(through[across] + step * 2 * half[across])
            points = np.empty((rows.size, columns.size, 3))
            points[..., right], points[..., up], points[..., across] = columns[None, :], rows[:, None], at
            found.append(Slice(name, at, pixel, points))
    return found


def sample(volume: Volume, points: npt.ArrayLike, order: int = 1) -> Float:
    """Values of ``volume`` at ``points`` (..., 3), RAS mm, interpolated with ``order`` 0 or 1; 0 outside the grid."""
    from scipy.ndimage import map_coordinates

    points = np.asarray(points, dtype=float)
    back = np.linalg.inv(volume.affine)
    index = points.reshape(-1, 3) @ back[:3, :3].T + back[:3, 3]
    data = volume.data.view(np.uint8) if volume.data.dtype == bool else volume.data
    values = map_coordinates(data, index.T, output=np.float32, order=order, mode="constant", cval=0.0)
    return values.reshape(points.shape[:-1])


def contours(inside: npt.NDArray, smooth: float = 0.0) -> list[Array]:
    """Lines (n, 2) in pixels (x to the right, y down) around the part of a slice (H, W) above 0.5.

    ``smooth`` is the width, in pixels, of the Gaussian that takes the voxel steps off the line.
    """
    from contourpy import contour_generator
    from scipy.ndimage import gaussian_filter

    field = np.asarray(inside, dtype=np.float32)
    if field.max() <= 0.5:
        return []
    if smooth > 0:
        field = gaussian_filter(field, smooth)
    return [np.asarray(line, dtype=float) for line in contour_generator(z=field).lines(0.5)]


def label_contours(labels: Volume, where: Slice, keep: Sequence[int] | None = None) -> list[Array]:
    """Lines (n, 2) in pixels around each label above 0 that meets the slice, or around those in ``keep``."""
    shown = np.rint(sample(labels, where.points, order=0))
    present = [int(v) for v in np.unique(shown) if v > 0 and (keep is None or int(v) in keep)]
    return [line for value in present for line in contours(shown == value, voxel_steps(labels, where))]


def voxel_steps(volume: Volume, where: Slice) -> float:
    """Width, in pixels, of the Gaussian that takes the voxel steps off an outline of ``volume``."""
    return float(0.6 * volume.spacing.min() / where.pixel)


def _steps(room: float, pixel: float) -> Array:
    count = max(2, round(2 * room / pixel))
    return np.arange(count, dtype=float) - (count - 1) / 2


def _axes(mask: Volume) -> list[tuple[tuple[int, int], int]]:
    """For each axis: the two others, and its length."""
    return [((1, 2), mask.shape[0]), ((0, 2), mask.shape[1]), ((0, 1), mask.shape[2])]


def _inside(mask: Volume) -> npt.NDArray[np.bool_]:
    inside = mask.data > 0.5
    if not inside.any():
        msg = f"{mask.source}: the brain mask is empty, so there is nothing to centre a figure on; give another mask"
        raise MaskError(msg)
    return inside
