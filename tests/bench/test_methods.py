"""The methods of the tables: the initial pose has the right direction, and the named refinement is run."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from posepipe import phantom
from posepipe.bench.confidence import _initial
from posepipe.bench.methods import METHODS, BenchmarkRunner, Outcome, Trial
from posepipe.geometry import Rigid
from posepipe.matching.comparison import Comparison
from posepipe.matching.target import Target
from posepipe.models.correction import CorrectionNet
from posepipe.models.weights import save_network
from posepipe.pose.initial import InitialPose

AGE, VOXEL = 29.0, 2.0
TRUTH = Rigid.from_rotvec([1.1, -0.6, 1.3], [12.0, -25.0, 8.0])
"""A turn of about 104°, so that its inverse is far from it."""


@pytest.fixture(scope="module")
def runner(one_thread_no_cache: None) -> BenchmarkRunner:
    return BenchmarkRunner()


@pytest.fixture(scope="module")
def target() -> Target:
    labels = phantom.brain_labels(AGE, VOXEL)
    return Target(phantom.render(labels, AGE), phantom.brain_mask(labels), "Phantom+29")


@pytest.fixture(scope="module")
def itself(target: Target) -> Trial:
    """The template itself, turned and moved by its header alone."""
    return Trial(target.volume.moved(TRUTH), target.mask.moved(TRUTH), target, TRUTH, AGE)


@pytest.fixture(scope="module")
def another(target: Target) -> Trial:
    """Another brain of the same age, on a grid of its own."""
    image, mask, pose = phantom.subject(AGE, rng=np.random.default_rng(50), pose=TRUTH, spacing=VOXEL)
    return Trial(image, mask, target, pose, AGE)


def half_turns(target: Target) -> list[Rigid]:
    """The four turns by 0° or 180° about the template's principal axes: PAA cannot tell them apart."""
    axes = target.brain.moments.axes
    return [Rigid(axes @ np.diag(s) @ axes.T, np.zeros(3)) for s in ([1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1])]


def off(pose: Rigid, truth: Rigid, target: Target) -> float:
    """Degrees from the nearest of the four poses that the principal axes allow."""
    return min(pose.degrees_from(truth @ turn) for turn in half_turns(target))


def one_choice_of_axes(runner: BenchmarkRunner, p: Trial) -> Rigid:
    """The start of the poses that calibration makes wrong on purpose by one choice of signs."""
    made = _initial(runner, p, Comparison.of(p.image, p.mask, p.target), "one-axes", None, np.random.default_rng(0))
    assert made is not None and made.prediction is not None
    return made.pose


def test_one_choice_maps_the_template_s_axes_to_the_image_s(runner: BenchmarkRunner, itself: Trial) -> None:
    pose = one_choice_of_axes(runner, itself)
    assert off(pose, TRUTH, itself.target) < 3
    assert off(~pose, TRUTH, itself.target) > 30  # the other way round would not pass
    np.testing.assert_allclose(pose.apply(itself.target.brain.center), TRUTH.apply(itself.target.brain.center), atol=0.5)


def test_one_choice_for_another_brain_is_near_too(runner: BenchmarkRunner, another: Trial) -> None:
    pose = one_choice_of_axes(runner, another)
    assert off(pose, another.truth, another.target) < 25 < off(~pose, another.truth, another.target)


@pytest.fixture(scope="module")
def outcomes(runner: BenchmarkRunner, another: Trial) -> dict[str, Outcome]:
    return {outcome.method: outcome for outcome in runner.run(another, ("deep", "deep+torch", "deep+ants", "vvr-deep-ours"))}


def test_ants_starts_from_the_networks_pose_and_betters_it(outcomes: dict[str, Outcome], another: Trial) -> None:
    alone, classical = outcomes["deep"], outcomes["deep+ants"]
    assert classical.initial is alone.initial and alone.initial.method == "deep"
    assert alone.refined.pose is alone.initial.pose and alone.refined.method == "none"
    assert classical.refined.method == "ants"
    assert classical.refined.pose.degrees_from(another.truth) < min(3.0, 0.7 * alone.refined.pose.degrees_from(another.truth))
    for name in ("NCC", "NMI", "CR"):
        values = classical.refined.similarity[name]
        assert values["before"] == alone.refined.similarity[name]["after"] and values["after"] > values["before"], name


def test_ants_by_itself_starts_there_too_and_betters_it(outcomes: dict[str, Outcome], another: Trial) -> None:
    alone, itself = outcomes["deep"], outcomes["vvr-deep-ours"]
    assert itself.initial is alone.initial and itself.refined.method == "vvr-lower"
    assert itself.refined.pose.degrees_from(another.truth) < min(3.0, 0.7 * alone.refined.pose.degrees_from(another.truth))
    assert itself.refined.pose.degrees_from(outcomes["deep+ants"].refined.pose) > 1e-3
    assert itself.seconds > alone.seconds


def test_the_other_refinement_of_the_same_start(outcomes: dict[str, Outcome], another: Trial) -> None:
    torch_, classical = outcomes["deep+torch"], outcomes["deep+ants"]
    assert torch_.refined.method == "torch" and torch_.initial is classical.initial
    assert torch_.refined.pose.degrees_from(another.truth) < 3
    assert torch_.refined.pose.degrees_from(classical.refined.pose) > 1e-3


def test_networks_alone_refine_nothing() -> None:
    assert {METHODS[name] for name in ("posenet", "deep", "search", "axes")} == {
        ("pose-net", "none"), ("deep", "none"), ("search", "none"), ("axes", "none")
    }  # fmt: skip


TURN = [0.2, -0.1, 0.15]
"""15.43°."""


@pytest.fixture(scope="module")
def constant(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkRunner:
    """A runner whose Correction-Net finds the same turn whatever it is shown."""
    folder, options = tmp_path_factory.mktemp("weights"), {"size": 16, "width": 0.1}
    network = CorrectionNet(**options)
    with torch.no_grad():
        for head in (network.rotation.dense, network.translation.dense):
            head.weight.zero_()
            head.bias.zero_()
        network.rotation.dense.bias.copy_(torch.atanh(torch.tensor(TURN) / math.pi))
    save_network(network, "correction-net", folder, architecture="CorrectionNet", options=options, card="For a test.", terms="none")
    return BenchmarkRunner(folder)


@pytest.mark.parametrize(("first", "degrees"), [("pose-net", 15.43), ("deep", 0.0)])
def test_correction_net_runs_once_after_pose_net_and_in_both_directions_near_the_truth(
    constant: BenchmarkRunner, itself: Trial, first: str, degrees: float
) -> None:
    """An answer that is the same for all images counts in full when asked once, and cancels when asked both ways."""
    compare = Comparison.of(itself.image, itself.mask, itself.target)
    start = replace(constant.start(itself, compare, "center"), method=first)
    found = constant.finish(itself, compare, start, "correction-net")
    assert found.pose.degrees_from(start.pose) == pytest.approx(degrees, abs=0.1)


def test_poses_made_wrong_on_purpose_are_turned_about_the_brain_s_centre(runner: BenchmarkRunner, itself: Trial) -> None:
    """Calibration needs poses that are wrong by 20° to 90° and nothing else."""
    compare = Comparison.of(itself.image, itself.mask, itself.target)
    rng = np.random.default_rng(0)
    for _ in range(4):
        made = _initial(runner, itself, compare, "turned", None, rng)
        assert made is not None and 20 <= made.pose.degrees_from(TRUTH) <= 90
        assert made.pose.mm_from(TRUTH, itself.target.brain.center) < 1e-6


class Counted(BenchmarkRunner):
    """Finding each first pose takes 1000 s."""

    def _started(self, trial: Trial, init: str) -> tuple[Comparison, InitialPose, float]:
        return (*super()._started(trial, init)[:2], 1000.0)


def test_a_refinement_takes_its_time_after_the_first_pose(one_thread_no_cache: None, itself: Trial) -> None:
    alone, refined = (outcome.seconds for outcome in Counted().run(itself, ("deep", "deep+torch")))
    assert alone == 1000.0  # without a refinement what follows only measures
    assert refined > 1000.0
