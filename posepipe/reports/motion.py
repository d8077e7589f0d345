"""Plot of the motion of the slices of a stack, as inline SVG."""

from __future__ import annotations

import math

from ..bids.slice_table import SliceRow, read_table

_WIDTH, _HEIGHT = 560, 130  # pixels of a panel's plot
_LEFT, _TOP, _GAP = 46, 16, 44
_LEAST = {"degrees": 5.0, "mm": 5.0}  # minimum range of an axis, so that small motion looks small


def motion_plot(table: str) -> str:
    """Two panels, degrees and mm, of each slice's motion relative to the pose of the stack; ``table`` is the text of the table of slice
    poses.

    A slice is a dot, an outlier a cross, both with the slice number as title; slices without brain leave a gap. Raises
    :class:`~posepipe.errors.BidsError` for any other table.
    """
    rows = read_table(table)
    known = [r for r in rows if r.motion_deg is not None and r.motion_mm is not None]
    outliers = [r.slice for r in known if r.outlier]
    named = f"outliers: {', '.join(map(str, outliers))}" if outliers else "no outliers"
    text = f"Motion of {len(known)} of {len(rows)} slices; {named}"
    last = max([r.slice for r in rows], default=1) or 1
    panels = [
        _panel(known, "degrees", [r.motion_deg or 0.0 for r in known], 0, last),
        _panel(known, "mm", [r.motion_mm or 0.0 for r in known], 1, last),
    ]
    width, height = _LEFT + _WIDTH + 12, 2 * (_HEIGHT + _GAP) + _TOP + 8
    return (
        f'<svg class="motion" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-label="{text}">'
        f"<title>{text}</title>{''.join(panels)}</svg>"
    )


def _panel(rows: list[SliceRow], unit: str, values: list[float], number: int, last: int) -> str:
    top = _TOP + number * (_HEIGHT + _GAP)
    inside = [v for r, v in zip(rows, values, strict=True) if not r.outlier]
    most = max([_LEAST[unit], *inside]) * 1.15
    step = _step(most)

    def at(r: SliceRow, value: float) -> tuple[float, float]:
        return _LEFT + _WIDTH * r.slice / last, top + _HEIGHT * (1 - min(value, most) / most)

    parts = [f'<text class="unit" x="{_LEFT}" y="{top - 4}">{unit}</text>']
    for tick in range(math.floor(most / step) + 1):
        y = top + _HEIGHT * (1 - tick * step / most)
        parts.append(f'<line class="tick" x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _WIDTH}" y2="{y:.1f}"/>')
        parts.append(f'<text class="number" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick * step:g}</text>')
    every = max(1, _step(last))
    for k in range(math.floor(last / every) + 1):
        x = _LEFT + _WIDTH * k * every / last
        parts.append(f'<text class="number" x="{x:.1f}" y="{top + _HEIGHT + 15}" text-anchor="middle">{k * every:g}</text>')
    if number == 1:
        parts.append(f'<text class="unit" x="{_LEFT + _WIDTH}" y="{top + _HEIGHT + 30}" text-anchor="end">slice</text>')
    path, before = "", None
    for r, v in zip(rows, values, strict=True):
        if not r.outlier:
            x, y = at(r, v)
            path += f"{'L' if before is not None and r.slice == before + 1 else 'M'}{x:.1f} {y:.1f}"
        before = None if r.outlier else r.slice
    parts.append(f'<path class="trace" d="{path}"/>')
    for r, v in zip(rows, values, strict=True):
        x, y = at(r, v)
        sure = "" if r.confidence is None else f", confidence {r.confidence:.2f}"
        title = f"<title>slice {r.slice}: {v:.1f} {unit}{sure}{', outlier' if r.outlier else ''}</title>"
        if r.outlier:
            parts.append(f'<path class="outlier" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8">{title}</path>')
        else:
            parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3">{title}</circle>')
    return "".join(parts)


def _step(most: float) -> float:
    """A round distance between ticks, for about four ticks up to ``most``.

    >>> _step(5.75), _step(19.0), _step(30)
    (2.0, 5.0, 10.0)
    """
    raw = most / 4
    power = 10.0 ** math.floor(math.log10(raw))
    return next(k * power for k in (1.0, 2.0, 5.0, 10.0) if k * power >= raw)
