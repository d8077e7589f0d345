"""Calibration: thresholds and logistic models that were fitted with certain network weights, in one file that lists those weights.

``data/calibration.toml`` belongs to the packaged weights; ``posepipe-tools bench calibration`` writes it. A user's weights folder may
hold a file of the same name. With weights that the calibration does not list, masks and poses carry a warning (:func:`uncalibrated`), and
the verdict is ``review`` at best.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..files import write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "calibration.toml"
PARTS = ("brain", "sureness", "confidence", "slices")
"""Tables of the file that have an entry ``made``: how they were fitted. The last table is optional. The table ``sureness`` holds the
:class:`NetworkConsensus`."""
PACKAGED = Path(__file__).with_name("data") / NAME
SIGNS = {
    "apart": -1, "lead": 1, "NCC": 1, "NMI": 1, "Dice": 1, "CR": 1, "CoarseCR": 1, "votes": 1, "expected_error": -1, "brain_share": 1,
    "shift": -1,
}  # fmt: skip
"""Features of the confidence model (:func:`~posepipe.quality.confidence.confidence_features`) → sign that its coefficient may have."""
BRAIN_SIGNS = {"share": 1, "sharp": 1, "size": -1, "expected_error": -1, "masked_error": -1, "apart": -1}
"""Features of the brain score (:func:`~posepipe.brainmask.finder.brain_features`) → sign that its coefficient may have."""


@dataclass(frozen=True)
class ConfidenceModel:
    """Logistic model, ``P(right) = 1 / (1 + exp(−(intercept + Σ coefficient · (feature − mean) / scale)))``.

    ``terms``: feature → ``(coefficient, mean, scale)``. The verdict is ``review`` for probabilities below ``review``, and ``fail`` below
    ``fail``.
    """

    terms: Mapping[str, tuple[float, float, float]]
    intercept: float
    review: float
    fail: float

    def probability(self, features: Mapping[str, float]) -> float:
        """Probability in [0, 1] for ``features`` (name → value); raises :class:`KeyError` if one of the model's features is missing.

        >>> model = ConfidenceModel({"Dice": (2.0, 0.9, 0.05)}, 1.0, 0.5, 0.1)
        >>> round(model.probability({"Dice": 0.9}), 3), round(model.probability({"Dice": 0.7}), 5)
        (0.731, 0.00091)
        """
        logit = self.intercept + sum(c * (features[name] - mean) / scale for name, (c, mean, scale) in self.terms.items())
        # no overflow in either tail
        return 1 / (1 + math.exp(-logit)) if logit > 0 else math.exp(max(logit, -700.0)) / (1 + math.exp(max(logit, -700.0)))


@dataclass(frozen=True)
class NetworkConsensus:
    """Thresholds of network consensus. Poses for which at least the share ``votes`` (0 to 1) of the network predictions agree, with a
    predicted error of at most ``error`` (brain radii), are hardly ever wrong, whatever the similarity to the template."""

    votes: float
    error: float

    def of(self, features: Mapping[str, float]) -> bool:
        """Whether network predictions with these features meet both thresholds.

        >>> NetworkConsensus(0.75, 0.02).of({"votes": 0.75, "expected_error": 0.021})
        False
        """
        return features["votes"] >= self.votes and features["expected_error"] <= self.error


@dataclass(frozen=True)
class Calibration:
    """Models and thresholds that were fitted with the networks of these ``weights`` (name → SHA-256).

    ``brain``: the brain score, the probability that a candidate of the scan network is a brain; candidates below its ``fail`` are not
    masked, those below its ``review`` are doubtful. ``consensus``: thresholds of network consensus. ``confidence``: of a volume's pose.
    ``slices``: of the pose of a single slice; None if not fitted. ``made``: table of the file → how it was fitted, in words. ``data``:
    dataset → digest of its files (:mod:`posepipe.bench.data_digests`).
    """

    weights: Mapping[str, str]
    brain: ConfidenceModel
    consensus: NetworkConsensus
    confidence: ConfidenceModel
    made: Mapping[str, str]
    slices: ConfidenceModel | None = None
    data: Mapping[str, str] = field(default_factory=dict)

    def others(self, weights: Mapping[str, str]) -> tuple[str, ...]:
        """Names of the networks in ``weights`` (name → SHA-256) whose weights are not those of this calibration."""
        return tuple(name for name, sha256 in weights.items() if self.weights.get(name, sha256) != sha256)


def uncalibrated(names: Iterable[str]) -> str:
    """The warning for results of networks whose weights are not those of the calibration."""
    return (
        f"the weights of {', '.join(names)} are not those that posepipe's thresholds and confidence were calibrated with: check the "
        "result, or calibrate with `posepipe-tools bench calibration`"
    )


def calibration_file(weights_dir: str | Path | None = None) -> Path:
    """Path of the calibration in ``weights_dir`` if there is one, else of the packaged one."""
    path = PACKAGED if weights_dir is None else Path(weights_dir) / NAME
    return path if path.exists() else PACKAGED


def load_calibration(weights_dir: str | Path | None = None) -> Calibration:
    """The calibration in ``weights_dir`` if there is one, else the packaged one. Raises :class:`~posepipe.errors.WeightsError`."""
    return read_calibration(calibration_file(weights_dir))


def read_calibration(path: str | Path) -> Calibration:
    """The calibration in a file. Raises :class:`~posepipe.errors.WeightsError` for a file that is not one."""
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        brain, consensus, confidence = (content[part] for part in ("brain", "sureness", "confidence"))
        for part, known in ((brain, BRAIN_SIGNS), (confidence, SIGNS)):
            if others := set(part["features"]) - set(known):
                raise ValueError(f"unknown features {', '.join(sorted(others))}, of another version")
        return Calibration(
            {str(name): str(sha256) for name, sha256 in content["weights"].items()},
            _model(brain),
            NetworkConsensus(float(consensus["votes"]), float(consensus["error"])),
            _model(confidence),
            {part: str(content[part]["made"]) for part in PARTS if part in content},
            _model(content["slices"]) if "slices" in content else None,
            {str(name): str(digest) for name, digest in content.get("data", {}).items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = (
            f"{path}: not a calibration of this version ({error!r}); install posepipe again, or remove this file and write a new one with "
            "`posepipe-tools bench calibration`"
        )
        raise WeightsError(msg) from error


def _model(table: Mapping[str, Any]) -> ConfidenceModel:
    terms = {name: (float(t["coefficient"]), float(t["mean"]), float(t["scale"])) for name, t in table["features"].items()}
    return ConfidenceModel(terms, *(float(table[name]) for name in ("intercept", "review", "fail")))


def _model_lines(title: str, made: str, model: ConfidenceModel) -> list[str]:
    return [
        *_table(title, {"made": made, **_numbers(model, ("intercept", "review", "fail"))}),
        f"[{title}.features]",
        *(f"{k} = {{ coefficient = {c:.6g}, mean = {m:.6g}, scale = {s:.6g} }}" for k, (c, m, s) in model.terms.items()),
        "",
    ]


def write_calibration(calibration: Calibration, path: str | Path) -> Path:
    """Write ``calibration`` as TOML by atomic replace."""
    path = Path(path)
    consensus, slices = calibration.consensus, calibration.slices
    lines = [
        "# What depends on the weights of the networks (posepipe/models/calibration.py).",
        "# Written by `posepipe-tools bench calibration`.",
        "",
        "# Networks that it holds for: SHA-256.",
        *_table("weights", dict(sorted(calibration.weights.items()))),
        *(["# Data that it was fitted on: SHA-256 of names and contents.", *_table("data", calibration.data)] if calibration.data else []),
        *_model_lines("brain", calibration.made["brain"], calibration.brain),
        *_table("sureness", {"made": calibration.made["sureness"], **_numbers(consensus, ("votes", "error"))}),
        *_model_lines("confidence", calibration.made["confidence"], calibration.confidence),
        *([] if slices is None else _model_lines("slices", calibration.made["slices"], slices)),
    ]
    return write_text(path, "\n".join(lines).rstrip() + "\n")


def _numbers(of: object, names: Iterable[str]) -> dict[str, float]:
    return {name: getattr(of, name) for name in names}


def _table(title: str, values: Mapping[str, Any]) -> list[str]:
    return [f"[{title}]", *(f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v:.6g}" for k, v in values.items()), ""]
