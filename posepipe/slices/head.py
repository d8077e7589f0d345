"""Recursive (causal) estimate of the head's pose from slices that arrive one at a time, each with the ambiguity of its twin.

Several *hypotheses* of the head's pose (atlas → scanner, RAS mm) are tracked in parallel, initially the two of the first slice. For each
new slice, every hypothesis is assigned the nearer of the slice's pose and twin, and its cost increases with the distance
(:func:`posepipe.slices.fuse.distance`, :func:`posepipe.slices.fuse.robust_cost`). The wrong twins of slices 3 mm apart have centres 6 mm
apart (:mod:`posepipe.slices.fuse`), so that wrong hypotheses soon have higher costs than the correct one.

**Decay of weights.** The head's pose is modelled as a random walk and each slice as a noisy observation. The weight of a slice after ``n``
further slices is (1 − K)ⁿ, where K is the steady-state gain of the Kalman filter of that model (:func:`steady_gain`). Weights decay slowly
if slices are noisy, and fast if they are accurate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from ..geometry import Rigid, so3
from ..geometry.so3 import Array
from .acquisition import SECONDS_PER_SLICE
from .fuse import DEGREES, FARTHEST, LEAST_STRAY_DEGREES, distance, robust_cost
from .smoothness import Smoothness

HYPOTHESES = 8
"""Maximum number of hypotheses: the two of each of four slices that agreed with no earlier hypothesis."""
MIN_WEIGHT = 0.1
"""Observations whose weight relative to a new one is below this are dropped."""
STEPS = 8
"""Steps of Weiszfeld's algorithm for a median, from its value before the last slice."""
NEAR = 0.05
"""Lower limit of the distances in Weiszfeld's weights (in units of :func:`posepipe.slices.fuse.distance`: half a degree, a quarter mm), so
that the median cannot get stuck at one observation."""


def steady_gain(motion: float, noise: float) -> float:
    """Steady-state gain in [0, 1] of the Kalman filter of a random walk: ``motion`` is the standard deviation of a step, ``noise`` that of
    an observation, in the same unit.

    >>> round(steady_gain(1.5, 10.0), 2), round(steady_gain(1.5, 5.0), 2)
    (0.14, 0.26)
    """
    ratio = motion / noise
    return float(ratio * (np.sqrt(ratio**2 + 4) - ratio) / 2)


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """``n`` hypotheses of the head's pose: ``rotation`` (n, 3, 3), ``place`` (n, 3) of the brain's centre, RAS mm, and accumulated ``cost``
    (n,).

    ``agreed`` and ``counted`` (n,): decaying sums over the slices since the hypothesis was added, of weight / (1 + (d / FARTHEST)²) and of
    weight; d is the distance of the slice's nearer pose to the hypothesis when the slice arrived.
    """

    rotation: Array
    place: Array
    cost: Array
    agreed: Array
    counted: Array

    @classmethod
    def at(cls, rotation: Array, place: Array, cost: float) -> Hypotheses:
        """New hypotheses with the same ``cost``."""
        n = len(rotation)
        return cls(rotation, place, np.full(n, cost), np.zeros(n), np.zeros(n))

    def __len__(self) -> int:
        return len(self.cost)

    def pick(self, index: Sequence[int]) -> Hypotheses:
        """The hypotheses at ``index``, in that order."""
        i = np.array(index, dtype=int)
        return Hypotheses(self.rotation[i], self.place[i], self.cost[i], self.agreed[i], self.counted[i])

    def concat(self, other: Hypotheses) -> Hypotheses:
        """These, then ``other``."""
        return Hypotheses(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))

    def apart(self, rotations: Array, places: Array) -> Array:
        """Distances (n, …) of poses (…, 3, 3) and (…, 3), in units of :func:`posepipe.slices.fuse.distance`."""
        more = (1,) * (places.ndim - 1)
        return distance(rotations[None], places[None], self.rotation.reshape(-1, *more, 3, 3), self.place.reshape(-1, *more, 3))

    def decay(self, kept: float) -> Hypotheses:
        """Multiply the accumulated sums by ``kept``."""
        return replace(self, cost=self.cost * kept, agreed=self.agreed * kept, counted=self.counted * kept)

    def updated(self, apart: Array, weight: float) -> Hypotheses:
        """Add a slice with ``weight`` and the distances ``apart`` (n,) to the sums."""
        return replace(
            self, cost=self.cost + weight * robust_cost(apart), agreed=self.agreed + weight / (1 + (apart / FARTHEST) ** 2),
            counted=self.counted + weight,
        )  # fmt: skip

    def distinct(self, most: float) -> Hypotheses:
        """At most :data:`HYPOTHESES`, by increasing cost, without those that cost more than ``most`` (except the best) and without those
        within distance 1 of a better one, which are duplicates."""
        kept: list[int] = []
        apart = self.apart(self.rotation, self.place)
        for i in np.argsort(self.cost, kind="stable").tolist():
            if not kept or (self.cost[i] <= most and apart[i, kept].min() > 1):
                kept.append(i)
        return self.pick(kept[:HYPOTHESES])


class HeadEstimate:
    """The recursive estimate; ``center`` (3,) is the centre of the template's brain, atlas RAS mm.

    ``registered``: slices are registered to the template; their error is then about :data:`~posepipe.slices.fuse.LEAST_STRAY_DEGREES`
    instead of :data:`~posepipe.slices.fuse.DEGREES`.
    """

    def __init__(self, center: npt.ArrayLike, *, registered: bool = False) -> None:
        self.center = np.asarray(center, dtype=float)
        self._keep = 1 - steady_gain(Smoothness.degrees, DEGREES)
        self._keep_pose = 1 - steady_gain(Smoothness.degrees, LEAST_STRAY_DEGREES if registered else DEGREES)
        # per observation: rotations and places of pose and twin (equal if there is one pose), weight, and time in slices
        self._observations: deque[tuple[Array, Array, float, float]] = deque(maxlen=int(np.ceil(np.log(MIN_WEIGHT) / np.log(self._keep))))
        self._all = Hypotheses.at(np.zeros((0, 3, 3)), np.zeros((0, 3)), 0.0)
        self._null_cost = 0.0
        self._at = 0.0
        self._time: float | None = None

    def __len__(self) -> int:
        """Number of hypotheses."""
        return len(self._all)

    @property
    def pose(self) -> Rigid | None:
        """Pose of the head by the hypothesis with the least cost, atlas → scanner, RAS mm; None before the first slice."""
        return Rigid.about(self._all.rotation[0], self.center, self._all.place[0]) if len(self) else None

    @property
    def confidence(self) -> float:
        """Confidence of the hypothesis with the least cost, in [0, 1]: share × agreement.

        *Share*: softmax of the negative costs over all hypotheses and a null hypothesis, for which every slice costs as much as one at
        distance :data:`~posepipe.slices.fuse.FARTHEST`. *Agreement*: the mean over the last slices, weighted by recency, of 1 / (1 + (d /
        FARTHEST)²), where d is the distance of a slice's nearer pose to the hypothesis when the slice arrived. After one slice with distant
        twins it is 0.45. It was not fitted to errors and is not a calibrated probability.
        """
        if not len(self):
            return 0.0
        costs = np.append(self._all.cost, self._null_cost)
        likely = np.exp(costs.min() - costs)
        counted = float(self._all.counted[0])
        agreement = float(self._all.agreed[0]) / counted if counted > 0 else 1.0
        return agreement * float(likely[0] / likely.sum())

    def distance(self, pose: Rigid) -> float:
        """Distance of ``pose`` to the head's, in units of :func:`posepipe.slices.fuse.distance`; infinite before the first slice."""
        return float(self._all.apart(pose.rotation, pose.apply(self.center))[0]) if len(self) else np.inf

    def nearest_first(self, poses: Iterable[Rigid]) -> list[Rigid]:
        """``poses`` in order of their distance from the head's."""
        return sorted(poses, key=self.distance)

    def advance(self, time: float | None = None) -> None:
        """Advance to ``time`` (s) without an observation (None: by the usual interval); the weights decay with the elapsed time."""
        passed = 1.0
        if time is not None:
            passed = 1.0 if self._time is None else max(time - self._time, 0.0) / SECONDS_PER_SLICE
            self._time = time
        self._at += passed
        kept = self._keep**passed
        self._null_cost *= kept
        self._all = self._all.decay(kept)

    def add(self, poses: Sequence[Rigid], *, weight: float = 1.0, time: float | None = None) -> float:
        """Add a slice whose pose is one of ``poses`` (1 or 2; atlas → scanner, RAS mm), acquired at ``time`` (s; None: at the usual
        interval), with ``weight`` in [0, 1].

        Returns the distance of its nearer pose to the head's previous pose, in units of :func:`posepipe.slices.fuse.distance`; 0 for the
        first slice.
        """
        self.advance(time)
        rotations = np.stack([poses[0].rotation, poses[-1].rotation])
        places = np.stack([poses[0].apply(self.center), poses[-1].apply(self.center)])
        apart = self._all.apart(rotations, places).min(1)
        surprise = float(apart[0]) if len(self) else 0.0
        # a new hypothesis starts with the accumulated cost of the null hypothesis
        opened = Hypotheses.at(rotations[: len(poses)], places[: len(poses)], self._null_cost)
        self._null_cost += weight * float(robust_cost(np.array(FARTHEST)))
        self._all = self._all.updated(apart, weight)
        self._observations.append((rotations, places, weight, self._at))
        if (apart > FARTHEST).all():
            self._all = self._all.concat(opened)
        self._all = self._followed(self._all).distinct(self._null_cost)
        return surprise

    def reset_to(self, pose: Rigid, *, time: float | None = None) -> None:
        """Reset the estimate to a known ``pose`` (atlas → scanner, RAS mm) at ``time`` (s); earlier observations are discarded.

        The pose gets the weight of many agreeing slices.
        """
        self.advance(time)
        rotation, place = pose.rotation[None], pose.apply(self.center)[None]
        self._observations.clear()
        self._observations.append((np.repeat(rotation, 2, 0), np.repeat(place, 2, 0), 1.0, self._at))
        many = 1 / (1 - self._keep)
        self._all = replace(Hypotheses.at(rotation, place, 0.0), agreed=np.array([many]), counted=np.array([many]))
        self._null_cost = many * float(robust_cost(np.array(FARTHEST)))

    def _followed(self, now: Hypotheses) -> Hypotheses:
        """Each hypothesis moved to the weighted geometric median of the nearer poses of the slices within :data:`FARTHEST`; unchanged
        without such slices. By Weiszfeld's algorithm, with rotations averaged as matrices."""
        rotations, places = (np.stack([observation[i] for observation in self._observations]) for i in (0, 1))
        weight = np.array([w * self._keep_pose ** (self._at - at) for _, _, w, at in self._observations])
        apart = now.apart(rotations, places)  # (n, slices, 2)
        nearer, slices = apart.argmin(-1), np.arange(len(weight))
        r, p = rotations[slices, nearer], places[slices, nearer]
        weight = np.where(apart.min(-1) <= FARTHEST, weight, 0.0)
        some = weight.sum(1) > 0
        rotation, place = now.rotation, now.place
        for _ in range(STEPS):
            far = distance(r, p, rotation[:, None], place[:, None])
            pull = weight / np.maximum(far, NEAR)
            pull = pull / np.maximum(pull.sum(1, keepdims=True), 1e-12)
            mean = np.einsum("hs,hsij->hij", pull, r)
            rotation = np.where(some[:, None, None], so3.project(np.where(some[:, None, None], mean, np.eye(3))), rotation)
            place = np.where(some[:, None], np.einsum("hs,hsi->hi", pull, p), place)
        return replace(now, rotation=rotation, place=place)
