"""Stacks of slices in three planes along the template's world axes, for the viewer.

**Frame: RAS millimetres; a pixel of a stack has indices (slice, row, column).** Slices are displayed in neurological orientation, see
:mod:`posepipe.reports.slices`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..geometry import Rigid
from ..imaging.volume import Float, Volume
from .slices import PLANES, extent

Array = npt.NDArray[np.float64]

_NEGATIVE, _POSITIVE = "LPI", "RAS"
_MARGIN = 8.0  # mm of background kept around the brain
_LARGEST = 160  # pixels of a slice's longer side: of a newborn's brain, those of a scan of 0.85 mm
_STEP = 3.6  # mm between slices, at least
_SLICES = 24  # of a plane, at most


@dataclass(frozen=True, eq=False)
class Stack:
    """Parallel slices of one plane: ``shape`` (slices, rows, columns), square pixels of edge ``pixel`` (mm).

    ``affine`` (4, 4) maps indices (slice, row, column) to RAS mm; row 0 is on top, and slices go from the left, the
    back or the bottom. ``at`` are their positions along the axis cut across, mm.
    """

    plane: str
    shape: tuple[int, int, int]
    pixel: float
    affine: Array
    at: tuple[float, ...]

    @property
    def sides(self) -> str:
        """Letters of what lies to the left, right, top and bottom of each slice.

        >>> Stack("axial", (1, 2, 2), 1.0, np.eye(4), (0.0,)).sides
        'LRAP'
        """
        right, up, _ = PLANES[self.plane]
        return _NEGATIVE[right] + _POSITIVE[right] + _POSITIVE[up] + _NEGATIVE[up]

    @property
    def titles(self) -> list[str]:
        """Plane and position of each slice, with the direction spelt out.

        >>> Stack("sagittal", (2, 2, 2), 1.0, np.eye(4), (-12.3, 0.2)).titles
        ['Sagittal, 12 mm L', 'Sagittal, 0 mm']
        """
        letters = [(_POSITIVE if at >= 0 else _NEGATIVE)[PLANES[self.plane][2]] for at in self.at]
        distances = [f"{abs(at):.0f}" for at in self.at]
        name = self.plane.capitalize()
        return [f"{name}, {d} mm" + (f" {x}" if d != "0" else "") for d, x in zip(distances, letters, strict=True)]


def stacks(template_mask: Volume) -> list[Stack]:
    """Axial, coronal and sagittal slices through ``template_mask``, with a common pixel size.

    Each slice is large enough for a brain of that size in any orientation. Raises :class:`~posepipe.errors.MaskError` for an empty mask.
    """
    low, high = extent(template_mask)
    half, middle = (high - low) / 2, (low + high) / 2
    room = np.maximum(half, 0.85 * half.max()) + _MARGIN
    pixel = float(max(2 * room.max() / _LARGEST, 0.6 * template_mask.spacing.min()))
    found = []
    for plane, (right, up, across) in PLANES.items():
        count = int(np.clip(2 * half[across] // _STEP, 3, _SLICES))
        rows, columns = (round(2 * room[axis] / pixel) for axis in (up, right))
        step = 2 * half[across] / count
        affine = np.eye(4)
        affine[:3, :3] = 0.0
        affine[across, 0], affine[up, 1], affine[right, 2] = step, -pixel, pixel
        affine[:3, 3] = middle
        affine[across, 3] -= step * (count - 1) / 2
        affine[up, 3] += pixel * (rows - 1) / 2
        affine[right, 3] -= pixel * (columns - 1) / 2
        at = tuple(float(affine[across, 3] + step * n) for n in range(count))
        found.append(Stack(plane, (count, rows, columns), pixel, affine, at))
    return found


def sample_stack(volume: Volume, stack: Stack, place: Rigid | None = None) -> Float:
    """Values (slices, rows, columns) of ``volume`` at the pixels of ``stack`` mapped by ``place``; 0 outside the grid.

    Linear interpolation. ``place`` maps points of the stack's world to points of the volume's, as a pose does.
    """
    from scipy.ndimage import affine_transform

    to_index = np.linalg.inv(volume.affine) @ (np.eye(4) if place is None else place.matrix) @ stack.affine
    values = np.zeros(stack.shape, np.float32)
    first, last = _intersecting_box(to_index, volume.shape, stack.shape)
    if (last <= first).any():
        return values
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    data = volume.data.view(np.uint8) if volume.data.dtype == bool else volume.data
    start = to_index[:3, :3] @ first + to_index[:3, 3]
    if np.count_nonzero(np.abs(to_index[:3, :3]) > 1e-6 * stack.pixel) == 3:
        values[box] = _straight(data, to_index[:3, :3], start, values[box].shape)
    else:
        affine_transform(data, to_index[:3, :3], start, output=values[box], order=1, mode="constant", cval=0.0)
    return values


def _straight(data: npt.NDArray, matrix: Array, start: Array, shape: tuple[int, ...]) -> Float:
    """The same if each axis of the stack is parallel to one of the grid: separable interpolation, ten times faster."""
    order = np.abs(matrix).argmax(axis=0)  # of the grid's axes, that along each axis of the stack
    values = np.transpose(data, order)
    for axis, along in enumerate(order):
        values = np.moveaxis(values, axis, 0)
        weights = _weights(start[along] + matrix[along, axis] * np.arange(shape[axis]), len(values))
        values = np.moveaxis(np.tensordot(weights, values.astype(np.float32, copy=False), axes=1), 0, axis)
    return values


def _weights(index: Array, size: int) -> Float:
    """Weights (n, size) that interpolate ``size`` values linearly at ``index`` (n,); none outside 0 to size - 1."""
    inside = (index >= 0) & (index <= size - 1)
    below = np.clip(np.floor(index).astype(int), 0, max(0, size - 2))
    weights = np.zeros((len(index), size), np.float32)
    rows, part = np.arange(len(index)), index - below
    weights[rows, below] = np.where(inside, 1 - part, 0)
    weights[rows, np.minimum(below + 1, size - 1)] += np.where(inside, part, 0)
    return weights


def tight(mask: Volume) -> Volume:
    """``mask`` cropped to the bounding box of its nonzero voxels, with a margin of one voxel."""
    box = []
    for axis, size in enumerate(mask.shape):
        others = tuple({0, 1, 2} - {axis})
        found = np.flatnonzero(mask.data.any(axis=others))
        if found.size == 0:
            return mask
        box.append(slice(max(0, int(found[0]) - 1), min(size, int(found[-1]) + 2)))
    affine = mask.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    return Volume(mask.data[tuple(box)], affine, mask.source)


def _intersecting_box(to_index: Array, size: tuple[int, int, int], shape: tuple[int, int, int]) -> tuple[npt.NDArray, npt.NDArray]:
    """First and last (exclusive) index of the box of a stack that intersects a grid of ``size`` voxels."""
    ends = np.array(np.meshgrid(*[[-1.0, n] for n in size])).reshape(3, -1)
    back = np.linalg.inv(to_index)
    seen = back[:3, :3] @ ends + back[:3, 3:]
    first = np.clip(np.floor(seen.min(axis=1)).astype(int), 0, shape)
    return first, np.clip(np.ceil(seen.max(axis=1)).astype(int) + 1, 0, shape)
