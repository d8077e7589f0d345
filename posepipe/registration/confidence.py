"""How likely a pose is right: a logistic model of what the networks, the similarity and the rival hypotheses say of it.

The coefficients lie in the calibration file (:mod:`posepipe.registration.calibration`), fitted to poses whose truth is known
(docs/bench.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .initial import InitialPose
    from .refine import Refined

WITHIN_DEGREES = 15.0
"""The pose counts as right when its rotation is within this of the truth."""
NO_RIVAL = 0.5
"""Lead in criterion that stands for: no other hypothesis more than 30° away; larger leads count as this."""
SIGNS = {
    "apart": -1, "lead": 1, "NCC": 1, "NMI": 1, "Dice": 1, "CR": 1, "CoarseCR": 1, "votes": 1, "expected_error": -1, "brain_share": 1,
    "shift": -1,
}  # fmt: skip
"""What the model may look at (:func:`confidence_features`), and which way each may count."""
BRAIN_SIGNS = {"share": 1, "sharp": 1, "size": -1, "expected_error": -1, "masked_error": -1, "apart": -1}
"""The same of the model of whether something is a brain (:func:`~posepipe.brainmask.finder.brain_features`)."""


@dataclass(frozen=True)
class ConfidenceModel:
    """``P(right) = 1 / (1 + exp(−(intercept + Σ coefficient · (feature − mean) / scale)))``.

    ``terms`` holds by feature its ``(coefficient, mean, scale)``. A pose whose confidence is below ``review`` is to be looked at, below
    ``fail`` not to be used.
    """

    terms: Mapping[str, tuple[float, float, float]]
    intercept: float
    review: float
    fail: float

    def probability(self, features: Mapping[str, float]) -> float:
        """Probability in [0, 1]; raises :class:`KeyError` for features that lack one of the model's.

        >>> model = ConfidenceModel({"Dice": (2.0, 0.9, 0.05)}, 1.0, 0.5, 0.1)
        >>> round(model.probability({"Dice": 0.9}), 3), round(model.probability({"Dice": 0.7}), 5)
        (0.731, 0.00091)
        """
        logit = self.intercept + sum(c * (features[name] - mean) / scale for name, (c, mean, scale) in self.terms.items())
        # both tails without overflow
        return 1 / (1 + math.exp(-logit)) if logit > 0 else math.exp(max(logit, -700.0)) / (1 + math.exp(max(logit, -700.0)))


def confidence_features(initial: InitialPose, refined: Refined) -> dict[str, float] | None:
    """What the model may look at, by name; None where the networks were not asked.

    ``apart``: angle between the networks' own pose and the final one (they know nothing of the template's intensities), as
    log(1 + degrees); ``lead`` in criterion over the best rival, below 0 where the pose was chosen by another score; the similarities after
    refinement, NCC by its size alone since an inverted contrast is no error; and what the networks say of themselves: the share of their
    ``votes``, the ``expected_error`` of the coordinates (logarithm of brain radii), ``brain_share`` of what they were shown as brain, and
    the ``shift`` (brain radii) of the brain in the mask.
    """
    witness = initial.witness
    if witness is None:
        return None
    lead = initial.found.lead("criterion")
    after = {name: value["after"] for name, value in refined.similarity.items()}
    return {
        "apart": math.log1p(refined.pose.degrees_from(witness.pose)),
        "lead": NO_RIVAL if lead is None else max(-NO_RIVAL, min(NO_RIVAL, lead)),
        "NCC": abs(after["NCC"]),
        **{name: after[name] for name in ("NMI", "Dice", "CR", "CoarseCR")},
        **{name: witness.features[name] for name in ("votes", "brain_share", "shift")},
        "expected_error": math.log(max(witness.features["expected_error"], 1e-6)),
    }


def confidence(initial: InitialPose, refined: Refined, model: ConfidenceModel) -> float | None:
    """Probability that the final pose is within 15° of the truth, whatever found it; None (not estimated) where our networks were not
    asked."""
    features = confidence_features(initial, refined)
    return None if features is None else model.probability(features)
