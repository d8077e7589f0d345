"""The methods of the result tables, by name: initial pose and the steps that follow it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import PosepipeError
from ..geometry import Rigid
from ..imaging.mask import BrainMask, FoundPose
from ..imaging.volume import Volume
from ..matching.comparison import Comparison
from ..matching.target import Target
from ..models import available
from ..models.calibration import load_calibration
from ..pose.coordinate_networks import PoseNetworks
from ..pose.initial import INIT_METHODS, InitialPose, NetworkPrediction, initial_pose, network_hypotheses, single_hypothesis
from ..pose.paper_networks import CorrectionNetwork, PoseNetwork
from ..quality.verdict import Quality, judge_pose
from ..refinement.refine import Refined, refine_pose
from .baselines import DEEP_RATE, RATE, brain_of, geometric_center, principal_axes, vvr

VVR_RATES = {"vvr": RATE, "vvr-lower": RATE * DEEP_RATE}
"""Registration by ANTs itself (:mod:`posepipe.bench.baselines`) → its learning rate."""
METHODS: dict[str, tuple[str, ...]] = {
    "vvr-gc": ("geometric-center", "vvr"),
    "vvr-paa": ("principal-axes", "vvr"),
    "posenet-mse": ("pose-net-mse", "none"),
    "posenet": ("pose-net", "none"),
    "posenet+torch": ("pose-net", "torch"),
    "posenet-t2": ("pose-net-t2", "none"),
    "posenet-t2+torch": ("pose-net-t2", "torch"),
    "correction": ("pose-net", "correction-net"),
    "correction-t2": ("pose-net-t2", "correction-net-t2"),
    "vvr-deep": ("pose-net", "vvr-lower"),
    "vvr-deep-correction": ("pose-net", "correction-net", "vvr-lower"),
    "vvr-deep-ours": ("deep", "vvr-lower"),
    "center+ants": ("center", "ants"),
    "axes": ("axes", "none"),
    "axes+torch": ("axes", "torch"),
    "search": ("search", "none"),
    "search+torch": ("search", "torch"),
    "deep": ("deep", "none"),
    "deep+correction": ("deep", "correction-net"),
    "deep+torch": ("deep", "torch"),
    "deep+ants": ("deep", "ants"),
    "auto+torch": ("auto", "torch"),
    "auto+ants": ("auto", "ants"),
}
"""Name → initial pose (a method of posepipe or of the paper, or the name of a network), then the steps that follow it: networks, the
paper's registration (:data:`VVR_RATES`), or posepipe's own refinement (``ants``, ``torch``, ``none``)."""
PAPER_NETWORKS = ("pose-net-mse", "pose-net", "pose-net-t2", "correction-net", "correction-net-t2")


def networks_key(weights: Mapping[str, str]) -> str:
    """A short name of the networks with the SHA-256 ``weights``, for the names of files of rows made with them.

    >>> networks_key({"b": "0123456789", "a": "abcdefghij"})
    'abcdef012345'
    """
    return "".join(weights[name][:6] for name in sorted(weights))


@dataclass(frozen=True, eq=False)
class Trial:
    """An image to be aligned. ``truth``: its pose against ``target`` (template → image, RAS mm); ``age`` in weeks; ``found``: pose that
    the scan network found together with the mask."""

    image: Volume
    mask: Volume
    target: Target
    truth: Rigid
    age: float | None = None
    found: FoundPose | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of ``method`` for a trial, in ``seconds``; ``quality``: posepipe's own verdict."""

    method: str
    initial: InitialPose
    refined: Refined
    quality: Quality
    seconds: float


def missing_networks(methods: tuple[str, ...], weights_dir: str | Path | None = None) -> dict[str, str]:
    """Methods that cannot be run with these weights → the missing network."""
    there = available(weights_dir)
    needed = {m: [n for n in METHODS[m] if n in PAPER_NETWORKS and n not in there] for m in methods}
    return {m: n[0] for m, n in needed.items() if n}


class BenchmarkRunner:
    """Runs methods on trials; networks are loaded on first use. As in posepipe itself, the pose networks are run in every method, as a
    check of the final pose, and their time counts."""

    def __init__(self, weights_dir: str | Path | None = None) -> None:
        self.networks = PoseNetworks(weights_dir)
        self._weights, self._calibration = weights_dir, load_calibration(weights_dir)
        self._pose: dict[str, PoseNetwork] = {}
        self._correction: dict[str, CorrectionNetwork] = {}

    def run(self, trial: Trial, methods: tuple[str, ...]) -> Iterator[Outcome]:
        """The outcome of each method. An initial pose that several methods share is computed once, and its time counts for each."""
        starts: dict[str, tuple[Comparison, InitialPose, float]] = {}
        for method in methods:
            init, *steps = METHODS[method]
            if init not in starts:
                starts[init] = self._started(trial, init)
            compare, initial, first = starts[init]
            begun = time.perf_counter()
            refined = self.finish(trial, compare, initial, *steps)
            # the step "none" only computes similarities: not counted
            after = 0.0 if steps == ["none"] else time.perf_counter() - begun
            yield Outcome(method, initial, refined, self.judge(trial, initial, refined), first + after)

    def _started(self, trial: Trial, init: str) -> tuple[Comparison, InitialPose, float]:
        """The comparison, the initial pose, and the seconds for both."""
        begun = time.perf_counter()
        compare = Comparison.of(trial.image, trial.mask, trial.target)
        return compare, self.start(trial, compare, init), time.perf_counter() - begun

    def start(self, trial: Trial, compare: Comparison, init: str) -> InitialPose:
        """The initial pose by ``init``."""
        target = trial.target
        if init in INIT_METHODS:
            return initial_pose(
                trial.image, trial.mask, target, method=init, compare=compare, networks=self.networks, found=trial.found
            )
        if init == "geometric-center":
            pose = geometric_center(trial.image, target.volume)
        elif init == "principal-axes":
            pose = principal_axes(brain_of(trial.image, trial.mask), brain_of(target.volume, target.mask))
        else:
            if init not in self._pose:
                self._pose[init] = PoseNetwork(init, self._weights)
            pose = self._pose[init].pose(compare, self.networks.canonical(target))
        return self.from_pose(trial, compare, pose, init)

    def from_pose(self, trial: Trial, compare: Comparison, pose: Rigid, method: str) -> InitialPose:
        """An initial pose from a given ``pose`` by ``method``, with the pose networks' features."""
        hypothesis, features = network_hypotheses(compare.brain, trial.target, self.networks, trial.found)[0]
        prediction = NetworkPrediction.of(hypothesis.pose, features, self.networks)
        return InitialPose(pose, method, single_hypothesis(compare, pose), 1.0, prediction)

    def finish(self, trial: Trial, compare: Comparison, initial: InitialPose, *steps: str) -> Refined:
        """The result of ``steps`` after the initial pose, each started from the pose of the previous one. If a registration fails, a
        message is printed, the pose stays at its start, and the result has a warning, so that the verdict is ``review`` at best."""
        pose, warnings = initial.pose, list[str]()
        for step in steps:
            if step in PAPER_NETWORKS:
                # in both directions for poses that are near already (deep); after Pose-Net in one, as in the paper
                pose = self._corrected(trial, compare, pose, step, both_ways=initial.method == "deep")
                refined = self._refined(trial, compare, pose, "none")
                continue
            try:
                refined = self._registered(trial, compare, pose, step)
            except PosepipeError as error:
                print(f"{trial.image.source}: {step}: {error}", flush=True)
                refined = self._refined(trial, compare, pose, "none")
                warnings.append(f"{step} failed: {error}")
            pose = refined.pose
        return replace(refined, warnings=(*refined.warnings, *warnings))

    def _corrected(self, trial: Trial, compare: Comparison, pose: Rigid, name: str, *, both_ways: bool) -> Rigid:
        """``pose`` corrected by the Correction-Net called ``name``."""
        if name not in self._correction:
            self._correction[name] = CorrectionNetwork(name, self._weights)
        return self._correction[name].corrected(compare, pose, self.networks.canonical(trial.target), both_ways=both_ways)

    def _registered(self, trial: Trial, compare: Comparison, pose: Rigid, step: str) -> Refined:
        """Refinement of ``pose`` by the paper's registration or by posepipe's own."""
        if step not in VVR_RATES:
            return self._refined(trial, compare, pose, step)
        pose = vvr(trial.image, trial.mask, trial.target, pose, rate=VVR_RATES[step])
        return replace(self._refined(trial, compare, pose, "none"), method=step)

    def _refined(self, trial: Trial, compare: Comparison, pose: Rigid, method: str) -> Refined:
        return refine_pose(
            trial.image, trial.mask, trial.target, pose, method=method, compare=compare
        )

    def judge(self, trial: Trial, initial: InitialPose, refined: Refined) -> Quality:
        """posepipe's verdict, as in the sidecar."""
        mask = BrainMask(trial.mask.with_data(np.asarray(trial.mask.data) > 0), "given")
        return judge_pose(initial, refined, mask, trial.target, trial.age, calibration=self._calibration)
