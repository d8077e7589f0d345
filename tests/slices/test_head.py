"""Tracking of the head's pose from successive slice poses and their twins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from moving_heads import off, planes_of_stack

from posepipe.geometry import Rigid, random_rotations, so3
from posepipe.slices.frames import MidsagittalPlane, SliceGrid, twin_pose
from posepipe.slices.fuse import FARTHEST
from posepipe.slices.head import HYPOTHESES, HeadEstimate, steady_gain
from posepipe.slices.motion import random_motion
from posepipe.slices.tracker import MIN_CONFIDENCE

CENTER = np.array([2.0, -15.0, 8.0])
PLANE = MidsagittalPlane.of(so3.exp([0.1, 0.05, -0.08]), CENTER)


def series(seed: int, degrees: float = 0.0, noise: float = 6.0, lost: float = 0.0) -> tuple[list[Rigid], list[list[Rigid]]]:
    """True poses of the slices of a stack, and pose and twin as a network says them, in either order."""
    rng = np.random.default_rng(seed)
    own = Rigid.about(random_rotations(1, rng)[0], CENTER, rng.uniform(-30, 30, 3))
    grids = planes_of_stack(own.apply(CENTER), rng)
    truth = [m @ own for m in random_motion(np.arange(len(grids)), degrees, own.apply(CENTER), rng)]
    said = []
    for grid, pose in zip(grids, truth, strict=True):
        d = rng.uniform(60, 150) if rng.random() < lost else abs(rng.normal(0, noise))
        both = [off(pose, CENTER, d, 0.35 * d, rng)]
        both.append(twin_pose(both[0], grid, PLANE))
        said.append(both if rng.random() < 0.5 else both[::-1])
    return truth, said


def followed(said: Sequence[Sequence[Rigid]]) -> HeadEstimate:
    estimate = HeadEstimate(CENTER)
    for poses in said:
        estimate.add(poses)
    return estimate


def test_the_right_twins_are_found_and_the_wrong_ones_given_up():
    errors, sure = [], []
    for seed in range(12):
        truth, said = series(seed)
        estimate = followed(said[:12])
        assert estimate.pose is not None
        errors.append(estimate.pose.degrees_from(truth[11]))
        sure.append(estimate.confidence)
        assert len(estimate) <= HYPOTHESES
    assert max(errors) < 10
    assert np.median(errors) < 4
    assert np.median(sure) > 0.75


def test_one_slice_does_not_tell_which_twin():
    _, said = series(3)
    estimate = followed(said[:1])
    # two alike, and none of them: 1 / (2 + e^-1.5)
    assert estimate.confidence == pytest.approx(1 / (2 + np.exp(-1.5)))
    assert len(estimate) == 2
    assert followed([said[0][:1]]).confidence == pytest.approx(1 / (1 + np.exp(-1.5)))


def test_twins_near_each_other_are_one():
    # a nearly midsagittal slice: a twin 2 degrees away
    rng = np.random.default_rng(0)
    axes = np.linalg.svd(PLANE.normal[None])[2].T[:, [1, 2, 0]]
    axes[:, 2] *= np.linalg.det(axes)
    tilted = so3.exp(np.radians(1) * axes[:, 0]) @ axes
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = tilted, CENTER + tilted @ [-48.0, -48.0, 0.0]
    grid = SliceGrid((96, 96), affine, 3.0)
    pose = off(Rigid.identity(), CENTER, 0.0, 0.0, rng)
    estimate = followed([[pose, twin_pose(pose, grid, PLANE)]])
    assert len(estimate) == 1
    assert estimate.confidence > MIN_CONFIDENCE


def test_never_looks_ahead():
    _, said = series(5, degrees=8.0, lost=0.1)
    _, other = series(6, degrees=8.0)
    for n in (1, 4, 9):
        first, second = followed(said[:n]), HeadEstimate(CENTER)
        for poses in said[:n]:
            second.add(poses)
        kept = second.pose
        for poses in other[n:]:
            second.add(poses)
        assert first.pose is not None and kept is not None
        assert first.pose.is_close(kept, degrees=0, mm=0)


def test_the_head_is_followed_and_confidence_is_honest():
    sure, errors = [], []
    for seed in range(15):
        truth, said = series(seed, degrees=8.0, noise=8.0, lost=0.1)
        estimate = HeadEstimate(CENTER)
        for pose, poses in zip(truth, said, strict=True):
            estimate.add(poses)
            assert estimate.pose is not None
            errors.append(estimate.pose.degrees_from(pose))
            sure.append(estimate.confidence >= MIN_CONFIDENCE)
    e, s = np.array(errors), np.array(sure)
    assert s.mean() > 0.6
    assert (e[s] < 15).mean() > 0.97
    assert (e[~s] < 15).mean() < 0.9
    assert np.median(e[s]) < 7


def test_after_a_jump_confidence_falls_and_the_head_is_found_again():
    rng = np.random.default_rng(2)
    jump = Rigid.about(so3.exp([0.9, 0.2, 0]), CENTER, CENTER + np.array([15.0, 0, 0]))
    poses = [off(Rigid.identity(), CENTER, 3, 1, rng) for _ in range(10)] + [off(jump, CENTER, 3, 1, rng) for _ in range(8)]
    estimate, sure, away, surprise = HeadEstimate(CENTER), [], [], []
    for p in poses:
        surprise.append(estimate.add([p]))
        sure.append(estimate.confidence)
        assert estimate.pose is not None
        away.append(estimate.pose.degrees_from(jump))
    assert sure[9] > 0.9 and max(surprise[:10]) < 1
    assert min(sure[10:14]) < 0.6
    # until the head is found again slices are far from where it was
    assert all(s > FARTHEST or a < 4 for s, a in zip(surprise[10:], away[10:], strict=True))
    assert away[9] > 40 and away[13] < 4
    assert sure[-1] > 0.8


@pytest.mark.parametrize(("registered", "most"), [(False, 9.0), (True, 5.0)])
def test_a_slow_turn_is_followed_with_little_lag(registered, most):
    # 1.5° a slice: a median that forgets nothing lags by 12°
    estimate = HeadEstimate(CENTER, registered=registered)
    turned = [Rigid.about(so3.exp([0, np.radians(1.5 * i), 0]), CENTER) for i in range(20)]
    for pose in turned:
        estimate.add([pose])
    assert estimate.pose is not None
    assert 0 < estimate.pose.degrees_from(turned[-1]) < most


def test_forgetting_follows_the_gain_of_a_random_walk():
    # the gain solves K = P / (P + r²) with P = (1 - K) P + q² for the prediction's variance
    for q, r in ((1.5, 10.0), (1.5, 5.0), (3.0, 1.0)):
        k = steady_gain(q, r)
        p = k * r**2 / (1 - k)
        assert (1 - k) * p + q**2 == pytest.approx(p)
    _, said = series(1)
    short, long = HeadEstimate(CENTER), HeadEstimate(CENTER)
    for i, poses in enumerate(said[:10]):
        short.add(poses, time=1.5 * i)
        long.add(poses, time=1.5 * i)
    short.advance(15.0)
    long.advance(200.0)
    assert long.confidence < short.confidence
