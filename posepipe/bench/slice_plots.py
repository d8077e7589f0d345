"""Plots of the comparison on slices: the paper's Figures 2 (angles of the slices) and 3 (errors by bin, methods side by side)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing
from .slice_tables import BINS, SINGLE, TARGETS, TITLES, SliceRow, angles_of, bin_edges, bin_heads
from .volume_tables import unique


def plot_all(rows: Sequence[SliceRow], folder: Path) -> list[Path]:
    """Write ``figure2.png`` and ``figure3.png`` to ``folder``, for the samplings of single slices in ``rows``; nothing without any."""
    by_sampling = {s: [r for r in rows if r.sampling == s] for s in SINGLE}
    found = {s: mine for s, mine in by_sampling.items() if mine}
    if not found:
        return []
    return [_angles(found, folder / "figure2.png"), _errors(found, folder / "figure3.png")]


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _saved(figure: Any, output: Path) -> Path:
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return output


def _angles(found: dict[str, list[SliceRow]], output: Path) -> Path:
    figure = _figure(5.5 * len(found), 3.6)
    for axes, (sampling, rows) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        angles = angles_of(rows)
        axes.hist(angles, bins=np.arange(0, 181, 10), color="C0", edgecolor="white")
        for edge in bin_edges(angles)[1:-1]:
            axes.axvline(edge, color="black", lw=0.8, ls=":")
        axes.set_title(TITLES[sampling], fontsize=9)
        axes.set_xlabel("rotation angle (°); dotted: bins")
        axes.set_ylabel("slices")
    return _saved(figure, output)


def _errors(found: dict[str, list[SliceRow]], output: Path) -> Path:
    methods = unique(r.method for rows in found.values() for r in rows)
    figure = _figure(8.0 * len(found), 6.4)
    panels = figure.subplots(len(TARGETS), len(found), squeeze=False)
    width = 0.85 / len(methods)
    for row, (what, prefix) in zip(panels, TARGETS.items(), strict=True):
        for axes, (sampling, rows) in zip(row, found.items(), strict=True):
            for i, method in enumerate(methods):
                values = [[getattr(r, f"{prefix}degrees") for r in rows if (r.method, r.bin) == (method, b)] for b in range(BINS)]
                there = [b for b, v in enumerate(values) if v]
                if not there:
                    continue
                boxes = axes.boxplot(
                    [values[b] for b in there], positions=[b + (i - (len(methods) - 1) / 2) * width for b in there],
                    widths=0.9 * width, whis=(5, 95), sym="", patch_artist=True, manage_ticks=False, medianprops={"color": "black"},
                )  # fmt: skip
                for box in boxes["boxes"]:
                    box.set_facecolor(f"C{i}")
            axes.set_xticks(range(BINS), bin_heads(rows), fontsize=8)
            axes.set_ylim(0, 180)
            axes.grid(alpha=0.3, axis="y")
            axes.set_title(TITLES[sampling], fontsize=9)
            axes.set_ylabel(f"degrees to the {what}; whiskers at 5 and 95 %", fontsize=8)
            axes.set_xlabel("rotation angle")
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=f"C{i}", label=method) for i, method in enumerate(methods)]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    return _saved(figure, output)
