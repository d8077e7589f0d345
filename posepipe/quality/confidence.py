"""The probability that a pose is correct: a logistic model of features of the networks, the similarity and the rival hypotheses.

The coefficients are in the calibration file (:mod:`posepipe.models.calibration`), fitted to poses with known truth (docs/results/bench.md).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..pose.hypothesis import SAME_DEGREES

if TYPE_CHECKING:
    from ..models.calibration import ConfidenceModel
    from ..pose.initial import InitialPose
    from ..refinement.refine import Refined

WITHIN_DEGREES = SAME_DEGREES
"""A pose is correct if its rotation error is below this, degrees."""
NO_RIVAL = 0.5
"""Value of the feature ``lead`` without a rival hypothesis; larger leads are clipped to it."""


def confidence_features(initial: InitialPose, refined: Refined) -> dict[str, float] | None:
    """The features of the model by name; None without a network prediction.

    ``apart``: angle between the networks' pose (which does not use the template's intensities) and the final one, as log(1 + degrees);
    ``lead`` in criterion over the best rival, below 0 if the pose was chosen by another score; the similarity measures after refinement,
    with the absolute value of NCC since an inverted contrast is no error; and features of the networks: the fraction of ``votes``, the
    ``expected_error`` of the coordinates (logarithm of brain radii), ``brain_share`` (segmented brain over the input mask), and the
    ``shift`` of the brain in the mask (brain radii).
    """
    prediction = initial.prediction
    if prediction is None:
        return None
    lead = initial.found.lead("criterion")
    after = {name: value["after"] for name, value in refined.similarity.items()}
    return {
        "apart": math.log1p(refined.pose.degrees_from(prediction.pose)),
        "lead": NO_RIVAL if lead is None else max(-NO_RIVAL, min(NO_RIVAL, lead)),
        "NCC": abs(after["NCC"]),
        **{name: after[name] for name in ("NMI", "Dice", "CR", "CoarseCR")},
        **{name: prediction.features[name] for name in ("votes", "brain_share", "shift")},
        "expected_error": math.log(max(prediction.features["expected_error"], 1e-6)),
    }


def confidence(initial: InitialPose, refined: Refined, model: ConfidenceModel) -> float | None:
    """Probability that the final pose, by any method, is within 15° of the truth; None (not estimated) without a network prediction."""
    features = confidence_features(initial, refined)
    return None if features is None else model.probability(features)
