"""Rotation vectors, matrices and the geodesic distance (numpy)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from rotation_strategies import AWKWARD, AXES, angles, axes, rotvecs, unit
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from posepipe.geometry import random_rotations, so3


@given(rotvecs())
def test_exp_gives_rotations_and_agrees_with_the_matrix_exponential(x):
    r = so3.exp(x)
    assert np.abs(r @ r.T - np.eye(3)).max() < 1e-14
    assert np.linalg.det(r) == pytest.approx(1, abs=1e-14)
    np.testing.assert_allclose(r, expm(so3.hat(x)), atol=1e-13)


@given(rotvecs())
def test_log_undoes_exp_at_every_angle(x):
    back = so3.log(so3.exp(x))
    if np.linalg.norm(x) > np.pi - 1e-7:  # both signs of the axis are right at π
        back = back if back @ x > 0 else -back
        np.testing.assert_allclose(back, x, atol=3e-7)
        np.testing.assert_allclose(so3.exp(back), so3.exp(x), atol=1e-14)
    else:
        np.testing.assert_allclose(back, x, atol=1e-14 * (1 + 1 / (np.pi - np.linalg.norm(x))))


@given(rotvecs())
def test_exp_undoes_log(x):
    r = so3.exp(x)
    v = so3.log(r)
    assert np.linalg.norm(v) <= np.pi + 1e-15
    np.testing.assert_allclose(so3.exp(v), r, atol=2e-15)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("angle", AWKWARD)
def test_distance_equals_the_known_angle(axis, angle):
    r = so3.exp(unit(axis) * angle)
    assert float(so3.geodesic_distance(np.eye(3), r)) == pytest.approx(angle, abs=1e-12)
    assert np.linalg.norm(so3.log(r)) == pytest.approx(angle, abs=1e-12)


def test_tiny_angles_keep_their_relative_precision():
    for angle in (1e-9, 1e-12, 1e-15):
        r = so3.exp(unit(np.array([1.0, -2, 3])) * angle)
        assert float(so3.geodesic_distance(r, np.eye(3))) == pytest.approx(angle, rel=1e-6)


@given(rotvecs(), rotvecs(), rotvecs())
def test_distance_is_a_metric_and_blind_to_common_turns(x, y, z):
    a, b, c = so3.exp(x), so3.exp(y), so3.exp(z)
    d = so3.geodesic_distance
    assert d(a, a) < 1e-14
    assert 0 <= d(a, b) <= np.pi
    assert d(a, b) == pytest.approx(d(b, a), abs=1e-13)
    assert d(a, c) <= d(a, b) + d(b, c) + 1e-13
    assert d(c @ a, c @ b) == pytest.approx(d(a, b), abs=1e-13)
    assert d(a @ c, b @ c) == pytest.approx(d(a, b), abs=1e-13)


@given(rotvecs(), rotvecs())
def test_distance_is_the_paper_s_formula(x, y):
    # ‖log(R₁ᵀ R₂)‖_F / √2 (Salehi et al. 2018, eq. 7)
    a, b = so3.exp(x), so3.exp(y)
    paper = np.linalg.norm(so3.hat(so3.log(a.T @ b))) / np.sqrt(2)
    assert float(so3.geodesic_distance(a, b)) == pytest.approx(paper, abs=1e-13)


@given(axes(), angles(), angles())
def test_turns_about_one_axis_add(axis, first, second):
    total = so3.exp(axis * first) @ so3.exp(axis * second)
    np.testing.assert_allclose(total, so3.exp(axis * (first + second)), atol=2e-15)


def test_agrees_with_scipy_in_batches_of_any_shape():
    r = random_rotations(60, np.random.default_rng(0)).reshape(3, 4, 5, 3, 3)
    theirs = Rotation.from_matrix(r.reshape(-1, 3, 3))
    np.testing.assert_allclose(so3.log(r).reshape(-1, 3), theirs.as_rotvec(), atol=1e-13)
    np.testing.assert_allclose(so3.exp(so3.log(r)), r, atol=1e-14)
    relative = theirs[:1] * theirs.inv()
    np.testing.assert_allclose(so3.geodesic_distance(r[0, 0, 0], r).ravel(), relative.magnitude(), atol=1e-13)


def test_quaternions_go_both_ways_whatever_their_length_and_sign():
    q = np.random.default_rng(1).normal(size=(200, 4))
    r = so3.from_quaternion(q)
    q = q / np.linalg.norm(q, axis=1, keepdims=True)
    back = so3.to_quaternion(r)
    back *= np.sign((back * q).sum(1, keepdims=True))
    np.testing.assert_allclose(back, q, atol=1e-14)
    np.testing.assert_array_equal(so3.from_quaternion(-q), so3.from_quaternion(q))


def test_hat_is_the_cross_product():
    a, b = np.random.default_rng(2).normal(size=(2, 7, 3))
    np.testing.assert_allclose((so3.hat(a) @ b[..., None])[..., 0], np.cross(a, b), atol=1e-14)


def test_project_finds_the_nearest_rotation():
    rng = np.random.default_rng(3)
    for m in rng.normal(size=(20, 3, 3)):
        nearest = so3.project(m)
        assert np.linalg.det(nearest) == pytest.approx(1)
        best = np.linalg.norm(m - nearest)
        others = np.linalg.norm(m - nearest @ so3.exp(rng.normal(scale=0.05, size=(200, 3))), axis=(1, 2))
        assert (others >= best).all()
