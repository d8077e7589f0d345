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
from posepipe.quality.verdict import MOVED_DEGREES, Quality, _misfit, judge_pose
from posepipe.refinement.refine import Refined

ALIKE = {"NCC": 0.8, "NMI": 1.1, "Dice": 0.95, "CR": 0.5, "CoarseCR": 0.5}


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


def judge(mask: BrainMask, target, first: InitialPose | None = None, then: Refined | None = None) -> Quality:
    return judge_pose(first or initial(), then or refined(), mask, target, 29.0)


def test_a_good_pose_passes(mask, target):
    assert judge(mask, target) == Quality("pass", (), None)
    assert judge(mask, target, initial(lead=None)).qc == "pass"


@pytest.mark.parametrize(("factor", "qc"), [(0.5, "review"), (0.75, "pass"), (1.4, "pass"), (1.7, "review")])
def test_a_mask_of_a_size_beyond_the_age(mask, target, factor, qc):
    verdict = judge(grown(mask, factor), target)
    assert verdict.qc == qc
    if qc == "review":
        (reason,) = verdict.reasons
        assert f"{factor:.2f} times the template's at 29 weeks" in reason
        assert "check mask and age" in reason


def test_size_without_an_age(mask, target):
    (reason,) = judge_pose(initial(), refined(), grown(mask, 2), target, None).reasons
    assert "times the template's: check" in reason


@pytest.mark.parametrize(
    ("factor", "estimated", "qc"),
    [(3.0, False, "fail"), (3.0, True, "fail"), (0.3, False, "fail"), (1.4, False, "pass"), (1.4, True, "fail"), (1.6, False, "fail"),
     (1.3, True, "pass"), (0.6, False, "review")],
)  # fmt: skip
def test_a_brain_of_no_age_of_the_atlas_fails(mask, target, factor, estimated, qc):
    """Beyond 1.35 times the largest and half of the smallest; where the age is known only if the mask does not suit that either."""
    known = VolumeRange(target.millilitres, "Phantom+29", target.millilitres, "Phantom+29")
    verdict = judge_pose(initial(), refined(), grown(mask, factor), target, 29.0, estimated=estimated, volumes=known)
    assert verdict.qc == qc
    if qc == "fail":
        (reason,) = verdict.reasons
        assert ("largest" if factor > 1 else "smallest") + " of the atlas (Phantom+29" in reason


def test_an_estimated_age_that_is_doubted_is_for_review_at_best(mask, target):
    verdict = judge_pose(initial(), refined(), mask, target, 29.0, estimated=True, doubts=["the age cannot be determined"])
    assert verdict == Quality("review", ("the age cannot be determined",), None)
    assert judge_pose(initial(), refined(), mask, target, 29.0, estimated=True) == Quality("pass", (), None)


@pytest.mark.parametrize(("dice", "qc"), [(0.9, "pass"), (0.8, "review"), (0.6, "fail")])
def test_masks_that_overlap_too_little(mask, target, dice, qc):
    verdict = judge(mask, target, then=refined(dice))
    assert verdict.qc == qc
    assert qc == "pass" or f"by only {dice:.2f} (Dice)" in verdict.reasons[0]


def test_a_rival_that_fits_as_well(mask, target):
    verdict = judge(mask, target, initial(lead=0.01))
    assert verdict.qc == "review"
    assert verdict.reasons == ("another orientation fits nearly as well (its criterion is 0.010 lower)",)


@pytest.mark.parametrize(
    ("by", "lead", "qc"), [("criterion", 0.019, "review"), ("criterion", 0.021, "pass"), ("coarse", 0.0, "pass"), ("votes", 0.0, "pass")]
)
def test_the_limit_of_a_lead_is_one_of_the_criterion(mask, target, by, lead, qc):
    assert judge(mask, target, initial(lead, by)).qc == qc


@pytest.mark.parametrize(("degrees", "qc"), [(MOVED_DEGREES - 1, "pass"), (MOVED_DEGREES + 1, "review")])
def test_a_refinement_that_turned_far(mask, target, degrees, qc):
    pose = Rigid.from_rotvec([0, np.radians(degrees), 0])
    verdict = judge(mask, target, then=refined(pose=pose))
    assert verdict.qc == qc
    assert qc == "pass" or "refinement rotated the pose by 16°" in verdict.reasons[0]


def test_warnings_of_mask_and_refinement_are_passed_on(mask, target):
    verdict = judge(replace(mask, warnings=("pieces",)), target, then=refined(warnings=("astray",)))
    assert verdict == Quality("review", ("pieces", "astray"))


@pytest.mark.parametrize(("contrast", "dice", "reported"), [("T2w", 0.95, 0), ("T1w", 0.95, 1), ("T1w", 0.6, 0)])
def test_an_image_that_looks_like_the_other_contrast(mask, target, contrast, dice, reported):
    """At a pose that failed it would mean nothing."""
    verdict = judge_pose(initial(), refined(dice), mask, target, 29.0, scanned=target.brain, contrast=contrast)
    start = "named T1w, but its contrast is that of T2w (correlation with the T2w template 0.9"
    reasons = [r for r in verdict.reasons if r.startswith(start)]
    assert len(reasons) == reported and all("check the file, or give --contrast T2w" in r for r in reasons)
    assert verdict.qc == ("fail" if dice < 0.7 else "review" if reported else "pass")


def test_all_reasons_are_reported_and_the_worst_decides(mask, target):
    verdict = judge(grown(mask, 3), target, initial(lead=0.0), refined(0.5))
    assert verdict.qc == "fail"
    assert len(verdict.reasons) == 3


@pytest.mark.parametrize("method", ["auto", "search", "deep", "axes", "center", "posenet"])
@pytest.mark.parametrize(("criterion", "coarse", "reported"), [(0.31, 0.09, True), (0.31, 0.11, False), (0.33, 0.0, False)])
def test_a_brain_that_does_not_fit_where_it_was_laid(mask, target, method, criterion, coarse, reported):
    """Each score against its own limit, whatever the method."""
    poor = refined(CR=criterion, CoarseCR=coarse)
    verdict = judge(mask, target, replace(initial(), method=method), poor)
    assert verdict.qc == ("review" if reported else "pass")
    if reported:
        (reason,) = verdict.reasons
        assert reason.startswith("the intensities inside the brain do not match")
        assert f"(criterion {criterion:.2f}, coarse texture {coarse:.2f})" in reason


@pytest.mark.parametrize(("sure", "degrees", "reported"), [(True, 9.0, False), (True, 11.0, True), (False, 1.0, True)])
def test_a_reliable_prediction_that_agrees_suppresses_the_misfit_reason(mask, target, sure, degrees, reported):
    prediction = NetworkPrediction(Rigid.from_rotvec([np.radians(degrees), 0, 0]), {}, {}, sure)
    assert prediction.supports(Rigid.identity()) is not reported
    assert bool(_misfit(replace(initial(), prediction=prediction), refined(CR=0.2, CoarseCR=0.02))) is reported

