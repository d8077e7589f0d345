"""Plots of the comparison on volumes: error by bin, box plots, cumulative share, and error by age."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing
from .trials import LAST_BINS
from .volume_tables import LOST_DEGREES, Row


def plot_all(rows: list[Row], folder: Path) -> list[Path]:
    """Write ``errors_by_bin.png``, ``errors.png``, ``cumulative.png`` and ``by_age.png`` to ``folder``, with a panel for each group."""
    plots: dict[str, Callable[[Any, list[Row], list[str]], None]] = {
        "errors_by_bin": _by_bin, "errors": _boxes, "cumulative": _cumulative, "by_age": _by_age
    }  # fmt: skip
    return [_plot(rows, plot, folder / f"{name}.png") for name, plot in plots.items()]


def _plot(rows: list[Row], plot: Callable[[Any, list[Row], list[str]], None], output: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(r.group for r in rows))
    methods = list(dict.fromkeys(r.method for r in rows))
    figure = Figure(figsize=(5.2 * len(groups) + 1.6, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, group in zip(panels, groups, strict=True):
        plot(axes, [r for r in rows if r.group == group], methods)
        axes.set_title(group, fontsize=10)
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return output


def _style(method: str, methods: list[str]) -> dict[str, Any]:
    i = methods.index(method)
    return {"color": f"C{i % 10}", "ls": "-" if i < 10 else "--", "label": method}


def _log_degrees(axes: Any, which: str) -> None:
    getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"set_{which}lim")(0.2, 200)
    getattr(axes, f"set_{which}ticks")([0.5, 1, 2, 5, 10, 20, 50, 100, 180], ["0.5", "1", "2", "5", "10", "20", "50", "100", "180"])
    getattr(axes, f"{which}axis").minorticks_off()


def _by_bin(axes: Any, rows: list[Row], methods: list[str]) -> None:
    for method in methods:
        values = [[r.degrees for r in rows if r.method == method and r.bin == b] for b in range(len(LAST_BINS))]
        there = [b for b, v in enumerate(values) if v]
        axes.plot(there, [np.mean(values[b]) for b in there], marker="o", ms=3, **_style(method, methods))
    axes.set_xticks(range(len(LAST_BINS)), [f"{low}–{high}" for low, high in LAST_BINS], fontsize=7)
    axes.set_xlabel("true rotation (°)")
    axes.set_ylabel("mean error (°)")
    _log_degrees(axes, "y")


def _boxes(axes: Any, rows: list[Row], methods: list[str]) -> None:
    there = [m for m in methods if any(r.method == m for r in rows)]
    axes.boxplot([[max(r.degrees, 0.2) for r in rows if r.method == m] for m in there], sym=".", whis=(5, 95))
    axes.set_xticks(range(1, len(there) + 1), there, rotation=60, ha="right", fontsize=8)
    axes.axhline(LOST_DEGREES, color="grey", lw=0.8, ls=":")
    axes.set_ylabel("error (°), whiskers at 5 and 95 %")
    _log_degrees(axes, "y")


def _cumulative(axes: Any, rows: list[Row], methods: list[str]) -> None:
    for method in methods:
        values = np.sort([r.degrees for r in rows if r.method == method])
        if len(values):
            axes.step(np.maximum(values, 0.2), np.arange(1, len(values) + 1) / len(values), where="post", **_style(method, methods))
    axes.axvline(LOST_DEGREES, color="grey", lw=0.8, ls=":")
    axes.set_xlabel("error (°)")
    axes.set_ylabel("share of poses with less")
    _log_degrees(axes, "x")


def _by_age(axes: Any, rows: list[Row], methods: list[str]) -> None:
    for method in methods:
        weeks = sorted({r.weeks for r in rows if r.method == method})
        means = [np.mean([r.degrees for r in rows if (r.method, r.weeks) == (method, w)]) for w in weeks]
        axes.plot(weeks, means, marker="o", ms=3, **_style(method, methods))
    axes.set_xlabel("age (weeks)")
    axes.set_ylabel("mean error (°)")
    _log_degrees(axes, "y")
