"""Confidence: from features to a probability, by way of a file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posepipe.atlas import VolumeRange
from posepipe.geometry import Rigid
from posepipe.imaging.mask import BrainMask
from posepipe.models.calibration import SIGNS, ConfidenceModel, load_calibration
from posepipe.pose.hypothesis import Hypothesis, Ranked
from posepipe.pose.initial import INIT_METHODS, InitialPose, NetworkPrediction
from posepipe.quality.confidence import confidence, confidence_features
from posepipe.quality.verdict import judge_pose
from posepipe.refinement.refine import Refined

SEEN = {"votes": 1.0, "expected_error": 0.05, "brain_share": 0.98, "shift": 0.01}
MODEL = ConfidenceModel({"apart": (-4.0, 2.5, 0.6), "Dice": (1.0, 0.9, 0.05)}, 3.0, 0.8, 0.2)
CALIBRATION = replace(load_calibration(), weights={"net": "ab"}, confidence=MODEL)


def turn(degrees: float) -> Rigid:
    return Rigid.from_rotvec([0, np.radians(degrees), 0])


def initial(prediction: float | None = 2.0, lead: float | None = None) -> InitialPose:
    """At the identity, with a ``lead`` in criterion over a rival; the networks' own pose is turned from it by ``prediction`` degrees."""
    seen = None if prediction is None else NetworkPrediction(turn(prediction), SEEN, {"net": "ab"})
    best = Hypothesis(Rigid.identity(), 0.0, 1.0, criterion=0.6, coarse=0.4)
    rivals = () if lead is None else (Hypothesis(turn(90), 0.0, 1.0, criterion=0.6 - lead),)
    return InitialPose(best.pose, "search", Ranked((best, *rivals), "criterion"), 1.0, seen)


def refined(dice: float = 0.95, ncc: float = 0.9, degrees: float = 1.0) -> Refined:
    values = {"NCC": ncc, "NMI": 1.15, "Dice": dice, "CR": 0.4, "CoarseCR": 0.4}
    return Refined(turn(degrees), "torch", {k: {"before": 0.5, "after": v} for k, v in values.items()})


def test_features_are_of_the_final_pose():
    found = confidence_features(initial(), refined(degrees=4.0))
    assert found is not None
    assert found["apart"] == pytest.approx(np.log1p(2.0))
    assert found["expected_error"] == pytest.approx(np.log(0.05))
    assert (found["NCC"], found["Dice"], found["shift"]) == (0.9, 0.95, 0.01)
    assert set(found) == set(SIGNS)
    assert all(np.isfinite(list(found.values())))


def test_inverted_contrast_and_missing_rivals_are_no_error():
    plain = confidence_features(initial(), refined())
    assert confidence_features(initial(), refined(ncc=-0.9)) == plain
    assert confidence_features(initial(lead=3.0), refined()) == plain  # a large lead is as good as none to lead over
    assert confidence_features(initial(lead=0.1), refined()) != plain


def test_a_pose_far_from_the_networks_is_not_trusted():
    near, far = (confidence(initial(d), refined(), MODEL) for d in (2.0, 120.0))
    assert near > 0.99
    assert far < 0.01


def test_the_lead_is_in_criterion_whatever_chose_the_pose():
    best, rival = initial(lead=0.1).hypotheses
    chosen = Ranked((replace(rival, votes=0.75), replace(best, votes=0.25)), "votes")
    found = confidence_features(replace(initial(), found=chosen), refined())
    assert found is not None and found["lead"] == pytest.approx(-0.1)


def test_estimated_whatever_found_the_pose_but_not_without_a_witness():
    assert confidence(initial(None), refined(), MODEL) is None
    assert len({confidence(replace(initial(), method=method), refined(), MODEL) for method in INIT_METHODS}) == 1


def test_probabilities_at_the_ends_are_finite():
    for dice, expected in ((1e9, 1.0), (-1e9, 0.0)):
        assert MODEL.probability({"apart": 2.5, "Dice": dice, "CR": 0.4}) == pytest.approx(expected)


def test_the_package_s_model_is_of_what_is_measured_and_monotone():
    model = load_calibration().confidence
    assert 0 < model.fail < model.review < 1
    assert set(model.terms) <= set(confidence_features(initial(), refined()) or {})
    assert all(coefficient * SIGNS[name] > 0 for name, (coefficient, *_) in model.terms.items())


@pytest.fixture
def mask(average) -> BrainMask:
    return BrainMask(average[1].with_data(average[1].data > 0), "given")


@pytest.mark.parametrize(("apart", "qc"), [(2.0, "pass"), (22.0, "review"), (150.0, "fail")])
def test_verdict_by_confidence(mask, target, apart, qc):
    verdict = judge_pose(initial(apart), refined(), mask, target, 29.0, calibration=CALIBRATION)
    assert verdict.confidence is not None
    assert verdict.qc == qc
    assert (qc == "pass") == (verdict.reasons == ())
    assert qc == "pass" or f"probability of only {verdict.confidence:.2f}" in verdict.reasons[0]


def test_a_brain_of_no_age_of_the_atlas_is_given_no_confidence(mask, target):
    sizes = VolumeRange(10.0, "Phantom+20", target.millilitres / 2, "Phantom+24")
    verdict = judge_pose(initial(), refined(), mask, target, 29.0, calibration=CALIBRATION, estimated=True, volumes=sizes)
    assert (verdict.qc, verdict.confidence) == ("fail", MODEL.fail)
    known = judge_pose(initial(), refined(), mask, target, 29.0, calibration=CALIBRATION, volumes=sizes)
    assert known.qc == "pass" and known.confidence > MODEL.review


def test_a_sure_pose_is_not_flagged_for_a_near_rival(mask, target):
    sure = judge_pose(initial(lead=0.01), refined(dice=0.84), mask, target, 29.0, calibration=CALIBRATION)
    assert sure.qc == "pass"
    unknown = judge_pose(initial(None, lead=0.01), refined(dice=0.84), mask, target, 29.0, calibration=CALIBRATION)
    assert unknown.qc == "review"
    assert len(unknown.reasons) == 2
    doubtful = judge_pose(initial(20.0, lead=0.01), refined(), mask, target, 29.0, calibration=CALIBRATION)
    assert "another orientation" in doubtful.reasons[1]


@pytest.mark.parametrize("method", ["auto", "deep", "search"])
def test_with_other_weights_no_confidence_is_estimated_and_no_pose_passes(mask, target, method):
    other = replace(CALIBRATION, weights={"net": "cd"})
    verdict = judge_pose(replace(initial(), method=method), refined(), mask, target, 29.0, calibration=other)
    assert (verdict.qc, verdict.confidence) == ("review", None)
    assert verdict.reasons[0].startswith("the weights of net are not those") and "bench calibration" in verdict.reasons[0]
