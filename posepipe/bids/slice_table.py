"""The poses of the slices of a stack as a table: ``…_desc-slices_pose.tsv`` and its data dictionary (BIDS)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import BidsError
from ..files import write_text
from ..geometry import Rigid

COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "slice": {"Description": "Number of the slice along the slice axis of the image, counted from 0."},
    "rx": {
        "Description": "Rotation vector of the map from atlas to image while the slice was acquired, first component (RAS).",
        "Units": "rad",
    },
    "ry": {"Description": "Rotation vector, second component.", "Units": "rad"},
    "rz": {"Description": "Rotation vector, third component.", "Units": "rad"},
    "tx": {"Description": "Translation of the same map: image = rotation · atlas + translation, first component (RAS).", "Units": "mm"},
    "ty": {"Description": "Translation, second component.", "Units": "mm"},
    "tz": {"Description": "Translation, third component.", "Units": "mm"},
    "confidence": {"Description": "Probability that the slice's pose is within 10 degrees of the truth, 0 to 1."},
    "outlier": {
        "Description": "1: the pose deviates from those of the slices acquired before and after, or its confidence is low: not to be used.",
        "Levels": {"0": "no outlier", "1": "outlier"},
    },
    "motion_deg": {"Description": "Angle between the slice's pose and that of the stack.", "Units": "degree"},
    "motion_mm": {"Description": "Distance of the brain's centre in the slice's pose from that in the stack's.", "Units": "mm"},
    "time": {"Description": "When the slice was acquired, after the first; see SliceOrder.", "Units": "s"},
}
"""Column → its entry in the data dictionary."""


@dataclass(frozen=True)
class SliceRow:
    """One slice: its number, its ``pose`` (atlas → image, RAS mm; None: no brain in it) and the columns of :data:`COLUMNS`."""

    slice: int
    pose: Rigid | None
    time: float
    confidence: float | None = None
    outlier: bool | None = None
    motion_deg: float | None = None
    motion_mm: float | None = None


def about_pose(rows: Sequence[SliceRow], pose: Rigid, center: Sequence[float]) -> list[SliceRow]:
    """``rows`` with the motion relative to ``pose``, the stack's; ``center`` (3,) of the brain, atlas RAS mm."""
    return [
        row if row.pose is None else replace(row, motion_deg=row.pose.degrees_from(pose), motion_mm=row.pose.mm_from(pose, center))
        for row in rows
    ]


def table_text(rows: Sequence[SliceRow]) -> str:
    """The table as tab-separated values, ``n/a`` where a slice has no pose.

    >>> print(table_text([SliceRow(0, None, 1.5)]).splitlines()[1].replace(chr(9), " "))
    0 n/a n/a n/a n/a n/a n/a n/a n/a n/a n/a 1.5
    """
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        pose = [None] * 6 if row.pose is None else [*row.pose.rotvec.tolist(), *row.pose.translation.tolist()]
        outlier = None if row.outlier is None else int(row.outlier)
        values = [row.slice, *pose, row.confidence, outlier, row.motion_deg, row.motion_mm, row.time]
        writer.writerow("n/a" if v is None else v if isinstance(v, int) else f"{v:.6g}" for v in values)
    return out.getvalue()


def write_table(rows: Sequence[SliceRow], path: str | Path) -> Path:
    """Write the table to ``path`` atomically."""
    return write_text(path, table_text(rows))


def read_table(text: str, source: str = "slice poses") -> list[SliceRow]:
    """Parse a table of :func:`table_text`; raises :class:`~posepipe.errors.BidsError` for any other table.

    >>> read_table(table_text([SliceRow(0, None, 1.5)]))
    [SliceRow(slice=0, pose=None, time=1.5, confidence=None, outlier=None, motion_deg=None, motion_mm=None)]
    """
    rows = []
    reader = csv.DictReader(io.StringIO(text), delimiter="\t")
    try:
        if missing := COLUMNS.keys() - set(reader.fieldnames or ()):
            raise KeyError(*sorted(missing))
        for line in reader:
            v = {name: None if line[name] == "n/a" else float(line[name]) for name in COLUMNS}
            numbers = [v[name] for name in ("rx", "ry", "rz", "tx", "ty", "tz")]
            known = [n for n in numbers if n is not None]
            pose = Rigid.from_rotvec(known[:3], known[3:]) if len(known) == 6 else None
            outlier = None if v["outlier"] is None else bool(v["outlier"])
            rows.append(SliceRow(int(line["slice"]), pose, float(line["time"]), v["confidence"], outlier, v["motion_deg"], v["motion_mm"]))
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{source}: not a table of slice poses ({error!r}); run posepipe again for this image"
        raise BidsError(msg) from error
    return rows
