"""Plots of a training log."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

from ..errors import UsageError
from ..files import replacing

TICKS = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 180)
"""Degrees."""
OTHER_METRICS = {"val_dice": "overlap (Dice)", "val_mae": "mean absolute error", "loss": "loss"}
"""Columns that are plotted beside the loss of a network that estimates no pose, with their labels; the first one in the log is used."""


def plot_log(log: Path, output: Path) -> Path:
    """Plot ``log.csv`` of :func:`~posepipe.training.engine.train` as PNG: the loss, and rotation errors in training and validation
    (degrees), or one of :data:`OTHER_METRICS`.

    Raises :class:`~posepipe.errors.UsageError` for a log without lines.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    with log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        msg = f"{log}: no line to plot"
        raise UsageError(msg)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, errors = figure.subplots(1, 2)
    loss.plot(*_column(rows, "loss"), color="black", lw=1)
    loss.set_ylabel("loss")
    for name, label, style in (
        ("median", "training, median", {"color": "tab:blue", "lw": 1, "alpha": 0.6}),
        ("val_median", "validation, median", {"color": "tab:orange", "marker": "o", "ms": 3}),
        ("val_p95", "validation, 95th percentile", {"color": "tab:orange", "ls": ":", "marker": "o", "ms": 3}),
    ):
        x, y = _column(rows, name)
        if x:
            errors.plot(x, y, label=label, **style)
    if errors.lines:
        errors.set_ylabel("rotation error (°)")
        errors.set_yscale("log")
        errors.yaxis.set_major_locator(FixedLocator(TICKS))
        errors.yaxis.set_minor_locator(NullLocator())
        errors.yaxis.set_major_formatter("{x:g}")
        lowest = min(y for name in ("median", "val_median") for y in _column(rows, name)[1])
        errors.set_ylim(max((t for t in TICKS if t <= lowest), default=TICKS[0]) * 0.9, 200)
    else:  # no poses: masks, contrast
        name = next(n for n in OTHER_METRICS if _column(rows, n)[0])
        errors.plot(*_column(rows, name), color="tab:orange", marker="o", ms=3, label=f"validation, {OTHER_METRICS[name]}")
    errors.legend(frameon=False, fontsize=8)
    switch = [int(before["step"]) for before, row in pairwise(rows) if before["stage"] != row["stage"]]
    for axes in (loss, errors):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        for step in switch:
            axes.axvline(step, color="grey", lw=0.8, ls="--")
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return output


def _column(rows: list[dict[str, str]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of the lines with a value of ``name``."""
    kept = [row for row in rows if row.get(name)]
    return [int(row["step"]) for row in kept], [float(row[name]) for row in kept]
