"""Background value and offset of intensities: files may have any offset, standard scores, or a background of −1024."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..geometry.so3 import Array

EMPTY_FACES = 0.65
"""Least fraction of the voxels on the faces of the grid with one exact value for that value to be the background. A scan of the whole
uterus has tissue on the faces; a few padded rows are not a background."""
DARKEST = 0.001
"""Quantile of the intensities used as the offset; the minimum would depend on single broken voxels."""
ENOUGH = 1_000_000
"""Maximum number of evenly spaced voxels from which the quantile is computed; its rank is then accurate to a tenth."""


def faces(data: npt.NDArray) -> npt.NDArray:
    """The voxels (n,) on the six faces of a grid (X, Y, Z); those on edges count for each face.

    >>> faces(np.zeros((2, 3, 4))).shape
    (52,)
    """
    return np.concatenate([np.take(data, i, axis=a).ravel() for a in range(3) for i in (0, -1)])


def empty_value(data: npt.NDArray) -> float | None:
    """The exact background value of ``data`` (X, Y, Z), that of most voxels on the faces of the grid; None if there is no such value.

    >>> data = np.full((9, 9, 9), -1.5)
    >>> data[2:7, 2:7, 2:7] = 3.0
    >>> empty_value(data)
    -1.5
    """
    border = faces(data)
    middle = np.partition(border, len(border) // 2)[len(border) // 2]
    return float(middle) if float((border == middle).mean()) >= EMPTY_FACES else None


def measured(data: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Where ``data`` (X, Y, Z) differs from the background value (:func:`empty_value`), or from 0 if there is none."""
    return np.asarray(data != (empty_value(data) or 0))


def offset(data: npt.NDArray) -> float:
    """Offset of the intensities of ``data`` (X, Y, Z); 0 for unmodified magnitude images.

    Without a background value it is the 0.1 % quantile. With one it is the lower of that value and the quantile of the other voxels; but 0
    if only the background value is negative, as a marker of voxels without data.
    """
    empty = empty_value(data)
    flat = data.reshape(-1)
    flat = flat[:: max(1, len(flat) // ENOUGH)]
    some = flat if empty is None else flat[flat != empty]
    if not len(some):
        return empty or 0.0
    low = float(np.quantile(some.astype(np.float64), DARKEST))
    if empty is None:
        return low
    return min(low, max(empty, 0.0)) if low >= 0 else min(low, empty)


def from_zero(data: npt.NDArray) -> Array:
    """``data`` (X, Y, Z) minus its :func:`offset`, clipped at 0, and 0 in the background. For ``a · data + b`` with a > 0 the result is a
    times that of ``data``, unless the background value changes its sign.

    >>> data = np.full((9, 9, 9), -1.5)
    >>> data[2:7, 2:7, 2:7] = 3.0
    >>> data[4, 4, 4] = -1.0
    >>> from_zero(data)[[0, 2, 4], 4, 4]
    array([0. , 4.5, 0.5])
    """
    out = np.maximum(data - offset(data), 0)
    empty = empty_value(data)
    if empty is not None:
        out[data == empty] = 0
    return np.asarray(out)


def outside(data: npt.NDArray) -> float:
    """Fill value for points outside ``data`` (X, Y, Z): the background value, else 0, or the offset if that is negative."""
    empty = empty_value(data)
    return min(offset(data), 0.0) if empty is None else empty
