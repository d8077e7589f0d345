"""Reference poses: correct for a head in any of the 24 orientations of its grid; doubtful cases are marked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posepipe import phantom
from posepipe.errors import ImageError
from posepipe.geometry import Rigid, axis_rotations, geodesic_distance, random_rotations
from posepipe.geometry.so3 import Array
from posepipe.imaging.volume import Volume
from posepipe.matching.target import Target
from posepipe.training.reference import ReferencePose, candidates, reference_pose

AGE, VOXEL, TILT = 29.0, 2.0, 12.0
MIRROR = np.diag([1.0, -1.0, 1.0])
OBLIQUE = random_rotations(1, np.random.default_rng(8))[0]
TURNS = axis_rotations()


@pytest.fixture(scope="module")
def target() -> Target:
    """A template whose own axes are 8° from those of the head."""
    labels = phantom.brain_labels(AGE, VOXEL)
    tipped = Rigid.from_rotvec([np.radians(8), 0, 0])
    image, mask = phantom.render(labels, AGE).moved(~tipped), phantom.brain_mask(labels).moved(~tipped)
    return Target(image, mask, "Phantom+29", to_canonical=tipped.rotation)


def tilt(seed: int, degrees: float = TILT) -> Array:
    """A rotation by ``degrees`` about a drawn axis."""
    axis = np.random.default_rng(seed).normal(size=3)
    return Rigid.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).rotation


def scanned(target: Target, directions: Array, turn: Array, seed: int, **options: float) -> tuple[Volume, Volume, Rigid]:
    """An individual whose head lies in a grid with these ``directions`` (columns: voxel axes) as ``turn`` (head → voxel axes, or mirrored
    voxel axes in a left-handed grid) says; image, mask and the true pose against the ``target``."""
    proper = directions if np.linalg.det(directions) > 0 else directions * [-1.0, 1.0, 1.0]
    rng = np.random.default_rng(seed)
    pose = Rigid(proper @ turn, rng.uniform(-20, 20, 3))
    image, mask, _ = phantom.subject(AGE, rng=rng, pose=pose, spacing=VOXEL, directions=directions, **options)
    return image, mask, pose @ Rigid(target.to_canonical, np.zeros(3))


@pytest.mark.parametrize("directions", [np.eye(3), OBLIQUE, MIRROR, OBLIQUE @ MIRROR], ids=["RAS", "oblique", "left", "oblique-left"])
def test_candidates_hold_every_way_to_lie_in_a_grid(directions: Array) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.float32(directions * [0.8, 1.2, 3.0])  # as a header holds it: its axes are not quite at right angles
    tipped = tilt(0)
    found = candidates(affine, tipped)
    assert found.shape == (24, 3, 3) and np.allclose(np.linalg.det(found), 1)
    proper = directions if np.linalg.det(directions) > 0 else directions @ MIRROR
    for turn in TURNS:
        distance = np.degrees(geodesic_distance(found, proper @ turn @ tipped))
        assert distance.min() < 1e-3 and np.sort(distance)[1] > 80


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "directions"), [(7, OBLIQUE), (22, OBLIQUE @ MIRROR)], ids=["oblique", "oblique-left"]
)
def test_a_tilted_head_in_any_grid(target: Target, number: int, directions: Array) -> None:
    image, mask, truth = scanned(target, directions, TURNS[number] @ tilt(number), number)
    found = reference_pose(image, mask, target)
    assert found.pose.degrees_from(truth) < 4
    assert found.candidate == number and found.agree and found.margin is not None and found.margin > 0.1
    assert found.checked("here") is found


@pytest.mark.slow
@pytest.mark.parametrize("number", range(24))
def test_all_24_orientations(target: Target, number: int) -> None:
    directions = OBLIQUE @ MIRROR if number % 2 else tilt(number, 40)
    image, mask, truth = scanned(target, directions, TURNS[number] @ tilt(number), number)
    found = reference_pose(image, mask, target)
    assert found.pose.degrees_from(truth) < 4 and found.candidate == number and found.agree


@pytest.mark.slow
def test_what_is_no_brain_is_in_doubt(target: Target) -> None:
    """A ball of noise fits nowhere, wherever the two ways end."""
    axis = np.arange(-36, 37, 2.0)
    away = np.sqrt(sum(a**2 for a in np.meshgrid(axis, axis, axis)))
    affine = np.diag([2.0, 2, 2, 1])
    noise = np.random.default_rng(0).normal(100, 20, away.shape)
    ball = Volume(np.where(away < 32, noise, 0).astype(np.float32), affine, "ball.nii.gz")
    found = reference_pose(ball, ball.with_data((away < 32).astype(np.uint8)), target)
    assert not found.agree and "fits the template poorly" in found.doubt
    with pytest.raises(ImageError, match=r"ball\.nii\.gz: .*fits the template poorly.*posepipe-tools reference"):
        found.checked(ball.source)


@pytest.mark.slow
def test_a_head_far_from_all_candidates_is_in_doubt(target: Target) -> None:
    """60° about a diagonal: the search's pose is shown, and not learned from before it is accepted."""
    far = Rigid.from_rotvec(np.radians(60) * np.ones(3) / np.sqrt(3)).rotation
    image, mask, truth = scanned(target, np.eye(3), far, 3)
    found = reference_pose(image, mask, target)
    assert found.search_degrees > 15 and not found.agree and "two methods for its reference pose differ" in found.doubt
    assert found.candidate is None and found.pose.degrees_from(truth) < 4
    with pytest.raises(ImageError, match=r"here: the two methods .* differ .*; check it with posepipe-tools reference"):
        found.checked("here")


@pytest.mark.slow
def test_what_agrees_is_right_of_half_a_brain_too(target: Target) -> None:
    image, mask, truth = scanned(target, np.eye(3), TURNS[5] @ tilt(5, 30), 3)
    middle = mask.affine[:3, :3] @ (np.array(mask.shape) / 2) + mask.affine[:3, 3]
    grid = np.indices(mask.shape).reshape(3, -1).T @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    front = ((grid - middle) @ truth.rotation[:, 1] > 0).reshape(mask.shape)
    found = reference_pose(image, mask.with_data(mask.data * front), target)
    assert not found.agree or found.pose.degrees_from(truth) < 15


def test_two_ways_apart_are_in_doubt() -> None:
    good = ReferencePose(Rigid.identity(), 0, criterion=0.6, coarse=0.5, margin=0.3, search_degrees=14.9)
    assert good.agree and good.doubt == ""
    apart = replace(good, search_degrees=178.0)
    assert not apart.agree and apart.doubt == "the two methods for its reference pose differ by 178°"
    # coarse texture alone may vouch for a corrupted brain, as everywhere
    assert replace(good, criterion=0.2).agree and not replace(good, criterion=0.2, coarse=0.05).agree
