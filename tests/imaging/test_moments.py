"""Moments of masks against sums over all points."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.errors import MaskError
from posepipe.geometry import Rigid, random_rotations
from posepipe.imaging.moments import moments
from posepipe.imaging.volume import Volume

RNG = np.random.default_rng(0)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = random_rotations(1, RNG)[0] * [0.7, -1.1, 2.5]
OBLIQUE[:3, 3] = [40, -60, 13]


def brute_force(data, affine, fine=6):
    """Weighted mean and covariance of points, each voxel cut into ``fine``³ of them."""
    step = (np.arange(fine) + 0.5) / fine - 0.5
    inner = np.stack(np.meshgrid(step, step, step, indexing="ij"), -1).reshape(-1, 3)
    index = np.argwhere(data > 0)
    weight = np.repeat(data[data > 0].astype(float), len(inner))
    points = (index[:, None] + inner).reshape(-1, 3) @ affine[:3, :3].T + affine[:3, 3]
    mean = np.average(points, axis=0, weights=weight)
    return mean, np.cov(points.T, aweights=weight, bias=True)


@pytest.mark.parametrize("affine", [np.eye(4), OBLIQUE], ids=["unit", "oblique"])
@pytest.mark.parametrize("kind", ["bool", "weights"])
def test_agree_with_sums_over_points(affine, kind):
    data = RNG.random((9, 12, 7)) > 0.6 if kind == "bool" else RNG.random((9, 12, 7)).astype(np.float32)
    found = moments(Volume(data, affine))
    mean, covariance = brute_force(data, affine)
    np.testing.assert_allclose(found.center, mean, atol=1e-6)
    # cutting a side into 6 leaves 1/36 of a voxel's own moment uncounted
    np.testing.assert_allclose(found.covariance, covariance, rtol=2e-3, atol=2e-2)
    assert found.millilitres == pytest.approx(float(data.sum(dtype=float)) * abs(np.linalg.det(affine[:3, :3])) / 1000)


def ellipsoid(half_axes, affine=OBLIQUE, shape=(90, 80, 40)):
    """An ellipsoid with ``half_axes`` mm along rotated directions about the grid's middle."""
    blank = Volume(np.zeros(shape, bool), affine)
    turn = random_rotations(1, np.random.default_rng(5))[0]
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    local = (world - blank.center) @ turn
    return blank.with_data((local**2 / np.square(half_axes)).sum(-1) < 1), turn


def test_radius_of_a_ball_is_its_radius():
    mask, _ = ellipsoid((20, 20, 20))
    found = moments(mask)
    assert found.radius == pytest.approx(20, rel=0.01)
    np.testing.assert_allclose(found.center, mask.center, atol=0.05)
    assert found.millilitres == pytest.approx(4 / 3 * np.pi * 8, rel=0.01)


def test_axes_are_a_proper_rotation_longest_first():
    mask, turn = ellipsoid((24, 17, 12))
    axes = moments(mask).axes
    assert np.linalg.det(axes) == pytest.approx(1)
    np.testing.assert_allclose(np.abs((axes * turn).sum(0)), 1, atol=1e-3)
    spread = np.diag(axes.T @ moments(mask).covariance @ axes)
    np.testing.assert_allclose(np.sqrt(5 * spread), [24, 17, 12], rtol=0.02)


def test_moments_move_with_the_mask():
    mask, _ = ellipsoid((24, 17, 12))
    pose = Rigid.from_rotvec([1.0, -0.5, 2.0], [10, 20, -30])
    before, after = moments(mask), moments(mask.moved(pose))
    np.testing.assert_allclose(after.center, pose.apply(before.center), atol=1e-8)
    np.testing.assert_allclose(after.covariance, pose.rotation @ before.covariance @ pose.rotation.T, atol=1e-8)
    assert after.radius == pytest.approx(before.radius)


def test_one_voxel_has_its_own_spread_and_none_is_refused():
    data = np.zeros((5, 5, 5), bool)
    data[1, 2, 3] = True
    found = moments(Volume(data, np.diag([2.0, 2, 2, 1])))
    np.testing.assert_allclose(found.center, [2, 4, 6])
    np.testing.assert_allclose(found.covariance, np.eye(3) * 4 / 12)
    with pytest.raises(MaskError, match=r"m\.nii: the mask is empty"):
        moments(Volume(np.zeros((5, 5, 5), bool), np.eye(4), "m.nii"))
