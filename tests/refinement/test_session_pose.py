"""Poses of one session's images: groups between which the head lay still, and the pose that a group shares."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe import phantom
from posepipe.geometry import Rigid
from posepipe.matching.comparison import Comparison
from posepipe.matching.joint import JointComparison
from posepipe.matching.target import Target
from posepipe.refinement.session import AGREE_DEGREES, AGREE_MM, JOINT, MEAN, agrees, shared_pose, still_groups

CENTER = np.array([3.0, -10.0, 8.0])


def turned(degrees: float, mm: float = 0.0) -> Rigid:
    """A pose that turns about the centre and moves it."""
    return Rigid.about(Rigid.from_rotvec([0, np.radians(degrees), 0]).rotation, CENTER, CENTER + np.array([mm, 0, 0]))


def test_tolerances_are_of_rotation_and_of_the_place_of_the_centre():
    base = Rigid.identity()
    assert agrees(base, turned(AGREE_DEGREES - 0.01), CENTER) and not agrees(base, turned(AGREE_DEGREES + 0.01), CENTER)
    assert agrees(base, turned(0, AGREE_MM - 0.01), CENTER) and not agrees(base, turned(0, AGREE_MM + 0.01), CENTER)
    # a rotation about the world's origin moves a centre that lies far from it
    assert not agrees(base, Rigid.from_rotvec([0, np.radians(AGREE_DEGREES - 1), 0]), CENTER + np.array([0, 0, 300]))


def test_the_values_of_the_record():
    """docs/decisions/042."""
    assert (AGREE_DEGREES, AGREE_MM) == (5.0, 3.0)


def test_a_head_that_turns_slowly_is_not_chained_together():
    poses = [turned(0.7 * AGREE_DEGREES * n) for n in range(4)]
    groups = still_groups(poses, CENTER)
    assert len(set(groups)) == 2 and groups[0] == 0
    for i in range(4):
        for j in range(4):
            assert groups[i] != groups[j] or agrees(poses[i], poses[j], CENTER)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_groups_do_not_depend_on_the_order(order):
    poses = [turned(0), turned(2, 1), turned(30), turned(31)]
    groups = still_groups([poses[n] for n in order], CENTER)
    found = {frozenset(order[k] for k in range(4) if groups[k] == g) for g in groups}
    assert found == {frozenset({0, 1}), frozenset({2, 3})}
    assert groups[0] == 0


def test_few_poses():
    assert still_groups([], CENTER) == [] and still_groups([turned(9)], CENTER) == [0]


@pytest.fixture(scope="module")
def pair(make_head, target) -> tuple[list[Comparison], Rigid]:
    """T1w and T2w images of one phantom head, on grids of their own, each against a template of its contrast; and the head's pose."""
    t2 = make_head(5, (60, 90))
    image, mask, _ = phantom.subject(29.0, rng=np.random.default_rng(5), pose=t2.pose, contrast="T1w", spacing=1.8)
    labels = phantom.brain_labels(29.0, 1.5)
    t1 = Target(phantom.render(labels, 29.0, "T1w"), phantom.brain_mask(labels), "Phantom+29", contrast="T1w")
    return [Comparison.of(t2.image, t2.mask, target), Comparison.of(image, mask, t1)], t2.pose


@pytest.mark.slow
def test_both_images_get_the_pose_of_the_head(pair):
    parts, truth = pair
    center = parts[0].target.brain.center
    moved = (([2.5, 0, 0], [1, 0, 0]), ([0, 0, 1], [0, 1, 0]))
    about = [Rigid.about(Rigid.from_rotvec(np.radians(turn)).rotation, center, center + shift) for turn, shift in moved]
    poses = [truth @ one for one in about]
    shared = shared_pose(parts, poses, [1.0, 1.0])
    assert shared.how == JOINT and shared.after > shared.before
    assert shared.pose.degrees_from(truth) < 1.0 and shared.pose.mm_from(truth, center) < 1.0
    # the order of the images and the centre that is counted from do not matter
    other = shared_pose(parts[::-1], poses[::-1], [1.0, 1.0])
    assert other.pose.degrees_from(shared.pose) < 0.2 and other.pose.mm_from(shared.pose, center) < 0.2
    # weight on one image alone starts there; the refinement is of both all the same
    assert shared_pose(parts, poses, [1.0, 0.001]).pose.degrees_from(shared.pose) < 0.3


def test_a_pose_that_leaves_the_tolerance_is_not_taken(pair):
    parts, truth = pair
    center = parts[0].target.brain.center
    off = [truth @ Rigid.about(Rigid.from_rotvec([0, np.radians(d), 0]).rotation, center) for d in (9.0, 11.0)]
    shared = shared_pose(parts, off, [3.0, 1.0])
    assert shared.how == MEAN and shared.before == shared.after
    assert shared.pose.degrees_from(off[0]) == pytest.approx(0.5, abs=0.02)  # weighted 3 to 1


def test_one_image_alone_is_refined_as_ever(pair):
    parts, truth = pair
    start = truth @ Rigid.from_rotvec(np.radians([2, 1, 0]))
    assert JointComparison(parts[:1]).refined(start).is_close(parts[0].refined(start), degrees=1e-3, mm=1e-3)


def test_no_image():
    with pytest.raises(ValueError, match="at least one image"):
        JointComparison([])


def test_scores_are_means_over_the_images(pair):
    parts, truth = pair
    joint = JointComparison(parts)
    assert joint.score(truth) == pytest.approx(np.mean([part.score(truth) for part in parts]))
    assert joint.mutual_score(truth) == pytest.approx(np.mean([part.mutual_score(truth) for part in parts]))
