"""The pull of mutual information points uphill, comes to rest at the truth, and brings a pose nearer to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantom_heads import MakeHead, Target

from posepipe.geometry import Rigid, so3
from posepipe.matching.channels import outline, top
from posepipe.matching.comparison import MUTUAL_POINTS, Comparison
from posepipe.matching.gauss_newton import fit
from posepipe.matching.mutual_information import BINS, MutualTerm


@pytest.fixture(scope="module")
def compare(target: Target, make_head: MakeHead) -> Comparison:
    """A sound head and its template."""
    return Comparison(make_head(7).brain, target)


def information(term: MutualTerm, value: torch.Tensor, weight: torch.Tensor) -> float:
    """Mutual information (nats) of the image's and the template's intensities, from a plain histogram."""
    own = term.points.value.numpy()
    joint, _, _ = np.histogram2d(own, value[0].numpy(), BINS, weights=weight[0].numpy())
    p = joint / joint.sum() + 1e-12
    return float((p * np.log(p / (p.sum(1, keepdims=True) * p.sum(0, keepdims=True)))).sum())


def test_the_pull_points_uphill(compare: Comparison, make_head: MakeHead) -> None:
    head = make_head(7)
    (term,) = compare.mutual_terms
    assert isinstance(term, MutualTerm) and len(term.points.value) == MUTUAL_POINTS
    off = Rigid.about(head.pose.rotation @ so3.exp([0.1, 0.05, -0.1]), compare.target.brain.center, compare.brain.center)
    _, fields, weight = term.sample_template(compare.poses(off))
    force, curvature = term.derivatives(fields[0], weight, strict=False)
    assert bool(force.isfinite().all()) and float(curvature.min()) >= 0 and float(force.abs().sum()) > 0
    before = information(term, fields[0], weight)
    step = 0.02 * force / force.abs().max()
    assert information(term, fields[0] + step, weight) > before > information(term, fields[0] - step, weight)


def test_steps_lead_to_the_truth(compare: Comparison, make_head: MakeHead) -> None:
    truth = make_head(7).pose
    off = Rigid.about(truth.rotation @ so3.exp([0.05, -0.06, 0.04]), compare.target.brain.center, truth.apply(compare.target.brain.center))
    poses = fit(compare.mutual_terms, compare.poses(off), 12).poses
    assert compare.rigid(poses).degrees_from(truth) < 0.5 * off.degrees_from(truth)


def test_many_poses_at_once_go_where_each_would_go(compare: Comparison, make_head: MakeHead) -> None:
    truth = make_head(7).pose
    starts = [compare.poses(Rigid.about(truth.rotation @ so3.exp(v), compare.target.brain.center, compare.brain.center))
              for v in ([0.05, 0, 0], [0, -0.08, 0.03])]  # fmt: skip
    together = fit(compare.mutual_terms, starts[0].concat(starts[1]), 3).poses
    for i, start in enumerate(starts):
        alone = fit(compare.mutual_terms, start, 3).poses
        assert torch.allclose(together.rotation[i], alone.rotation[0], atol=1e-4)


def test_an_empty_background_is_the_first_bin(compare: Comparison) -> None:
    level = outline(compare.brain)
    assert level.top == top(level.value) > 0
    assert top(torch.zeros(5)) == 1.0
