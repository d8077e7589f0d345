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
_LOGARITHMS = ("spread", "first_correction", "last_correction", "residual", "expected_error")
"""Features of the witness that matter by ratio; the angles among them are in degrees."""


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
    """What the model looks at, by name; None where the networks were not asked.

    ``apart``: angle between the networks' own pose and the final one (they know nothing of the template's intensities); ``moved``: angle
    of the refinement (both as log(1 + degrees)); the similarities after refinement, NCC by its size alone since an inverted contrast is no
    error; ``lead`` in criterion over the best rival, below 0 where the pose was chosen by another score; and how sure the networks are
    of themselves.
    """
    witness = initial.witness
    if witness is None:
        return None
    seen = {k: math.log(max(v, 1e-6)) if k in _LOGARITHMS[3:] else v for k, v in witness.features.items()}
    seen |= {k: math.log1p(seen[k]) for k in _LOGARITHMS[:3]}
    lead = initial.found.lead("criterion")
    after = {name: value["after"] for name, value in refined.similarity.items()}
    return {
        "apart": math.log1p(refined.pose.degrees_from(witness.pose)),
        "moved": math.log1p(refined.pose.degrees_from(initial.pose)),
        "lead": NO_RIVAL if lead is None else max(-NO_RIVAL, min(NO_RIVAL, lead)),
        "NCC": abs(after["NCC"]),
        "NMI": after["NMI"],
        "Dice": after["Dice"],
        "CR": after["CR"],
        "CoarseCR": after["CoarseCR"],
        **(seen | {"log_scale": abs(seen["log_scale"])}),
    }


def confidence(initial: InitialPose, refined: Refined, model: ConfidenceModel) -> float | None:
    """Probability that the final pose is within 15° of the truth, whatever found it; None (not estimated) where our networks were not
    asked."""
    features = confidence_features(initial, refined)
    return None if features is None else model.probability(features)
