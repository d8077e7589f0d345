"""Multi-start search: poses dropped for a small overlap with the template, and the starts of further attempts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posepipe.matching.comparison import Comparison
from posepipe.matching.gauss_newton import Poses, fit
from posepipe.pose import multistart


def test_poses_are_kept_from_an_overlap_of_a_half(head, target):
    """A brain pushed out of its template along a line, a little at a time."""
    compare = Comparison(head.brain, target)
    edges, inside = compare.coarse_terms
    right = compare.poses(head.pose)
    steps = torch.linspace(0, 1.6 * target.brain.radius, 120)
    shift = right.shift + steps[:, None] * torch.tensor([0.0, 0.6, 0.8])
    line = Poses(right.rotation.expand(120, 3, 3), shift, right.log_scale.expand(120))
    overlap = fit((inside,), line, 0).overlap
    assert ((overlap > 0.45) & (overlap < 0.5)).any() and ((overlap > 0.5) & (overlap < 0.55)).any()
    kept = multistart._judged((inside, edges), line, 0)
    torch.testing.assert_close(kept.poses.shift, line.shift[overlap >= 0.5])


@pytest.mark.slow
@pytest.mark.parametrize(("attempts", "expected"), [(1, 0), (2, 0), (3, 1)])
def test_the_second_attempt_starts_where_the_first_did_and_the_third_anywhere(head, target, monkeypatch, attempts, expected):
    """A brain of noise, which fits nowhere, so that every attempt is made."""
    noise = np.random.default_rng(0).normal(100, 10, head.image.shape) * (head.mask.data > 0)
    compare = Comparison.of(head.image.with_data(noise.astype(np.float32)), head.mask, target)
    original, calls = multistart._uniformly_rotated, []
    monkeypatch.setattr(multistart, "UNIFORM_ROUND", multistart.UNIFORM_ROUND._replace(copies=64))  # fewer, since none will fit
    monkeypatch.setattr(multistart, "_uniformly_rotated", lambda *a: calls.append(1) or original(*a))
    found = multistart.multistart_search(compare, compare.poses(head.pose), 2, attempts)
    assert len(calls) == expected
    assert float(found.criterion.max()) < 0.15
