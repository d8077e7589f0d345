"""The model of age estimation from the brain's size and its similarity to the cohorts of an atlas.

It uses two curves over the cohorts' ages (weeks): the criterion of :mod:`~posepipe.matching.comparison` after a fit, and the fitted size of
the brain relative to the cohort's. The estimated age maximises ``similarity · 100 · criterion − ½ (log size / spread)²``, with the
criterion smoothed by a parabola. The constants are in ``age.toml`` beside this file, written by ``posepipe-tools bench age`` from brains of
known age (docs/results/bench.md, docs/results/measured-age.md).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..atlas.volumes import SIZE_DEVIATION
from ..errors import WeightsError
from ..files import write_text
from ..geometry.so3 import Array

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGED = Path(__file__).with_name("age.toml")
STAGES = ("fetal", "neonatal")
SCORE_WEEKS, SIZE_WEEKS = 3.0, 4.0
"""Standard deviations (weeks) of the Gaussian weights with which parabolas are fitted to both curves."""
STEP_WEEKS = 0.05
"""Step of the ages at which the likelihood is evaluated, weeks: a twentieth of the distance of cohorts and far below the standard error."""


@dataclass(frozen=True, eq=False)
class AgeCurve:
    """Results of fitting cohorts to one brain, by increasing age (N,): ``weeks`` of the cohorts, ``score`` (the criterion after the fit),
    ``log_size`` (log of the fitted brain size over the cohort's) and ``log_mask`` (log ratio of the masks' radii)."""

    weeks: Array
    score: Array
    log_size: Array
    log_mask: Array


@dataclass(frozen=True)
class StageModel:
    """``similarity``: weight of 0.01 of the criterion relative to the size term; ``error``: root mean square error, weeks."""

    similarity: float
    error: float


@dataclass(frozen=True)
class AgeModel:
    """The constants for each stage of an atlas (``fetal``, ``neonatal``); ``made`` describes the calibration data."""

    stages: Mapping[str, StageModel]
    made: str = ""

    def of(self, stage: str, weeks: float) -> StageModel:
        """The constants for an atlas of ``stage``; if the stage is not known, by its ``weeks``."""
        return self.stages[stage if stage in self.stages else STAGES[weeks > 38]]


@dataclass(frozen=True)
class AgeEstimate:
    """Estimated age in ``weeks``, its standard ``error`` (weeks) and ``warnings``. ``doubt`` is the reason why the volume of the brain mask
    is implausible at this age, or empty (:meth:`~posepipe.atlas.volumes.GrowthCurve.doubt`); the error then is at least the difference to
    the age at which the volume is average."""

    weeks: float
    error: float
    warnings: tuple[str, ...] = ()
    doubt: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the volume of the brain mask is plausible at this age."""
        return not self.doubt


def most_likely_age(curve: AgeCurve, similarity: float, *, by_mask: bool = False) -> float:
    """Most likely age in weeks, within the range of the cohorts. ``similarity`` 0 uses the size alone, infinity the criterion alone.
    ``by_mask``: use the sizes of the masks instead of the fitted ones.

    >>> weeks = np.array([26.0, 28, 30, 32])
    >>> curve = AgeCurve(weeks, 1 - 0.01 * (weeks - 29) ** 2, 0.03 * (30 - weeks), 0.03 * (28 - weeks))
    >>> [round(most_likely_age(curve, s), 1) for s in (0, 0.4, np.inf)], round(most_likely_age(curve, 0, by_mask=True), 1)
    ([30.0, 29.3, 29.0], 28.0)
    """
    first, last = float(curve.weeks[0]), float(curve.weeks[-1])
    grid = np.linspace(first, last, round((last - first) / STEP_WEEKS) + 1)
    score = 100 * _parabola(curve.weeks, curve.score, curve.weeks[curve.score.argmax()], SCORE_WEEKS)(grid)
    if np.isinf(similarity):
        return float(grid[score.argmax()])
    log_size = curve.log_mask if by_mask else curve.log_size
    size = _parabola(curve.weeks, log_size, curve.weeks[np.abs(log_size).argmin()], SIZE_WEEKS)(grid)
    return float(grid[(similarity * score - 0.5 * (size / SIZE_DEVIATION) ** 2).argmax()])


def _parabola(weeks: Array, values: Array, center: float, reach: float) -> np.poly1d:
    """Weighted least-squares parabola through ``values`` (a line or a constant for fewer than three points), with Gaussian weights about
    ``center``."""
    weight = np.exp(-0.25 * ((weeks - center) / reach) ** 2)
    found = np.poly1d(np.polyfit(weeks - center, values, min(2, len(weeks) - 1), w=weight))
    return np.poly1d(found(np.poly1d([1.0, -center])))


def load_age_model(path: str | Path = PACKAGED) -> AgeModel:
    """Read a model from ``path``; raises :class:`~posepipe.errors.WeightsError` for an invalid file."""
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        stages = {s: StageModel(float(content[s]["similarity"]), float(content[s]["error"])) for s in STAGES}
        return AgeModel(stages, str(content["made"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path}: not a model of ages ({error!r}); install posepipe again, or write it with `posepipe-tools bench age`"
        raise WeightsError(msg) from error


def save_age_model(model: AgeModel, path: str | Path) -> Path:
    """Write ``model`` as TOML by atomic replace."""
    path = Path(path)
    lines = [
        "# How ages are estimated (posepipe/age/curves.py). Written by `posepipe-tools bench age`.",
        f'made = "{model.made}"',
    ]
    for name, stage in model.stages.items():
        lines += ["", f"[{name}]", f"similarity = {stage.similarity:.6g}", f"error = {stage.error:.3g}"]
    return write_text(path, "\n".join(lines) + "\n")
