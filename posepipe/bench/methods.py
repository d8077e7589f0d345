"""The methods of the tables by name: how each finds a first pose, and what it does to it afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import PosepipeError
from ..geometry import Rigid
from ..imaging.mask import BrainMask, FoundPose
from ..imaging.volume import Volume
from ..models import available
from ..registration.calibration import load_calibration
from ..registration.comparison import Comparison
from ..registration.deep import PoseNetworks
from ..registration.initial import INIT_METHODS, InitialPose, Witness, alone, initial_pose, network_hypotheses
from ..registration.paper import CorrectionNetwork, PoseNetwork
from ..registration.quality import Quality, judge_pose
from ..registration.refine import Refined, refine_pose
from ..registration.target import Target

METHODS: dict[str, tuple[str, str]] = {
    "vvr-gc": ("center", "ants"),
    "vvr-paa": ("one-axes", "ants"),
    "posenet-mse": ("pose-net-mse", "none"),
    "posenet": ("pose-net", "none"),
    "posenet+torch": ("pose-net", "torch"),
    "posenet-t2": ("pose-net-t2", "none"),
    "posenet-t2+torch": ("pose-net-t2", "torch"),
    "correction": ("pose-net", "correction-net"),
    "correction-t2": ("pose-net-t2", "correction-net-t2"),
    "vvr-deep": ("deep", "ants"),
    "axes": ("axes", "none"),
    "axes+torch": ("axes", "torch"),
    "search": ("search", "none"),
    "search+torch": ("search", "torch"),
    "deep": ("deep", "none"),
    "deep+correction": ("deep", "correction-net"),
    "deep+torch": ("deep", "torch"),
    "auto+torch": ("auto", "torch"),
    "auto+ants": ("auto", "ants"),
}
"""Name → first pose (one of posepipe's, ``one-axes`` as the paper's PAA, or the name of a network) and what follows."""
PAPER_NETWORKS = ("pose-net-mse", "pose-net", "pose-net-t2", "correction-net", "correction-net-t2")


def networks_key(weights: Mapping[str, str]) -> str:
    """A short name for the default networks of SHA-256 ``weights``, for files of rows made with them.

    >>> networks_key({"b": "0123456789", "a": "abcdefghij"})
    'abcdef012345'
    """
    return "".join(weights[name][:6] for name in sorted(weights))


@dataclass(frozen=True, eq=False)
class Problem:
    """An image to be placed: its pose against ``target`` is ``truth``; ``found`` is that which the network found with the mask."""

    image: Volume
    mask: Volume
    target: Target
    truth: Rigid
    age: float | None = None
    found: FoundPose | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What ``method`` made of a problem, in ``seconds``; ``quality`` is posepipe's own verdict."""

    method: str
    initial: InitialPose
    refined: Refined
    quality: Quality
    seconds: float


def missing_networks(methods: tuple[str, ...], weights_dir: str | Path | None = None) -> dict[str, str]:
    """Methods that cannot be run with these weights → the network that is not there."""
    there = available(weights_dir)
    needed = {m: [n for n in METHODS[m] if n in PAPER_NETWORKS and n not in there] for m in methods}
    return {m: n[0] for m, n in needed.items() if n}


class Contest:
    """Runs methods on problems; networks are loaded once, when first needed. The networks bear witness in every method, as they do in
    posepipe itself, and their time counts."""

    def __init__(self, weights_dir: str | Path | None = None) -> None:
        self.networks = PoseNetworks(weights_dir)
        self._weights, self._calibration = weights_dir, load_calibration(weights_dir)
        self._pose: dict[str, PoseNetwork] = {}
        self._correction: dict[str, CorrectionNetwork] = {}

    def run(self, problem: Problem, methods: tuple[str, ...]) -> Iterator[Outcome]:
        """The outcome of each method; a first pose that several share is found once and its time counted for each."""
        starts: dict[str, tuple[Comparison, InitialPose, float]] = {}
        for method in methods:
            init, then = METHODS[method]
            if init not in starts:
                starts[init] = self._started(problem, init)
            compare, initial, first = starts[init]
            begun = time.perf_counter()
            refined = self.finish(problem, compare, initial, then)
            # without a refinement what follows is only measuring
            after = 0.0 if then == "none" else time.perf_counter() - begun
            yield Outcome(method, initial, refined, self.judge(problem, initial, refined), first + after)

    def _started(self, problem: Problem, init: str) -> tuple[Comparison, InitialPose, float]:
        """What is compared, the first pose, and the seconds that both took."""
        begun = time.perf_counter()
        compare = Comparison.of(problem.image, problem.mask, problem.target)
        return compare, self.start(problem, compare, init), time.perf_counter() - begun

    def start(self, problem: Problem, compare: Comparison, init: str) -> InitialPose:
        """The first pose by ``init``."""
        target = problem.target
        if init in INIT_METHODS:
            return initial_pose(
                problem.image, problem.mask, target, method=init, compare=compare, networks=self.networks, found=problem.found
            )
        if init == "one-axes":
            rotation = target.brain.moments.axes @ compare.brain.moments.axes.T
            pose = Rigid.about(rotation.T, target.brain.center, compare.brain.center)
        else:
            if init not in self._pose:
                self._pose[init] = PoseNetwork(init, self._weights)
            pose = self._pose[init].pose(compare, self.networks.canonical(target))
        hypothesis, features = network_hypotheses(compare.brain, target, self.networks, problem.found)[0]
        witness = Witness.of(hypothesis.pose, features, self.networks)
        return InitialPose(pose, init, alone(compare, pose), 1.0, witness)

    def finish(self, problem: Problem, compare: Comparison, initial: InitialPose, then: str) -> Refined:
        """What follows the first pose; a refinement that fails is told and leaves it."""
        if then in PAPER_NETWORKS:
            if then not in self._correction:
                self._correction[then] = CorrectionNetwork(then, self._weights)
            canonical = self.networks.canonical(problem.target)
            # near already; after Pose-Net it is asked as in the paper
            pose = self._correction[then].corrected(compare, initial.pose, canonical, both_ways=initial.method == "deep")
            return self._refined(problem, compare, pose, "none")
        try:
            return self._refined(problem, compare, initial.pose, then)
        except PosepipeError as error:
            print(f"{problem.image.source}: {then}: {error}", flush=True)
            return self._refined(problem, compare, initial.pose, "none")

    def _refined(self, problem: Problem, compare: Comparison, pose: Rigid, method: str) -> Refined:
        return refine_pose(
            problem.image, problem.mask, problem.target, pose, method=method, compare=compare
        )

    def judge(self, problem: Problem, initial: InitialPose, refined: Refined) -> Quality:
        """posepipe's verdict, as in the sidecar."""
        mask = BrainMask(problem.mask.with_data(np.asarray(problem.mask.data) > 0), "given")
        return judge_pose(initial, refined, mask, problem.target, problem.age, calibration=self._calibration)
