"""BIDS tables (``participants.tsv``, ``*_sessions.tsv``, ``*_scans.tsv``) with their JSON sidecars, read once each, and the
``participants.csv`` that some pipelines have instead."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AgeError, BidsError
from .entities import bare_label
from .reading import read_object, read_text


class Row(dict[str, str]):
    """The cells of a row by column; ``line`` is its number in the table's file, ``cells`` how many it has."""

    line = 0
    cells = 0


@dataclass(frozen=True)
class Table:
    """A table: its rows by key, its columns as written, and what the sidecar says of them (column → description)."""

    path: Path
    columns: tuple[str, ...]
    rows: dict[str, list[Row]]
    sidecar: dict[str, Any]

    def units(self, column: str) -> str | None:
        """The sidecar's ``Units`` of a column (any case), or None."""
        entry = self.sidecar.get(column)
        units = {k.lower(): v for k, v in entry.items()}.get("units") if isinstance(entry, dict) else None
        return str(units) if units else None


def read_table(path: Path, key: str, *inherited: Path) -> Table | None:
    """Read the table at ``path`` with rows by its column ``key``; None if there is no such file (a link to
    one that is not there is an error). Cells of a ``.csv`` are separated by commas, semicolons or tabs: what its first line has most of.

    ``inherited`` are sidecars further up, the most general first; the one beside the table overrides them. Labels are keyed without
    ``sub-``/``ses-``, file names as POSIX paths. Columns with the same name give one row each, so that their values are compared like those
    of two rows. Raises :class:`~posepipe.errors.AgeError` for an invalid file.
    """
    text = _text(path)
    if text is None:
        return None
    lines = _cells(text, path.suffix == ".csv")
    columns = tuple(lines[0][1]) if lines else ()
    if key not in columns:
        by = "commas" if path.suffix == ".csv" else "tabs"
        msg = (
            f"{path}: no column {key!r} in its first line ({shortened(columns) or 'empty'}); is it separated by {by}? Separate the columns "
            f"by {by} and name one {key!r}, or give --age WEEKS"
        )
        raise AgeError(msg)
    rows: dict[str, list[Row]] = defaultdict(list)
    for number, cells in lines[1:]:
        for row in _rows(columns, cells):
            row.line, row.cells = number, len(cells)
            rows[_row_key(row[key], key) if key in row else ""].append(row)
    sidecar: dict[str, Any] = {}
    for source in (*inherited, path.with_suffix(".json")):
        sidecar |= _read_sidecar(source)
    return Table(path, columns, dict(rows), sidecar)


def shortened(words: tuple[str, ...] | list[str], most: int = 12) -> str:
    """The first ``most`` words, each cut at 40 characters, joined by commas."""
    return ", ".join(word if len(word) <= 40 else f"{word[:40]}…" for word in words[:most]) + " …" * (len(words) > most)


def _lines(text: str) -> list[str]:
    """Lines of ``text`` with Unix, Windows or classic Mac line ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _cells(text: str, is_csv: bool) -> list[tuple[int, list[str]]]:
    """The number and the cells of each line that is not empty."""
    lines = [(number, line) for number, line in enumerate(_lines(text), 1) if line.strip()]
    sign = max(",;\t", key=lines[0][1].count) if is_csv and lines else "\t"
    split = [next(csv.reader([line], delimiter=sign)) if is_csv else line.split(sign) for _, line in lines]
    return [(number, [cell.strip() for cell in cells]) for (number, _), cells in zip(lines, split, strict=True)]


def _rows(columns: tuple[str, ...], cells: list[str]) -> list[Row]:
    """One row, or as many as columns have the same name."""
    while len(cells) > len(columns) and not cells[-1]:
        cells.pop()
    named: dict[str, list[str]] = defaultdict(list)
    for column, cell in zip(columns, cells, strict=False):
        named[column].append(cell)
    return [Row({c: found[min(n, len(found) - 1)] for c, found in named.items()}) for n in range(max(map(len, named.values())))]


def _row_key(value: str, key: str) -> str:
    if key == "filename":
        return Path(value).as_posix()
    return bare_label(value, {"participant_id": "sub", "session_id": "ses"}[key])


def _text(path: Path) -> str | None:
    try:
        return read_text(path)
    except BidsError as error:
        msg = f"{error}, or give --age WEEKS"
        raise AgeError(msg) from error


def _read_sidecar(path: Path) -> dict[str, Any]:
    try:
        return read_object(path) or {}
    except BidsError as error:
        msg = f"{error}; ages need the units it gives. Or give --age WEEKS"
        raise AgeError(msg) from error
