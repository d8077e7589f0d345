"""Table, exponents and plot of ``posepipe-tools bench growth``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing
from .growth import QUANTITIES, Row, slope
from .volume_tables import unique

LINEAR = 1.1
"""Exponent above which growth is called worse than linear; the limit that the measurement was asked for with. At it, a tenfold size takes
26 % more for each unit."""
WORSE = "worse than linear"
MARK = "<!-- table of: posepipe-tools bench growth -o OUT -->"
"""Line before each table: the command that makes it (tests/test_result_tables.py)."""
MEASURES = {"seconds": "seconds", "processor": "processor seconds", "peak_mb": "peak MB"}


@dataclass(frozen=True)
class Growth:
    """Exponents of one measure of one quantity: over the last ``two`` sizes and the last ``three`` (None with fewer sizes); ``least`` of
    each: the smallest that the repeats allow, from the highest values at the smaller sizes and the lowest at the larger."""

    two: float | None
    three: float | None
    least_two: float | None
    least_three: float | None

    @property
    def is_worse(self) -> bool:
        """Whether an exponent is above :data:`LINEAR` by more than the noise of the repeats."""
        return any(least is not None and least > LINEAR for least in (self.least_two, self.least_three))


def growth(rows: Sequence[Row], measure: str) -> Growth:
    """The exponents of ``measure`` (a column) of one quantity's rows."""
    sizes = sorted({row.size for row in rows})
    values = {size: [float(getattr(row, measure)) for row in rows if row.size == size] for size in sizes}
    power = QUANTITIES[rows[0].quantity].dimensions
    found: list[float | None] = []
    for number in (2, 3):
        last = sizes[-number:]
        x = [float(size) ** power for size in last]
        # those below the middle of the logarithms weigh negatively in the slope, those above it positively
        middle = np.mean(np.log(x))
        low = [(max if np.log(at) < middle else min)(values[size]) for size, at in zip(last, x, strict=True)]
        enough = len(last) == number
        found += [slope(x, [float(np.median(values[size])) for size in last]) if enough else None, slope(x, low) if enough else None]
    return Growth(found[0], found[2], found[1], found[3])


def summary_rows(rows: Sequence[Row]) -> list[dict[str, str]]:
    """One row for each quantity and size, the rows of ``growth.csv``: medians, and the least and the most of the repeats."""
    out = []
    for name, size in dict.fromkeys((row.quantity, row.size) for row in rows):
        mine = [row for row in rows if (row.quantity, row.size) == (name, size)]
        row = {"quantity": name, "size": str(size), "repeats": str(len(mine))}
        for measure in MEASURES:
            values = [float(getattr(one, measure)) for one in mine]
            row |= {measure: f"{np.median(values):.3f}", f"{measure}_least": f"{min(values):.3f}", f"{measure}_most": f"{max(values):.3f}"}
        out.append(row)
    return sorted(out, key=lambda row: (list(QUANTITIES).index(row["quantity"]), int(row["size"])))


def report(rows: Sequence[Row], machine: str, *, shared: bool) -> str:
    """Markdown: where it was measured, the plot, the table of all sizes, and the table of exponents."""
    noise = " **The machine did other work at the same time: the seconds are upper limits.**" if shared else ""
    out = [f"One thread, phantoms. {machine}.{noise}", "", "![Seconds and memory against size](growth.png)", ""]
    out += ["## Sizes", "", MARK, _sizes(rows), "", "## Exponents", "", MARK, _exponents(rows)]
    return "\n".join(out) + "\n"


def _sizes(rows: Sequence[Row]) -> str:
    out = ["| | size | repeats | seconds (least–most) | processor | ms for each further | peak MB |", "|" + "---|" * 7]
    before: dict[str, str] = {}
    for row in summary_rows(rows):
        name, size = row["quantity"], int(row["size"])
        further = "–"
        if before.get("quantity") == name:
            spent = float(row["processor"]) - float(before["processor"])
            power = QUANTITIES[name].dimensions
            each = 1000 * spent / (size**power - int(before["size"]) ** power)
            further = f"{each:,.0f}" if abs(each) >= 100 else f"{each:.2g}"
        seconds = f"{float(row['seconds']):.2f} ({float(row['seconds_least']):.2f}–{float(row['seconds_most']):.2f})"
        shown = f"{size}³" if QUANTITIES[name].dimensions == 3 else f"{size}"
        cells = (QUANTITIES[name].title, shown, row["repeats"], seconds, f"{float(row['processor']):.2f}", further)
        out.append(f"| {' | '.join(cells)} | {float(row['peak_mb']):.0f} |")
        before = row
    return "\n".join(out)


def _exponents(rows: Sequence[Row]) -> str:
    out = ["| | of | last two sizes | last three sizes | at least, by the repeats | |", "|" + "---|" * 6]
    for name in [n for n in QUANTITIES if n in unique(row.quantity for row in rows)]:
        for measure, title in MEASURES.items():
            found = growth([row for row in rows if row.quantity == name], measure)
            least = f"{_number(found.least_two)}, {_number(found.least_three)}"
            cells = (QUANTITIES[name].title, title, _number(found.two), _number(found.three), least, WORSE if found.is_worse else "")
            out.append(f"| {' | '.join(cells)} |")
    return "\n".join(out)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def plot(rows: Sequence[Row], output: Path) -> Path:
    """Seconds (all repeats, a line through the medians) and peak memory against size, both axes logarithmic, a column for each quantity;
    dotted: linear from the last point."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [n for n in QUANTITIES if n in {row.quantity for row in rows}]
    figure: Any = Figure(figsize=(3.2 * len(names) + 0.6, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(names), squeeze=False, sharey="row")
    for column, name in enumerate(names):
        mine = [row for row in rows if row.quantity == name]
        for axes, measures in zip(panels[:, column], (("seconds", "processor"), ("peak_mb",)), strict=True):
            for k, measure in enumerate(measures):
                _curve(axes, mine, measure, f"C{k}")
            axes.set_xscale("log")
            axes.set_yscale("log")
            sizes = sorted({row.size for row in mine})
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.xaxis.minorticks_off()
            axes.grid(alpha=0.3)
        panels[0, column].set_title(QUANTITIES[name].title, fontsize=9)
        panels[1, column].set_xlabel("n" if QUANTITIES[name].dimensions == 3 else "number")
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("peak memory (MB)")
    panels[0, 0].legend(fontsize=8, frameon=False)
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
    return output


def _curve(axes: Any, rows: Sequence[Row], measure: str, color: str) -> None:
    sizes = sorted({row.size for row in rows})
    medians = [float(np.median([getattr(row, measure) for row in rows if row.size == size])) for size in sizes]
    axes.plot([row.size for row in rows], [getattr(row, measure) for row in rows], ".", ms=4, color=color)
    axes.plot(sizes, medians, "-", lw=1.2, color=color, label=MEASURES[measure])
    power = QUANTITIES[rows[0].quantity].dimensions
    linear = [(size, medians[-1] * (size / sizes[-1]) ** power) for size in sizes]
    shown = [(size, value) for size, value in linear if value >= min(medians) / 10]  # below, only the start-up would be small in the panel
    axes.plot(*zip(*shown, strict=True), ":", lw=0.8, color="grey")
