"""Outliers: poses less similar to their template than others of their age, by a stated rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .group_rows import GroupRow

LIMIT = -3.5
"""Robust z below which a pose is an outlier (Iglewicz and Hoaglin 1993)."""
MIN_IMAGES = 8
"""With fewer images the usual range is not estimated."""
RULE = (
    "For each similarity, a line is fitted against age (Theil–Sen) over the images of one contrast and one atlas; the "
    "robust z of an image is its distance from the line over 1.4826 times the median absolute distance. Outlier: "
    f"z below {LIMIT:g}".replace("-", "−") + f" in any of them. Groups of fewer than {MIN_IMAGES} images have no z."
)
_MAX_PAIRS = 500_000

Array = npt.NDArray[np.float64]


def robust_z(values: npt.ArrayLike, ages: npt.ArrayLike) -> Array:
    """Residual of each of ``values`` (n,) from a robust line over ``ages`` (n,), in robust standard deviations.

    The line is the Theil–Sen estimate: the median slope of all pairs (of half a million random pairs if there are more).
    If most values lie exactly on the line, the mean absolute residual replaces the median one; if all do, z is 0.

    >>> robust_z([1, 2, 3, 4, 5.1, 0], [1, 2, 3, 4, 5, 6]).round(1).tolist()[-1] < -3.5
    True
    """
    y, x = np.asarray(values, float), np.asarray(ages, float)
    first, second = _pairs(len(x))
    dx, dy = x[second] - x[first], y[second] - y[first]
    apart = dx != 0
    slope = float(np.median(dy[apart] / dx[apart])) if apart.any() else 0.0
    rest = y - slope * x
    rest = rest - np.median(rest)
    distance = np.abs(rest)
    spread = 1.4826 * float(np.median(distance))
    if spread <= 1e-12 * max(1.0, float(np.abs(y).max())):
        spread = 1.2533 * float(distance.mean())
    return rest / spread if spread > 1e-12 else np.zeros_like(rest)


def _pairs(n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    if n * (n - 1) // 2 <= _MAX_PAIRS:
        return np.triu_indices(n, 1)
    rng = np.random.default_rng(0)
    first = rng.integers(0, n, _MAX_PAIRS)
    return first, (first + rng.integers(1, n, _MAX_PAIRS)) % n


def similarity_z(rows: Sequence[GroupRow]) -> list[dict[str, float]]:
    """For each row, similarity measure → robust z against age; measures without a z are left out.

    Images are compared within groups of the same image contrast, conversion network (if converted), template contrast and atlas.
    """
    groups: dict[tuple[Any, ...], list[tuple[int, float, float]]] = defaultdict(list)
    for index, row in enumerate(rows):
        own = (row.contrast, str(row.sidecar.get("ContrastConversion")))
        kind = (*own, str(row.resampled_sidecar.get("TemplateContrast")), str(row.sidecar.get("Atlas")))
        for measure, (_, after) in row.similarity().items():
            if after is not None and row.age is not None:
                groups[(measure, *kind)].append((index, after, row.age))
    found: list[dict[str, float]] = [{} for _ in rows]
    for (measure, *_), members in groups.items():
        if len(members) < MIN_IMAGES:
            continue
        z = robust_z([value for _, value, _ in members], [age for _, _, age in members])
        for (index, _, _), score in zip(members, z, strict=True):
            found[index][measure] = float(score)
    return found


def outlying(scores: dict[str, float]) -> list[str]:
    """The measures in which a row is an outlier, the most extreme first."""
    return sorted((name for name, z in scores.items() if z < LIMIT), key=scores.__getitem__)
