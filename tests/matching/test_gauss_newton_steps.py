"""Candidate poses: steps that do not depend on where the image is measured from, distinct ones, and sizes about one place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posepipe.geometry import Rigid
from posepipe.matching.channels import Points
from posepipe.matching.comparison import Comparison
from posepipe.matching.gauss_newton import Poses, Term, fit


def test_a_fit_is_the_same_from_whichever_point_the_image_is_measured(head, target):
    """Measured from a point 60 mm away, the pose has another shift and is otherwise the same map: also where the size is fitted."""
    compare = Comparison(head.brain, target)
    offset = torch.tensor([40.0, -20.0, 40.0])
    start = compare.poses(head.pose, 0.12)
    moved = Poses(start.rotation, start.shift - start.log_scale.exp()[:, None] * (start.rotation @ offset), start.log_scale)
    elsewhere = [Term(t.level, Points(t.points.where + offset, t.points.value, t.points.weight), t.share) for t in compare.coarse_terms]
    plain, other = fit(compare.coarse_terms, start, 3).poses, fit(elsewhere, moved, 3).poses
    assert float((plain.log_scale - start.log_scale).abs()) > 0.02  # the size was fitted
    torch.testing.assert_close(other.rotation, plain.rotation, atol=1e-3, rtol=0)
    torch.testing.assert_close(other.log_scale, plain.log_scale, atol=1e-3, rtol=0)
    expected = plain.shift - plain.log_scale.exp()[:, None] * (plain.rotation @ offset)
    torch.testing.assert_close(other.shift, expected, atol=0.05, rtol=0)


@pytest.mark.parametrize(("degrees", "kept"), [(4.0, 1), (6.0, 2), (40.0, 2)])
def test_the_best_poses_are_more_than_5_degrees_apart(head, target, degrees, kept):
    compare = Comparison(head.brain, target)
    turned = head.pose @ Rigid.from_rotvec([0.0, 0.0, np.radians(degrees)])
    both = fit(compare.criterion_terms, compare.poses(turned).concat(compare.poses(head.pose)), 0)
    found = both.best(6).tolist()
    assert len(found) == kept
    assert found[0] == int(both.criterion.argmax())


def test_the_sizes_that_are_tried_do_not_move_the_pose(head, target):
    """A pose is judged at the best of several sizes, and all of them map the template's centre to the same place."""
    compare = Comparison(head.brain, target)
    pose = head.pose @ Rigid(np.eye(3), np.array([9.0, -6.0, 4.0]))
    sizes = compare._sizes(pose)
    assert len(sizes) == 7 and float(sizes.log_scale.max() - sizes.log_scale.min()) == pytest.approx(0.3, abs=1e-5)
    for i in range(7):
        assert compare.rigid(sizes, i).is_close(pose, degrees=0.01, mm=0.01)
