"""Tables of the comparison on slices: by bins of the rotation angle as in the paper's Table 1, and summaries of all errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..geometry.so3 import Array
from .rows import typed
from .volume_tables import bootstrap, mean_sd, unique

BINS = 6
"""Number of bins of the rotation angle, with equal numbers of slices (Salehi et al. 2018, Table 1)."""
TITLES = {
    "paper": "half of all orientations, whole slice numbers (the paper's sampling)",
    "all": "all orientations",
    "slab-3": "3 neighbouring slices of a still head, all orientations",
    "slab-5": "5 neighbouring slices of a still head, all orientations",
}
SINGLE = ("paper", "all")
"""Samplings of single slices."""
TARGETS = {"truth": "", "nearer twin": "nearer_"}
"""Pose that errors are relative to → prefix of the columns of such errors."""


@dataclass(frozen=True)
class SliceRow:
    """One pose by one method; the columns are those of ``slice.csv`` (docs/results/bench.md)."""

    sampling: str
    group: str
    name: str
    weeks: float
    trial: int
    slices: int
    thickness: float
    number: float
    angle: float
    apart: float
    method: str
    degrees: float
    mm: float
    nearer_degrees: float
    nearer_mm: float
    right_twin: int
    seconds: float
    bin: int

    @classmethod
    def of(cls, row: dict[str, str]) -> SliceRow:
        """From a row of the CSV."""
        return typed(cls, row)

    @property
    def trial_key(self) -> tuple[str, str, int]:
        """What identifies a trial, whatever the method: sampling, brain, number of the trial."""
        return self.sampling, self.name, self.trial


def bin_edges(angles: Sequence[float] | Array) -> Array:
    """Edges (7,) of six bins with equal numbers of ``angles`` (n), degrees.

    >>> bin_edges([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    """
    edges: Array = np.quantile(np.asarray(angles, dtype=float), np.linspace(0, 1, BINS + 1))
    return edges


def with_bins(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Rows with the column ``bin`` (0–5) of the rotation angle among the slices of the same sampling, each slice counted once."""
    edges = {}
    for sampling in unique(r["sampling"] for r in rows):
        once = {(r["name"], r["trial"]): float(r["angle"]) for r in rows if r["sampling"] == sampling}
        edges[sampling] = bin_edges(list(once.values()))
    return [{**r, "bin": str(int(np.searchsorted(edges[r["sampling"]][1:-1], float(r["angle"]), side="right")))} for r in rows]


def angles_of(rows: Sequence[SliceRow]) -> Array:
    """The rotation angle of each slice, counted once, degrees."""
    return np.array(list({r.trial_key: r.angle for r in rows}.values()))


def bin_heads(rows: Sequence[SliceRow]) -> list[str]:
    """``low–high°`` of each bin of ``rows``, which share one sampling."""
    edges = bin_edges(angles_of(rows))
    return [f"{a:.0f}–{b:.0f}°" for a, b in pairwise(edges)]


def table_by_bin(rows: Sequence[SliceRow], missing: Mapping[str, str] | None = None) -> str:
    """Markdown: for each sampling of single slices a table of errors to the true pose and one to the nearer twin: mean ± sd of the
    degrees in each bin."""
    out = []
    for sampling in [s for s in SINGLE if any(r.sampling == s for r in rows)]:
        mine = [r for r in rows if r.sampling == sampling]
        for what, prefix in TARGETS.items():
            out += [f"\n**{TITLES[sampling]}**: {_counted(mine)}; degrees to the {what}, mean ± sd by rotation angle\n"]
            out += [f"| method | {' | '.join(bin_heads(mine))} | all |", "|" + "---|" * (BINS + 2)]
            for method in unique(r.method for r in mine):
                these = [r for r in mine if r.method == method]
                cells = [mean_sd([getattr(r, f"{prefix}degrees") for r in these if r.bin == b]) for b in range(BINS)]
                out.append(f"| {method} | {' | '.join(cells)} | {mean_sd([getattr(r, f'{prefix}degrees') for r in these])} |")
            out += [f"| {method} |{' – |' * BINS} not run: no {network} in these weights |" for method, network in (missing or {}).items()]
    return "\n".join(out)


def summary(rows: Sequence[SliceRow]) -> str:
    """Markdown: a table for each sampling and group, and for all groups together: errors to the true pose, of single slices also to the
    nearer twin; and the share of poses nearer to the true pose than to its twin. Intervals are 95 % bootstrap intervals over brains."""
    out = []
    heads = "mean | median | p95 | > 10° | > 15° | > 30° | mm, mean | mm, median | right twin | s"
    for sampling in [s for s in TITLES if any(r.sampling == s for r in rows)]:
        of_sampling = [r for r in rows if r.sampling == sampling]
        groups = unique(r.group for r in of_sampling)
        for group in ["all groups", *groups] if len(groups) > 1 else groups:
            mine = [r for r in of_sampling if group in ("all groups", r.group)]
            out += [f"\n**{TITLES[sampling]}**, {group}: {_counted(mine)}\n", f"| method | to the | {heads} |", "|" + "---|" * 12]
            for method in unique(r.method for r in mine):
                these = [r for r in mine if r.method == method]
                out += [_line(method, what, these) for what in TARGETS if what == "truth" or sampling in SINGLE]
    return "\n".join(out)


def _line(method: str, what: str, rows: list[SliceRow]) -> str:
    names = [r.name for r in rows]
    degrees, mm = (np.array([getattr(r, TARGETS[what] + column) for r in rows]) for column in ("degrees", "mm"))
    shares = " | ".join(f"{100 * np.mean(degrees > limit):.1f} %" for limit in (10, 15, 30))
    mean = f"{degrees.mean():.1f}{_interval(*bootstrap(names, degrees.tolist()), 1)}"
    right, seconds = "", ""
    if what == "truth":
        values = [100.0 * r.right_twin for r in rows]
        right = f"{np.mean(values):.0f} %{_interval(*bootstrap(names, values), 0)}"
        seconds = f"{np.median([r.seconds for r in rows]):.3f}"
    quantiles = f"{np.median(degrees):.1f} | {np.quantile(degrees, 0.95):.1f}"
    return f"| {method} | {what} | {mean} | {quantiles} | {shares} | {mm.mean():.1f} | {np.median(mm):.1f} | {right} | {seconds} |"


def _interval(low: float, high: float, digits: int) -> str:
    return f" ({low:.{digits}f}–{high:.{digits}f})" if np.isfinite(low) else ""


def _counted(rows: Sequence[SliceRow]) -> str:
    many, brains = len({r.trial_key for r in rows}), len({r.name for r in rows})
    return f"{many} {'slices' if rows[0].sampling in SINGLE else 'slabs'} of {brains} brain(s)"
