"""The closer look at damaged brains: found from afar, the same each time, and no wandering where there is no need."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from posepipe.bench.perturb import corrupted
from posepipe.geometry import Rigid, so3, so3_torch
from posepipe.matching.comparison import Comparison
from posepipe.matching.gauss_newton import SCALE_LIMIT, Poses
from posepipe.pose import multistart as closer
from posepipe.pose.multistart import ANYWHERE, ATTEMPTS, CLEAR, LEAST_OVERLAP, ROUNDS, SURE, Round, closer_look


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
def test_wandering_reaches_what_a_fit_does_not(spoilt, monkeypatch):
    compare, pose = spoilt
    starts = _off(compare, pose, 45.0)
    far = closer_look(compare, starts, 6)
    assert _degrees(compare, far, pose) < 8
    monkeypatch.setattr(closer, "ROUNDS", ())
    near = closer_look(compare, starts, 6)
    assert _degrees(compare, near, pose) > 15
    assert float(near.criterion.max()) < float(far.criterion.max())


@pytest.mark.slow
def test_tried_again_from_further_away_until_it_is_sure(spoilt, monkeypatch):
    compare, pose = spoilt
    center = compare.target.brain.center
    turned = pose.rotation @ so3.exp(np.radians(170.0) * np.array([0.0, 0.6, 0.8]))
    starts = compare.poses(Rigid.about(turned, center, pose.apply(center)))
    anywhere = []
    drawn = closer._anywhere
    monkeypatch.setattr(closer, "_anywhere", lambda *a: anywhere.append(1) or drawn(*a))
    once = closer_look(compare, starts, 6, 1)
    assert float(once.criterion.max()) < SURE and _degrees(compare, once, pose) > 30 and not anywhere
    found = closer_look(compare, starts, 6)
    assert float(found.criterion.max()) >= SURE and _degrees(compare, found, pose) < 8
    assert 0 < len(anywhere) < ATTEMPTS // 2


def test_slivers_are_left_out_unless_there_is_nothing_else(head, target):
    compare = Comparison(head.brain, target)
    edges, inside = compare.rough
    right = compare.poses(head.pose)
    away = Poses(right.rotation, right.shift + 1.6 * target.brain.radius, right.log_scale)
    kept = closer._judged((inside, edges), right.beside(away), 0)
    assert len(kept.poses) == 1 and float(kept.overlap[0]) > LEAST_OVERLAP
    torch.testing.assert_close(kept.poses.rotation, right.rotation)
    only = closer._judged((inside, edges), away, 0)
    assert len(only.poses) == 1 and float(only.overlap[0]) < LEAST_OVERLAP


def test_anywhere_is_uniform_on_rotations(head, target):
    like = Comparison(head.brain, target).poses(head.pose)
    found = closer._anywhere(ANYWHERE, like, 50.0, torch.Generator().manual_seed(2))
    assert len(found) == ANYWHERE.copies
    # of uniform rotations every entry has mean 0 and variance 1/3
    assert float(found.rotation.mean(0).abs().max()) < 0.06
    torch.testing.assert_close(found.rotation.square().mean(0), torch.full((3, 3), 1 / 3), rtol=0, atol=0.04)
    torch.testing.assert_close(torch.det(found.rotation), torch.ones(len(found)), rtol=0, atol=1e-4)
    assert float(found.shift.square().sum(1).mean().sqrt()) == pytest.approx(ANYWHERE.shift * 50.0, rel=0.1)
    assert float(found.log_scale.std()) == pytest.approx(ANYWHERE.size, rel=0.1)


@pytest.mark.slow
def test_the_same_each_time_whatever_else_draws_numbers(spoilt):
    compare, pose = spoilt
    starts = _off(compare, pose, 45.0)
    first = closer_look(compare, starts, 4)
    torch.rand(7)
    again = closer_look(compare, starts, 4)
    assert 1 <= len(first.poses) <= 4 * ATTEMPTS
    torch.testing.assert_close(first.poses.rotation, again.poses.rotation, rtol=0, atol=0)


def test_a_clear_fit_is_not_shaken(head, target, monkeypatch):
    def never(*_):
        raise AssertionError("shaken")

    compare = Comparison(head.brain, target)
    monkeypatch.setattr(closer, "_shaken", never)
    found = closer_look(compare, compare.poses(head.pose), 6)
    assert float(found.criterion.max()) > CLEAR
    assert _degrees(compare, found, head.pose) < 4


def test_shaken_as_far_as_a_round_says_and_the_first_copy_not_at_all(head, target):
    start = Comparison(head.brain, target).poses(head.pose)
    pair = start.beside(start)
    how = Round(2, 500, 12.0, 0.1, 0.05)
    found = closer._shaken(pair, how, 50.0, torch.Generator().manual_seed(3))
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
