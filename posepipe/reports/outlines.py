"""Outlines of the slices of a stack, as SVG paths: few points, integer coordinates, one path per slice."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from ..imaging.volume import Float

Array = npt.NDArray[np.float64]

UNITS = 4
"""Path units per pixel; paths hold integers only."""
_SLACK = 0.25  # maximum distance, pixels, of a removed point from the simplified line
_SHORTEST = {"mask": 12, "inner": 26}  # minimum number of points of a line; shorter ones are noise
_OFF = -1.0  # between slices: below every level


def mask_paths(inside: Float) -> tuple[str, ...]:
    """The outline of ``inside`` (slices, rows, columns), values 0 to 1, at 0.5: one path per slice, empty if there is none."""
    from scipy.ndimage import gaussian_filter1d

    # removes the voxel staircase from the line
    smooth = gaussian_filter1d(gaussian_filter1d(inside, 0.8, axis=1, truncate=3), 0.8, axis=2, truncate=3)
    return _paths(np.pad(smooth, ((0, 0), (0, 1), (0, 0)), constant_values=_OFF), None, 0.5, _SHORTEST["mask"])


def inner_paths(grey: Float, inside: Float, level: float) -> tuple[str, ...]:
    """Iso-lines of ``grey`` at ``level`` inside the mask ``inside``: sulci, ventricles, cortex.

    Both are (slices, rows, columns). The margin of the mask is excluded, where the line would follow the mask.
    """
    from scipy.ndimage import gaussian_filter1d, uniform_filter

    smooth = gaussian_filter1d(gaussian_filter1d(grey, 1.2, axis=1, truncate=3), 1.2, axis=2, truncate=3)
    kept = uniform_filter(inside, (0, 7, 7), mode="constant") > 0.98
    wider = ((0, 0), (0, 1), (0, 0))
    return _paths(np.pad(smooth, wider), np.pad(kept, wider), level, _SHORTEST["inner"])


def middle_level(values: npt.NDArray) -> float:
    """Otsu's threshold of ``values`` for two classes (IEEE Trans. SMC 9:62, 1979).

    >>> 0.2 < middle_level(np.array([0.1, 0.15, 0.2, 0.8, 0.85])) < 0.8
    True
    """
    counts, edges = np.histogram(values, bins=64)
    centers = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * centers)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.nan_to_num(below * above * (sums / below - (sums[-1] - sums) / above) ** 2)
    return float(edges[1:][apart >= apart.max()].mean())


def halved(path: str) -> str:
    """``path`` for pixels twice as large; the centre of the first pixel then is half an old pixel further.

    >>> halved("M2 2l8 0 0 8z")
    'M0 0l4 0 0 4z'
    """
    lines = []
    for x, y, moves, end in re.findall(r"M(-?\d+) (-?\d+)l([^Mz]*)(z?)", path):
        steps = np.array([int(x), int(y), *map(int, re.findall(r"-?\d+", moves))]).reshape(-1, 2)
        lines.append(_text(np.rint((np.cumsum(steps, axis=0) - UNITS / 2) / 2).astype(int), bool(end)))
    return "".join(lines)


def _paths(fields: npt.NDArray, kept: npt.NDArray[np.bool_] | None, level: float, shortest: int) -> tuple[str, ...]:
    """Paths of all slices at once; the slices are stacked vertically with a separating row."""
    from contourpy import LineType, contour_generator

    count, rows, columns = fields.shape
    sheet = fields.reshape(-1, columns)
    shown = sheet if kept is None else np.ma.masked_array(sheet, ~kept.reshape(-1, columns))
    generator = contour_generator(z=shown, line_type=LineType.ChunkCombinedOffset)
    lines: Any = generator.lines(level)  # points and offsets of each chunk; there is one chunk
    found, starts = lines
    paths = [""] * count
    if found[0] is None or starts[0] is None:
        return tuple(paths)
    points, offsets, closed = _thinned(np.asarray(found[0], float), np.asarray(starts[0], int), shortest)
    numbers = (points[offsets[:-1], 1] // rows).astype(int)
    points[:, 1] -= rows * np.repeat(numbers, np.diff(offsets))
    whole = np.rint(UNITS * points).astype(int)
    for number, start, stop, ring in zip(numbers, offsets[:-1], offsets[1:], closed, strict=True):
        paths[number] += _text(whole[start:stop], ring)
    return tuple(paths)


def _thinned(points: Array, offsets: npt.NDArray, shortest: int) -> tuple[Array, npt.NDArray, npt.NDArray[np.bool_]]:
    """Remove short lines, and points nearly on the line between their neighbours.

    ``points`` (n, 2) are those of all lines, which begin at ``offsets``. Returns both for the remaining lines, and whether each is closed.
    """
    lengths = np.diff(offsets)
    long = lengths >= shortest
    points = points[np.repeat(long, lengths)]
    offsets = np.concatenate([[0], np.cumsum(lengths[long])])
    ends = np.zeros(len(points), bool)
    ends[offsets[:-1]] = ends[offsets[1:] - 1] = True
    closed = np.hypot(*(points[offsets[:-1]] - points[offsets[1:] - 1]).T) < 1e-6
    for turn in range(6):
        if len(points) < 3:
            break
        along, aside = points[2:] - points[:-2], points[1:-1] - points[:-2]
        off = np.abs(along[:, 0] * aside[:, 1] - along[:, 1] * aside[:, 0]) / np.maximum(np.hypot(*along.T), 1e-9)
        stays = ends | True
        stays[1:-1] = (off >= _SLACK) | ends[1:-1]
        stays[turn % 2 :: 2] = True  # never remove two neighbours in one pass
        points, ends = points[stays], ends[stays]
    marks = np.flatnonzero(ends)
    return points, np.concatenate([marks[::2], [len(points)]]), closed


def _text(whole: npt.NDArray[np.int_], closed: bool) -> str:
    """One line (n, 2) of integers as a path of relative steps; empty if it is a single point."""
    steps = np.diff(whole, axis=0)
    moves = steps[steps.any(axis=1)].tolist()
    if not moves:
        return ""
    text = " ".join([f"{dx} {dy}" for dx, dy in moves]).replace(" -", "-")
    return f"M{whole[0][0]} {whole[0][1]}l{text}" + ("z" if closed else "")
