"""Tables of the comparison on volumes: by bin as in the paper, by corruption, by age, and detection of failures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..geometry.so3 import Array
from .baselines import METRIC
from .rows import typed
from .trials import LAST_BINS

LOST_DEGREES = 15.0
RESAMPLES = 2000
"""Number of bootstrap resamples."""


@dataclass(frozen=True)
class Row:
    """One pose by one method: error in degrees, displacement of the template's centre in mm, and posepipe's verdict. The fields are the
    columns of the CSV; ``damage`` is the corruption."""

    group: str
    name: str
    weeks: float
    damage: str
    trial: int
    bin: int
    method: str
    degrees: float
    mm: float
    seconds: float
    qc: str
    confidence: float | None

    @classmethod
    def of(cls, row: dict[str, str]) -> Row:
        """From a row of the CSV."""
        return typed(cls, row)

    @property
    def lost(self) -> bool:
        """Whether the pose is more than 15° off."""
        return self.degrees > LOST_DEGREES


def table_by_bin(rows: list[Row], missing: dict[str, str] | None = None) -> str:
    """Markdown, a table for each group: mean ± sd in each bin, and measures over the six bins together; ``missing`` (method → missing
    network) get a line without values."""
    out = []
    heads = " | ".join(f"{low}–{high}°" for low, high in LAST_BINS)
    for group in unique(r.group for r in rows):
        mine = [r for r in rows if r.group == group]
        trials = max(sum(1 for r in mine if (r.method, r.name, r.bin) == (mine[0].method, mine[0].name, b)) for b in range(len(LAST_BINS)))
        out += [f"\n**{group}**: {len({r.name for r in mine})} image(s), {trials} trial(s) a bin each; degrees, mean ± sd\n"]
        out += [f"| method | {heads} | all (95 % by subject) | median | p95 | > 10° | > 15° | > 30° | mm | s |", "|" + "---|" * 16]
        for method in unique(r.method for r in mine):
            out.append(_line(method, [r for r in mine if r.method == method]))
        out += [f"| {method} | {'– | ' * 14}not run: no {network} in these weights |" for method, network in (missing or {}).items()]
    return "\n".join(out)


def note_on_vvr(rows: list[Row]) -> str:
    """A note on the methods ``vvr-…``, if ``rows`` have any."""
    if not any(r.method.startswith("vvr-") for r in rows):
        return ""
    return f"\n`vvr-…`: rigid registration by ANTs itself, three levels, {METRIC} (ANTs has no normalised one); its result as it is.\n"


def _line(method: str, mine: list[Row]) -> str:
    cells = [mean_sd([r.degrees for r in mine if r.bin == b]) for b in range(len(LAST_BINS))]
    # without the extra trials of the last bin, which would count twice
    even = [r for r in mine if r.bin < 6] or mine
    degrees = np.array([r.degrees for r in even])
    low, high = by_subject(even)
    spread = f"{mean_sd(degrees)} ({low:.2f}–{high:.2f})" if np.isfinite(low) else mean_sd(degrees)
    shares = " | ".join(f"{100 * np.mean(degrees > limit):.1f} %" for limit in (10, 15, 30))
    mm, seconds = np.mean([r.mm for r in even]), np.median([r.seconds for r in even])
    quantiles = f"{np.median(degrees):.2f} | {np.quantile(degrees, 0.95):.2f}"
    return f"| {method} | {' | '.join(cells)} | {spread} | {quantiles} | {shares} | {mm:.2f} | {seconds:.2f} |"


def by_subject(rows: list[Row], *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean error over subjects; NaN for one subject."""
    return bootstrap([r.name for r in rows], [r.degrees for r in rows], seed=seed)


def bootstrap(names: Sequence[str], values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of ``values`` (n), with resampling of the subjects ``names`` (n), not of single values; NaN for one
    subject."""
    subjects = unique(names)
    if len(subjects) < 2:
        return float("nan"), float("nan")
    sums = np.array([sum(v for v, n in zip(values, names, strict=True) if n == s) for s in subjects])
    counts = np.array([names.count(s) for s in subjects])
    pick = np.random.default_rng(seed).integers(len(subjects), size=(RESAMPLES, len(subjects)))
    means = sums[pick].sum(1) / counts[pick].sum(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def table_by_corruption(rows: list[Row]) -> str:
    """Markdown, a table for each group: share within 15° and median error of each method under each corruption."""
    out = []
    for group in unique(r.group for r in rows):
        mine = [r for r in rows if r.group == group]
        methods = unique(r.method for r in mine)
        title = f"\n**{group}**: {len({r.name for r in mine})} image(s); within 15° (median of degrees)\n"
        out += [title, f"| damage | poses | {' | '.join(methods)} |", "|" + "---|" * (2 + len(methods))]
        for damage in (*unique(r.damage for r in mine), "all together"):
            these = [r for r in mine if damage in (r.damage, "all together")]
            cells = [_within([r for r in these if r.method == m]) for m in methods]
            out.append(f"| {damage} | {len({(r.name, r.damage, r.trial) for r in these})} | {' | '.join(cells)} |")
    return "\n".join(out)


def table_of_flags(rows: list[Row]) -> str:
    """Markdown: for each method the share of its failures with a verdict of ``review`` or ``fail``, the share of its right poses with
    such a verdict, and the number of poses with a confidence."""
    out = ["\n| method | damage | lost | flagged | right | false alarms | with confidence |", "|" + "---|" * 7]
    for method in unique(r.method for r in rows):
        for damage, mine in (("none", [r for r in rows if r.damage == "none"]), ("some", [r for r in rows if r.damage != "none"])):
            these = [r for r in mine if r.method == method]
            if these:
                lost, right = [r for r in these if r.lost], [r for r in these if not r.lost]
                known = sum(r.confidence is not None for r in these)
                flags = f"{len(lost)} | {_flagged(lost)} | {len(right)} | {_flagged(right)} | {known} of {len(these)}"
                out.append(f"| {method} | {damage} | {flags} |")
    return "\n".join(out)


def table_by_age(rows: list[Row]) -> str:
    """Markdown: mean error by group, week and method (the paper's Figure 7 as a table)."""
    methods = unique(r.method for r in rows)
    out = [f"\n| group | weeks | {' | '.join(methods)} |", "|" + "---|" * (2 + len(methods))]
    for group, weeks in sorted({(r.group, r.weeks) for r in rows}):
        mine = [r for r in rows if (r.group, r.weeks) == (group, weeks) and r.bin < 6]
        out.append(f"| {group} | {weeks:g} | {' | '.join(mean_sd([r.degrees for r in mine if r.method == m]) for m in methods)} |")
    return "\n".join(out)


def _within(rows: list[Row]) -> str:
    if not rows:
        return "–"
    return f"{100 * np.mean([not r.lost for r in rows]):.1f} % ({np.median([r.degrees for r in rows]):.1f})"


def _flagged(rows: list[Row]) -> str:
    return f"{sum(r.qc != 'pass' for r in rows)} ({100 * np.mean([r.qc != 'pass' for r in rows]):.1f} %)" if rows else "–"


def mean_sd(values: Sequence[float] | Array) -> str:
    """``mean ± standard deviation``, a dash without values."""
    return f"{np.mean(values):.1f} ± {np.std(values):.1f}" if len(values) else "–"


def unique(values: Iterable[str]) -> list[str]:
    """The distinct ``values``, in order of first occurrence."""
    return list(dict.fromkeys(values))
