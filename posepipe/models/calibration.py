"""What depends on the networks' weights: thresholds and the model of confidence, in one file that names the weights it holds for.

``data/calibration.toml`` holds for the weights of the package; it is written by ``posepipe-tools bench calibration``. A
folder of weights of one's own may hold another, of the same name. With weights that the file does not name, what hangs on it is not to be
trusted: masks and poses say so, and the verdict is ``review`` at best.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
"""Parts of the file that say how they were made; the last need not be there."""
PACKAGED = Path(__file__).with_name("data") / NAME
SIGNS = {
    "apart": -1, "lead": 1, "NCC": 1, "NMI": 1, "Dice": 1, "CR": 1, "CoarseCR": 1, "votes": 1, "expected_error": -1, "brain_share": 1,
    "shift": -1,
}  # fmt: skip
"""What the model may look at (:func:`~posepipe.quality.confidence.confidence_features`), and which way each may count."""
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


@dataclass(frozen=True)
class Sureness:
    """Pose networks of whose ``votes`` (share, 0 to 1) so many are one, and which expect no larger an ``error`` (brain radii), are hardly
    ever wrong, whatever the fit."""

    votes: float
    error: float

    def of(self, features: Mapping[str, float]) -> bool:
        """Whether networks with these features are so sure.

        >>> Sureness(0.75, 0.02).of({"votes": 0.75, "expected_error": 0.021})
        False
        """
        return features["votes"] >= self.votes and features["expected_error"] <= self.error


@dataclass(frozen=True)
class Calibration:
    """Set with networks of these ``weights``, name → SHA-256; ``made``: part → how it was set, in words. ``brain`` is the model of whether
    what the scan network sees is a brain: below its ``fail`` it is not masked, below its ``review`` it is doubtful. ``slices`` is that of
    the confidence of the poses of single slices, None where nobody fitted one."""

    weights: Mapping[str, str]
    brain: ConfidenceModel
    sureness: Sureness
    confidence: ConfidenceModel
    made: Mapping[str, str]
    slices: ConfidenceModel | None = None

    def others(self, weights: Mapping[str, str]) -> tuple[str, ...]:
        """Names of networks of which ``weights`` has others than this was set with."""
        return tuple(name for name, sha256 in weights.items() if self.weights.get(name, sha256) != sha256)


def uncalibrated(names: Iterable[str]) -> str:
    """What is told of results of networks with weights that nothing was calibrated with."""
    return (
        f"the weights of {', '.join(names)} are not those that posepipe's thresholds and confidence were calibrated with: look at the "
        "result, or calibrate with `posepipe-tools bench calibration`"
    )


def calibration_file(weights_dir: str | Path | None = None) -> Path:
    """The file of the calibration in ``weights_dir`` if it holds one, else the package's."""
    path = PACKAGED if weights_dir is None else Path(weights_dir) / NAME
    return path if path.exists() else PACKAGED


def load_calibration(weights_dir: str | Path | None = None) -> Calibration:
    """The calibration in ``weights_dir`` if it holds one, else the package's. Raises :class:`~posepipe.errors.WeightsError`."""
    return read_calibration(calibration_file(weights_dir))


def read_calibration(path: str | Path) -> Calibration:
    """The calibration in a file. Raises :class:`~posepipe.errors.WeightsError` for a file that is not one."""
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        brain, sureness, confidence = (content[part] for part in ("brain", "sureness", "confidence"))
        for part, known in ((brain, BRAIN_SIGNS), (confidence, SIGNS)):
            if others := set(part["features"]) - set(known):
                raise ValueError(f"it knows {', '.join(sorted(others))}, as of another version")
        return Calibration(
            {str(name): str(sha256) for name, sha256 in content["weights"].items()},
            _model(brain),
            Sureness(float(sureness["votes"]), float(sureness["error"])),
            _model(confidence),
            {part: str(content[part]["made"]) for part in PARTS if part in content},
            _model(content["slices"]) if "slices" in content else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = (
            f"{path}: not a calibration of this version ({error!r}); install posepipe again, or take this file away and write it anew with "
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
    sureness, slices = calibration.sureness, calibration.slices
    lines = [
        "# What depends on the weights of the networks (posepipe/models/calibration.py).",
        "# Written by `posepipe-tools bench calibration`.",
        "",
        "# Networks that it holds for: SHA-256.",
        *_table("weights", dict(sorted(calibration.weights.items()))),
        *_model_lines("brain", calibration.made["brain"], calibration.brain),
        *_table("sureness", {"made": calibration.made["sureness"], **_numbers(sureness, ("votes", "error"))}),
        *_model_lines("confidence", calibration.made["confidence"], calibration.confidence),
        *([] if slices is None else _model_lines("slices", calibration.made["slices"], slices)),
    ]
    return write_text(path, "\n".join(lines).rstrip() + "\n")


def _numbers(of: object, names: Iterable[str]) -> dict[str, float]:
    return {name: getattr(of, name) for name in names}


def _table(title: str, values: Mapping[str, Any]) -> list[str]:
    return [f"[{title}]", *(f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v:.6g}" for k, v in values.items()), ""]
