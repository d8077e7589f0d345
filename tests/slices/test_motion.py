"""Simulated stacks: correct true poses, and motion of the requested size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from posepipe.geometry import Rigid
from posepipe.slices.frames import SliceGrid
from posepipe.slices.motion import LEVELS, StackProtocol, random_motion, simulate_stack
from posepipe.slices.points import FWHM
from posepipe.slices.scanner import SliceScanner

CLEAN = StackProtocol(noise=0.0, voids=0.0, bias=0.0)


def test_a_slice_is_the_volume_under_its_profile_at_its_true_pose(average):
    """By another route: scipy, the whole response summed point by point."""
    volume, mask = average
    stack = simulate_stack(volume, mask, np.random.default_rng(3), degrees=8.0, protocol=CLEAN)
    data = np.where(mask.data > 0, volume.data, 0).astype(float)
    k = len(stack.slices) // 2
    piece, motion = stack.slices[k], stack.motions[k]
    rng = np.random.default_rng(0)
    places = np.argwhere(ndimage.binary_erosion(piece.mask, iterations=4))[::37]
    own = np.array([1.2 * CLEAN.pixel, 1.2 * CLEAN.pixel, CLEAN.thickness]) / FWHM
    # reading between voxels blurs by 0.4 voxels, which the scanner allows for
    own = np.sqrt(np.maximum(own**2 - (0.4 * volume.spacing[0]) ** 2, 0))
    offsets = rng.normal(size=(4000, 3)) * own @ piece.grid.axes.T
    points = (~motion).apply(piece.grid.points[tuple(places.T)][:, None] + offsets)
    index = (points - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T
    expected = ndimage.map_coordinates(data, np.moveaxis(index, -1, 0), order=1).mean(1)
    got = stack.image.data[places[:, 0], places[:, 1], k]
    top = np.quantile(data[mask.data > 0], 0.99)
    assert np.abs(got - expected).max() < 0.04 * top
    assert np.abs(got - expected).mean() < 0.01 * top
    # and not so at the pose that forgets the motion
    index = (points + (piece.grid.center - motion.apply(piece.grid.center)) - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T
    wrong = ndimage.map_coordinates(data, np.moveaxis(index, -1, 0), order=1).mean(1)
    assert np.abs(got - wrong).mean() > 3 * np.abs(got - expected).mean()


def test_slices_lie_where_the_stacks_affine_says(average):
    stack = simulate_stack(*average, np.random.default_rng(5), degrees=2.0)
    for k in (0, len(stack.slices) - 1):
        here = stack.image.affine @ [3, 4, k, 1]
        np.testing.assert_allclose(stack.slices[k].grid.points[3, 4], here[:3], atol=1e-6)
        np.testing.assert_array_equal(stack.slices[k].image, stack.image.data[:, :, k])
        np.testing.assert_array_equal(stack.slices[k].mask, stack.mask.data[:, :, k])
    assert len(stack.motions) == len(stack.slices) == len(stack.acquisition)


@pytest.mark.parametrize("degrees", LEVELS.values())
def test_motion_has_the_level_requested_and_no_mean(degrees):
    rng, center = np.random.default_rng(1), np.array([5.0, -20.0, 10.0])
    times = np.arange(30) * 1.5
    for _ in range(5):
        motion = random_motion(times, degrees, center, rng)
        assert np.sqrt(np.mean([m.angle_degrees**2 for m in motion])) == pytest.approx(degrees)
        moves = np.stack([m.apply(center) - center for m in motion])
        assert np.sqrt((moves**2).sum(1).mean()) == pytest.approx(degrees / 2)
        np.testing.assert_allclose(moves.mean(0), 0, atol=1e-9)


def test_noise_voids_and_bias_are_put_on_and_the_seed_decides(average):
    protocol = StackProtocol(noise=0.05, voids=0.5, bias=0.2)
    still = simulate_stack(*average, np.random.default_rng(2), degrees=2.0, protocol=CLEAN)
    spoilt = simulate_stack(*average, np.random.default_rng(2), degrees=2.0, protocol=protocol)
    again = simulate_stack(*average, np.random.default_rng(2), degrees=2.0, protocol=protocol)
    np.testing.assert_array_equal(spoilt.image.data, again.image.data)
    assert still.voids == () and 2 < len(spoilt.voids) < len(spoilt.slices) - 2
    ratio = [float(np.sum(b.image[b.mask]) / np.sum(a.image[a.mask])) for a, b in zip(still.slices, spoilt.slices, strict=True)]
    lost = [r for i, r in enumerate(ratio) if i in spoilt.voids]
    kept = [r for i, r in enumerate(ratio) if i not in spoilt.voids]
    assert np.median(lost) < np.median(kept) - 0.1


def test_drawn_protocols_stay_within_the_ranges():
    for seed in range(30):
        p = StackProtocol.draw(np.random.default_rng(seed), 90.0)
        assert 1.0 <= p.pixel <= 1.2 and 2.5 <= p.thickness <= 3.5 and 0 <= p.gap <= 1 and 1 <= p.seconds <= 2
        assert 2 <= p.interleaves <= 6 and 0.03 <= p.voids <= 0.05 and p.noise <= 0.05


def test_end_slices_with_little_brain_are_dropped(average):
    stack = simulate_stack(*average, np.random.default_rng(8), degrees=2.0, protocol=CLEAN)
    areas = np.array([s.area for s in stack.slices])
    assert min(areas[0], areas[-1]) >= 0.1 * areas.max()
    assert stack.acquisition.times.min() == 0


def test_a_thin_slice_reads_the_volume_itself(average):
    volume, mask = average
    affine = volume.affine.copy()
    k = volume.shape[2] // 2
    affine[:, 3] += k * affine[:, 2]
    piece = SliceScanner(volume, mask, 0.05).acquire(SliceGrid(volume.shape[:2], affine, 0.05), Rigid.identity())
    expected = np.where(mask.data > 0, volume.data, 0)[:, :, k]
    np.testing.assert_allclose(piece.image, expected, atol=1e-3 * float(volume.data.max()))
