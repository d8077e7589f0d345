"""From slice poses to the stack's pose: medians, twins, outliers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rotation_strategies import rigids

from posepipe.errors import PosepipeError
from posepipe.geometry import Rigid, mean_pose, random_rotations, so3
from posepipe.slices.acquisition import in_order, interleaved
from posepipe.slices.frames import MidsagittalPlane, SliceGrid, twin_pose
from posepipe.slices.fuse import fuse, median_point, median_pose, median_rotation
from posepipe.slices.motion import random_motion

CENTER = np.array([2.0, -15.0, 8.0])
PLANE = MidsagittalPlane.of(so3.exp([0.1, 0.05, -0.08]), CENTER)


@given(rigids(), st.integers(0, 10_000))
def test_medians_stand_up_to_two_fifths_of_anything(pose, seed):
    rng = np.random.default_rng(seed)
    near = [pose @ Rigid.from_rotvec(rng.normal(0, 0.01, 3)) for _ in range(12)]
    far = [Rigid(r, rng.uniform(-300, 300, 3)) for r in random_rotations(8, rng)]
    found = median_pose(near + far, np.zeros(3))
    assert found.degrees_from(pose) < 3
    assert found.mm_from(pose) < 0.1


@given(rigids(), rigids(), st.integers(0, 10_000))
def test_medians_move_with_what_they_are_of(pose, turn, seed):
    rng = np.random.default_rng(seed)
    poses = [pose @ Rigid.from_rotvec(rng.normal(0, 0.2, 3), rng.normal(0, 5, 3)) for _ in range(7)]
    first, moved = median_pose(poses, CENTER), median_pose([turn @ p for p in poses], CENTER)
    assert moved.is_close(turn @ first, degrees=0.05, mm=0.05)


def test_the_mean_of_a_stack_lies_between_where_the_head_was_and_the_median_where_it_was_longest():
    places = [Rigid.identity()] * 14 + [Rigid.from_rotvec([0, 0, np.radians(20)], [10, 0, 0])] * 10
    fused = fuse(places, np.zeros(3))
    assert fused.pose.angle_degrees < 0.1
    assert fused.mean.angle_degrees == pytest.approx(20 * 10 / 24, abs=0.1)
    np.testing.assert_allclose(fused.mean.translation, [100 / 24, 0, 0], atol=0.01)
    assert mean_pose(places, np.zeros(3), [1.0] * 14 + [0.0] * 10).is_close(Rigid.identity())


def test_weights_count_and_nothing_is_refused():
    a, b = np.eye(3), so3.exp([0, 0, 0.5])
    assert so3.geodesic_distance(median_rotation([a, b, b], [5, 1, 1]), a) < 1e-5
    np.testing.assert_allclose(median_point([[0, 0, 0], [1, 0, 0], [1, 0, 0]], [5, 1, 1]), 0, atol=1e-5)
    with pytest.raises(ValueError, match="median"):
        median_rotation(np.zeros((0, 3, 3)))
    with pytest.raises(PosepipeError, match="nothing to fuse"):
        fuse([], CENTER)


def stack(seed: int, degrees: float, noise: float, stray: float, n: int = 30):
    """A stack of any orientation: true poses and estimates; twins of either at random; ``stray`` of the slices anywhere."""
    rng = np.random.default_rng(seed)
    own = Rigid.about(random_rotations(1, rng)[0], CENTER, rng.uniform(-20, 20, 3))
    head = own.apply(CENTER)
    axes = random_rotations(1, rng)[0]
    order = interleaved(n, int(rng.integers(2, 6)))
    motion = random_motion(in_order(order), degrees, head, rng)
    truth = [m @ own for m in motion]
    grids, found, flipped = [], [], rng.random(n) < 0.5
    bad = np.zeros(n, bool)
    bad[rng.permutation(n)[: int(stray * n)]] = True
    for k, pose in enumerate(truth):
        affine = np.eye(4)
        affine[:3, :3] = axes * [1.1, 1.1, 3.3]
        affine[:3, 3] = head + axes @ [-50, -50, 3.3 * (k - n / 2)]
        grids.append(SliceGrid((92, 92), affine, 3.0))
        at = pose.apply(CENTER)
        off = rng.normal(size=(2, 3)) * noise / np.sqrt(3)
        guess = Rigid.about(so3.exp(np.radians(off[0])), at, at + 0.3 * off[1]) @ pose
        if bad[k]:
            guess = Rigid.about(random_rotations(1, rng)[0], CENTER, at + rng.uniform(-40, 40, 3))
        found.append(twin_pose(guess, grids[-1], PLANE) if flipped[k] else guess)
    twins = [twin_pose(p, g, PLANE) for p, g in zip(found, grids, strict=True)]
    return truth, own, found, twins, flipped, bad, order


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [2.0, 8.0])
def test_the_right_twins_are_found_among_noise_and_a_fifth_of_outliers(degrees):
    right, stacks_lost, error, hits, called, strayed = [], 0, [], 0, 0, 0
    for seed in range(12):
        truth, own, found, twins, _, bad, order = stack(seed, degrees, 8.0, 0.2)
        fused = fuse(found, CENTER, twins=twins, order=order)
        good = ~bad
        # twins of nearly sagittal slices are the same pose: what counts is where the slice ends up
        ok = np.array([p.degrees_from(q) < 35 for p, q in zip(fused.poses, truth, strict=True)])
        right.append(ok[good].mean())
        stacks_lost += ok[good].mean() < 0.5
        error.append(fused.pose.degrees_from(own))
        hits, called, strayed = hits + (fused.outlier & bad).sum(), called + fused.outlier.sum(), strayed + bad.sum()
    assert stacks_lost == 0
    assert np.mean(right) > 0.97
    assert np.median(error) < 4
    assert hits / strayed > 0.85
    assert hits / called > 0.7


def test_a_still_and_exact_stack_has_no_outliers_and_no_motion():
    _, own, found, twins, flipped, _, order = stack(1, 0.0, 0.0, 0.0)
    fused = fuse(found, CENTER, twins=twins, order=order)
    assert not fused.outlier.any()
    np.testing.assert_array_equal(fused.chosen == 1, flipped)
    assert fused.pose.is_close(own, degrees=0.01, mm=0.01)
    assert fused.degrees.max() < 0.01 and fused.mm.max() < 0.01
    assert fused.margin > 0.1


def test_without_twins_nothing_is_flipped_and_costs_can_decide():
    truth, _, found, twins, _, _, order = stack(2, 2.0, 1.0, 0.0)
    fused = fuse(truth, CENTER, order=order)
    assert (fused.chosen == 0).all()
    # one slice alone: only what is known besides tells
    assert fuse(found[:1], CENTER, twins=twins[:1], costs=[[1.0, 0.0]]).chosen[0] == 1
    assert fuse(found[:1], CENTER, twins=twins[:1], costs=[[0.0, 1.0]]).chosen[0] == 0
