"""Verdicts: what makes a pose a case for review or a failure, and the wording of the reasons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posepipe.atlas import VolumeRange
from posepipe.geometry import Rigid
from posepipe.imaging.mask import BrainMask
from posepipe.pose.hypothesis import Hypothesis, Ranked
from posepipe.pose.initial import InitialPose, NetworkPrediction
from posepipe.quality.verdict import Quality, judge_pose
from posepipe.refinement.refine import Refined

ALIKE = {"NCC": 0.8, "NMI": 1.1, "Dice": 0.95, "CR": 0.5, "CoarseCR": 0.5}


FEATURES = {"votes": 1.0, "expected_error": 0.01, "brain_share": 0.95, "shift": 0.02}
NOT_ESTIMATED = "the probability that the pose is right was not estimated, as there is no prediction by networks"


def initial(lead: float | None = 0.8, by: str = "criterion") -> InitialPose:
    """A pose that leads a rival on the other side by so much, by one score."""
    best, rival = Hypothesis(Rigid.identity(), 0.0, 1.0, 1.0, 0.5, 1.0), Rigid.from_rotvec([0, 2, 0])
    rivals = () if lead is None else (Hypothesis(rival, 0.0, 1.0, **{by: best.score(by) - lead}),)
    return InitialPose(best.pose, "search", Ranked((best, *rivals), by), 1.0)


def refined(dice: float = 0.95, pose: Rigid | None = None, warnings: tuple[str, ...] = (), **scores: float) -> Refined:
    values = {k: {"before": v, "after": v} for k, v in (ALIKE | {"Dice": dice} | scores).items()}
    return Refined(pose or Rigid.identity(), "torch", values, warnings)


@pytest.fixture
def mask(average) -> BrainMask:
    return BrainMask(average[1].with_data(average[1].data > 0), "given")


def grown(mask: BrainMask, factor: float) -> BrainMask:
    """The same mask with ``factor`` times the volume."""
    side = factor ** (1 / 3)
    volume = replace(mask.volume, affine=np.diag([side, side, side, 1]) @ mask.volume.affine)
    return replace(mask, volume=volume)


def judge(mask: BrainMask, target, then: Refined | None = None, age: float | None = 29.0, **options) -> Quality:
    """The verdict on a pose that the networks predict too; its confidence is high unless ``then`` is poor."""
    then = then or refined()
    first = replace(initial(), prediction=NetworkPrediction(then.pose, FEATURES, {}, True))
    return judge_pose(first, then, mask, target, age, **options)


def test_a_good_pose_passes(mask, target):
    verdict = judge(mask, target)
    assert (verdict.qc, verdict.reasons) == ("pass", ()) and verdict.confidence > 0.99


@pytest.mark.parametrize(("factor", "qc"), [(0.5, "review"), (0.75, "pass"), (1.4, "pass"), (1.7, "review")])
def test_a_mask_of_a_size_beyond_the_age(mask, target, factor, qc):
    verdict = judge(grown(mask, factor), target)
    assert verdict.qc == qc
    if qc == "review":
        (reason,) = verdict.reasons
        assert f"{factor:.2f} times the template's at 29 weeks" in reason
        assert "check mask and age" in reason


def test_size_without_an_age(mask, target):
    (reason,) = judge(grown(mask, 2), target, age=None).reasons
    assert "times the template's: check" in reason


@pytest.mark.parametrize(
    ("factor", "estimated", "qc"),
    [(3.0, False, "fail"), (3.0, True, "fail"), (0.3, False, "fail"), (1.4, False, "pass"), (1.4, True, "fail"), (1.6, False, "fail"),
     (1.3, True, "pass"), (0.6, False, "review")],
)  # fmt: skip
def test_a_brain_of_no_age_of_the_atlas_fails(mask, target, factor, estimated, qc):
    """Beyond 1.35 times the largest and half of the smallest; where the age is known only if the mask does not suit that either."""
    known = VolumeRange(target.millilitres, "Phantom+29", target.millilitres, "Phantom+29")
    verdict = judge(grown(mask, factor), target, estimated=estimated, volumes=known)
    assert verdict.qc == qc
    if qc == "fail":
        (reason,) = verdict.reasons
        assert ("largest" if factor > 1 else "smallest") + " of the atlas (Phantom+29" in reason


def test_an_estimated_age_that_is_doubted_is_for_review_at_best(mask, target):
    verdict = judge(mask, target, estimated=True, doubts=["the age cannot be determined"])
    assert (verdict.qc, verdict.reasons) == ("review", ("the age cannot be determined",))
    assert judge(mask, target, estimated=True).qc == "pass"


@pytest.mark.parametrize(("dice", "qc"), [(0.71, "pass"), (0.69, "fail")])
def test_masks_that_overlap_too_little(mask, target, dice, qc):
    verdict = judge(mask, target, refined(dice))
    assert verdict.qc == qc and verdict.confidence > 0.99
    assert qc == "pass" or verdict.reasons == (f"after alignment the brain mask and the template's overlap by only {dice:.2f} (Dice)",)


def test_a_pose_in_doubt_has_its_scores_as_a_reason(mask, target):
    """Without a prediction by networks, and below the calibrated limit of the confidence; not above it."""
    pose = Rigid.from_rotvec([0, np.radians(16), 0])
    then = refined(0.81, pose, CR=0.05, CoarseCR=0.01, NCC=0.05, NMI=1.0)
    verdict = judge_pose(initial(lead=0.01), then, mask, target, 29.0)
    scores = (
        "scores of the pose: criterion 0.05, coarse texture 0.01, overlap of the masks 0.81 (Dice), "
        "lead of 0.010 over another orientation, rotated by 16° in the refinement"
    )
    assert verdict == Quality("review", (NOT_ESTIMATED, scores))
    assert "no rival orientation" in judge_pose(initial(lead=None), then, mask, target, 29.0).reasons[1]
    prediction = NetworkPrediction(Rigid.from_rotvec([2, 0, 0]), {**FEATURES, "expected_error": 0.1, "brain_share": 0.8, "shift": 0.3})
    doubted = judge_pose(replace(initial(lead=0.01), prediction=prediction), then, mask, target, 29.0)
    assert (doubted.qc, doubted.reasons[1]) == ("fail", scores) and "probability of only 0.0" in doubted.reasons[0]
    assert not any("scores of the pose" in reason for reason in judge(mask, target, refined(0.81)).reasons)


def test_warnings_of_mask_and_refinement_are_passed_on(mask, target):
    verdict = judge(replace(mask, warnings=("pieces",)), target, refined(warnings=("astray",)))
    assert (verdict.qc, verdict.reasons) == ("review", ("pieces", "astray"))


@pytest.mark.parametrize(("contrast", "dice", "reported"), [("T2w", 0.95, 0), ("T1w", 0.95, 1), ("T1w", 0.6, 0)])
def test_an_image_that_looks_like_the_other_contrast(mask, target, contrast, dice, reported):
    """At a pose that failed it would mean nothing."""
    verdict = judge(mask, target, refined(dice), scanned=target.brain, contrast=contrast)
    start = "named T1w, but its contrast is that of T2w (correlation with the T2w template 0.9"
    reasons = [r for r in verdict.reasons if r.startswith(start)]
    assert len(reasons) == reported and all("check the file, or give --contrast T2w" in r for r in reasons)
    assert verdict.qc == ("fail" if dice < 0.7 else "review" if reported else "pass")


def test_all_reasons_are_reported_and_the_worst_decides(mask, target):
    verdict = judge(grown(mask, 3), target, refined(0.5), doubts=["the header is doubtful"])
    assert verdict.qc == "fail"
    assert len(verdict.reasons) == 3
