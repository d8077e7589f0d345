"""The paper's two networks: their output becomes a pose in millimetres."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posepipe.geometry import Rigid, so3
from posepipe.matching.comparison import Comparison
from posepipe.models.coordinates import HALF_SIDE
from posepipe.models.correction import CorrectionNet
from posepipe.models.inputs import FOREGROUND_OFFSET
from posepipe.models.posenet import PoseNet
from posepipe.models.weights import save_network
from posepipe.pose.coordinate_networks import PoseNetworks
from posepipe.pose.initial import initial_pose
from posepipe.pose.paper_networks import CorrectionNetwork, PoseNetwork

OPTIONS = {"size": 16, "width": 0.1}
ANSWER = np.array([0.3, -0.2, 0.5])
SHIFT = np.array([0.05, -0.02, 0.03])
TO_CANONICAL = so3.exp([0.1, 0.2, -0.1])


def answering(net: PoseNet | CorrectionNet) -> None:
    """Let ``net`` give ANSWER, and SHIFT if it can, whatever it is shown."""
    with torch.no_grad():
        net.rotation.dense.weight.zero_()
        net.rotation.dense.bias.copy_(torch.atanh(torch.tensor(ANSWER / math.pi)))
        if isinstance(net, CorrectionNet):
            net.translation.dense.weight.zero_()
            net.translation.dense.bias.copy_(torch.tensor(SHIFT))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("weights")
    for net, name in ((PoseNet(**OPTIONS), "pose-net"), (CorrectionNet(**OPTIONS), "correction-net")):
        answering(net)
        save_network(net, name, where, architecture=type(net).__name__, options=OPTIONS, card="For a test.", terms="none")
    return where


@pytest.fixture(scope="module")
def compare(head, target) -> Comparison:
    return Comparison.of(head.image, head.mask, target)


def test_pose_net_turns_about_the_centres(folder, compare):
    pose = PoseNetwork("pose-net", folder).pose(compare, TO_CANONICAL)
    np.testing.assert_allclose(pose.rotation, so3.exp(ANSWER) @ TO_CANONICAL, atol=2e-3)  # weights are stored in float16
    np.testing.assert_allclose(pose.apply(compare.target.brain.center), compare.brain.center, atol=1e-6)


@pytest.mark.parametrize("foreground_offset", [None, 0.0])
def test_pose_net_sees_the_outline_or_not(compare, tmp_path, monkeypatch, foreground_offset):
    options = OPTIONS if foreground_offset is None else {**OPTIONS, "foreground_offset": foreground_offset}
    save_network(PoseNet(**options), "pose-net", tmp_path, architecture="PoseNet", options=options, card="For a test.", terms="none")
    seen = []
    forward = PoseNet.forward
    monkeypatch.setattr(PoseNet, "forward", lambda self, cube: seen.append(cube) or forward(self, cube))
    PoseNetwork("pose-net", tmp_path).pose(compare, TO_CANONICAL)
    inside = float(seen[0].sum() / (seen[0] != 0).sum())
    assert abs(inside) < 0.3 if foreground_offset == 0.0 else inside > 0.6 * FOREGROUND_OFFSET


@pytest.mark.parametrize("foreground_offset", [None, 0.0])
def test_correction_net_sees_the_outlines_or_not(compare, tmp_path, monkeypatch, foreground_offset):
    options = OPTIONS if foreground_offset is None else {**OPTIONS, "foreground_offset": foreground_offset}
    network = CorrectionNet(**options)
    save_network(network, "correction-net", tmp_path, architecture="CorrectionNet", options=options, card="For a test.", terms="none")
    seen = []
    forward = CorrectionNet.forward
    monkeypatch.setattr(CorrectionNet, "forward", lambda self, *cubes: seen.extend(cubes) or forward(self, *cubes))
    start = Rigid.about(so3.exp([0.1, 0.0, 0.0]), compare.target.brain.center, compare.brain.center)
    CorrectionNetwork("correction-net", tmp_path).corrected(compare, start, TO_CANONICAL)
    for cube in seen:
        inside = float(cube.sum() / (cube != 0).sum())
        assert abs(inside) < 0.3 if foreground_offset == 0.0 else inside > 0.6 * FOREGROUND_OFFSET


def test_correction_net_adds_what_is_left(folder, compare):
    start = Rigid.about(so3.exp([0.4, 1.0, -2.0]), compare.target.brain.center, compare.brain.center + 3.0)
    found = CorrectionNetwork("correction-net", folder).corrected(compare, start, TO_CANONICAL)
    upright = start.rotation @ TO_CANONICAL.T
    np.testing.assert_allclose(found.rotation @ TO_CANONICAL.T, upright @ so3.exp(ANSWER), atol=2e-3)
    moved = found.apply(compare.target.brain.center) - start.apply(compare.target.brain.center)
    np.testing.assert_allclose(upright.T @ moved, SHIFT * HALF_SIDE * compare.brain.radius, atol=0.05)


def test_what_correction_net_answers_to_anything_cancels_both_ways(folder, compare):
    start = Rigid.about(so3.exp([0.4, 1.0, -2.0]), compare.target.brain.center, compare.brain.center)
    found = CorrectionNetwork("correction-net", folder).corrected(compare, start, TO_CANONICAL, both_ways=True)
    assert found.degrees_from(start) < 0.01


def test_one_way_and_the_other_make_one_pose(folder, compare, monkeypatch):
    turns = [ANSWER, -ANSWER]
    shifts = [SHIFT, -so3.exp(ANSWER).T @ SHIFT]
    seen = []

    def knowing(self: CorrectionNet, reference: torch.Tensor, moving: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((reference, moving))
        return tuple(torch.tensor(x[len(seen) - 1])[None] for x in (turns, shifts))

    monkeypatch.setattr(CorrectionNet, "forward", knowing)
    start = Rigid.about(so3.exp([0.4, 1.0, -2.0]), compare.target.brain.center, compare.brain.center + 3.0)
    found = CorrectionNetwork("correction-net", folder).corrected(compare, start, TO_CANONICAL, both_ways=True)
    upright = start.rotation @ TO_CANONICAL.T
    np.testing.assert_allclose(found.rotation @ TO_CANONICAL.T, upright @ so3.exp(ANSWER), atol=1e-6)
    moved = found.apply(compare.target.brain.center) - start.apply(compare.target.brain.center)
    np.testing.assert_allclose(upright.T @ moved, SHIFT * HALF_SIDE * compare.brain.radius, atol=1e-6)
    (reference, moving), (second, first) = seen
    assert torch.equal(reference, first) and torch.equal(moving, second) and not torch.equal(reference, moving)


def test_posenet_is_an_initial_pose_by_both(folder, compare):
    networks = PoseNetworks(folder)
    brain, target = compare.brain, compare.target
    found = initial_pose(target.volume, target.mask, target, method="posenet", compare=compare, networks=networks)
    to_canonical = networks.canonical(target)
    np.testing.assert_allclose(found.pose.rotation, so3.exp(ANSWER) @ so3.exp(ANSWER) @ to_canonical, atol=4e-3)
    assert np.linalg.norm(found.pose.apply(target.brain.center) - brain.center) > 0.5  # the shift of the second
    assert found.method == "posenet" and found.prediction is not None
    assert set(found.prediction.weights) == {"pose-coarse", "pose-fine", "pose-net", "correction-net"}


@pytest.mark.parametrize("sizes", ["mask", "age"])
def test_cubes_are_as_large_as_the_networks_were_taught(compare, tmp_path, monkeypatch, sizes):
    """A brain twice as large as the template fills its cube as the template does, or, by age, reaches beyond it."""
    options = {**OPTIONS, "sizes": sizes}
    for kind, name in ((PoseNet, "pose-net"), (CorrectionNet, "correction-net")):
        network = kind(**options)
        answering(network)
        save_network(network, name, tmp_path, architecture=kind.__name__, options=options, card="For a test.", terms="none")
    double = np.diag([2.0, 2.0, 2.0, 1.0])
    volume, mask = (replace(v, affine=double @ v.affine) for v in (compare.target.volume, compare.target.mask))
    large = Comparison.of(volume, mask, compare.target)
    assert large.brain.radius == pytest.approx(2 * compare.target.brain.radius, rel=0.02)
    seen = []
    for kind in (PoseNet, CorrectionNet):
        forward = kind.forward
        monkeypatch.setattr(kind, "forward", lambda self, *cubes, do=forward: seen.extend(cubes) or do(self, *cubes))
    start = Rigid.about(np.eye(3), compare.target.brain.center, large.brain.center)
    PoseNetwork("pose-net", tmp_path).pose(large, TO_CANONICAL)
    found = CorrectionNetwork("correction-net", tmp_path).corrected(large, start, TO_CANONICAL)
    alone, reference, moving = ((cube != 0).float().mean().item() for cube in seen)
    assert moving == pytest.approx(reference, rel=0.1) if sizes == "mask" else min(alone, moving) > 2 * reference
    radius = (compare.target.brain if sizes == "age" else large.brain).radius
    moved = np.linalg.norm(found.apply(compare.target.brain.center) - large.brain.center)
    assert moved == pytest.approx(np.linalg.norm(SHIFT) * HALF_SIDE * radius, rel=0.01)
