"""Tables and the plot of ``posepipe-tools bench speed``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing
from .paper import TABLE_3
from .speed import Row
from .tools import TOOLS
from .volume_tables import LOST_DEGREES, unique

OURS = ("search", "deep", "auto")
MARK = "<!-- table of: posepipe-tools bench speed DATA -o OUT -->"
"""Line before each table: the command that makes it (tests/test_result_tables.py)."""


def report(rows: Sequence[Row], missing: Mapping[str, str], machine: str, *, shared: bool) -> str:
    """Markdown: what was measured where, a table for each number of threads, shares by group, posepipe's stages, the paper's Table 3."""
    names = unique(f"{r.name} ({r.group})" for r in rows)
    poses = len({(r.name, r.trial) for r in rows})
    noise = " **The machine did other work at the same time: the seconds are upper limits.**" if shared else ""
    count = f"{len(names)} image{'s' * (len(names) > 1)}, {poses} poses"
    out = [f"{count}: {', '.join(names)}. {machine}.{noise}", "", "![Error against time](speed.png)"]
    for threads in sorted({r.threads for r in rows}):
        out += ["", f"## {threads} thread{'s' * (threads > 1)}", "", MARK, _table([r for r in rows if r.threads == threads])]
    out += ["", "## By image", "", MARK, _by_group(rows), "", "## Stages of posepipe", "", MARK, _stages(rows)]
    out += ["", "## Beside the paper's Table 3", "", MARK, _beside_paper(rows), "", "## Methods", ""]
    out += [f"- `{method}`: {TOOLS[method].about}" for method in unique(r.method for r in rows)]
    out += [f"- `{method}`: **not run**, {why}" for method, why in missing.items()]
    return "\n".join(out) + "\n"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and, in brackets, the 5th and 95th percentile; a dash without values.

    >>> spread([1.0, 2.0, 3.0])
    '2.00 (1.10–2.90)'
    """
    if not len(values):
        return "–"
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def share_right(rows: Sequence[Row]) -> str:
    """How many are within 15°; what failed is not."""
    right = sum(r.degrees is not None and r.degrees <= LOST_DEGREES for r in rows)
    return f"{right} of {len(rows)} ({100 * right / len(rows):.0f} %)"


def _table(rows: Sequence[Row]) -> str:
    heads = "s, median (5–95 %) | processor | start-up | reading | error °, median (5–95 %) | mm, median | within 15° | failed | peak MB"
    out = [f"| method | n | {heads} |", "|" + "---|" * 11]
    for method in unique(r.method for r in rows):
        mine = [r for r in rows if r.method == method]
        reads = [r.read for r in mine if r.read is not None]
        mm = [r.mm for r in mine if r.mm is not None]
        cells = (
            f"{len(mine)}", spread([r.seconds for r in mine if r.seconds is not None]),
            f"{np.median([r.processor for r in mine]):.2f}", f"{np.median([r.start for r in mine]):.2f}",
            f"{np.median(reads):.3f}" if reads else "in seconds", spread([r.degrees for r in mine if r.degrees is not None], 1),
            f"{np.median(mm):.1f}" if mm else "–", share_right(mine), f"{sum(r.degrees is None for r in mine)}",
            f"{max(r.peak_mb for r in mine):.0f}",
        )  # fmt: skip
        out.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(out)


def _by_group(rows: Sequence[Row]) -> str:
    """Share within 15° and median error of each method by group; the poses are the same for every number of threads, or nearly so."""
    groups = unique(r.group for r in rows)
    out = [f"| method | {' | '.join(f'{g}: within 15° | {g}: s' for g in groups)} |", "|" + "---|" * (2 * len(groups) + 1)]
    least = min(r.threads for r in rows)
    for method in unique(r.method for r in rows):
        cells = []
        for group in groups:
            mine = [r for r in rows if (r.method, r.group, r.threads) == (method, group, least)]
            seconds = [r.seconds for r in mine if r.seconds is not None]
            cells += [share_right(mine) if mine else "–", f"{np.median(seconds):.2f}" if seconds else "–"]
        out.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(out)


def stages(row: Row) -> dict[str, float]:
    """Stage → seconds of a row."""
    return {name: float(value) for name, _, value in (part.partition("=") for part in row.parts.split())}


def _stages(rows: Sequence[Row]) -> str:
    mine = [r for r in rows if r.parts]
    names = unique(name for r in mine for name in stages(r))
    out = [f"| method | threads | {' | '.join(names)} | together |", "|" + "---|" * (len(names) + 3)]
    for method, threads in dict.fromkeys((r.method, r.threads) for r in mine):
        these = [r for r in mine if (r.method, r.threads) == (method, threads)]
        cells = []
        for name in names:
            values = [stages(r)[name] for r in these if name in stages(r)]
            cells.append(f"{np.median(values):.3f}" if values else "–")
        together = np.median([r.seconds for r in these if r.seconds is not None])
        out.append(f"| {method} | {threads} | {' | '.join(cells)} | {together:.3f} |")
    return "\n".join(out)


def _beside_paper(rows: Sequence[Row]) -> str:
    out = ["| | seconds |", "|---|---|", *(f"| paper, six cores: {name} | {seconds:.0f} |" for name, seconds in TABLE_3.items())]
    for threads in sorted({r.threads for r in rows}):
        for method in unique(r.method for r in rows if r.parts):
            mine = [r.seconds for r in rows if (r.method, r.threads) == (method, threads) and r.seconds is not None]
            if mine:
                out.append(f"| posepipe, {threads} thread{'s' * (threads > 1)}: {method} | {np.median(mine):.2f} |")
    return "\n".join(out)


def plot(rows: Sequence[Row], output: Path) -> Path:
    """Error against time, a panel for each number of threads: medians, with the 5th to 95th percentile of both; what failed counts as
    180°."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts, methods = sorted({r.threads for r in rows}), unique(r.method for r in rows)
    figure: Any = Figure(figsize=(6.0 * len(counts) + 2.4, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axes, threads in zip(panels, counts, strict=True):
        for k, method in enumerate(methods):
            _point(axes, [r for r in rows if (r.method, r.threads) == (method, threads) and r.seconds is not None], method, k)
        axes.axhline(LOST_DEGREES, color="grey", lw=0.8, ls=":")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_yticks([0.5, 1, 2, 5, 10, 20, 50, 100, 180], ["0.5", "1", "2", "5", "10", "20", "50", "100", "180"])
        axes.yaxis.minorticks_off()
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("seconds a registration, images in memory")
        axes.set_title(f"{threads} thread{'s' * (threads > 1)}", fontsize=10)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("error (°): median, 5–95 %")
    handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8, frameon=False)
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return output


def _point(axes: Any, mine: Sequence[Row], method: str, k: int) -> None:
    if not mine:
        return
    x, y = ([v for r in mine if (v := r.seconds) is not None], [180.0 if r.degrees is None else max(r.degrees, 0.1) for r in mine])
    (x5, x50, x95), (y5, y50, y95) = (np.quantile(v, [0.05, 0.5, 0.95]) for v in (x, y))
    marker = "o" if method.startswith(OURS) else "s"
    axes.errorbar(
        x50, y50, xerr=[[x50 - x5], [x95 - x50]], yerr=[[y50 - y5], [y95 - y50]], marker=marker, ms=6, lw=0.8, ls="", color=f"C{k % 10}",
        mfc=f"C{k % 10}" if k < 10 else "white", label=method,
    )  # fmt: skip
