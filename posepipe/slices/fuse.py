"""The pose of a stack from the poses of its slices: choice of twins, detection of outliers, and a robust mean.

Both hypotheses of a slice (pose and twin) are poses atlas → image (RAS mm). In a stack of parallel slices the *rotations* of wrong twins
agree with each other as well as those of correct poses do. Their translations differ: a twin's centre is reflected in its slice, so that
the wrong twins of slices 3 mm apart have centres 6 mm apart. Rotation and translation are therefore compared together (:func:`distance`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..errors import PosepipeError
from ..geometry import Rigid, mean_pose, so3
from ..geometry.so3 import Array
from ..matching.gauss_newton import OUTLIER

DEGREES, MM = 10.0, 5.0
"""Units of rotation (degrees) and of displacement of the brain's centre (mm) with equal weight in :func:`distance`. The network's error of
a single slice is about 10° and 3.5 mm; head motion at the middle level of simulated stacks is 8° and 4 mm."""
FARTHEST = 3.0
"""Upper limit of the cost of a distance in the choice of twins, in units of :data:`DEGREES` and :data:`MM` (30° or 15 mm, three standard
deviations). A distance of this size costs half the limit. The cost is strictly increasing, so that the nearer of two far hypotheses
wins."""
LEAST_STRAY_DEGREES, LEAST_STRAY_MM = 5.0, 3.0
"""Least distance of an outlier, degrees or mm: about the error of slice-to-volume registration of a single slice of a newborn's brain
(4.9° and 4.2 mm on Serag's templates, :mod:`posepipe.bench.slice_register`), so that a stack without motion has no outliers."""
NEIGHBOURS = 3
"""Number of slices before, and after, in order of acquisition, from which the path at a slice is computed."""


@dataclass(frozen=True, eq=False)
class FusedStack:
    """Result of :func:`fuse`.

    ``pose`` (atlas → image): median of the slices' poses without outliers; ``mean``: their mean, which differs from the median after sudden
    motion. ``chosen`` (n,): hypothesis of each slice, 0 or 1 (its twin); ``poses``: the chosen poses; ``outlier`` (n,) bool; ``degrees``
    and ``mm`` (n,): motion of each slice relative to ``pose``, mm at the brain's centre; ``stray`` (n,): degrees from the path of its
    neighbours in time, 0 without neighbours; ``margin``: cost per slice of the best choice with the opposite twins, minus that of the
    chosen one, in units of :func:`distance`.
    """

    pose: Rigid
    mean: Rigid
    chosen: npt.NDArray[np.intp]
    poses: list[Rigid]
    outlier: npt.NDArray[np.bool_]
    degrees: Array
    mm: Array
    margin: float
    stray: Array


def median_rotation(rotations: npt.ArrayLike, weights: npt.ArrayLike | None = None, *, steps: int = 30) -> Array:
    """Geodesic median (3, 3) of ``rotations`` (n, 3, 3): the least weighted sum of angles (Hartley et al. 2011, L1 rotation averaging).

    Weiszfeld's algorithm in the tangent space, initialised with the medoid; the breakdown point is half of the weight. Raises
    :class:`ValueError` for no rotations or no weight.
    """
    r = np.asarray(rotations, dtype=float)
    w = np.ones(len(r)) if weights is None else np.asarray(weights, dtype=float)
    if not len(r) or w.sum() <= 0:
        msg = "a median needs at least one rotation of some weight"
        raise ValueError(msg)
    apart = so3.geodesic_distance(r[:, None], r[None])
    mean = r[int((apart @ w).argmin())]
    for _ in range(steps):
        tangent = so3.log(mean.T @ r)
        pull = w / np.maximum(np.linalg.norm(tangent, axis=1), 1e-6)
        step = pull @ tangent / pull.sum()
        mean = so3.project(mean @ so3.exp(step))
        if np.linalg.norm(step) < 1e-8:
            break
    return mean


def median_point(points: npt.ArrayLike, weights: npt.ArrayLike | None = None, *, steps: int = 50) -> Array:
    """Geometric median (3,) of ``points`` (n, 3), by Weiszfeld's algorithm from the medoid."""
    p = np.asarray(points, dtype=float)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=float)
    median: Array = p[int((np.linalg.norm(p[:, None] - p[None], axis=-1) @ w).argmin())]
    for _ in range(steps):
        pull = w / np.maximum(np.linalg.norm(p - median, axis=1), 1e-6)
        new = pull @ p / pull.sum()
        moved, median = float(np.linalg.norm(new - median)), new
        if moved < 1e-7:
            break
    return median


def median_pose(poses: Sequence[Rigid], center: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Rigid:
    """Robust mean of ``poses`` (atlas → image): median rotation, and median place of the brain's ``center`` (3,), atlas RAS mm."""
    rotation = median_rotation(np.stack([p.rotation for p in poses]), weights)
    return Rigid.about(rotation, center, median_point(np.stack([p.apply(center) for p in poses]), weights))


def distance(rotations: Array, places: Array, rotation: Array, place: Array) -> Array:
    """Distances (...) of poses, in units of :data:`DEGREES` and :data:`MM`: ``rotations`` (..., 3, 3), ``places`` (..., 3)."""
    turn = np.degrees(so3.geodesic_distance(rotations, rotation)) / DEGREES
    return np.hypot(turn, np.linalg.norm(places - place, axis=-1) / MM)


def robust_cost(apart: Array) -> Array:
    """Robust cost of distances (...), in the same units: equal to the distance if it is small, less than :data:`FARTHEST` always."""
    return apart / (1 + apart / FARTHEST)


def fuse(
    poses: Sequence[Rigid], center: npt.ArrayLike, *, twins: Sequence[Rigid] | None = None, weights: npt.ArrayLike | None = None,
    costs: npt.ArrayLike | None = None, order: npt.ArrayLike | None = None,
) -> FusedStack:  # fmt: skip
    """Fuse the ``poses`` (n) of the slices of one stack; ``twins`` (n) are the alternative poses of the slices.

    ``center`` (3,) is the centre of the template's brain, atlas RAS mm. ``weights`` (n,) ≥ 0 are the weights of the slices, ``costs`` (n,
    2) ≥ 0 additional costs of either hypothesis (0: no prior knowledge). ``order`` (n,): rows in order of acquisition.

    1. Each hypothesis is tried as the pose of the stack: every slice takes the nearer of its two hypotheses, and the pose with the least
       weighted sum of robust costs wins (:func:`robust_cost`).
    2. The median pose of the chosen hypotheses; then the choice along the order of acquisition with the least sum of costs: of the distance
       to the median pose and of that to the previous slice (Viterbi 1967). Both are repeated until nothing changes.
    3. Outliers: slices whose distance to the median pose of the :data:`NEIGHBOURS` slices before in time, and to that of those after (the
       smaller of the two distances), exceeds :data:`~posepipe.matching.gauss_newton.OUTLIER` robust standard deviations (1.48 times the
       median of all), in degrees or in mm, and :data:`LEAST_STRAY_DEGREES` or :data:`LEAST_STRAY_MM`. The stack's pose is the median of
       the others.

    Raises :class:`~posepipe.errors.PosepipeError` for no slices.
    """
    n = len(poses)
    if not n:
        msg = "no slice has a pose: there is nothing to fuse"
        raise PosepipeError(msg)
    center = np.asarray(center, dtype=float)
    both = [poses, poses if twins is None else twins]
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=float)
    extra = np.zeros((n, 2)) if costs is None else np.asarray(costs, dtype=float)
    if twins is None:
        extra = extra + np.array([0, np.inf])
    sequence = np.arange(n) if order is None else np.asarray(order)
    rotations = np.stack([[p.rotation for p in h] for h in both], 1)
    places = np.stack([[p.apply(center) for p in h] for h in both], 1)

    chosen, margin = _consensus(rotations, places, w, extra)
    for _ in range(10):
        rows = np.arange(n)
        pose = _pose(rotations[rows, chosen], places[rows, chosen], w, center)
        new = _along(rotations, places, pose, center, extra, sequence)
        if (new == chosen).all():
            break
        chosen = new
    rows = np.arange(n)
    r, p = rotations[rows, chosen], places[rows, chosen]
    outlier, stray = _strays(r, p, w, sequence, center)
    kept = np.where(outlier, 0, w)
    pose = _pose(r, p, kept if kept.sum() > 0 else w, center)
    degrees = np.degrees(so3.geodesic_distance(r, pose.rotation))
    mm = np.linalg.norm(p - pose.apply(center), axis=1)
    taken = [both[c][i] for i, c in enumerate(chosen)]
    mean = mean_pose(taken, center, kept if kept.sum() > 0 else w)
    return FusedStack(pose, mean, chosen, taken, outlier, degrees, mm, margin, stray)


def _pose(rotations: Array, places: Array, weights: Array, center: Array) -> Rigid:
    return Rigid.about(median_rotation(rotations, weights), center, median_point(places, weights))


def _consensus(rotations: Array, places: Array, weights: Array, extra: Array) -> tuple[npt.NDArray[np.intp], float]:
    """First choice (n,) by step 1 of :func:`fuse`, and the mean increase of the cost per slice under the best pose not chosen."""
    seeds_r, seeds_p = rotations.reshape(-1, 1, 1, 3, 3), places.reshape(-1, 1, 1, 3)
    apart = robust_cost(distance(rotations[None], places[None], seeds_r, seeds_p)) + extra[None]
    allowed = np.isfinite(extra).reshape(-1)
    costs = np.where(allowed, apart.min(-1) @ weights, np.inf)
    best = int(costs.argmin())
    chosen = apart[best].argmin(-1)
    # the hypotheses that were not chosen
    other = allowed.copy()
    other[np.arange(len(rotations)) * 2 + chosen] = False
    rest = costs[other].min() if other.any() else np.inf
    return chosen, float((rest - costs[best]) / max(weights.sum(), 1e-9))


def _along(
    rotations: Array, places: Array, pose: Rigid, center: Array, extra: Array, sequence: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Choice (n,) by step 2 of :func:`fuse`."""
    own = robust_cost(distance(rotations, places, pose.rotation, pose.apply(center))) + extra
    before, came = own[sequence[0]], []
    for a, b in pairwise(sequence):
        step = robust_cost(distance(rotations[a][:, None], places[a][:, None], rotations[b][None], places[b][None]))
        total = before[:, None] + step
        came.append(total.argmin(0))
        before = total.min(0) + own[b]
    chosen = np.zeros(len(own), dtype=np.intp)
    chosen[sequence[-1]] = last = int(before.argmin())
    for i in range(len(came) - 1, -1, -1):
        last = int(came[i][last])
        chosen[sequence[i]] = last
    return chosen


def _strays(
    rotations: Array, places: Array, weights: Array, sequence: npt.NDArray[np.intp], center: Array
) -> tuple[npt.NDArray[np.bool_], Array]:
    """Outliers (n,) by step 3 of :func:`fuse`, and the distance of each slice to the path of its neighbours, degrees."""
    n = len(rotations)
    degrees, mm = np.zeros(n), np.zeros(n)
    for at, i in enumerate(sequence):
        apart = []
        for side in (sequence[max(0, at - NEIGHBOURS) : at], sequence[at + 1 : at + 1 + NEIGHBOURS]):
            near = [j for j in side if weights[j] > 0]
            if len(near) > 1:
                path = _pose(rotations[near], places[near], weights[near], center)
                turn = float(np.degrees(so3.geodesic_distance(rotations[i], path.rotation)))
                apart.append((turn, float(np.linalg.norm(places[i] - path.apply(center)))))
        if apart:
            degrees[i], mm[i] = min(apart, key=lambda a: a[0] / DEGREES + a[1] / MM)
    far_turn = degrees > max(OUTLIER * 1.48 * float(np.median(degrees)), LEAST_STRAY_DEGREES)
    far_move = mm > max(OUTLIER * 1.48 * float(np.median(mm)), LEAST_STRAY_MM)
    out: npt.NDArray[np.bool_] = far_turn | far_move | (weights <= 0)
    return out, degrees
