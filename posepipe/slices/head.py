"""Where the head is now, from slices that come one at a time and may each be the twin: a recursive estimate that never looks ahead.

A few *hypotheses* of the head's pose (atlas → scanner, RAS mm) are kept side by side, at first the two that the first slice allows. Each
new slice offers its pose and its twin, and each hypothesis takes the nearer one, at the price of its distance
(:func:`posepipe.slices.fuse.distance`, :func:`posepipe.slices.fuse.robust_cost`). Wrong twins of slices 3 mm apart put the head 6 mm
apart (:mod:`posepipe.slices.fuse`), so they soon cost more than the right ones.

**Forgetting.** The head is taken for a random walk, each slice for a look at it with noise. What a slice still counts when ``n`` more have
been acquired is (1 − K)ⁿ, K being the gain of the Kalman filter of that walk in its steady state (:func:`steady_gain`); so little is
forgotten where slices are noisy, and much where they are exact.
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
"""Hypotheses kept: the two of each of four slices that agreed with nothing before."""
FORGOTTEN = 0.1
"""A slice that counts less than this share of a new one is dropped."""
STEPS = 8
"""Steps of Weiszfeld's algorithm for a median, from where it was before the last slice."""
NEAR = 0.05
"""Slices nearer than this to the median pull alike (in units of :func:`posepipe.slices.fuse.distance`: half a degree, a quarter mm), so
that it cannot stick to one of them."""


def steady_gain(motion: float, noise: float) -> float:
    """Gain in [0, 1] of the Kalman filter of a random walk in its steady state: ``motion`` is the standard deviation of a step, ``noise``
    that of a look, in one unit.

    >>> round(steady_gain(1.5, 10.0), 2), round(steady_gain(1.5, 5.0), 2)
    (0.14, 0.26)
    """
    ratio = motion / noise
    return float(ratio * (np.sqrt(ratio**2 + 4) - ratio) / 2)


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """``n`` hypotheses of the head: ``rotation`` (n, 3, 3) and ``place`` (n, 3) of the brain's centre, RAS mm; ``cost`` (n,) of the slices.

    ``agreed`` and ``counted`` (n,): sums over the slices since each was opened, forgotten like costs, of 1 / (1 + (d / FARTHEST)²) times
    weight, and of weight, d being how far the nearer pose of a slice was from the hypothesis when it came.
    """

    rotation: Array
    place: Array
    cost: Array
    agreed: Array
    counted: Array

    @classmethod
    def at(cls, rotation: Array, place: Array, cost: float) -> Hypotheses:
        """New ones, all of one ``cost``."""
        n = len(rotation)
        return cls(rotation, place, np.full(n, cost), np.zeros(n), np.zeros(n))

    def __len__(self) -> int:
        return len(self.cost)

    def pick(self, index: Sequence[int]) -> Hypotheses:
        """Those at ``index``, in that order."""
        i = np.array(index, dtype=int)
        return Hypotheses(self.rotation[i], self.place[i], self.cost[i], self.agreed[i], self.counted[i])

    def and_also(self, other: Hypotheses) -> Hypotheses:
        """These, then ``other``."""
        return Hypotheses(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))

    def apart(self, rotations: Array, places: Array) -> Array:
        """Distances (n, …) of poses (…, 3, 3) and (…, 3), in units of :func:`posepipe.slices.fuse.distance`."""
        more = (1,) * (places.ndim - 1)
        return distance(rotations[None], places[None], self.rotation.reshape(-1, *more, 3, 3), self.place.reshape(-1, *more, 3))

    def forget(self, kept: float) -> Hypotheses:
        """What came before counts ``kept`` times as much."""
        return replace(self, cost=self.cost * kept, agreed=self.agreed * kept, counted=self.counted * kept)

    def judged(self, apart: Array, weight: float) -> Hypotheses:
        """After a slice that is ``apart`` (n,) from each."""
        return replace(
            self, cost=self.cost + weight * robust_cost(apart), agreed=self.agreed + weight / (1 + (apart / FARTHEST) ** 2),
            counted=self.counted + weight,
        )  # fmt: skip

    def distinct(self, most: float) -> Hypotheses:
        """In order of cost the :data:`HYPOTHESES` that cost least, without those that cost more than ``most`` (but for the best) and those
        within 1 of a better one: they follow the same slices."""
        kept: list[int] = []
        apart = self.apart(self.rotation, self.place)
        for i in np.argsort(self.cost, kind="stable").tolist():
            if not kept or (self.cost[i] <= most and apart[i, kept].min() > 1):
                kept.append(i)
        return self.pick(kept[:HYPOTHESES])


class HeadEstimate:
    """The hypotheses, and what follows from them; ``center`` (3,) is the template's brain's, atlas RAS mm.

    ``registered`` says whether slices are registered to the template, and so are about
    :data:`~posepipe.slices.fuse.LEAST_STRAY_DEGREES` off instead of :data:`~posepipe.slices.fuse.DEGREES`.
    """

    def __init__(self, center: npt.ArrayLike, *, registered: bool = False) -> None:
        self.center = np.asarray(center, dtype=float)
        self._keep = 1 - steady_gain(Smoothness.degrees, DEGREES)
        self._keep_pose = 1 - steady_gain(Smoothness.degrees, LEAST_STRAY_DEGREES if registered else DEGREES)
        # of each slice: its two poses (twice the same where it has but one), weight, and when it came, in slices
        self._looks: deque[tuple[Array, Array, float, float]] = deque(maxlen=int(np.ceil(np.log(FORGOTTEN) / np.log(self._keep))))
        self._all = Hypotheses.at(np.zeros((0, 3, 3)), np.zeros((0, 3)), 0.0)
        self._none = 0.0
        self._at = 0.0
        self._time: float | None = None

    def __len__(self) -> int:
        """How many hypotheses there are."""
        return len(self._all)

    @property
    def pose(self) -> Rigid | None:
        """Pose of the head by the likeliest hypothesis, atlas → scanner, RAS mm; None before the first slice."""
        return Rigid.about(self._all.rotation[0], self.center, self._all.place[0]) if len(self) else None

    @property
    def confidence(self) -> float:
        """How far the likeliest hypothesis can be trusted, in [0, 1]: share × agreement.

        *Share*: e^−c over the sum of e^−c of all hypotheses, c being their costs, and of "none of them", for which every slice costs what a
        slice at :data:`~posepipe.slices.fuse.FARTHEST` does. *Agreement*: the mean over the last slices, those counting more that are
        newer, of 1 / (1 + (d / FARTHEST)²), d being how far a slice's nearer pose was from the hypothesis when it came. After one slice,
        whose twins are far apart, it is 0.45; nothing in it was fitted to errors, so it is no calibrated probability.
        """
        if not len(self):
            return 0.0
        costs = np.append(self._all.cost, self._none)
        likely = np.exp(costs.min() - costs)
        counted = float(self._all.counted[0])
        agreement = float(self._all.agreed[0]) / counted if counted > 0 else 1.0
        return agreement * float(likely[0] / likely.sum())

    def distance(self, pose: Rigid) -> float:
        """How far ``pose`` is from the head's, in units of :func:`posepipe.slices.fuse.distance`; infinite before the first slice."""
        return float(self._all.apart(pose.rotation, pose.apply(self.center))[0]) if len(self) else np.inf

    def nearest_first(self, poses: Iterable[Rigid]) -> list[Rigid]:
        """``poses`` in order of their distance from the head's."""
        return sorted(poses, key=self.distance)

    def wait(self, time: float | None = None) -> None:
        """Something was acquired that tells nothing of the head, at ``time`` in seconds (None: as long after the last as is usual).

        Longer pauses forget more.
        """
        passed = 1.0
        if time is not None:
            passed = 1.0 if self._time is None else max(time - self._time, 0.0) / SECONDS_PER_SLICE
            self._time = time
        self._at += passed
        kept = self._keep**passed
        self._none *= kept
        self._all = self._all.forget(kept)

    def add(self, poses: Sequence[Rigid], *, weight: float = 1.0, time: float | None = None) -> float:
        """A slice whose pose is one of ``poses`` (1 or 2; atlas → scanner, RAS mm), acquired at ``time`` in seconds (None: as long
        after the last as is usual); ``weight`` in [0, 1] says how much it counts.

        Returns how far its nearer pose was from the head's before, in units of :func:`posepipe.slices.fuse.distance`; 0 for the first.
        """
        self.wait(time)
        rotations = np.stack([poses[0].rotation, poses[-1].rotation])
        places = np.stack([poses[0].apply(self.center), poses[-1].apply(self.center)])
        apart = self._all.apart(rotations, places).min(1)
        surprise = float(apart[0]) if len(self) else 0.0
        # what was acquired before fits a hypothesis opened now no better than none
        opened = Hypotheses.at(rotations[: len(poses)], places[: len(poses)], self._none)
        self._none += weight * float(robust_cost(np.array(FARTHEST)))
        self._all = self._all.judged(apart, weight)
        self._looks.append((rotations, places, weight, self._at))
        if (apart > FARTHEST).all():
            self._all = self._all.and_also(opened)
        self._all = self._followed(self._all).distinct(self._none)
        return surprise

    def settle(self, pose: Rigid, *, time: float | None = None) -> None:
        """The head's ``pose`` (atlas → scanner, RAS mm) became known at ``time`` otherwise: what was before is forgotten.

        The pose then has the standing of one that many slices agreed on.
        """
        self.wait(time)
        rotation, place = pose.rotation[None], pose.apply(self.center)[None]
        self._looks.clear()
        self._looks.append((np.repeat(rotation, 2, 0), np.repeat(place, 2, 0), 1.0, self._at))
        many = 1 / (1 - self._keep)
        self._all = replace(Hypotheses.at(rotation, place, 0.0), agreed=np.array([many]), counted=np.array([many]))
        self._none = many * float(robust_cost(np.array(FARTHEST)))

    def _followed(self, now: Hypotheses) -> Hypotheses:
        """Each moved to the weighted median of the slices' poses nearer to it, without slices too far from it; without any it stays.

        The median is that of the least sum of distances (Weiszfeld's algorithm, rotations averaged as matrices).
        """
        rotations, places = (np.stack([look[i] for look in self._looks]) for i in (0, 1))
        weight = np.array([w * self._keep_pose ** (self._at - at) for _, _, w, at in self._looks])
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
