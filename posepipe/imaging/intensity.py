"""Where the intensities of an image begin: files hold them with any offset, as standard scores, or with a background of −1024."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..geometry.so3 import Array

EMPTY_FACES = 0.65
"""A value is that of what is empty when at least this share of the voxels on the faces of the grid has exactly it: a whole uterus fills
them; a few padded rows do not make a background."""
DARKEST = 0.001
"""Quantile of the intensities that counts as 0: the smallest of them would be that of one broken voxel."""
ENOUGH = 1_000_000
"""Of more voxels as many are looked at, evenly spread: the quantile then is known to a tenth of its rank."""


def faces(data: npt.NDArray) -> npt.NDArray:
    """The voxels (n,) on the six faces of a grid (X, Y, Z); those on edges count for each face.

    >>> faces(np.zeros((2, 3, 4))).shape
    (52,)
    """
    return np.concatenate([np.take(data, i, axis=a).ravel() for a in range(3) for i in (0, -1)])


def empty_value(data: npt.NDArray) -> float | None:
    """The value that voxels of ``data`` (X, Y, Z) in which nothing was measured have exactly: that of most voxels on the faces of the
    grid; None where these differ.

    >>> data = np.full((9, 9, 9), -1.5)
    >>> data[2:7, 2:7, 2:7] = 3.0
    >>> empty_value(data)
    -1.5
    """
    border = faces(data)
    middle = np.partition(border, len(border) // 2)[len(border) // 2]
    return float(middle) if float((border == middle).mean()) >= EMPTY_FACES else None


def measured(data: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Where ``data`` (X, Y, Z) is not empty: not that one value, or not 0 where there is none."""
    return np.asarray(data != (empty_value(data) or 0))


def offset(data: npt.NDArray) -> float:
    """Where the intensities of ``data`` (X, Y, Z) begin, which for magnitudes as they were measured is 0.

    Without an empty value it is their 0.1 % quantile. With one it is that value, or the quantile of the others where that is lower; but 0
    where the empty value alone is negative, as a mark for what was not measured.
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
    """``data`` (X, Y, Z) less its :func:`offset`, nothing below 0, and 0 where nothing was measured; of ``a · data + b`` with a > 0 it is
    a times the same, unless the empty value changes its sign.

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
    """The value for what lies beyond ``data`` (X, Y, Z): the empty one, else 0 or the least that there is, if that is below."""
    empty = empty_value(data)
    return min(offset(data), 0.0) if empty is None else empty
