"""Slice-to-volume registration: it recovers the perturbed pose, with all directions correct."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posepipe.atlas.volumes import SIZE_DEVIATION
from posepipe.bench.slice_baselines import DEEP_RATE, FIRST_STEP_MM, geometric_start, svr_deep, svr_gc
from posepipe.bench.slice_register import slice_mm, start_off
from posepipe.errors import MaskError
from posepipe.geometry import Rigid, random_rotations
from posepipe.slices.acquisition import Acquisition
from posepipe.slices.frames import Slice, SliceGrid
from posepipe.slices.motion import simulate_stack
from posepipe.slices.points import FOREGROUND_OFFSET, LEVELS, SliceBatch, profile
from posepipe.slices.register import SHAPE_DEVIATION, SHARES, SlicePoses, SliceTerm, SVROptions, register_slices, stack_weights
from posepipe.slices.scanner import SliceScanner
from posepipe.slices.smoothness import Smoothness, coupled_step

from .conftest import grid_through

OWN = Rigid(random_rotations(1, np.random.default_rng(9))[0], np.array([12.0, -30.0, 7.0]))
"""Pose of the head that is sliced."""


@pytest.fixture(scope="module")
def pieces(average, planes, slice_target) -> list[Slice]:
    """Slices of the template itself as a head that lies at OWN."""
    scanner = SliceScanner(*average, 1.2)
    return [scanner.acquire(moved, OWN, i) for i, moved in enumerate(_moved(planes))]


def _moved(planes: list[SliceGrid]) -> list[SliceGrid]:
    return [SliceGrid(g.shape, OWN.matrix @ g.affine, g.thickness) for g in planes]


def starts(target, n: int, degrees: float, seed: int = 0) -> list[Rigid]:
    rng = np.random.default_rng(seed)
    return [start_off(OWN, target.center, degrees, rng) for _ in range(n)]


def test_ten_degrees_and_their_mm_off_every_slice_comes_back(pieces, slice_target):
    """Starts are 10° and 4 mm off; the phantom is its own template, so what is left is that of its voxels of 1.5 mm."""
    found = register_slices(pieces, slice_target, starts(slice_target, len(pieces), 10))
    degrees = np.array([p.degrees_from(OWN) for p in found.poses])
    mm = np.array([slice_mm(p, OWN, s) for p, s in zip(found.poses, pieces, strict=True)])
    assert np.median(degrees) < 1 and np.median(mm) < 0.8
    assert (degrees < 3).mean() > 0.9
    assert np.median(found.ncc) > 0.9


def test_six_millimetres_off_come_back_too(pieces, slice_target):
    rng = np.random.default_rng(1)
    ways = rng.normal(size=(12, 3))
    off = [Rigid(np.eye(3), 6 * v / np.linalg.norm(v)) @ s for v, s in zip(ways, starts(slice_target, 12, 1), strict=True)]
    found = register_slices(pieces, slice_target, off)
    assert np.median([slice_mm(p, OWN, s) for p, s in zip(found.poses, pieces, strict=True)]) < 1


@pytest.mark.parametrize("wrong", ["pose", "normal", "mirror"])
def test_anything_the_wrong_way_round_does_not_fit(pieces, slice_target, wrong):
    """The inverse pose, slices turned over, and slices mirrored: none finds the truth with the NCC that the right ones have."""
    begin = starts(slice_target, len(pieces), 5)
    if wrong == "pose":
        begin = [~p for p in begin]
    turned = pieces
    if wrong == "normal":  # the profile is symmetric, so only the rows' order tells
        turned = [Slice(s.grid, s.image[::-1].copy(), s.mask[::-1].copy()) for s in pieces]
    if wrong == "mirror":
        turned = [Slice(s.grid, s.image.T.copy(), s.mask.T.copy()) for s in pieces]
    found = register_slices(turned, slice_target, begin)
    assert np.median([p.degrees_from(OWN) for p in found.poses]) > 5
    assert np.median(found.ncc) < 0.8


def test_the_derivative_is_that_of_the_values(pieces, slice_target):
    batch = SliceBatch(pieces[:3])
    poses = SlicePoses.of([OWN] * 3, pieces[:3], slice_target.center, [0.1, -0.05, 0.0])
    term = SliceTerm(slice_target.levels()[0], batch.levels()[0], batch.thickness)
    _, slope = term.sample_template(poses)
    inside = term.points.weight > 0.5
    for k, step in enumerate([0.01, 0.01, 0.01, 0.3, 0.3, 0.3, 0.01, 0.01, 0.01]):
        change = torch.zeros(3, 9)
        change[:, k] = step
        ahead, _ = term.sample_template(poses.stepped(change[:, :3], change[:, 3:6], change[:, 6:]))
        behind, _ = term.sample_template(poses.stepped(-change[:, :3], -change[:, 3:6], -change[:, 6:]))
        expected = ((ahead - behind) / (2 * step))[inside]
        assert torch.corrcoef(torch.stack([expected, slope[..., k][inside]]))[0, 1] > 0.97
        assert float((expected * slope[..., k][inside]).sum() / (expected**2).sum()) == pytest.approx(1, abs=0.1)


def test_poses_go_to_maps_of_the_slice_frame_and_back(pieces, slice_target):
    begin = starts(slice_target, 12, 30)
    for scale in (0.0, 0.1, [0.1, -0.2, 0.05]):
        poses = SlicePoses.of(begin, pieces, slice_target.center, scale)
        for a, b in zip(poses.rigid(pieces, slice_target.center), begin, strict=True):
            assert a.is_close(b, degrees=1e-3, mm=1e-3)
    poses = SlicePoses.of(begin, pieces, slice_target.center)
    where = torch.tensor([[[3.0, -7.0]]]).expand(12, 1, 2)
    got = poses.transform(where, torch.full((12, 1), 2.0))[:, 0, 0].numpy() + slice_target.center
    expected = [(~b).apply(s.grid.to_world.apply([3.0, -7.0, 2.0])) for s, b in zip(pieces, begin, strict=True)]
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_profiles_have_the_variance_of_the_slice_less_the_blur():
    thickness = torch.tensor([2.5, 3.5, 6.0])
    places, shares = profile(thickness, 0.8)
    np.testing.assert_allclose((places**2 @ shares).numpy(), (thickness.numpy() / 2.3548) ** 2 - 0.64, rtol=1e-4)
    assert float(shares.sum()) == pytest.approx(1)
    assert profile(torch.tensor([3.0]), LEVELS[0][0])[0].shape == (1, 1)


def test_several_starts_of_one_slice_are_followed_together(pieces, slice_target):
    near, far = starts(slice_target, 1, 5)[0], starts(slice_target, 1, 90)[0]
    found = register_slices(pieces[:2], slice_target, [near, far, near], which=[0, 0, 1])
    alone = register_slices(pieces[:1], slice_target, [near])
    assert found.ncc[0] > found.ncc[1]
    assert found.poses[0].degrees_from(alone.poses[0]) < 0.3
    assert found.poses[2].degrees_from(OWN) < 3


def test_a_brain_of_another_size_is_found_to_be_so(average, planes, slice_target):
    """Ten per cent smaller than the template; rotation is right with and without, place and size only with it."""
    volume, mask = average
    small = np.diag([0.9, 0.9, 0.9, 1.0]) @ volume.affine
    small[:3, 3] += 0.1 * slice_target.center
    scanner = SliceScanner(type(volume)(volume.data, small), type(mask)(mask.data, small), 1.2)
    few = [scanner.acquire(g, Rigid.identity(), i) for i, g in enumerate(planes)]
    options = SVROptions(scale_deviation=0.1, shared_scale=True)
    found = register_slices(few, slice_target, [Rigid.identity()] * 12, options=options)
    assert 1.06 < np.exp(found.log_scale).mean() < 1.14
    assert np.ptp(found.log_scale, axis=0).max() < 1e-5
    assert np.median([p.mm_from(Rigid.identity(), slice_target.center) for p in found.poses]) < 1


def test_a_brain_of_other_proportions_is_not_taken_as_a_turned_one(average, planes, slice_target):
    """A tenth narrower and a tenth longer than the template: with one size for all axes single slices turn to make up for it."""
    volume, mask = average
    shape = np.diag([0.9, 1.1, 1.0, 1.0])
    own = shape @ volume.affine
    own[:3, 3] += (np.eye(3) - shape[:3, :3]) @ slice_target.center
    scanner = SliceScanner(type(volume)(volume.data, own), type(mask)(mask.data, own), 1.2)
    few = [scanner.acquire(g, Rigid.identity(), i) for i, g in enumerate(planes)]
    begin = [Rigid.identity()] * len(few)
    one, three = (
        register_slices(few, slice_target, begin, options=SVROptions(scale_deviation=SIZE_DEVIATION, shape_deviation=p))
        for p in (0.0, SHAPE_DEVIATION)
    )
    degrees = [np.mean([p.degrees_from(Rigid.identity()) for p in r.poses]) for r in (one, three)]
    assert degrees[1] < 0.6 * degrees[0]
    head = SVROptions(scale_deviation=SIZE_DEVIATION, shape_deviation=SHAPE_DEVIATION, shared_scale=True)
    size = register_slices(few, slice_target, begin, options=head).log_scale[0]
    np.testing.assert_allclose(size, -np.log([0.9, 1.1, 1.0]), atol=0.04)


def test_dark_tissue_is_distinguished_from_the_background(pieces, slice_target):
    """The same brain with a much darker inside has an outline still: its level lies :data:`FOREGROUND_OFFSET` above what is outside."""
    inside = slice_target.levels()[-1].fields[0]
    assert float(inside[inside > 0.5].quantile(0.02)) > 0.5 and FOREGROUND_OFFSET == 1.0
    points = SliceBatch([Slice(s.grid, np.where(s.mask, 1 - 0.9 * s.image / s.image.max(), 0), s.mask) for s in pieces[:2]]).levels()[-1]
    brain = points.weight[:, 1] > 0.99
    assert float(points.value[:, 0][brain].min()) > 0.8


def test_a_slice_that_fits_worse_than_the_others_weighs_less():
    ncc = np.array([0.9, 0.91, 0.89, 0.9, 0.92, 0.4])
    weights = stack_weights(ncc)
    assert weights[:5].min() > 0.9 and weights[5] < 0.1


def test_smoothness_brings_slices_that_got_lost_back_to_their_neighbours(average, slice_target):
    stack = simulate_stack(*average, np.random.default_rng(11), degrees=2.0)
    truth = stack.poses(Rigid.identity())
    n, rng = len(truth), np.random.default_rng(0)
    begin = [start_off(p, slice_target.center, 35.0 if k % 6 == 3 else 4.0, rng) for k, p in enumerate(truth)]
    tied = SVROptions(smoothness=Smoothness.along(stack.acquisition, np.arange(n)))
    alone = register_slices(stack.slices, slice_target, begin)
    together = register_slices(stack.slices, slice_target, begin, options=tied)
    errors = [np.array([p.degrees_from(q) for p, q in zip(r.poses, truth, strict=True)]) for r in (alone, together)]
    assert errors[1].mean() < 0.6 * errors[0].mean()
    assert np.quantile(errors[1], 0.9) < 6
    # pairs follow time, not place
    times = Acquisition(np.array([0.0, 2.0, 1.0]), "given")
    assert Smoothness.along(times, np.arange(3)).pairs.tolist() == [[0, 2], [2, 1]]


def test_a_slice_without_brain_is_refused(pieces):
    with pytest.raises(MaskError, match="inside"):
        SliceBatch([Slice(pieces[0].grid, pieces[0].image, np.zeros_like(pieces[0].mask))])


def test_the_papers_descent_needs_a_good_start(pieces, slice_target):
    """Header orientation says nothing of OWN; from 12° off it gets near."""
    center = svr_gc(pieces, slice_target)
    deep = svr_deep(pieces, slice_target, starts(slice_target, 12, 12))
    far = np.array([p.degrees_from(OWN) for p in center.poses])
    near = np.array([p.degrees_from(OWN) for p in deep.poses])
    assert np.median(near) < 5 < 20 < np.median(far)
    assert np.median(deep.ncc) > np.median(center.ncc)


def test_the_papers_descent_brings_a_small_turn_back(average, slice_target):
    """SVR-GC of a head 8° from its header's orientation, in slices through its middle: without steps, or with steps the other way, each
    stays 8° off."""
    rng = np.random.default_rng(6)
    own = Rigid.about(Rigid.from_rotvec(np.radians(8) * np.array([0.6, -0.48, 0.64])).rotation, slice_target.center)
    scanner = SliceScanner(*average, 1.2)
    planes = [grid_through(slice_target.center, axes, 0.0) for axes in random_rotations(10, rng)]
    some = [scanner.acquire(SliceGrid(g.shape, own.matrix @ g.affine, g.thickness), own, i) for i, g in enumerate(planes)]
    begun = np.array([geometric_start(s, slice_target).degrees_from(own) for s in some])
    np.testing.assert_allclose(begun, 8, atol=1e-6)
    found = svr_gc(some, slice_target)
    degrees = np.array([p.degrees_from(own) for p in found.poses])
    assert np.median(degrees) < 6 and (degrees < 8).mean() > 0.8


def test_the_papers_descent_begins_at_the_given_pose_and_takes_shorter_steps_after_a_network(pieces, slice_target):
    """A step moves no pixel by more than :data:`FIRST_STEP_MM`, or a quarter of that."""
    for descend, begin, most in (
        (lambda n: svr_gc(pieces, slice_target, steps=(n, 0, 0)), [geometric_start(p, slice_target) for p in pieces], FIRST_STEP_MM),
        (
            lambda n: svr_deep(pieces, slice_target, starts(slice_target, 12, 12), steps=(n, 0, 0)),
            starts(slice_target, 12, 12), FIRST_STEP_MM * DEEP_RATE,
        ),
    ):  # fmt: skip
        still, moved = (
            np.array([slice_mm(p, b, s) for p, b, s in zip(descend(n).poses, begin, pieces, strict=True)]) for n in (1, 2)
        )
        assert still.max() < 1e-3  # looked at, and no step yet
        assert 0.2 * most < np.median(moved[moved > 0.01]) <= most


def test_the_geometric_start_lays_middle_on_middle_and_turns_nothing(pieces, slice_target):
    start = geometric_start(pieces[0], slice_target)
    assert start.angle_degrees == pytest.approx(0, abs=1e-6)
    # the middle of the mask's box lies in the slice
    mask = slice_target.target.mask
    hit = np.argwhere(mask.data > 0)
    middle = mask.affine[:3, :3] @ ((hit.min(0) + hit.max(0)) / 2) + mask.affine[:3, 3]
    assert (~pieces[0].grid.to_world).apply(start.apply(middle))[2] == pytest.approx(0, abs=1e-6)


def test_shares_are_one_pair_a_level():
    assert len(SHARES) == len(LEVELS) == len(SVROptions().steps)


def test_slices_that_show_nothing_of_the_template_follow_the_prior_alone() -> None:
    n = 5
    poses = SlicePoses(torch.eye(3).repeat(n, 1, 1), torch.zeros(n, 3), torch.zeros(n, 3))
    prior = Smoothness(torch.stack([torch.arange(n - 1), torch.arange(1, n)], 1), degrees=0.3, mm=0.15)
    frames = (torch.eye(3).repeat(n, 1, 1), torch.stack([torch.tensor([0.0, 0.0, 2.0 * k]) for k in range(n)]))
    step = coupled_step(1e-6 * torch.eye(6).repeat(n, 1, 1), torch.zeros(n, 6), poses, prior, frames)
    assert step.dtype == torch.float32 and bool(step.isfinite().all())
