"""The pose by networks, with the packaged weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from posepipe.atlas import AtlasLibrary
from posepipe.bench.perturb import corrupted, turned
from posepipe.errors import MaskError, WeightsError
from posepipe.geometry import Rigid, rotations_in_bin
from posepipe.imaging.mask import given_mask
from posepipe.imaging.volume import load_volume
from posepipe.matching.comparison import Comparison
from posepipe.matching.gauss_newton import fit
from posepipe.matching.target import Target
from posepipe.models.weights import POSE_NETWORKS, hashes
from posepipe.pose import search as searching
from posepipe.pose.coordinate_networks import COPIES, MULTISTART_KEPT, DownsampledBrain, PoseNetworks, _grouped
from posepipe.pose.hypothesis import LOW_COARSE_RATIO, SAME_DEGREES
from posepipe.pose.initial import initial_pose
from posepipe.pose.multistart import ATTEMPTS

pytestmark = pytest.mark.decisions


@pytest.fixture(scope="module")
def networks() -> PoseNetworks:
    return PoseNetworks()


@pytest.mark.slow
def test_a_pose_untouched_by_intensities(heads, target, networks):
    """Phantoms are far from what was trained on, and the template's own frame is known by the networks alone."""
    degrees = []
    for head in heads:
        found = initial_pose(head.image, head.mask, target, method="deep", networks=networks)
        assert found.method == "deep"
        assert found.prediction is not None and found.prediction.pose is found.pose
        assert found.prediction.weights == networks.sha256 == hashes(POSE_NETWORKS)
        degrees.append(found.pose.degrees_from(head.pose))
    assert np.median(degrees) < 8


def test_templates_of_one_name_have_a_rotation_each_which_is_kept(target, networks, tmp_path, monkeypatch):
    turn = Rigid.from_rotvec([0.2, 1.9, -0.4])
    one, other = (Target(*volumes, "Twin+29", cache_dir=tmp_path) for volumes in (
        (target.volume, target.mask), (target.volume.moved(turn), target.mask.moved(turn)),
    ))  # fmt: skip
    fresh = PoseNetworks()
    first, second = fresh.canonical(one), fresh.canonical(other)
    assert Rigid(first, np.zeros(3)).degrees_from(Rigid(second @ turn.rotation, np.zeros(3))) < 20
    assert Rigid(first, np.zeros(3)).degrees_from(Rigid(second, np.zeros(3))) > 60
    assert len(list(tmp_path.glob("canonical-*.json"))) == 2
    asked = []
    own = PoseNetworks.place
    monkeypatch.setattr(PoseNetworks, "place", lambda self, brain: asked.append(brain) or own(self, brain))
    renamed = Target(other.volume, other.mask, "Renamed+29", cache_dir=tmp_path)
    np.testing.assert_allclose(PoseNetworks().canonical(renamed), second)
    assert asked == []
    for path in tmp_path.glob("canonical-*.json"):
        path.write_text("[[1,")
    np.testing.assert_allclose(PoseNetworks().canonical(renamed), second, atol=1e-6)
    assert len(asked) == 1  # a damaged file is not believed


@pytest.mark.slow
def test_auto_polishes_what_the_networks_see(heads, target, networks):
    degrees = []
    for head in heads:
        compare = Comparison(head.brain, target)
        found = initial_pose(head.image, head.mask, target, method="auto", compare=compare, networks=networks)
        assert found.method in {"deep", "search"}
        scores = [h.score(found.found.by) for h in found.hypotheses]
        assert scores == sorted(scores, reverse=True)
        degrees.append(found.pose.degrees_from(head.pose))
    assert max(degrees) < 4


def test_auto_searches_where_the_networks_are_lost(head, target, networks):
    class Lost(PoseNetworks):
        def canonical(self, target):
            return networks.canonical(target)

        def place(self, brain, found=None):
            right = super().place(brain)[0]
            turn = rotations_in_bin(1, 100, 110, np.random.default_rng(1))[0]
            return (type(right)(turn @ right.rotation, right.shift, right.scale, right.center, right.radius, right.features),)

    found = initial_pose(head.image, head.mask, target, method="auto", compare=Comparison(head.brain, target), networks=Lost())
    assert found.method == "search"
    assert found.pose.degrees_from(head.pose) < 4 < 90 < found.prediction.pose.degrees_from(head.pose)


@pytest.mark.slow
def test_multistart_of_the_fine_network_finds_the_pose_of_both_networks(heads, networks):
    """The second network alone, knowing 40° around each start, covers all rotations."""
    for head in heads[::4]:
        first = networks.place(head.brain)[0]
        found = networks.place_multistart(head.brain)
        errors = [p.features["expected_error"] for p in found]
        assert 1 < len(found) <= MULTISTART_KEPT
        assert errors == sorted(errors)
        near = min(found, key=lambda p: Rigid(p.rotation, p.shift).degrees_from(Rigid(first.rotation, first.shift)))
        assert Rigid(near.rotation, near.shift).degrees_from(Rigid(first.rotation, first.shift)) < 8
        np.testing.assert_allclose(near.shift, first.shift, atol=0.1)
        assert near.scale == pytest.approx(first.scale, rel=0.1)


@pytest.mark.slow
def test_multistart_is_used_for_a_corrupted_brain_only(head, make_head, target, networks, monkeypatch):
    asked = []
    original = PoseNetworks.place_multistart
    monkeypatch.setattr(PoseNetworks, "place_multistart", lambda self, brain: asked.append(brain) or original(self, brain))
    initial_pose(head.image, head.mask, target, method="auto", networks=networks)
    assert asked == []
    h = make_head(1)
    image, mask = corrupted(h.image, h.mask, "all", 1.0, np.random.default_rng(1))
    found = initial_pose(image, mask, target, method="auto", networks=networks)
    assert len(asked) == 1
    assert found.pose.degrees_from(h.pose) < 8


@pytest.mark.parametrize(("error", "sure"), [(0.01, True), (0.05, False)])
def test_the_networks_pose_is_used_if_all_scores_are_low(head, target, networks, monkeypatch, error, sure):
    """A brain without contrast: wherever it is laid, nothing of it is like the template."""

    class Certain(PoseNetworks):
        def place(self, brain, found=None):
            (first, *_) = networks.place(head.brain)
            features = {**first.features, "votes": 0.75, "expected_error": error}
            return (replace(first, center=brain.center, radius=brain.radius, features=features),)

    asked, elsewhere = [], Rigid.about(rotations_in_bin(1, 90, 100, np.random.default_rng(2))[0], np.zeros(3), np.zeros(3)) @ head.pose

    def look(compare, starts, keep, attempts):
        asked.append(attempts)
        return fit(compare.criterion_terms, compare.poses(elsewhere), 0)

    monkeypatch.setattr(searching, "multistart_search", look)
    noise = np.random.default_rng(0).normal(100, 10, head.image.data.shape) * head.mask.data
    image = head.image.with_data(noise.astype(np.float32))
    found = initial_pose(image, head.mask, target, method="auto", networks=Certain())
    assert asked == [1 if sure else ATTEMPTS]
    assert found.method == "deep"
    assert found.pose.degrees_from(found.prediction.pose) < SAME_DEGREES
    assert found.found.by == "votes" and found.best.votes == 0.75
    assert found.best.coarse < LOW_COARSE_RATIO and found.prediction.reliable is sure
    if sure:
        assert all(h.pose.degrees_from(found.pose) >= SAME_DEGREES for h in found.hypotheses[1:])


@pytest.mark.parametrize(("error", "coarse", "kept"), [(0.01, 0.09, True), (0.01, 0.11, False), (0.05, 0.09, True), (0.05, 0.11, False)])
def test_the_threshold_of_coarse_texture(head, target, networks, monkeypatch, error, coarse, kept):
    """If the criterion is low, the coarse texture score must reach 0.10, whether or not the prediction is reliable."""

    class Certain(PoseNetworks):
        def place(self, brain, found=None):
            (first, *_) = networks.place(head.brain)
            return (replace(first, features={**first.features, "votes": 0.75, "expected_error": error}),)

    monkeypatch.setattr(Comparison, "coarse_score", lambda *_: coarse)
    monkeypatch.setattr("posepipe.pose.initial.LOW_CRITERION", 10.0)
    monkeypatch.setattr("posepipe.pose.hypothesis.LOW_CRITERION", 10.0)
    found = initial_pose(head.image, head.mask, target, method="auto", compare=Comparison(head.brain, target), networks=Certain())
    assert (found.found.by == "votes") is kept


def test_other_methods_hear_the_witness(head, target, networks):
    compare = Comparison(head.brain, target)
    plain = initial_pose(head.image, head.mask, target, method="axes", compare=compare)
    heard = initial_pose(head.image, head.mask, target, method="axes", compare=compare, networks=networks)
    assert plain.prediction is None and heard.prediction is not None
    np.testing.assert_array_equal(plain.pose.matrix, heard.pose.matrix)


def test_a_moved_head_moves_the_pose(head, target, networks):
    """The networks see the brain about its own centre: moving the image moves the pose, and nothing else."""
    motion = Rigid(np.eye(3), np.array([31.0, -12.0, 7.0]))
    still = initial_pose(head.image, head.mask, target, method="deep", networks=networks).pose
    moved = initial_pose(head.image.moved(motion), head.mask.moved(motion), target, method="deep", networks=networks).pose
    assert (motion @ still).degrees_from(moved) < 0.5
    np.testing.assert_allclose((motion @ still).apply(np.zeros(3)), moved.apply(np.zeros(3)), atol=0.3)


def test_a_glance_sees_what_a_brain_shows(head, networks):
    downsampled, brain = DownsampledBrain.of(head.image, head.mask), head.brain
    assert downsampled.radius == pytest.approx(brain.radius) and np.allclose(downsampled.center, brain.center)
    quick, slow = networks.place(downsampled)[0], networks.place(brain)[0]
    apart = np.degrees(np.arccos(np.clip((np.trace(quick.rotation.T @ slow.rotation) - 1) / 2, -1, 1)))
    assert apart < 4
    assert np.linalg.det(quick.rotation) == pytest.approx(1, abs=1e-4)


def test_the_same_bits_twice(head, networks):
    one, two = (networks.place(head.brain)[0] for _ in range(2))
    np.testing.assert_array_equal(one.rotation, two.rotation)
    assert one.features == two.features


def test_votes_that_agree_are_one_hypothesis():
    rng = np.random.default_rng(0)
    near = np.concatenate([np.eye(3)[None], rotations_in_bin(2, 0, 10, rng), rotations_in_bin(1, 80, 100, rng)])
    groups = _grouped(torch.as_tensor(near, dtype=torch.float32), torch.tensor([0.0, 0, 0, 9]))
    assert [sorted(g) for g in groups] == [[0, 1, 2], [3]] and len(near) == COPIES


def test_what_cannot_be_is_reported(head, target, tmp_path):
    with pytest.raises(WeightsError, match=r"weights\.toml"):
        PoseNetworks(tmp_path)
    empty = head.mask.with_data(np.zeros_like(head.mask.data))
    with pytest.raises(MaskError, match="empty"):
        initial_pose(head.image, empty, target, method="deep")


@pytest.mark.slow
def test_real_templates_that_never_trained(data_dir, networks):
    library = AtlasLibrary([data_dir / "atlases"])
    subject, template = library.template("CHN", "33", "T2w"), library.template("CRL", "33", "T2w")
    image = load_volume(subject.image)
    mask = given_mask(load_volume(subject.mask), image).volume
    own = Rigid(subject.to_canonical.T @ template.to_canonical, np.zeros(3))
    rng = np.random.default_rng(3)
    for low in (20, 90, 150):
        turned_image, turned_mask, motion = turned(image, mask, rotations_in_bin(1, low, low + 30, rng)[0], rng)
        found = initial_pose(turned_image, turned_mask, Target.load(template), method="deep", networks=networks)
        assert found.pose.degrees_from(motion @ own) < 7
