"""The Gauss–Newton step does not depend on how the image's points are written down."""

from __future__ import annotations

import torch

from posepipe.registration.comparison import Comparison
from posepipe.registration.fit import Poses, Term, fit
from posepipe.registration.levels import Points


def test_a_fit_is_the_same_from_whichever_point_the_image_is_measured(head, target):
    """Measured from a point 60 mm away, the pose has another shift and is otherwise the same map: also where the size is fitted."""
    compare = Comparison(head.brain, target)
    offset = torch.tensor([40.0, -20.0, 40.0])
    start = compare.poses(head.pose, 0.12)
    moved = Poses(start.rotation, start.shift - start.log_scale.exp()[:, None] * (start.rotation @ offset), start.log_scale)
    elsewhere = [Term(t.level, Points(t.points.where + offset, t.points.value, t.points.weight), t.share) for t in compare.rough]
    plain, other = fit(compare.rough, start, 3).poses, fit(elsewhere, moved, 3).poses
    assert float((plain.log_scale - start.log_scale).abs()) > 0.02  # the size was fitted
    torch.testing.assert_close(other.rotation, plain.rotation, atol=1e-3, rtol=0)
    torch.testing.assert_close(other.log_scale, plain.log_scale, atol=1e-3, rtol=0)
    expected = plain.shift - plain.log_scale.exp()[:, None] * (plain.rotation @ offset)
    torch.testing.assert_close(other.shift, expected, atol=0.05, rtol=0)
