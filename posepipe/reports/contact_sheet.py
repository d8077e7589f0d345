"""Contact sheets: many poses on a page, for visual acceptance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..files import replacing
from ..geometry import Rigid
from ..imaging.volume import Float, Volume
from .slices import PLANES, centroid, extent, sample
from .views import window

COLUMNS, ROWS = 4, 5
"""Columns and rows of cases on a page."""
SIDE = 96
"""Edge of each view, pixels."""
_MARGIN = 1.12  # of the template's longest half axis
_VIEWS = ("axial", "coronal", "sagittal")


@dataclass(frozen=True, eq=False)
class Case:
    """One pose on a page: ``title`` lines (red if in ``doubt``) and pictures (2 ``SIDE``, 3 ``SIDE``): the image in the template's frame
    above the template (``grey``, 0 to 1), and the template's brain mask (``outline``, above 0.5 inside)."""

    title: str
    doubt: bool
    grey: Float
    outline: Float


def make_case(
    title: str, image: Volume, mask: Volume, template: Volume, template_mask: Volume, pose: Rigid, *, doubt: bool = False
) -> Case:
    """Render the ``pose`` (template → image, RAS mm): axial, coronal and sagittal views through the centre of the template's brain, in
    neurological orientation (:mod:`posepipe.reports.slices`).

    ``mask`` is on the image's grid, ``template_mask`` on the template's; both above 0.5 inside. Raises
    :class:`~posepipe.errors.MaskError` for an empty mask.
    """
    low, high = extent(template_mask)
    center, half = centroid(template_mask), _MARGIN * float((high - low).max()) / 2
    points = [_plane(center, name, half) for name in _VIEWS]
    inside = [sample(template_mask, p) for p in points]
    seen = _stretched([sample(image, pose.apply(p)) for p in points], [sample(mask, pose.apply(p)) for p in points])
    theirs = _stretched([sample(template, p) for p in points], inside)
    outline = np.concatenate(inside, axis=1)
    return Case(title, doubt, np.concatenate([seen, theirs]), np.concatenate([outline, outline]))


def write_sheets(cases: Iterable[Case], folder: Path, stem: str) -> list[Path]:
    """Write pages of :data:`ROWS` × :data:`COLUMNS` cases as ``folder/stem-01.png``, ``…-02.png``; earlier pages are removed.

    ``cases`` may be a generator; only the cases of one page are in memory.
    """
    pages: list[Path] = []
    page: list[Case] = []
    for case in cases:
        page.append(case)
        if len(page) == ROWS * COLUMNS:
            pages.append(_write(page, folder / f"{stem}-{len(pages) + 1:02d}.png"))
            page = []
    if page:
        pages.append(_write(page, folder / f"{stem}-{len(pages) + 1:02d}.png"))
    for old in set(folder.glob(f"{stem}-[0-9][0-9].png")) - set(pages):
        old.unlink()
    return pages


def _plane(center: npt.NDArray[np.float64], name: str, half: float) -> npt.NDArray[np.float64]:
    """Points (``SIDE``, ``SIDE``, 3) of a view of 2 ``half`` mm, row 0 on top."""
    right, up, _ = PLANES[name]
    steps = half * ((np.arange(SIDE) + 0.5) * 2 / SIDE - 1)
    points = np.empty((SIDE, SIDE, 3))
    points[:] = center
    points[..., right] += steps
    points[..., up] -= steps[:, None]
    return points


def _stretched(grey: Sequence[Float], inside: Sequence[Float]) -> Float:
    """Views side by side, scaled to 0–1 by the intensity range of the brain."""
    low, high = window(grey, inside)
    found: Float = np.clip((np.concatenate(grey, axis=1) - low) / (high - low), 0, 1).astype(np.float32)
    return found


def _write(cases: Sequence[Case], path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(cases) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 3.1 * rows), layout="constrained", facecolor="black")
    FigureCanvasAgg(figure)
    for number, axes in enumerate(np.ravel(figure.subplots(rows, COLUMNS, squeeze=False))):
        axes.set_axis_off()
        if number >= len(cases):
            continue
        case = cases[number]
        axes.imshow(case.grey, cmap="gray", vmin=0, vmax=1)
        if case.outline.max() > 0.5:
            axes.contour(case.outline, levels=[0.5], colors=["yellow"], linewidths=0.7)
        axes.set_title(case.title, fontsize=8, color="tomato" if case.doubt else "white")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)
    return path
