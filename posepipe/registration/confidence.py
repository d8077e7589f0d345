"""How likely a pose is right: a logistic model of what the networks, the similarity and the rival hypotheses say of it.

The coefficients lie in ``confidence.toml`` beside this file, written by ``posepipe-tools bench confidence`` from poses whose truth is
known (docs/bench.md); they hold for the networks they were found with.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from .initial import InitialPose
    from .refine import Refined

LOGGER = logging.getLogger(__name__)
PACKAGED = Path(__file__).with_name("confidence.toml")
WITHIN_DEGREES = 15.0
"""The pose counts as right when its rotation is within this of the truth."""
NO_RIVAL = 0.5
"""Lead that stands for: no other hypothesis more than 30° away; larger leads count as this."""
_LOGARITHMS = ("spread", "first_correction", "last_correction", "residual", "expected_error")
"""Features of the witness that matter by ratio; the angles among them are in degrees."""


@dataclass(frozen=True)
class ConfidenceModel:
    """``P(right) = 1 / (1 + exp(−(intercept + Σ coefficient · (feature − mean) / scale)))``.

    ``terms`` holds by feature its ``(coefficient, mean, scale)``. A pose whose confidence is below ``review`` is to be looked at, below
    ``fail`` not to be used. ``weights``: name → SHA-256 of the networks that the model was fitted with; ``made`` says how.
    """

    terms: Mapping[str, tuple[float, float, float]]
    intercept: float
    review: float
    fail: float
    weights: Mapping[str, str] = field(default_factory=dict)
    made: str = ""

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
    error; ``lead`` over the best rival; and how sure the networks are of themselves.
    """
    witness = initial.witness
    if witness is None:
        return None
    seen = {k: math.log(max(v, 1e-6)) if k in _LOGARITHMS[3:] else v for k, v in witness.features.items()}
    seen |= {k: math.log1p(seen[k]) for k in _LOGARITHMS[:3]}
    after = {name: value["after"] for name, value in refined.similarity.items()}
    return {
        "apart": math.log1p(refined.pose.degrees_from(witness.pose)),
        "moved": math.log1p(refined.pose.degrees_from(initial.pose)),
        "lead": NO_RIVAL if initial.margin is None else max(-NO_RIVAL, min(NO_RIVAL, initial.margin)),
        "NCC": abs(after["NCC"]),
        "NMI": after["NMI"],
        "Dice": after["Dice"],
        "CR": after["CR"],
        "CoarseCR": after["CoarseCR"],
        **(seen | {"log_scale": abs(seen["log_scale"])}),
    }


def load_confidence(path: str | Path = PACKAGED) -> ConfidenceModel | None:
    """The model in ``path``, None if there is no such file.

    Raises :class:`~posepipe.errors.WeightsError` for a file that is not one.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        terms = {name: (float(t["coefficient"]), float(t["mean"]), float(t["scale"])) for name, t in content["features"].items()}
        return ConfidenceModel(
            terms,
            float(content["intercept"]),
            float(content["review"]),
            float(content["fail"]),
            dict(content["weights"]),
            str(content["made"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path}: not a confidence model ({error!r}); install posepipe again, or write it with `posepipe-tools bench confidence`"
        raise WeightsError(msg) from error


def save_confidence(model: ConfidenceModel, path: str | Path) -> Path:
    """Write ``model`` as TOML by atomic replace."""
    path = Path(path)
    lines = [
        "# The model of a pose's confidence (posepipe/registration/confidence.py). Written by `posepipe-tools bench confidence`.",
        f'made = "{model.made}"',
        *(f"{name} = {getattr(model, name):.6g}" for name in ("intercept", "review", "fail")),
        "",
        "# Networks it was fitted with: SHA-256.",
        "[weights]",
        *(f'{name} = "{sha256}"' for name, sha256 in sorted(model.weights.items())),
        "",
        "[features]",
        *(f"{k} = {{ coefficient = {c:.6g}, mean = {m:.6g}, scale = {s:.6g} }}" for k, (c, m, s) in model.terms.items()),
    ]
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return temporary.replace(path)


def confidence(initial: InitialPose, refined: Refined, model: ConfidenceModel | None) -> float | None:
    """Probability that the final pose is within 15° of the truth; None (not estimated) without a model or a witness, and for networks
    other than those the model was fitted with."""
    features = confidence_features(initial, refined)
    if model is None or features is None or initial.witness is None:
        return None
    if dict(initial.witness.weights) != dict(model.weights):
        LOGGER.info("confidence not estimated: it was calibrated for other network weights (`posepipe-tools bench confidence` does it)")
        return None
    return model.probability(features)
