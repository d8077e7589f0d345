"""Mutual information: none between images that have nothing to do with each other, whatever the histogram of either."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posepipe.matching.channels import Points
from posepipe.matching.comparison import Comparison
from posepipe.matching.mutual_information import MutualTerm


def mixed(points: Points, power: float) -> Points:
    """The same values, each raised to ``power``, at one another's places."""
    order = torch.as_tensor(np.random.default_rng(0).permutation(len(points.value)))
    return Points(points.where, points.value[order].clamp_min(0) ** power, points.weight)


@pytest.mark.parametrize("power", [1.0, 4.0])
def test_values_in_random_order_share_no_information_and_pull_nowhere(head, target, power):
    compare = Comparison(head.brain, target)
    (term,) = compare.mutual_terms
    assert isinstance(term, MutualTerm)
    pose = compare.poses(head.pose)
    random = MutualTerm(term.level, mixed(term.points, power))
    shared, nothing = (float(t.information(pose)) for t in (term, random))
    assert abs(nothing) < 0.02 < 0.2 < shared
    gains = []
    for one in (term, random):
        _, fields, weight = one.sample_template(pose)
        gains.append(float(one.derivatives(fields[0], weight, strict=False)[0].abs().mean()))
    assert gains[1] < 0.25 * gains[0]
