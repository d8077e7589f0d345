"""Channels and the Gauss–Newton fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from posepipe.bench.perturb import corrupted
from posepipe.geometry import Rigid, random_rotations, so3
from posepipe.matching.brain import Brain
from posepipe.matching.channels import MARGIN_MM, channel, outline, texture
from posepipe.matching.comparison import Comparison
from posepipe.matching.gauss_newton import SCALE_LIMIT, Poses, fit
from posepipe.matching.target import SPACING

mm = st.floats(-150, 150)
points = st.tuples(mm, mm, mm).map(np.array)


@given(points, points, points, points, st.floats(-0.25, 0.25))
def test_poses_and_rigid_maps_are_the_same_thing(rotvec, translation, ours, theirs, log_scale):
    pose = Rigid.from_rotvec(rotvec / 50, translation)
    back = Poses.from_rigid(pose, ours, theirs, log_scale).rigid(0, ours, theirs)
    assert back.is_close(pose, degrees=1e-3, mm=1e-2)


def test_carry_takes_image_points_into_the_template():
    pose = Rigid.from_rotvec([0.3, -0.8, 1.1], [12, -30, 7])
    ours, theirs = np.array([5.0, 6, 7]), np.array([-3.0, 2, 1])
    places = np.random.default_rng(0).normal(size=(50, 3)) * 30
    poses = Poses.from_rigid(pose, ours, theirs, 0.0)
    carried = poses.transform(torch.as_tensor(places - ours, dtype=torch.float32))[0].numpy() + theirs
    np.testing.assert_allclose(carried, (~pose).apply(places), atol=1e-3)


def test_poses_pick_and_count():
    rotation = torch.as_tensor(random_rotations(5, np.random.default_rng(0)), dtype=torch.float32)
    poses = Poses(rotation, torch.arange(15.0).reshape(5, 3), torch.arange(5.0))
    some = poses.pick(torch.tensor([3, 1]))
    assert (len(poses), len(some)) == (5, 2)
    assert some.log_scale.tolist() == [3, 1]


@pytest.mark.parametrize("step", [1, 2])
def test_channels_are_on_one_grid_with_weights_that_are_shares(target, step):
    brain = target.brain
    for make, margin in ((outline, np.ceil(MARGIN_MM / SPACING)), (texture, 1)):
        level = make(brain, step)
        assert level.spacing == step * SPACING
        assert level.value.shape == level.weight.shape == level.fields.shape[1:]
        assert level.fields.shape[0] == 5
        assert level.weight.min() >= 0
        assert 0.99 < level.weight.max() < 1 + 1e-6
        padded = (np.array(brain.image.shape) + 2 * margin) / step
        np.testing.assert_allclose(level.value.shape, padded, atol=1)
        mean_square = float((level.value**2 * level.weight).sum() / level.weight.sum())
        assert mean_square == pytest.approx(1, abs=1e-3)
        assert level.reach == 0.5 * level.spacing * max(level.value.shape)


def test_gradient_is_in_millimetres(target):
    level = target.fine_texture
    value, slope = level.fields[0], level.fields[2]
    by_hand = (value[12:-10] - value[10:-12]) / (2 * level.spacing)
    torch.testing.assert_close(slope[11:-11], by_hand)


def test_texture_lies_inside_the_mask_and_the_outline_reaches_beyond(target):
    inside = float(target.brain.mask.sum()) * SPACING**3
    volume = {m: float((m(target.brain).weight > 0.5).sum()) * SPACING**3 for m in (outline, texture)}
    assert volume[texture] < 0.9 * inside
    assert volume[outline] > 1.05 * inside


def test_texture_is_blind_to_a_slanted_brightness_and_the_outline_is_not(average):
    image, mask = average
    ramp = np.arange(image.shape[0], dtype=np.float32)[:, None, None] / image.shape[0]
    slanted = image.with_data((image.data + 300 * ramp) * (mask.data > 0))
    plain, other = (Brain.prepare(i, mask, SPACING) for i in (image, slanted))

    def alike(make) -> float:
        a, b = make(plain), make(other)
        w = a.weight > 0.9
        return float(np.corrcoef(a.value[w], b.value[w])[0, 1])

    assert alike(texture) > 0.97
    assert alike(outline) < alike(texture)
    inner = texture(plain).weight > 0.9
    x = torch.arange(inner.shape[0])[:, None, None].expand(inner.shape)[inner].numpy()
    assert abs(np.corrcoef(texture(other).value[inner], x)[0, 1]) < 0.15


def test_points_are_the_same_every_time_and_no_more_than_requested(target):
    level = target.fine_texture
    a, b = level.points(500), level.points(500)
    assert a.where.shape == (500, 3)
    torch.testing.assert_close(a.where, b.where, rtol=0, atol=0)
    everything = level.points(10**9)
    assert len(everything.value) == int((level.weight > 0.05).sum())
    assert everything.weight.min() > 0.05


def test_a_sliver_of_a_mask_has_texture_too(average):
    image, mask = average
    sliver = np.zeros_like(mask.data)
    middle = image.shape[2] // 2
    sliver[:, :, middle : middle + 2] = mask.data[:, :, middle : middle + 2]
    level = texture(Brain.prepare(image, mask.with_data(sliver), SPACING))
    assert float(level.weight.sum()) > 100
    assert torch.isfinite(level.fields).all()


def test_a_channel_of_ones_own(target):
    level = channel(target.brain, target.brain.mask)
    assert level.fields.shape[0] == 5
    assert level.value.max() == pytest.approx(float(level.value[tuple(n // 2 for n in level.value.shape)]), rel=0.2)


def test_no_iterations_only_score(head, target):
    compare = Comparison(head.brain, target)
    poses = compare.poses(head.pose)
    fitted = fit(compare.coarse_terms, poses, 0)
    assert fitted.poses is poses
    assert fitted.criterion.shape == fitted.overlap.shape == (1,)
    assert compare.rigid(fitted.poses).is_close(head.pose, 1e-3, 1e-2)


def test_a_fit_needs_a_term(head, target):
    with pytest.raises(ValueError, match="at least one term"):
        fit((), Comparison(head.brain, target).poses(head.pose), 3)


@pytest.mark.parametrize("seed", range(6))
def test_a_brain_is_fitted_to_itself_from_8_degrees(target, seed):
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    start = Rigid.from_rotvec(np.radians(8) * axis / np.linalg.norm(axis), rng.uniform(-3, 3, 3))
    compare = Comparison(target.brain, target)
    pose = compare.refined(start)
    assert pose.angle_degrees < 1
    assert pose.mm_from(Rigid.identity()) < 0.5
    assert compare.score(pose) > compare.score(start)


def test_score_is_highest_at_the_truth_and_blind_to_size(heads, target):
    h = heads[7]
    compare = Comparison(h.brain, target)
    at = [compare.score(h.pose @ Rigid.from_rotvec([0, np.radians(d), 0])) for d in (0, 10, 40, 180)]
    assert at == sorted(at, reverse=True)
    # a criterion of 1 + 0.3 shares at most
    assert at[0] < 1.3


def test_many_poses_are_fitted_as_each_alone(head, target):
    compare = Comparison(head.brain, target)
    starts = [head.pose @ Rigid.from_rotvec(v) for v in ([0.1, 0, 0], [0, -0.12, 0.03], [0.05, 0.05, 0.1])]
    single = [compare.poses(s) for s in starts]
    together = Poses(*[torch.cat([getattr(p, f) for p in single]) for f in ("rotation", "shift", "log_scale")])
    fitted = fit(compare.coarse_terms, together, 5)
    for i, start in enumerate(single):
        alone = fit(compare.coarse_terms, start, 5)
        assert compare.rigid(fitted.poses, i).is_close(compare.rigid(alone.poses), degrees=0.02, mm=0.02)
        assert float(fitted.criterion[i]) == pytest.approx(float(alone.criterion[0]), abs=1e-3)


def test_scale_is_bounded(head, target):
    compare = Comparison(head.brain, target)
    start = compare.poses(head.pose)
    grown = Poses(start.rotation, start.shift, start.log_scale + 1.0)
    fitted = fit(compare.coarse_terms, grown, 3).poses
    assert float(fitted.log_scale.abs().max()) <= SCALE_LIMIT + 1e-6
    np.testing.assert_allclose(np.linalg.det(fitted.rotation.numpy()), 1, atol=1e-4)
    assert so3.geodesic_distance(fitted.rotation[0].numpy().T.astype(float), head.pose.rotation) < 0.5


def test_a_strict_fit_keeps_size_and_pose_where_the_mask_is_wrong(make_head, target):
    h = make_head(1)
    compare = Comparison.of(*corrupted(h.image, h.mask, "all", 1.0, np.random.default_rng(1)), target)
    start = compare.poses(h.pose @ Rigid(so3.exp([0.08, -0.06, 0.08]), np.zeros(3)))
    plain, strict = (fit(compare.outline_terms, start, 10, strict=s).poses for s in (False, True))
    assert abs(float(strict.log_scale)) < 0.08
    assert abs(float(strict.log_scale)) < abs(float(plain.log_scale)) - 0.02
    assert compare.rigid(strict).degrees_from(h.pose) < min(8, compare.rigid(plain).degrees_from(h.pose))


def test_texture_needs_no_margin(target):
    brain = target.brain
    wide = Brain(*(F.pad(x, (9,) * 6) for x in (brain.image, brain.mask)), brain.origin - 9 * SPACING, SPACING, brain.moments)
    near, far = texture(brain), texture(wide)
    inner = (slice(9, -9),) * 3
    torch.testing.assert_close(far.value[inner], near.value)
    torch.testing.assert_close(far.weight[inner], near.weight)
    assert float(far.weight.sum()) == pytest.approx(float(near.weight.sum()))
