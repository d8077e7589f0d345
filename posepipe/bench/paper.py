"""The tables and figures of Salehi et al. 2018 beside posepipe's: the paper's numbers, the tables, and the plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing

BINS = 6
TABLE_1: Mapping[str, tuple[float, ...]] = {
    "svr-gc": (21.4, 50.6, 70.2, 83.3, 105.6, 147.7),
    "slice-pose-mse": (16.7, 17.3, 22.0, 23.9, 23.8, 46.0),
    "slice-pose": (15.1, 14.1, 16.2, 24.3, 19.8, 36.5),
    "svr-deep": (10.2, 12.3, 13.1, 17.6, 16.2, 26.9),
}
"""Method → mean error of slices, degrees, in six bins of the rotation angle (Table 1; 40 fetuses of 27–37 weeks)."""
TABLE_2: Mapping[str, tuple[float, ...]] = {
    "vvr-gc": (2.4, 45.4, 149.9, 177.0, 174.9, 177.2),
    "vvr-paa": (95.5, 131.1, 128.4, 129.7, 131.2, 141.4),
    "posenet-mse": (24.0, 26.1, 24.0, 28.7, 29.0, 55.8),
    "posenet": (10.1, 11.4, 12.4, 13.5, 16.5, 34.2),
    "correction": (4.5, 4.5, 4.8, 4.8, 6.3, 19.4),
    "vvr-deep": (2.4, 2.4, 2.4, 2.4, 4.8, 20.4),
}
"""Method → mean error of volumes, degrees, in six bins of the rotation angle (Table 2)."""
TABLE_3: Mapping[str, float] = {"vvr-gc": 553.0, "svr-gc": 498.0, "vvr-deep": 365.0, "svr-deep": 184.0}
"""Method → seconds on a CPU with six cores (Table 3). The paper's networks alone ran on a GPU and are not compared."""
VOLUME_METHODS = (*TABLE_2, "vvr-deep-ours", "deep", "auto+torch")
CONTRAST_METHODS, CONTRAST_WAYS = ("posenet", "correction", "vvr-deep", "deep", "auto+torch"), ("T1w", "GAN", "T2w")


@dataclass(frozen=True)
class Error:
    """The error of one pose: ``method``; ``bin`` (0–5) of the true rotation; ``degrees``; ``mm``; ``seconds``; age in ``weeks``; ``way``:
    which image was aligned."""

    method: str
    bin: int
    degrees: float
    mm: float
    seconds: float
    weeks: float
    way: str

    @classmethod
    def of(cls, row: Mapping[str, str]) -> Error:
        """From a row of ``volume.csv``, ``slice.csv`` or ``poses.csv``."""
        degrees, mm, seconds, weeks = (float(row[name]) for name in ("degrees", "mm", "seconds", "weeks"))
        return cls(row["method"], int(row["bin"]), degrees, mm, seconds, weeks, row["group"])


def errors_of(rows: Sequence[Mapping[str, str]]) -> list[Error]:
    """The errors that the tables use: of slices those of the paper's sampling; of volumes those in the six bins, without the extra trials
    near 180°."""
    return [e for r in rows if r.get("sampling", "paper") == "paper" for e in (Error.of(r),) if e.bin < BINS]


def table_of_degrees(errors: Sequence[Error], paper: Mapping[str, tuple[float, ...]]) -> str:
    """Markdown: mean error by bin, paper / ours, one row a method; a dash where there is no value."""
    out = [f"| degrees, paper / ours | {' | '.join(f'bin {b + 1}' for b in range(BINS))} | n |", "|" + "---|" * (BINS + 2)]
    for method in dict.fromkeys([*paper, *(e.method for e in errors)]):
        mine = [[e.degrees for e in errors if (e.method, e.bin) == (method, b)] for b in range(BINS)]
        theirs = [f"{v:.1f}" for v in paper[method]] if method in paper else ["–"] * BINS
        cells = [f"{t} / {np.mean(v):.1f}" if v else f"{t} / –" for t, v in zip(theirs, mine, strict=True)]
        out.append(f"| {method} | {' | '.join(cells)} | {sum(map(len, mine))} |")
    return "\n".join(out)


def table_of_seconds(errors: Sequence[Error]) -> str:
    """Markdown: median seconds for a pose, the paper's and ours."""
    out = ["| | paper, 6 cores (s) | ours, one thread (median, s) | n |", "|---|---|---|---|"]
    for method in dict.fromkeys([*TABLE_3, *(e.method for e in errors)]):
        mine = [e.seconds for e in errors if e.method == method]
        theirs = f"{TABLE_3[method]:.0f}" if method in TABLE_3 else "–"
        out.append(f"| {method} | {theirs} | {f'{np.median(mine):.2f}' if mine else '–'} | {len(mine)} |")
    return "\n".join(out)


def plot_boxes(errors: Sequence[Error], by: str, value: str, output: Path) -> Path:
    """Box plots of ``value`` (``degrees``, ``mm``) for each ``by`` (``bin``, ``weeks``, ``way``), with the methods side by side; whiskers
    at 5 and 95 %."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    methods = list(dict.fromkeys(e.method for e in errors))
    groups = list(dict.fromkeys(getattr(e, by) for e in errors))
    groups = groups if by == "way" else sorted(groups)
    figure: Any = Figure(figsize=(2.5 + 1.4 * len(groups), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 0.85 / max(len(methods), 1)
    for i, method in enumerate(methods):
        values = [[getattr(e, value) for e in errors if (e.method, getattr(e, by)) == (method, g)] for g in groups]
        there = [k for k, v in enumerate(values) if v]
        boxes = axes.boxplot(
            [values[k] for k in there], positions=[k + (i - (len(methods) - 1) / 2) * width for k in there], widths=0.9 * width,
            whis=(5, 95), sym="", patch_artist=True, manage_ticks=False, medianprops={"color": "black"},
        )  # fmt: skip
        for box in boxes["boxes"]:
            box.set_facecolor(f"C{i % 10}")
    heads = [f"{30 * g}–{30 * g + 30}°" if by == "bin" else f"{g:g} weeks" if by == "weeks" else g for g in groups]
    axes.set_xticks(range(len(groups)), heads, fontsize=8)
    axes.set_ylabel("error (°)" if value == "degrees" else "displacement of the centre (mm)")
    axes.grid(alpha=0.3, axis="y")
    figure.legend(handles=[Patch(facecolor=f"C{i % 10}", label=m) for i, m in enumerate(methods)], loc="outside right upper", fontsize=8)
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return output
