"""The table of reference poses, ``references.tsv``, with a column in which the user accepts or rejects each pose."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..bids import InputImage, write_json
from ..bids.reading import read_text
from ..errors import BidsError, ImageError, UsageError
from ..files import write_text
from ..geometry import Rigid, so3
from ..geometry.so3 import Array
from ..quality.confidence import WITHIN_DEGREES
from .reference import ReferencePose

ANSWERS = ("yes", "no", "n/a")
COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "dataset": {"Description": "Name of the dataset's folder."},
    "image": {"Description": "Path of the image below its dataset."},
    "age": {"Description": "Gestational (postmenstrual) age at the scan.", "Units": "weeks"},
    "template": {"Description": "Template that the pose is against: atlas and cohort."},
    "candidate": {"Description": "Which of the 24 initial rotations led to the pose, 0 to 23; n/a: the pose is that of the search."},
    "rotation_x": {"Description": "Rotation vector of the pose, x (atlas to image, RAS).", "Units": "rad"},
    "rotation_y": {"Description": "Rotation vector of the pose, y (atlas to image, RAS).", "Units": "rad"},
    "rotation_z": {"Description": "Rotation vector of the pose, z (atlas to image, RAS).", "Units": "rad"},
    "criterion": {"Description": "Correlation ratio of fine texture at the pose, plus 0.3 times that of the outline, up to 1.3."},
    "coarse": {"Description": "Correlation ratio of coarse texture at the pose, up to 1; near 0 for wrong poses."},
    "margin": {
        "Description": "Criterion of the best rotation minus that of the best with a pose more than 30 degrees away; n/a: one pose only."
    },
    "search_degrees": {"Description": "Angle between the best rotation's pose and that of the search.", "Units": "degree"},
    "agree": {
        "Description": "Whether the search is within 15 degrees and the brain fits the template.",
        "Levels": {"yes": "The pose is not in doubt", "no": "Check it: not used for training unless accepted"},
    },
    "doubt": {"Description": "Why the pose is in doubt; n/a: it is not."},
    "sha256": {"Description": "SHA-256 of the image file that the pose was found for."},
    "accepted": {
        "Description": "To be filled in after a check of the contact sheets: is the pose right?",
        "Levels": {"yes": "Right", "no": "Wrong: never used for training", "n/a": "Not answered: used for training where agree is yes"},
    },
}
"""Column → its entry in the data dictionary."""


@dataclass(frozen=True)
class ReferenceRow:
    """One row of the table; for the fields see :data:`COLUMNS`. ``rotation`` (3,): rotation vector in radians."""

    dataset: str
    image: str
    age: float
    template: str
    candidate: int | None
    rotation: tuple[float, float, float]
    criterion: float
    coarse: float
    margin: float | None
    search_degrees: float
    agree: bool
    doubt: str
    sha256: str
    accepted: str = "n/a"

    @classmethod
    def of(cls, image: InputImage, age: float, template: str, found: ReferencePose) -> ReferenceRow:
        """A row not yet answered."""
        x, y, z = map(float, found.pose.rotvec)
        return cls(
            image.root.name, image.relative.as_posix(), age, template, found.candidate, (x, y, z), found.criterion, found.coarse,
            found.margin, found.search_degrees, found.agree, found.doubt, _sha256(image.path),
        )  # fmt: skip

    @property
    def matrix(self) -> Array:
        """Rotation (3, 3) of the pose, atlas → image."""
        return so3.exp(self.rotation)

    @property
    def refusal(self) -> str:
        """Why the image must not be used for training; empty if it may be."""
        if self.accepted == "no":
            return "its reference pose is not accepted"
        if self.accepted == "n/a" and not self.agree:
            return f"its reference pose is in doubt and nobody has accepted it ({self.doubt or 'the two ways do not agree'})"
        return ""

    def answered_by(self, earlier: ReferenceRow) -> ReferenceRow:
        """This row with ``accepted`` of an ``earlier`` one, if that has the same file, template and pose (within 15°)."""
        moved = Rigid(self.matrix, np.zeros(3)).degrees_from(Rigid(earlier.matrix, np.zeros(3)))
        same = (self.sha256, self.template) == (earlier.sha256, earlier.template) and moved <= WITHIN_DEGREES
        return replace(self, accepted=earlier.accepted if same else "n/a")

    def _cells(self) -> list[str]:
        numbers = [*self.rotation, self.criterion, self.coarse, self.margin, self.search_degrees]
        texts = ["n/a" if v is None else f"{v:.6g}" for v in numbers]
        agree = "yes" if self.agree else "no"
        names = [self.dataset, self.image, f"{self.age:.6g}", self.template, "n/a" if self.candidate is None else str(self.candidate)]
        return [*names, *texts, agree, self.doubt or "n/a", self.sha256, self.accepted]

    @classmethod
    def _read(cls, cells: Mapping[str, str]) -> ReferenceRow:
        answer = (cells["accepted"] or "").strip().lower() or "n/a"
        if answer not in ANSWERS:
            msg = f"accepted is {cells['accepted']!r}; write yes, no or n/a"
            raise ValueError(msg)
        x, y, z, criterion, coarse, degrees = (
            float(cells[k]) for k in ("rotation_x", "rotation_y", "rotation_z", "criterion", "coarse", "search_degrees")
        )
        if not np.isfinite([x, y, z]).all():
            msg = "the rotation vector is not finite"
            raise ValueError(msg)
        candidate = None if cells["candidate"] == "n/a" else int(cells["candidate"])
        margin = None if cells["margin"] == "n/a" else float(cells["margin"])
        doubt = "" if cells["doubt"] == "n/a" else cells["doubt"]
        return cls(
            cells["dataset"], cells["image"], float(cells["age"]), cells["template"], candidate, (x, y, z), criterion, coarse, margin,
            degrees, cells["agree"] == "yes", doubt, cells["sha256"], answer,
        )  # fmt: skip


class References:
    """The rows of one or more tables of reference poses, by dataset and image."""

    def __init__(self, rows: Iterable[ReferenceRow] = ()) -> None:
        self._rows = {(row.dataset, row.image): row for row in rows}

    @classmethod
    def load(cls, *paths: Path) -> References:
        """Read the tables ``paths``. Raises :class:`~posepipe.errors.UsageError` for a file that is not such a table, and for two rows of
        one image."""
        rows = [row for path in paths for row in read_references(path)]
        names = [(row.dataset, row.image) for row in rows]
        if twice := sorted({"/".join(n) for n in names if names.count(n) > 1}):
            msg = f"{', '.join(map(str, paths))}: {', '.join(twice[:5])} there twice; keep one row of each image"
            raise UsageError(msg)
        return cls(rows)

    def of(self, image: InputImage) -> ReferenceRow:
        """The row of ``image``; raises :class:`~posepipe.errors.ImageError` if there is none, or if the image must not be used for
        training."""
        row = self._rows.get((image.root.name, image.relative.as_posix()))
        if row is None:
            why = "it has no reference pose; run posepipe-tools reference on it"
        elif row.sha256 != _sha256(image.path):
            why = "the file has changed since its reference pose was found; run posepipe-tools reference again"
        else:
            why = row.refusal
        if row is None or why:
            msg = f"{image.path}: {why}"
            raise ImageError(msg)
        return row

    def refused(self, image: InputImage) -> bool:
        """Whether the column ``accepted`` of this ``image`` is no."""
        row = self._rows.get((image.root.name, image.relative.as_posix()))
        return row is not None and row.accepted == "no"


def write_references(path: Path, found: Sequence[ReferenceRow]) -> tuple[ReferenceRow, ...]:
    """Write the rows ``found`` to the table ``path``, and the data dictionary beside it. Answers in an existing table are kept, and so
    are its rows of other images.

    Returns all rows, sorted by dataset and image. Raises :class:`~posepipe.errors.UsageError` if ``path`` exists and is not such a table,
    so that answers are not lost.
    """
    earlier = {(row.dataset, row.image): row for row in (read_references(path) if path.exists() else ())}
    rows = dict(earlier)
    for row in found:
        key = (row.dataset, row.image)
        rows[key] = row.answered_by(earlier[key]) if key in earlier else row
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    ordered = tuple(rows[key] for key in sorted(rows))
    writer.writerows(row._cells() for row in ordered)
    write_text(path, out.getvalue())
    write_json(path.with_suffix(".json"), dict(COLUMNS))
    return ordered


def read_references(path: Path) -> list[ReferenceRow]:
    """The rows of a table of :func:`write_references`; raises :class:`~posepipe.errors.UsageError` for anything else."""
    try:
        text = read_text(path)
    except BidsError as error:
        raise UsageError(str(error)) from error
    if text is None:
        msg = f"{path}: no such file; posepipe-tools reference writes it"
        raise UsageError(msg)
    reader = csv.DictReader(io.StringIO(text), delimiter="\t")
    rows = []
    try:
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            msg = f"no column {', '.join(missing)}"
            raise ValueError(msg)
        for cells in reader:
            rows.append(ReferenceRow._read(cells))
    except (TypeError, ValueError, AttributeError) as error:
        msg = f"{path}, line {reader.line_num}: not a table of reference poses ({error}); repair it, or run posepipe-tools reference again"
        raise UsageError(msg) from error
    return rows


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
