"""The paper's volume-to-volume registrations: each start, each registration and each sign, without posepipe's own acceptance rules."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from posepipe import phantom
from posepipe.bench import baselines, methods
from posepipe.bench.baselines import DEEP_RATE, RATE, brain_of, geometric_center, principal_axes, vvr
from posepipe.bench.methods import METHODS, VVR_RATES, BenchmarkRunner, Trial, missing_networks
from posepipe.errors import TransformError
from posepipe.geometry import Rigid, read_itk
from posepipe.imaging.moments import moments
from posepipe.imaging.volume import Volume
from posepipe.matching.comparison import Comparison
from posepipe.matching.target import Target
from posepipe.refinement import refine

AGE, VOXEL = 29.0, 2.5
AWAY = Rigid(np.eye(3), np.array([90.0, -70.0, 60.0]))
"""The template is far from the world's origin, so that a rotation about the origin instead of the brain's centre is detected."""
AXIS = np.array([0.6, -0.48, 0.64])


@pytest.fixture(scope="module")
def target(one_thread_no_cache: None) -> Target:
    labels = phantom.brain_labels(AGE, VOXEL)
    return Target(phantom.render(labels, AGE).moved(AWAY), phantom.brain_mask(labels).moved(AWAY), "Phantom+29")


def trial(target: Target, degrees: float, *, left_handed: bool = False) -> Trial:
    """Another brain of that age, turned by ``degrees`` about its centre and moved 28 mm."""
    pose = Rigid.about(Rigid.from_rotvec(np.radians(degrees) * AXIS).rotation, (0, 0, 0), (12.0, -24.0, 8.0))
    turn = Rigid.from_rotvec([0.3, 0.2, -0.4]).rotation * ([-1.0, 1.0, 1.0] if left_handed else [1.0, 1.0, 1.0])
    image, mask, truth = phantom.subject(AGE, rng=np.random.default_rng(50), pose=pose, spacing=VOXEL, directions=turn)
    return Trial(image, mask, target, truth @ ~AWAY, AGE)


def off(pose: Rigid, p: Trial) -> tuple[float, float]:
    """Degrees and, at the template's centre, mm from the truth."""
    return pose.degrees_from(p.truth), pose.mm_from(p.truth, p.target.brain.center)


def near(p: Trial, degrees: float) -> Rigid:
    """A pose ``degrees`` and 3 mm off the truth, as from a network."""
    center = p.target.brain.center
    turn = Rigid.about(Rigid.from_rotvec(np.radians(degrees) * AXIS[::-1]).rotation, center)
    return p.truth @ Rigid(np.eye(3), np.array([2.0, -2.0, 1.0])) @ turn


@pytest.fixture
def no_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """ANTs returns where it began."""
    monkeypatch.setattr(baselines, "ITERATIONS", "0x0x0")


def padded(volume: Volume, voxels: int) -> Volume:
    """More background before the first voxel of the first axis."""
    affine = volume.affine.copy()
    affine[:3, 3] -= voxels * affine[:3, 0]
    return Volume(np.pad(np.asarray(volume.data), ((voxels, 0), (0, 0), (0, 0))), affine, volume.source)


def test_the_geometric_start_is_that_of_itk(target, no_iterations, tmp_path, monkeypatch):
    """Not of the masses: half of the grid is background."""
    import ants

    p = trial(target, 25)
    image, mask = padded(p.image, 20), padded(p.mask, 20)
    start = geometric_center(image, target.volume)
    monkeypatch.setenv("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
    fixed, moving = (baselines._ants_image(brain_of(*both)) for both in ((target.volume, target.mask), (image, mask)))
    ants.registration(baselines._arguments(fixed, moving, "[{pair},0]", f"{tmp_path}/", RATE), None)
    theirs = read_itk(tmp_path / "0GenericAffine.mat")
    assert start.is_close(theirs, 1e-4, 1e-3)
    assert start.mm_from(p.truth, target.brain.center) > 15 and start.angle_degrees == 0


@pytest.mark.parametrize("left_handed", [False, True])
def test_ants_starts_from_the_given_pose(target, no_iterations, left_handed):
    """Any pose, in the bench's convention: template → image, RAS."""
    p = trial(target, 100, left_handed=left_handed)
    assert (np.linalg.det(p.image.affine) < 0) == left_handed
    assert baselines._by_ants(p.image, p.mask, target, p.truth, RATE).is_close(p.truth, 1e-4, 1e-3)


@pytest.mark.parametrize(("degrees", "left_handed"), [(10, True), (30, False)])
def test_gc_brings_small_turns_back(target, degrees, left_handed):
    p = trial(target, degrees, left_handed=left_handed)
    start = geometric_center(p.image, target.volume)
    assert off(start, p)[0] == pytest.approx(degrees, abs=1e-6) and off(start, p)[1] > 2
    found = vvr(p.image, p.mask, target, start)
    assert off(found, p)[0] < 2 and off(found, p)[1] < 1


def test_a_half_turn_comes_back_from_a_near_start_alone(target):
    p = trial(target, 180)
    lost = vvr(p.image, p.mask, target, geometric_center(p.image, target.volume))
    found = vvr(p.image, p.mask, target, near(p, 20), rate=RATE * DEEP_RATE)
    assert off(lost, p)[0] > 90
    assert off(found, p)[0] < 2 and off(found, p)[1] < 1


def test_voxels_outside_the_masks_have_no_effect(target):
    """What lies outside the masks changes nothing."""
    p = trial(target, 10)
    both = ((p.image, p.mask), (target.volume, target.mask))
    image, template = (v.with_data(np.where(m.data > 0, v.data, 2 * v.data.max())) for v, m in both)
    start = geometric_center(image, template)
    other = Target(template, target.mask, "Phantom+29")
    assert vvr(image, p.mask, other, start).is_close(vvr(p.image, p.mask, target, start), 0, 0)


def test_the_learning_rate_is_ants_own(target):
    """It searches along the gradient, so a rate must be very low to tell."""
    p = trial(target, 30)
    start = geometric_center(p.image, target.volume)
    slow, fast = (vvr(p.image, p.mask, target, start, rate=rate) for rate in (1e-5, RATE))
    assert slow.degrees_from(start) < 10 < 25 < fast.degrees_from(start)


def half_turns(target: Target) -> list[Rigid]:
    """By 0° or 180° about the template's principal axes: what one choice of signs cannot tell apart."""
    axes = moments(brain_of(target.volume, target.mask)).axes
    return [Rigid(axes @ np.diag(s) @ axes.T, np.zeros(3)) for s in ([1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1])]


@pytest.mark.parametrize("degrees", [10, 100])
def test_paa_maps_axes_to_axes_and_centre_of_mass_to_centre_of_mass(target, degrees):
    """Up to a half turn about an axis; the other way round it would be 20° off at least."""
    p = trial(target, degrees)
    start = principal_axes(brain_of(p.image, p.mask), brain_of(target.volume, target.mask))
    offs = [start.degrees_from(p.truth @ turn) for turn in half_turns(target)]
    assert min(offs) < 6
    assert min((~start).degrees_from(p.truth @ turn) for turn in half_turns(target)) > 15
    assert start.mm_from(p.truth, target.brain.center) < 2
    if degrees < 20:  # signs alike on both sides, so the right half turn
        assert offs[0] < 6
        assert off(vvr(p.image, p.mask, target, start), p)[0] < 2


def test_paa_weighs_by_brightness(target):
    """As ITK's moments of an image, not of its mask."""
    data = brain_of(target.volume, target.mask).data.copy()
    data[: data.shape[0] // 2] *= 3
    lopsided = target.volume.with_data(data)
    start = principal_axes(lopsided, brain_of(target.volume, target.mask))
    assert start.mm_from(Rigid.identity(), moments(target.mask).center) > 5


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_the_signs_of_axes_do_not_depend_on_how_they_were_computed(signs):
    axes = Rigid.from_rotvec([0.3, -0.5, 0.2]).rotation
    flipped = np.stack([axes[:, 0] * signs[0], axes[:, 1] * signs[1], axes[:, 2] * signs[0] * signs[1]], 1)
    pointed = baselines._pointed(flipped)
    np.testing.assert_allclose(pointed, axes, atol=1e-12)
    assert np.linalg.det(pointed) == pytest.approx(1)


@pytest.fixture(scope="module")
def runner(one_thread_no_cache: None) -> BenchmarkRunner:
    return BenchmarkRunner()


def test_each_method_is_what_its_name_says():
    assert {m: then for m, then in METHODS.items() if m.startswith("vvr")} == {
        "vvr-gc": ("geometric-center", "vvr"),
        "vvr-paa": ("principal-axes", "vvr"),
        "vvr-deep": ("pose-net", "vvr-lower"),
        "vvr-deep-correction": ("pose-net", "correction-net", "vvr-lower"),
        "vvr-deep-ours": ("deep", "vvr-lower"),
    }
    assert 0 < VVR_RATES["vvr-lower"] < VVR_RATES["vvr"] == RATE
    assert {len(x.split("x")) for x in (baselines.ITERATIONS, baselines.SHRINK, baselines.SIGMAS.removesuffix("vox"))} == {3}


def test_each_registration_begins_where_its_network_ended(target, runner, monkeypatch):
    """Asked of the runner, with the registration recorded and not run."""
    p = trial(target, 60)
    asked: list[tuple[Rigid, float]] = []

    def record(image: Volume, mask: Volume, against: Target, start: Rigid, *, rate: float = RATE) -> Rigid:
        assert (image, mask, against) == (p.image, p.mask, target)
        asked.append((start, rate))
        return start

    monkeypatch.setattr(methods, "vvr", record)
    names = ("posenet", "correction", "deep", "vvr-gc", "vvr-paa", "vvr-deep", "vvr-deep-correction", "vvr-deep-ours")
    found = {o.method: o.refined.pose for o in runner.run(p, names)}
    axes = principal_axes(brain_of(p.image, p.mask), brain_of(target.volume, target.mask))
    starts = (geometric_center(p.image, target.volume), axes, found["posenet"], found["correction"], found["deep"])
    assert [rate for _, rate in asked] == [RATE] * 2 + [RATE * DEEP_RATE] * 3
    for (start, _), wanted in zip(asked, starts, strict=True):
        assert start.is_close(wanted, 1e-5, 1e-5)
    assert min(a.degrees_from(b) for i, a in enumerate(starts) for b in starts[:i]) > 0.1  # each another


def test_what_ants_returns_is_the_result(target, runner):
    """Also where no measure is better there and posepipe's own refinement would keep its start: the template itself, begun at the truth."""
    p = Trial(target.volume.moved(AWAY), target.mask.moved(AWAY), target, AWAY, AGE)
    compare = Comparison.of(p.image, p.mask, target)
    initial = runner.from_pose(p, compare, p.truth, "test")
    refined = runner.finish(p, compare, initial, "vvr")
    assert refined.method == "vvr" and refined.template == "whole"
    assert refined.pose.is_close(vvr(p.image, p.mask, target, p.truth), 0, 0)
    assert refined.pose.degrees_from(p.truth) > 1e-4
    after, before = (refine._measured(compare, pose) for pose in (refined.pose, p.truth))
    assert not refine._better(compare, refined.pose, p.truth, after, before)


def test_a_registration_that_fails_is_reported_and_leaves_its_start(target, runner, capsys):
    p = trial(target, 10)
    compare = Comparison.of(p.image, p.mask, target)
    beside = Rigid(np.eye(3), np.array([900.0, 0.0, 0.0])) @ p.truth
    with pytest.raises(TransformError, match=r"ANTs could not register this image \(it took no step"):
        vvr(p.image, p.mask, target, beside)
    initial = runner.from_pose(p, compare, beside, "test")
    refined = runner.finish(p, compare, initial, "vvr")
    assert refined.pose.is_close(beside) and "vvr: " in capsys.readouterr().out
    assert any("vvr failed" in w for w in refined.warnings)
    quality = runner.judge(p, initial, refined)
    assert quality.qc != "pass" and any("vvr failed" in reason for reason in quality.reasons)


def test_an_error_of_ants_names_the_image(target, monkeypatch):
    p = trial(target, 10)
    monkeypatch.setattr(baselines, "SHRINK", "8x4")  # not as many as levels
    with pytest.raises(TransformError, match=f"{p.image.source}: ANTs could not register this image"):
        vvr(p.image, p.mask, target, p.truth)


def test_methods_need_all_the_networks_of_their_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "available", lambda folder: {"pose-net"})
    assert missing_networks(("vvr-gc", "vvr-deep", "vvr-deep-correction")) == {"vvr-deep-correction": "correction-net"}


TWICE = """
import os
import numpy as np
from posepipe.bench.baselines import geometric_center, vvr
from posepipe.geometry import Rigid
from posepipe import phantom
from posepipe.matching.target import Target

os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "7"
labels = phantom.brain_labels(29, 2.5)
target = Target(phantom.render(labels, 29), phantom.brain_mask(labels))
pose = Rigid.from_rotvec([0.2, 0.1, -0.2], [5, 3, 1])
image, mask = target.volume.moved(pose), target.mask.moved(pose)
one, two = (vvr(image, mask, target, geometric_center(image, target.volume)).matrix for _ in range(2))
assert np.array_equal(one, two), np.abs(one - two).max()
assert os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] == "7"
"""


def test_the_same_twice():
    """In a process of its own, as ITK counts its threads once; whatever the environment asks for, which is put back."""
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
