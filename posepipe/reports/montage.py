"""Many panels in one picture: grey slices side by side, with outlines drawn over them and the directions marked."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..imaging.volume import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: After the orange and sky blue of Okabe and Ito: told apart with every kind of colour vision, and solid from dashed.
ATLAS, SUBJECT = "#ffa914", "#5cc4ff"
_INK, _LIGHT = "#1c2530", "#e4eaf0"
_DPI = 100.0


@dataclass(frozen=True)
class Pen:
    """How an outline is drawn, and what the legend calls it; ``width`` in pixels."""

    name: str
    color: str
    width: float = 1.8
    dashed: bool = False
    alpha: float = 1.0


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture (H, W) of values 0 to 1, lines (n, 2) to draw over it in pixels, and letters for its four sides.

    ``sides`` gives left, right, top and bottom (``"LRAP"``), or is empty.
    """

    grey: Float
    lines: tuple[tuple[Pen, list[npt.NDArray[np.float64]]], ...] = ()
    sides: str = ""


@dataclass(frozen=True)
class Layout:
    """Where a montage puts things: its ``width`` and ``height``, and left and top of each column and row, in pixels."""

    width: int
    height: int
    left: tuple[int, ...]
    top: tuple[int, ...]


def layout(rows: Sequence[Sequence[Panel]], *, group: int = 1) -> Layout:
    """Where the panels of ``rows`` go: columns touch within a ``group`` of them and stand apart between groups."""
    if not rows or not rows[0]:
        msg = "a montage needs at least one panel"
        raise ValueError(msg)
    widths, heights = [p.grey.shape[1] for p in rows[0]], [max(p.grey.shape[0] for p in row) for row in rows]
    if any([p.grey.shape[1] for p in row] != widths for row in rows):
        msg = "the rows of a montage have the same columns, of the same widths"
        raise ValueError(msg)
    left, x = [], 46
    for number, width in enumerate(widths):
        x += 0 if number == 0 else (16 if number % group == 0 else 3)
        left.append(x)
        x += width
    top, y = [], 34
    for height in heights:
        top.append(y)
        y += height + 8
    return Layout(x, y + 32, tuple(left), tuple(top))


def montage(
    rows: Sequence[Sequence[Panel]],
    *,
    row_titles: Sequence[str],
    column_titles: Sequence[str],
    legend: Sequence[Pen] = (),
    group: int = 1,
) -> bytes:
    """Draw ``rows`` of panels into one WebP picture, with titles, letters at each panel's sides, and a legend below.

    Raises ValueError where the rows do not have the same columns, or titles are missing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    where = layout(rows, group=group)
    if len(row_titles) != len(rows) or len(column_titles) != len(rows[0]):
        msg = f"{len(rows)} rows of {len(rows[0])} panels have {len(row_titles)} and {len(column_titles)} titles"
        raise ValueError(msg)
    figure = Figure(figsize=(where.width / _DPI, where.height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)  # drawn by itself and laid over the slices, which are not interpolated again
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for row, title, y in zip(rows, row_titles, where.top, strict=True):
        height = max(panel.grey.shape[0] for panel in row)
        _write(axes, 20, y + height / 2, title, size=22, rotation=90, weight="bold")
        for panel, x in zip(row, where.left, strict=True):
            _outline(axes, panel, x, y)
            _letters(axes, panel, x, y)
    for panel, title, x in zip(rows[0], column_titles, where.left, strict=True):
        _write(axes, x + panel.grey.shape[1] / 2, 18, title, size=18)
    _legend(axes, legend, where)
    axes.set_xlim(0, where.width)
    axes.set_ylim(where.height, 0)
    canvas.draw()
    sheet = Image.fromarray(_paste(rows, where)).convert("RGBA")
    return encode(np.asarray(Image.alpha_composite(sheet, Image.fromarray(np.array(canvas.buffer_rgba()))))[..., :3])


def encode(picture: npt.NDArray[np.uint8]) -> bytes:
    """WebP of an RGB picture (H, W, 3): half the bytes of a JPEG as good, and every browser since 2020 shows it."""
    from PIL import Image

    buffer = io.BytesIO()
    picture = np.ascontiguousarray(picture)
    # use_sharp_yuv: thin lines keep their colour.
    Image.fromarray(picture).save(buffer, "WEBP", quality=86, method=2, use_sharp_yuv=True)
    return buffer.getvalue()


def _paste(rows: Sequence[Sequence[Panel]], where: Layout) -> npt.NDArray[np.uint8]:
    sheet = np.full((where.height, where.width, 3), 255, np.uint8)
    for row, y in zip(rows, where.top, strict=True):
        for panel, x in zip(row, where.left, strict=True):
            height, width = panel.grey.shape
            grey = np.rint(255 * np.clip(panel.grey, 0, 1)).astype(np.uint8)
            sheet[y : y + height, x : x + width] = grey[..., None]
    return sheet


def _outline(axes: Axes, panel: Panel, x: int, y: int) -> None:
    from matplotlib.collections import LineCollection

    for pen, lines in panel.lines:
        moved = [line + np.array([x + 0.5, y + 0.5]) for line in lines]
        style = (0, (5, 3)) if pen.dashed else "solid"
        axes.add_collection(
            LineCollection(moved, colors=pen.color, linewidths=_points(pen.width), linestyles=[style], alpha=pen.alpha),
            autolim=False,
        )


def _letters(axes: Axes, panel: Panel, x: int, y: int) -> None:
    if not panel.sides:
        return
    height, width = panel.grey.shape
    spots = ((11, height / 2), (width - 11, height / 2), (width / 2, 13), (width / 2, height - 13))
    for letter, (dx, dy) in zip(panel.sides, spots, strict=True):
        _write(axes, x + dx, y + dy, letter, size=18, color=_LIGHT, halo=True)


def _legend(axes: Axes, legend: Sequence[Pen], where: Layout) -> None:
    x, y = where.left[0] + 4, where.height - 17
    for pen in legend:
        dashes = (0, (5, 3)) if pen.dashed else "solid"
        axes.plot([x, x + 46], [y, y], color="#000000", linewidth=_points(14), solid_capstyle="butt")
        axes.plot([x, x + 46], [y, y], color=pen.color, linewidth=_points(pen.width), linestyle=dashes, alpha=pen.alpha)
        _write(axes, x + 56, y, pen.name, size=19, ha="left")
        x += 56 + 11 * len(pen.name) + 30
    letters = "R right, L left, A anterior, P posterior, S superior, I inferior"
    _write(axes, where.width - 4, y, letters, size=18, ha="right")


def _write(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size: float,
    color: str = _INK,
    rotation: float = 0,
    ha: str = "center",
    weight: str = "normal",
    halo: bool = False,
) -> None:
    from matplotlib.patheffects import withStroke

    axes.text(
        x, y, text, fontsize=_points(size), color=color, rotation=rotation, ha=ha, va="center", weight=weight,
        family="DejaVu Sans", parse_math=False,  # the font matplotlib brings; a file name may hold dollar signs
        path_effects=[withStroke(linewidth=_points(4), foreground="#000000")] if halo else None,
    )  # fmt: skip


def _points(pixels: float) -> float:
    return pixels * 72 / _DPI
