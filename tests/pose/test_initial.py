"""Initial poses without search: centre and principal axes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from posepipe.errors import MaskError
from posepipe.geometry import Rigid
from posepipe.imaging.moments import moments
from posepipe.matching.comparison import Comparison
from posepipe.pose.initial import initial_pose
from posepipe.refinement.refine import refine_pose


def test_center_keeps_the_header_and_brings_centres_together(head, target):
    found = initial_pose(head.image, head.mask, target, method="center")
    np.testing.assert_array_equal(found.pose.rotation, np.eye(3))
    np.testing.assert_allclose(found.pose.apply(target.brain.center), moments(head.mask).center, atol=1e-9)
    assert (found.method, found.found.lead(), found.scale, len(found.hypotheses)) == ("center", None, 1.0, 1)


def test_axes_tries_four_ways_and_the_best_is_near(heads, target):
    degrees = []
    for h in heads:
        found = initial_pose(h.image, h.mask, target, method="axes", compare=Comparison(h.brain, target))
        assert found.method == "axes"
        assert len(found.hypotheses) == 4
        for hypothesis in found.hypotheses:
            assert np.linalg.det(hypothesis.pose.rotation) == pytest.approx(1)
            center = hypothesis.pose.apply(target.brain.center)
            np.testing.assert_allclose(center, moments(h.mask).center, atol=1e-3)
        # signs turn by half a turn about one axis or another
        apart = [a.pose.degrees_from(b.pose) for a, b in combinations(found.hypotheses, 2)]
        np.testing.assert_allclose(apart, 180, atol=0.1)
        scores = [hypothesis.criterion for hypothesis in found.hypotheses]
        assert found.found.by == "criterion" and scores == sorted(scores, reverse=True)
        degrees.append(found.pose.degrees_from(h.pose))
    assert max(degrees) < 25
    assert np.mean(degrees) < 10


def test_axes_are_bettered_by_torch(heads, target):
    before, after = [], []
    for h in heads[::3]:
        start = initial_pose(h.image, h.mask, target, method="axes", compare=Comparison(h.brain, target)).pose
        before.append(start.degrees_from(h.pose))
        pose = refine_pose(h.image, h.mask, target, start, method="torch", compare=Comparison(h.brain, target)).pose
        after.append(pose.degrees_from(h.pose))
    assert np.mean(after) < 0.7 * np.mean(before)
    assert max(after) < 3


def test_auto_is_search(head, target):
    auto, search = (initial_pose(head.image, head.mask, target, method=m) for m in ("auto", "search"))
    assert auto.method == "search"
    np.testing.assert_array_equal(auto.pose.matrix, search.pose.matrix)


def test_a_moved_header_moves_the_pose(head, target):
    move = Rigid.from_rotvec([0.4, 2.0, -0.3], [120, -80, 60])
    still, moved = (
        initial_pose(i, m, target).pose
        for i, m in ((head.image, head.mask), (head.image.moved(move), head.mask.moved(move)))
    )
    assert moved.is_close(move @ still, degrees=2, mm=2)


def test_unknown_method(head, target):
    with pytest.raises(ValueError, match="unknown initial pose 'guess': choose from auto, deep, posenet, search, axes, center"):
        initial_pose(head.image, head.mask, target, method="guess")


@pytest.mark.parametrize("method", ["search", "axes", "center"])
def test_empty_mask(head, target, method):
    nothing = head.mask.with_data(np.zeros_like(head.mask.data))
    with pytest.raises(MaskError):
        initial_pose(head.image, nothing, target, method=method)
