"""Thresholds that were set by hand: what lies just inside and what lies just outside them.

The numbers are written out here, so that a threshold that is changed fails a test.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from posepipe.geometry import Rigid
from posepipe.imaging.mask import BrainMask
from posepipe.matching.comparison import Comparison
from posepipe.matching.gauss_newton import Term, fit, residual_weights
from posepipe.matching.target import Target
from posepipe.pose.hypothesis import Hypothesis, Ranked
from posepipe.pose.initial import InitialPose, NetworkPrediction
from posepipe.quality.verdict import Quality, judge_pose
from posepipe.refinement.refine import Refined, refine_pose
from posepipe.settings import WHOLE, WITHOUT_CSF


@pytest.fixture(scope="module")
def mask(average) -> BrainMask:
    return BrainMask(average[1].with_data(average[1].data > 0), "given")


def judged(mask: BrainMask, target: Target) -> Quality:
    """The verdict on a pose that raises no doubt."""
    scores = {"NCC": 0.8, "NMI": 1.1, "Dice": 0.95, "CR": 0.5, "CoarseCR": 0.5}
    best = Hypothesis(Rigid.identity(), 0.0, 1.0, criterion=1.0, coarse=0.5)
    features = {"votes": 1.0, "expected_error": 0.01, "brain_share": 0.95, "shift": 0.02}
    first = InitialPose(best.pose, "search", Ranked((best,), "criterion"), 1.0, NetworkPrediction(best.pose, features))
    then = Refined(best.pose, "torch", {name: {"before": value, "after": value} for name, value in scores.items()})
    return judge_pose(first, then, mask, target, 29.0)


@pytest.mark.parametrize(("ratio", "qc"), [(0.64, "review"), (0.66, "pass"), (1.49, "pass"), (1.51, "review")])
def test_masks_from_0_65_to_1_5_times_the_template_s_volume_are_plausible(mask, target, ratio, qc):
    side = (ratio * target.millilitres / mask.millilitres) ** (1 / 3)
    volume = replace(mask.volume, affine=np.diag([side, side, side, 1.0]) @ mask.volume.affine)
    resized = replace(mask, volume=volume)
    assert resized.millilitres / target.millilitres == pytest.approx(ratio)
    assert judged(resized, target).qc == qc


@pytest.mark.parametrize(("strict", "deviations", "share"), [(False, 3.0, 1 / 2), (True, 2.0, 1 / 4)])
def test_what_an_outlier_counts(strict, deviations, share):
    """Residuals of ±1 but for a few: their median size is 1, so that a robust standard deviation is 1.48."""
    far = 1.48 * deviations
    value = torch.tensor([[1.0, -1.0] * 500 + [far, -far, 0.0, 0.0]])
    weight, classes = torch.ones_like(value), torch.ones(value.shape[1], 1)
    residual, robust = residual_weights(value, weight, classes, strict=strict)
    assert float(residual[0, -4]) == pytest.approx(-far, abs=1e-4)
    assert float(robust[0, -4] / robust[0, -1]) == pytest.approx(share, rel=1e-3)
    assert float(robust[0, -3] / robust[0, -1]) == pytest.approx(share, rel=1e-3)


class Stated(Comparison):
    """A comparison whose criterion is stated: ``whole`` against the whole template, ``bare`` against that without extra-axial CSF."""

    whole, bare = 0.0, 0.0

    def score(self, pose: Rigid) -> float:
        return self.whole

    @property
    def without_csf(self) -> Comparison | None:
        other = Stated(self.brain, self.target)
        other.whole = self.bare
        return other


@pytest.fixture
def stated(head, target) -> Stated:
    return Stated(head.brain, target)


def template_used(compare: Stated, head, whole: float, bare: float) -> str:
    compare.whole, compare.bare = whole, bare
    return refine_pose(head.image, head.mask, compare.target, head.pose, method="torch", compare=compare).template


@pytest.mark.parametrize(("criterion", "template"), [(0.34, WITHOUT_CSF), (0.36, WHOLE)])
def test_brains_whose_criterion_is_below_0_35_are_tried_without_extra_axial_csf(stated, head, criterion, template):
    assert template_used(stated, head, criterion, 2 * criterion) == template


@pytest.mark.parametrize(("ratio", "template"), [(1.19, WHOLE), (1.21, WITHOUT_CSF)])
def test_the_criterion_must_be_1_2_times_as_high_without_csf(stated, head, ratio, template):
    assert template_used(stated, head, 0.30, ratio * 0.30) == template


def test_the_coarse_criterion_is_a_correlation_ratio(target):
    """Its share among the terms of a fit does not scale it: of a brain against itself it is nearly 1."""
    compare = Comparison(target.brain, target)
    alone = fit((compare.coarse_terms[1],), compare.poses(Rigid.identity(), 0.0), 0).criterion
    assert compare.coarse_score(Rigid.identity()) == pytest.approx(2 * float(alone[0]), abs=0.02)
    assert 0.85 < compare.coarse_score(Rigid.identity()) <= 1.0


@pytest.mark.parametrize(("terms", "share"), [("criterion_terms", 0.3), ("coarse_terms", 0.5)])
def test_the_shares_of_outline_and_texture(head, target, terms, share):
    """The outline has weight 0.3 in the criterion, the texture 0.5 in the coarse stage."""
    compare = Comparison(head.brain, target)
    first, second = getattr(compare, terms)
    poses = compare.poses(head.pose)
    both, one, other = (
        float(fit(some, poses, 0).criterion) for some in ((first, second), (first,), (Term(second.level, second.points),))
    )
    assert other > 0.1 and both == pytest.approx(one + share * other, abs=1e-5)
