"""Perturbations: the stated pose is correct, and each corruption has the stated size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import linprog
from scipy.spatial import ConvexHull

from posepipe.bench.perturb import CORRUPTIONS, STRENGTHS, corrupted, turned
from posepipe.geometry import random_rotations, so3
from posepipe.imaging.moments import moments
from posepipe.imaging.volume import Volume

AFFINE = np.array([[-1.1, 0, 0, 45], [0, 1.3, 0, -50], [0, 0, 1.2, -20], [0, 0, 0, 1.0]])
SHAPE = (60, 58, 56)


def world(volume: Volume) -> np.ndarray:
    return np.moveaxis(np.indices(volume.shape), 0, -1) @ volume.affine[:3, :3].T + volume.affine[:3, 3]


@pytest.fixture(scope="module")
def head() -> tuple[Volume, Volume]:
    """An ellipsoid whose values grow linearly with world x, y and z, so that values tell places."""
    blank = Volume(np.zeros(SHAPE, np.float32), AFFINE, "head")
    local = world(blank) - blank.center
    inside = (local**2 / np.square([24, 29, 21])).sum(-1) < 1
    data = 500 + local @ [4.0, 3.0, 2.0]
    return blank.with_data(np.where(inside, data, 0).astype(np.float32)), blank.with_data(inside)


@pytest.mark.parametrize("seed", range(6))
def test_truth_takes_old_places_to_new_ones(head, seed):
    image, mask = head
    rng = np.random.default_rng(seed)
    rotation = random_rotations(1, rng)[0]
    new, new_mask, motion = turned(image, mask, rotation, rng)
    np.testing.assert_allclose(motion.rotation, rotation, atol=1e-12)
    inner = ndimage.binary_erosion(new_mask.data, iterations=4)  # off the edge, where zeros of the background mix in
    old_places = (~motion).apply(world(new)[inner])
    expected = 500 + (old_places - image.center) @ [4.0, 3.0, 2.0]
    np.testing.assert_allclose(new.data[inner], expected, atol=0.05)  # 0.01 mm: linear values, linearly interpolated


def test_grids_have_both_hands_and_another_spacing_and_slant(head):
    image, mask = head
    rng = np.random.default_rng(0)
    grids = [turned(image, mask, np.eye(3), rng)[0] for _ in range(12)]
    hands = {np.sign(np.linalg.det(g.affine[:3, :3])) for g in grids}
    assert hands == {-1.0, 1.0}
    ratio = np.stack([g.spacing / image.spacing for g in grids])
    assert 0.8 <= ratio.min() < 0.9
    assert 1.1 < ratio.max() <= 1.2
    axes = np.stack([np.abs(g.affine[:3, :3] / g.spacing) for g in grids])
    assert (axes.max((1, 2)) < 0.9999).all()  # none along the world's axes


def test_moves_up_to_the_shift_requested(head):
    image, mask = head
    rng = np.random.default_rng(1)
    center = moments(mask).center
    shifts = np.stack([turned(image, mask, np.eye(3), rng, max_shift=40)[2].apply(center) - center for _ in range(20)])
    assert 30 < np.abs(shifts).max() <= 40
    still = turned(image, mask, so3.exp([0, 0, 1.0]), rng, max_shift=0)[2]
    np.testing.assert_allclose(still.apply(center), center, atol=1e-9)


def test_the_whole_head_is_on_the_new_grid_and_nothing_else(head):
    image, mask = head
    for seed in range(5):
        rng = np.random.default_rng(seed)
        new, new_mask, motion = turned(image, mask, random_rotations(1, rng)[0], rng)
        before, after = moments(mask), moments(new_mask)
        assert after.millilitres == pytest.approx(before.millilitres, rel=0.02)
        np.testing.assert_allclose(after.center, motion.apply(before.center), atol=0.2)
        assert not new_mask.data[[0, -1]].any()
        assert not new_mask.data[:, [0, -1]].any()
        assert not new_mask.data[:, :, [0, -1]].any()
        assert not new.data[~new_mask.data].any()


def test_seeds_fix_the_case(head):
    one, two = (turned(*head, np.eye(3), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one[0].data, two[0].data)
    np.testing.assert_array_equal(one[0].affine, two[0].affine)


def a_plane_parts(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether some plane has all points of ``one`` on one side and all of ``other`` on the other."""
    one, other = (points[ConvexHull(points).vertices] for points in (one, other))
    sides = np.vstack([np.c_[one, -np.ones(len(one))], np.c_[-other, np.ones(len(other))]])  # w·x − b ≤ −1, ≥ 1
    return linprog(np.zeros(4), A_ub=sides, b_ub=-np.ones(len(sides)), bounds=(None, None)).success


def test_the_plane_test_separates_parted_from_mixed():
    points = np.random.default_rng(0).normal(size=(500, 3))
    above = points @ [1, 2, -1] > 0.5
    assert a_plane_parts(points[above], points[~above])
    assert not a_plane_parts(points[::2], points[1::2])


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_a_cut_takes_its_share_behind_one_plane(head, strength):
    image, mask = head
    new, new_mask = corrupted(image, mask, "cut", strength, np.random.default_rng(0))
    lost = mask.data & ~new_mask.data
    assert not (new_mask.data & ~mask.data).any()
    assert lost.sum() / mask.data.sum() == pytest.approx(strength * STRENGTHS["cut"], abs=0.005)
    np.testing.assert_array_equal(new.data, np.where(new_mask.data, image.data, 0))
    places = world(image)
    assert a_plane_parts(places[new_mask.data], places[lost])


@pytest.mark.parametrize("seed", range(3))
def test_a_leak_sticks_a_blob_of_its_share_to_the_brain(head, seed):
    image, mask = head
    new, new_mask = corrupted(image, mask, "leak", 1.0, np.random.default_rng(seed))
    added = new_mask.data & ~mask.data
    assert added.sum() / mask.data.sum() == pytest.approx(STRENGTHS["leak"], rel=0.35)
    assert ndimage.label(new_mask.data)[1] == 1
    np.testing.assert_array_equal(new.data[mask.data], image.data[mask.data])
    assert new.data[added].mean() > np.quantile(image.data[mask.data], 0.2)


def test_bias_is_a_smooth_gain_of_its_strength(head):
    image, mask = head
    new, new_mask = corrupted(image, mask, "bias", 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(new_mask.data, mask.data)
    gain = np.log(new.data[mask.data] / image.data[mask.data])
    assert gain.std() == pytest.approx(STRENGTHS["bias"], rel=0.01)
    assert gain.mean() == pytest.approx(0, abs=1e-4)
    field = np.zeros(SHAPE)
    field[mask.data] = gain
    steps = np.diff(field, axis=0)[mask.data[1:] & mask.data[:-1]]
    assert np.abs(steps).max() < 0.1  # a voxel


def test_noise_is_rician_of_its_strength(head):
    image, mask = head
    new, new_mask = corrupted(image, mask, "noise", 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(new_mask.data, mask.data)
    sigma = STRENGTHS["noise"] * image.data[mask.data].mean()
    clean, noisy = image.data[mask.data].astype(float), new.data[mask.data].astype(float)
    assert (noisy**2 - clean**2).mean() == pytest.approx(2 * sigma**2, rel=0.05)  # E[m²] = a² + 2σ²
    assert (noisy - clean).std() == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruption_keeps_the_grid_the_background_and_the_originals(head, kind):
    image, mask = head
    before = image.data.copy(), mask.data.copy()
    new, new_mask = corrupted(image, mask, kind, 1.0, np.random.default_rng(1))
    assert new.same_grid(image)
    assert new_mask.same_grid(mask)
    assert not new.data[~new_mask.data].any()
    assert new.data.min() >= 0
    assert new.data.dtype == np.float32
    assert not np.array_equal(new.data, image.data)
    np.testing.assert_array_equal(image.data, before[0])
    np.testing.assert_array_equal(mask.data, before[1])


def test_all_is_every_corruption_at_once(head):
    image, mask = head
    _, new_mask = corrupted(image, mask, "all", 1.0, np.random.default_rng(2))
    assert (new_mask.data & ~mask.data).any()
    assert (mask.data & ~new_mask.data).any()


def test_strength_nought_changes_next_to_nothing(head):
    image, mask = head
    for kind in ("cut", "bias", "noise"):
        new, new_mask = corrupted(image, mask, kind, 0.0, np.random.default_rng(0))
        np.testing.assert_array_equal(new_mask.data, mask.data)
        np.testing.assert_allclose(new.data, image.data, rtol=1e-5)


def test_an_unknown_corruption_is_refused(head):
    with pytest.raises(ValueError, match="choose from cut, leak, bias, noise, slices, invert, all"):
        corrupted(*head, "fire", 1.0, np.random.default_rng(0))


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.5])
def test_slices_are_as_thick_as_they_say(head, strength):
    image, mask = head
    new, new_mask = corrupted(image, mask, "slices", strength, np.random.default_rng(0))
    thin = new.data[22:38, 22:36, 22:34]  # well inside, where the means of a slope are still that slope
    np.testing.assert_allclose(thin, image.data[22:38, 22:36, 22:34], rtol=0.01)
    noise = image.with_data(np.where(mask.data, np.random.default_rng(1).normal(100, 10, SHAPE), 0).astype(np.float32))
    axis = int(np.random.default_rng(0).integers(3))
    rough = corrupted(noise, mask, "slices", strength, np.random.default_rng(0))[0]
    steps = [np.abs(np.diff(rough.data[20:40, 20:38, 20:36], axis=a)).mean() for a in range(3)]
    assert min(range(3), key=lambda a: steps[a]) == axis
    ends = np.diff(new_mask.data.astype(int), axis=axis)
    n = round(strength * STRENGTHS["slices"] / image.spacing[axis])
    assert len(set(np.nonzero(ends)[axis] % n)) == 1  # the mask begins and ends between slices


def test_inverted_contrast_turns_bright_to_dark(head):
    image, mask = head
    new, new_mask = corrupted(image, mask, "invert", 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(new_mask.data, mask.data)
    assert np.corrcoef(image.data[mask.data], new.data[mask.data])[0, 1] < -0.99
    gamma = corrupted(image, mask, "invert", 2.0, np.random.default_rng(0))[0]
    assert gamma.data[mask.data].mean() < new.data[mask.data].mean()
