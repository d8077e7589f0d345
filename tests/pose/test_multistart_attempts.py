"""Multi-start search: poses dropped for a small overlap with the template, and the starts of further attempts."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.matching.comparison import Comparison
from posepipe.pose import multistart


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
