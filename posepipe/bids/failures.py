"""``failures.tsv``: the images that could not be processed, safe when the tasks of a job array fail at the same time.

Each failed image has its own record file under ``logs/failures/``, written atomically, and the table is generated from these
records. No locks are needed; they are unreliable on network file systems.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import BidsError
from ..files import temporary_name, write_text
from .image import InputImage
from .names import LONGEST_NAME
from .sidecars import read_json, write_json

logger = logging.getLogger(__name__)

COLUMNS = ("subject", "session", "image", "stage", "error", "log")
"""Columns of the table. The records also hold the ``dataset`` of the image, as several datasets may share one output folder, and
the ``atlas`` where an image failed at one of several."""


class Failures:
    """The failed images of one output dataset."""

    def __init__(self, out_dir: str | Path) -> None:
        self._out_dir = Path(out_dir)
        self._records = self._out_dir / "logs" / "failures"
        self.table = self._out_dir / "failures.tsv"
        self._known: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}

    def record(
        self, image: InputImage, stage: str, error: BaseException | str, log: str | Path | None = None, atlas: str = "", *,
        merge: bool = True,
    ) -> None:  # fmt: skip
        """Record that ``image`` failed at ``stage``; replaces an earlier record. ``atlas``: it failed at this one of several alone. Without
        ``merge`` the table is not written; call :meth:`merge` after several."""
        text = str(error) if isinstance(error, str) else f"{type(error).__name__}: {error}"
        row = {
            "subject": f"sub-{image.subject}",
            "session": f"ses-{image.session}" if image.session else "n/a",
            "image": image.relative.as_posix(),
            "stage": f"{stage} at {atlas}" if atlas else stage,
            "error": text,
            "log": self._shown(log),
            "dataset": str(image.root.resolve()),
            **({"atlas": atlas} if atlas else {}),
        }
        write_json(self._record_of(image, atlas), row)
        if merge:
            self.merge()

    def clear(self, image: InputImage, atlas: str = "", asked: Collection[str] = ()) -> None:
        """Remove the record of ``image`` after success, also that at the one ``atlas`` and those at atlases not among the ``asked``."""
        gone = [path for path in (self._record_of(image), self._record_of(image, atlas)) if path.exists()]
        for name, stamp in self._listing().items():
            with contextlib.suppress(BidsError):
                row = self._read(name, stamp)
                others = row.get("atlas") and row["atlas"] not in asked
                if others and (row.get("image"), row.get("dataset")) == (image.relative.as_posix(), str(image.root.resolve())):
                    gone.append(self._records / name)
        for record in gone:
            record.unlink(missing_ok=True)
        if gone:
            self.merge()

    def forget_removed(self, dataset: str | Path) -> None:
        """Remove the records of images that are no longer in ``dataset``, and write the table; other datasets are unaffected."""
        root = Path(dataset).resolve()
        for name, stamp in self._listing().items():
            with contextlib.suppress(BidsError):
                row = self._read(name, stamp)
                if row.get("dataset") == str(root) and not os.path.lexists(root / str(row.get("image"))):
                    (self._records / name).unlink(missing_ok=True)
        self.merge()

    def rows(self) -> list[dict[str, str]]:
        """One row per failed image, with the columns of the table, sorted by image."""
        rows = []
        for name, stamp in self._listing().items():
            try:
                rows.append(dict(self._read(name, stamp)))
            except BidsError as error:
                if (self._records / name).exists():  # else cleared since it was listed
                    logger.warning("%s; this failure is left out of failures.tsv", error)
        return sorted(rows, key=lambda row: row.get("image", ""))

    def broken(self) -> list[BidsError]:
        """The errors of records that cannot be read, and are therefore in no row."""
        errors = []
        for name, stamp in self._listing().items():
            try:
                self._read(name, stamp)
            except BidsError as error:
                errors.append(error)
        return errors

    def merge(self) -> Path:
        """Write ``failures.tsv`` from the records (a header alone if there are none)."""
        while True:
            seen = self._listing()
            lines = ["\t".join(COLUMNS)]
            lines += ["\t".join(_cell(row.get(column)) for column in COLUMNS) for row in self.rows()]
            write_text(self.table, "\n".join(lines) + "\n")
            # repeat if the records have changed, so that the last writer has read all of them
            if self._listing() == seen:
                return self.table

    def _read(self, name: str, stamp: tuple[int, int]) -> dict[str, Any]:
        """The record ``name``, read again only if its ``stamp`` (:meth:`_listing`) has changed. Raises BidsError if it cannot be read."""
        known = self._known.get(name)
        if known is None or known[0] != stamp:
            known = self._known[name] = (stamp, read_json(self._records / name))
        return known[1]

    def _listing(self) -> dict[str, tuple[int, int]]:
        """Record files with modification time and inode, which change on replacement."""
        found = {}
        if self._records.is_dir():
            with os.scandir(self._records) as entries:
                names = [e.name for e in entries if e.name.endswith(".json") and not e.name.startswith(".")]
            for name in names:
                try:
                    status = (self._records / name).stat()
                except FileNotFoundError:
                    continue
                found[name] = (status.st_mtime_ns, status.st_ino)
        return found

    def _record_of(self, image: InputImage, atlas: str = "") -> Path:
        name = f"{image.path.name.partition('.')[0]}{'.' if atlas else ''}{atlas}.json"
        if len(temporary_name(name).encode()) > LONGEST_NAME:  # for an image whose own name has the maximum length
            name = f"{hashlib.sha256(name.encode()).hexdigest()}.json"
        return self._records / name

    def _shown(self, log: str | Path | None) -> str:
        if log is None:
            return "n/a"
        path = Path(log)
        return path.relative_to(self._out_dir).as_posix() if path.is_relative_to(self._out_dir) else str(path)


def _cell(value: str | None) -> str:
    """One cell: tabs and line breaks would end it early."""
    return " ".join((value or "").split()) or "n/a"
