"""Random rotations have the Haar measure; grids cover the group evenly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import cKDTree

from posepipe.geometry import (
    axis_rotations,
    grid_radius,
    random_rotations,
    rotations_in_bin,
    so3,
    super_fibonacci,
)


def haar_angle_cdf(theta):
    """∫ (1 − cos θ)/π: the share of rotations within angle ``theta`` of any one."""
    return (theta - np.sin(theta)) / np.pi


def distance_to_grid(rotations, grid):
    """Angle in radians (n,) from each rotation to the nearest of ``grid``."""
    q = so3.to_quaternion(grid)
    chord, _ = cKDTree(np.concatenate([q, -q])).query(so3.to_quaternion(rotations))
    return 4 * np.arcsin(chord / 2)


@pytest.fixture(scope="module")
def sample():
    return random_rotations(20_000, np.random.default_rng(7))


def test_arvo_gives_proper_rotations(sample):
    assert np.abs(sample @ np.swapaxes(sample, 1, 2) - np.eye(3)).max() < 1e-14
    np.testing.assert_allclose(np.linalg.det(sample), 1, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_arvo_angles_have_the_haar_density_about_any_rotation(sample, seed):
    about = random_rotations(1, np.random.default_rng(seed))[0]
    assert stats.kstest(so3.geodesic_distance(sample, about), haar_angle_cdf).pvalue > 0.01


def test_arvo_takes_each_axis_to_the_whole_sphere_evenly(sample):
    for column in range(3):
        for row in range(3):  # a coordinate of a uniform point of the sphere is uniform in [−1, 1]
            assert stats.kstest(sample[:, row, column], stats.uniform(-1, 2).cdf).pvalue > 0.001


def test_the_seed_fixes_the_sample():
    one, two = (random_rotations(5, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("low", "high"), [(0, 30), (30, 60), (60, 90), (150, 180), (0, 180), (179.99, 180)])
def test_rotations_in_a_bin_stay_in_it_with_the_density_given(low, high):
    r = rotations_in_bin(4000, low, high, np.random.default_rng(11))
    theta = so3.geodesic_distance(r, np.eye(3))
    assert np.degrees(theta.min()) >= low - 1e-9
    assert np.degrees(theta.max()) <= high + 1e-9
    a, b = haar_angle_cdf(np.radians([low, high]))
    assert stats.kstest((haar_angle_cdf(theta) - a) / (b - a), "uniform").pvalue > 0.01
    axis = so3.log(r) / theta[:, None]
    for coordinate in axis.T:
        assert stats.kstest(coordinate, stats.uniform(-1, 2).cdf).pvalue > 0.001


@pytest.mark.parametrize(("low", "high"), [(30, 30), (60, 30), (-1, 30), (90, 181)])
def test_impossible_bins_are_refused(low, high):
    with pytest.raises(ValueError, match="0 <= low < high <= 180"):
        rotations_in_bin(1, low, high, np.random.default_rng(0))


@pytest.mark.parametrize("n", [200, 1000, 4608])
def test_super_fibonacci_covers_the_group(sample, n):
    grid = super_fibonacci(n)
    assert grid.shape == (n, 3, 3)
    np.testing.assert_allclose(np.linalg.det(grid), 1, atol=1e-12)
    far = distance_to_grid(sample, grid)
    assert far.max() < 1.5 * grid_radius(n)
    assert far.mean() < 0.85 * grid_radius(n)  # 0.75 if balls could tile the group, 0.89 for independent rotations
    independent = random_rotations(n, np.random.default_rng(0))
    assert far.max() < 0.8 * distance_to_grid(sample, independent).max()


def test_grid_radius_is_the_ball_of_one_share():
    for n in (500, 5000, 50_000):
        assert haar_angle_cdf(grid_radius(n)) == pytest.approx(1 / n, rel=0.01)


def test_super_fibonacci_takes_one_and_refuses_none():
    assert super_fibonacci(1).shape == (1, 3, 3)
    with pytest.raises(ValueError, match="at least one rotation"):
        super_fibonacci(0)


def test_axis_rotations_are_the_group_of_the_cube():
    r = axis_rotations()
    np.testing.assert_array_equal(r[0], np.eye(3))
    assert {tuple(m.ravel()) for m in r} == {tuple((a @ b).ravel()) for a in r for b in r}
    assert len({tuple(m.ravel()) for m in r}) == 24
    np.testing.assert_allclose(np.linalg.det(r), 1)
