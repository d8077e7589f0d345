"""What depends on the networks' weights: thresholds and the model of confidence, in one file that names the weights it holds for.

``calibration.toml`` beside this file holds for the weights of the package; it is written by ``posepipe-tools bench calibration``. A
folder of weights of one's own may hold another, of the same name. With weights that the file does not name, what hangs on it is not to be
trusted: masks and poses say so, and the verdict is ``review`` at best.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..files import write_text
from .confidence import ConfidenceModel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "calibration.toml"
PARTS = ("likeness", "sureness", "confidence", "slices")
"""Parts of the file that say how they were made; the last need not be there."""
PACKAGED = Path(__file__).with_name(NAME)


@dataclass(frozen=True)
class Likeness:
    """How like a brain something is to the networks: ``sure_counts`` times how sure the mask network is of it (0 to 1), less the logarithm
    of the pose networks' residual times the error that they expect (both in brain radii). All numbers are in that unit.

    ``least``: network → what is one has at least so much, by what that network sees. What is within ``doubt`` of it, or of what is
    doubtful, is judged from four sides, and not sure. Where nothing has enough, what lacks no more than ``doubtful`` is masked, and the
    template tells whether it is a brain.
    """

    least: Mapping[str, float]
    sure_counts: float
    doubt: float
    doubtful: float


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
    """Set with networks of these ``weights``, name → SHA-256; ``made``: part → how it was set, in words. ``slices`` is the model of
    the confidence of the poses of single slices, None where nobody fitted one."""

    weights: Mapping[str, str]
    likeness: Likeness
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
        likeness, sureness, confidence = (content[part] for part in ("likeness", "sureness", "confidence"))
        return Calibration(
            {str(name): str(sha256) for name, sha256 in content["weights"].items()},
            Likeness(
                {str(name): float(value) for name, value in likeness["least"].items()},
                *(float(likeness[name]) for name in ("sure_counts", "doubt", "doubtful")),
            ),
            Sureness(float(sureness["votes"]), float(sureness["error"])),
            _model(confidence),
            {part: str(content[part]["made"]) for part in PARTS if part in content},
            _model(content["slices"]) if "slices" in content else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path}: not a calibration ({error!r}); install posepipe again, or write it with `posepipe-tools bench calibration`"
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
    likeness, sureness, slices = calibration.likeness, calibration.sureness, calibration.slices
    lines = [
        "# What depends on the weights of the networks (posepipe/registration/calibration.py).",
        "# Written by `posepipe-tools bench calibration`.",
        "",
        "# Networks that it holds for: SHA-256.",
        *_table("weights", dict(sorted(calibration.weights.items()))),
        *_table("likeness", {"made": calibration.made["likeness"], **_numbers(likeness, ("sure_counts", "doubt", "doubtful"))}),
        *_table("likeness.least", dict(likeness.least)),
        *_table("sureness", {"made": calibration.made["sureness"], **_numbers(sureness, ("votes", "error"))}),
        *_model_lines("confidence", calibration.made["confidence"], calibration.confidence),
        *([] if slices is None else _model_lines("slices", calibration.made["slices"], slices)),
    ]
    return write_text(path, "\n".join(lines).rstrip() + "\n")


def _numbers(of: object, names: Iterable[str]) -> dict[str, float]:
    return {name: getattr(of, name) for name in names}


def _table(title: str, values: Mapping[str, Any]) -> list[str]:
    return [f"[{title}]", *(f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v:.6g}" for k, v in values.items()), ""]
