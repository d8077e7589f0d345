"""Rigid maps: group operations, immutability, RAS and LPS, and rejection of matrices that are not rigid."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rotation_strategies import rigids, rotvecs

from posepipe.errors import TransformError
from posepipe.geometry import Rigid, so3

POINTS = np.random.default_rng(0).uniform(-100, 100, (4, 5, 3))


@pytest.mark.slow
@given(rigids(), rigids(), rigids())
def test_group_laws(a, b, c):
    one = Rigid.identity()
    assert ((a @ b) @ c).is_close(a @ (b @ c))
    assert (a @ one).is_close(a)
    assert (one @ a).is_close(a)
    assert (a @ ~a).is_close(one)
    assert (~a @ a).is_close(one)
    assert (~(a @ b)).is_close(~b @ ~a)


@given(rigids(), rigids())
def test_composition_is_one_map_after_the_other(a, b):
    np.testing.assert_allclose((a @ b).apply(POINTS), a.apply(b.apply(POINTS)), atol=1e-9)
    np.testing.assert_allclose((~a).apply(a.apply(POINTS)), POINTS, atol=1e-9)
    np.testing.assert_allclose((a @ b).matrix, a.matrix @ b.matrix, atol=1e-9)


@given(rigids())
def test_lengths_are_kept_and_nothing_is_mirrored(a):
    moved = a.apply(POINTS)
    np.testing.assert_allclose(
        np.linalg.norm(moved - moved[0, 0], axis=-1), np.linalg.norm(POINTS - POINTS[0, 0], axis=-1), atol=1e-9
    )
    assert np.linalg.det(a.rotation) == pytest.approx(1, abs=1e-12)


@given(rigids())
def test_lps_is_the_same_map_with_x_and_y_negated(a):
    rotation, translation = a.to_lps()
    flip = np.array([-1, -1, 1])
    np.testing.assert_allclose((POINTS * flip) @ rotation.T + translation, a.apply(POINTS) * flip, atol=1e-9)
    assert Rigid.from_lps(rotation, translation).is_close(a)


@given(rigids())
def test_matrix_and_rotation_vector_round_trips(a):
    assert Rigid.from_matrix(a.matrix).is_close(a)
    assert Rigid.from_rotvec(a.rotvec, a.translation).is_close(a)
    assert a.angle_degrees == pytest.approx(np.degrees(np.linalg.norm(a.rotvec)), abs=1e-9)


@given(rigids())
def test_pickles_and_copies_whole(a):
    for twin in (pickle.loads(pickle.dumps(a)), copy.deepcopy(a), copy.copy(a)):
        np.testing.assert_allclose(twin.matrix, a.matrix, atol=1e-15)


@given(rotvecs(), st.tuples(*[st.floats(-200, 200)] * 3), st.tuples(*[st.floats(-200, 200)] * 3))
def test_about_turns_round_a_point_and_carries_it_to_its_target(x, center, target):
    turn = Rigid.about(so3.exp(x), center)
    np.testing.assert_allclose(turn.apply(center), center, atol=1e-9)
    np.testing.assert_allclose(Rigid.about(so3.exp(x), center, target).apply(center), target, atol=1e-9)


def test_distances_between_maps():
    a = Rigid.from_rotvec([0, 0, np.radians(10)], [1, 0, 0])
    b = Rigid.from_rotvec([0, 0, np.radians(40)], [1, 0, 0])
    assert a.degrees_from(b) == pytest.approx(30)
    assert a.mm_from(b) == pytest.approx(0)
    assert a.mm_from(b, at=[100, 0, 0]) == pytest.approx(200 * np.sin(np.radians(15)))
    assert not a.is_close(b)
    assert not a.is_close(Rigid(a.rotation, [1.1, 0, 0]))


def test_values_cannot_be_changed_from_outside():
    rotation, translation = np.eye(3), np.zeros(3)
    pose = Rigid(rotation, translation)
    rotation[0, 0] = translation[0] = 7
    assert pose.is_close(Rigid.identity())
    with pytest.raises(ValueError, match="read-only"):
        pose.rotation[0, 0] = 2
    with pytest.raises(AttributeError):
        pose.translation = np.ones(3)  # type: ignore[misc]


def test_rounding_is_cleaned_but_no_more():
    rounded = so3.exp([0.4, -1, 2]).round(5)
    assert np.abs(rounded @ rounded.T - np.eye(3)).max() > 1e-6
    kept = Rigid(rounded, np.zeros(3)).rotation
    assert np.abs(kept @ kept.T - np.eye(3)).max() < 1e-14
    np.testing.assert_allclose(kept, rounded, atol=1e-5)


@pytest.mark.parametrize(
    ("rotation", "says"),
    [
        (np.diag([-1.0, 1, 1]), "mirrors"),
        (-np.eye(3), "mirrors"),
        (1.01 * np.eye(3), "stretches"),
        (np.diag([1, 1, 0.0]), "stretches"),
        (np.eye(3) + np.array([[0, 0.01, 0], [0, 0, 0], [0, 0, 0]]), "shears"),
        (np.full((3, 3), np.nan), "finite"),
        (np.eye(4), "(3, 3)"),
        (np.zeros((3, 3)), "not a rotation"),
    ],
)
def test_what_is_no_rotation_is_refused(rotation, says):
    with pytest.raises(TransformError) as error:
        Rigid(rotation, np.zeros(3))
    assert says in str(error.value)


@pytest.mark.parametrize("translation", [[np.nan, 0, 0], [np.inf, 0, 0], [0, 0], 0])
def test_bad_translations_are_refused(translation):
    with pytest.raises(TransformError):
        Rigid(np.eye(3), translation)


def test_a_matrix_with_a_bad_last_row_is_refused():
    m = np.eye(4)
    m[3, 0] = 0.1
    with pytest.raises(TransformError, match="last row"):
        Rigid.from_matrix(m)
    with pytest.raises(TransformError, match=r"\(4, 4\)"):
        Rigid.from_matrix(np.eye(3))
