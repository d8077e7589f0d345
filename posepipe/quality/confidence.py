"""How likely a pose is right: a logistic model of what the networks, the similarity and the rival hypotheses say of it.

The coefficients lie in the calibration file (:mod:`posepipe.models.calibration`), fitted to poses whose truth is known
(docs/bench.md).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models.calibration import ConfidenceModel
    from ..pose.initial import InitialPose
    from ..refinement.refine import Refined

WITHIN_DEGREES = 15.0
"""The pose counts as right when its rotation is within this of the truth."""
NO_RIVAL = 0.5
"""Lead in criterion that stands for: no other hypothesis more than 30° away; larger leads count as this."""


def confidence_features(initial: InitialPose, refined: Refined) -> dict[str, float] | None:
    """What the model may look at, by name; None where the networks were not asked.

    ``apart``: angle between the networks' own pose and the final one (they know nothing of the template's intensities), as
    log(1 + degrees); ``lead`` in criterion over the best rival, below 0 where the pose was chosen by another score; the similarities after
    refinement, NCC by its size alone since an inverted contrast is no error; and what the networks say of themselves: the share of their
    ``votes``, the ``expected_error`` of the coordinates (logarithm of brain radii), ``brain_share`` of what they were shown as brain, and
    the ``shift`` (brain radii) of the brain in the mask.
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
    """Probability that the final pose is within 15° of the truth, whatever found it; None (not estimated) where our networks were not
    asked."""
    features = confidence_features(initial, refined)
    return None if features is None else model.probability(features)
