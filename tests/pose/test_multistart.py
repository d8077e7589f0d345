"""Multi-start search on corrupted brains: wide capture range, deterministic, and no perturbations if the score is high at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from posepipe.bench.perturb import corrupted
from posepipe.geometry import Rigid, so3, so3_torch
from posepipe.matching.comparison import Comparison
from posepipe.matching.gauss_newton import SCALE_LIMIT, Poses
from posepipe.pose import multistart
from posepipe.pose.hypothesis import LOW_COARSE_RATIO
from posepipe.pose.multistart import ATTEMPTS, ROUNDS, UNIFORM_ROUND, Round, multistart_search


@pytest.fixture(scope="module")
def spoilt(make_head, target):
    """A head with all four damages, and its pose."""
    head = make_head(1)
    return Comparison.of(*corrupted(head.image, head.mask, "all", 1.0, np.random.default_rng(1)), target), head.pose


def _off(compare: Comparison, pose: Rigid, degrees: float) -> Poses:
    """Six starts ``degrees`` from ``pose``, their centres a sixth of a radius off."""
    center, far = compare.target.brain.center, compare.target.brain.radius / 6
    out = []
    for axis in (*np.eye(3), *-np.eye(3)):
        turn = pose.rotation @ so3.exp(np.radians(degrees) * axis)
        out.append(compare.poses(Rigid.about(turn, center, pose.apply(center) + far * axis)))
    return Poses(*(torch.cat([getattr(p, k) for p in out]) for k in ("rotation", "shift", "log_scale")))


def _degrees(compare: Comparison, found, pose: Rigid) -> float:
    return compare.rigid(found.poses, int(found.criterion.argmax())).degrees_from(pose)


@pytest.mark.slow
def test_perturbed_starts_reach_what_one_fit_does_not(spoilt, monkeypatch):
    compare, pose = spoilt
    starts = _off(compare, pose, 45.0)
    far = multistart_search(compare, starts, 6)
    assert _degrees(compare, far, pose) < 8
    monkeypatch.setattr(multistart, "ROUNDS", ())
    near = multistart_search(compare, starts, 6)
    assert _degrees(compare, near, pose) > 15
    assert float(near.criterion.max()) < float(far.criterion.max())


@pytest.mark.slow
def test_repeated_from_uniform_rotations_until_the_ratio_is_accepted(spoilt, monkeypatch):
    compare, pose = spoilt
    center = compare.target.brain.center
    turned = pose.rotation @ so3.exp(np.radians(170.0) * np.array([0.0, 0.6, 0.8]))
    starts = compare.poses(Rigid.about(turned, center, pose.apply(center)))
    calls = []
    original = multistart._uniformly_rotated
    monkeypatch.setattr(multistart, "_uniformly_rotated", lambda *a: calls.append(1) or original(*a))
    once = multistart_search(compare, starts, 6, 1)
    assert float(once.criterion.max()) < LOW_COARSE_RATIO and _degrees(compare, once, pose) > 30 and not calls
    found = multistart_search(compare, starts, 6)
    assert float(found.criterion.max()) >= LOW_COARSE_RATIO and _degrees(compare, found, pose) < 8
    assert 0 < len(calls) < ATTEMPTS // 2


def test_anywhere_is_uniform_on_rotations(head, target):
    like = Comparison(head.brain, target).poses(head.pose)
    found = multistart._uniformly_rotated(UNIFORM_ROUND, like, 50.0, torch.Generator().manual_seed(2))
    assert len(found) == UNIFORM_ROUND.copies
    # of uniform rotations every entry has mean 0 and variance 1/3
    assert float(found.rotation.mean(0).abs().max()) < 0.06
    torch.testing.assert_close(found.rotation.square().mean(0), torch.full((3, 3), 1 / 3), rtol=0, atol=0.04)
    torch.testing.assert_close(torch.det(found.rotation), torch.ones(len(found)), rtol=0, atol=1e-4)
    assert float(found.shift.square().sum(1).mean().sqrt()) == pytest.approx(UNIFORM_ROUND.shift * 50.0, rel=0.1)
    assert float(found.log_scale.std()) == pytest.approx(UNIFORM_ROUND.size, rel=0.1)


@pytest.mark.slow
def test_the_same_each_time_whatever_else_draws_numbers(spoilt):
    compare, pose = spoilt
    starts = _off(compare, pose, 45.0)
    first = multistart_search(compare, starts, 4)
    torch.rand(7)
    again = multistart_search(compare, starts, 4)
    assert 1 <= len(first.poses) <= 4 * ATTEMPTS
    torch.testing.assert_close(first.poses.rotation, again.poses.rotation, rtol=0, atol=0)


def test_a_clear_fit_is_not_perturbed(head, target, monkeypatch):
    def never(*_):
        raise AssertionError("perturbed")

    compare = Comparison(head.brain, target)
    monkeypatch.setattr(multistart, "_perturbed", never)
    found = multistart_search(compare, compare.poses(head.pose), 6)
    assert float(found.criterion.max()) > LOW_COARSE_RATIO
    assert _degrees(compare, found, head.pose) < 4


def test_perturbed_as_far_as_a_round_says_and_the_first_copy_not_at_all(head, target):
    start = Comparison(head.brain, target).poses(head.pose)
    pair = start.concat(start)
    how = Round(2, 500, 12.0, 0.1, 0.05)
    found = multistart._perturbed(pair, how, 50.0, torch.Generator().manual_seed(3))
    assert len(found) == 1000
    for i in (0, 500):
        for name in ("rotation", "shift", "log_scale"):
            torch.testing.assert_close(getattr(found, name)[i], getattr(start, name)[0])
    turned = so3_torch.log(found.rotation @ start.rotation.mT)
    assert np.degrees(float(turned.square().sum(1).mean().sqrt())) == pytest.approx(12.0, rel=0.1)
    assert float((found.log_scale - start.log_scale).std()) == pytest.approx(0.05, rel=0.1)
    # a shift is turned and grown with the pose; what is left of it is the shaking
    grown = (found.log_scale - start.log_scale).exp()[:, None]
    left = found.shift - grown * (found.rotation @ start.rotation.mT @ start.shift[0])
    assert float(left.square().sum(1).mean().sqrt()) == pytest.approx(5.0, rel=0.1)
    torch.testing.assert_close(torch.det(found.rotation), torch.ones(1000), rtol=0, atol=1e-4)
    assert float(found.log_scale.abs().max()) <= SCALE_LIMIT


def test_rounds_narrow():
    for wide, narrow in pairwise(ROUNDS):
        assert wide.kept > narrow.kept
        assert (wide.degrees, wide.shift, wide.size) > (narrow.degrees, narrow.shift, narrow.size)
