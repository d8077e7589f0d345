"""Scores of three kinds, each with its own ranking, lead and limits."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.geometry import Rigid
from posepipe.matching.comparison import Comparison
from posepipe.pose.coordinate_networks import PoseNetworks
from posepipe.pose.hypothesis import Hypothesis, Ranked, fits, measured
from posepipe.pose.initial import INIT_METHODS, initial_pose
from posepipe.pose.search import search


def at(degrees: float, **scores: float) -> Hypothesis:
    return Hypothesis(Rigid.from_rotvec([0, np.radians(degrees), 0]), 0.0, 1.0, **scores)


@pytest.mark.parametrize(("criterion", "coarse", "expected"), [(0.319, 0.099, False), (0.321, 0.0, True), (0.0, 0.101, True)])
def test_each_score_has_a_limit_of_its_own(criterion, coarse, expected):
    assert fits(criterion, coarse) is expected


def test_hypotheses_are_ranked_by_one_score_and_ties_stay_in_order():
    a, b, c = at(0, criterion=0.2, votes=0.5), at(90, criterion=0.9, votes=0.25), at(170, criterion=0.4, votes=0.5)
    assert Ranked.of([a, b, c], "criterion").hypotheses == (b, c, a)
    assert Ranked.of([b, a, c], "votes").hypotheses == (a, c, b)
    assert Ranked.of([a, at(5, coarse=0.0)], "coarse").best.coarse == 0.0  # what was not measured comes last


def test_the_lead_is_over_rivals_and_never_negative_in_the_score_of_the_ranking():
    found = Ranked.of([at(0, votes=0.75, criterion=0.2), at(29, votes=0.7, criterion=0.9), at(31, votes=0.25, criterion=0.5)], "votes")
    assert found.lead() == pytest.approx(0.5)
    assert found.lead("criterion") == pytest.approx(-0.3)
    assert found.lead("coarse") is None  # not measured
    two = Ranked.of([at(0, criterion=0.9), at(90, criterion=0.2), at(170, criterion=0.7)], "criterion")
    assert two.lead() == pytest.approx(0.2)  # over the better of the rivals
    assert Ranked((at(0, votes=1.0), at(20, votes=0.0)), "votes").lead() is None


def test_what_is_known_is_not_measured_again(head, target):
    compare = Comparison(head.brain, target)
    known = measured(compare, Hypothesis(head.pose, 0.0, 1.0, criterion=0.123))
    assert known.criterion == 0.123
    assert known.coarse == compare.coarse_score(head.pose)
    assert measured(compare, Hypothesis(head.pose, 0.0, 1.0, coarse=0.123)).coarse == 0.123


@pytest.mark.parametrize("method", INIT_METHODS)
def test_the_best_has_all_scores_whatever_the_method(head, target, method):
    compare, networks = Comparison(head.brain, target), PoseNetworks()
    found = initial_pose(head.image, head.mask, target, method=method, compare=compare, networks=networks)
    best = found.best
    assert found.pose is best.pose
    assert best.coarse == compare.coarse_score(best.pose)
    assert best.criterion == pytest.approx(compare.score(best.pose), abs=0.1)  # at its own size, or the best of a few
    assert best.votes is not None and 0 <= best.votes <= 1
    ranking = [h.score(found.found.by) for h in found.hypotheses]
    assert ranking == sorted(ranking, reverse=True)
    assert found.found.by == ("votes" if method == "deep" else "criterion")
    near = found.pose.degrees_from(networks_pose(found)) < 10
    assert (best.votes > 0) is near


def networks_pose(found):
    return found.prediction.pose


def test_the_closer_look_ranks_by_coarse_texture_and_keeps_the_criterion_apart(make_head, target):
    from posepipe.bench.perturb import corrupted

    h = make_head(1)
    compare = Comparison.of(*corrupted(h.image, h.mask, "all", 1.0, np.random.default_rng(1)), target)
    found = search(compare)
    assert found.by == "coarse"
    for one in found.hypotheses:
        assert one.criterion == compare.score(one.pose) and one.coarse != one.criterion
