"""BIDS tables (``participants.tsv``, ``*_sessions.tsv``, ``*_scans.tsv``) with their JSON sidecars, read once each."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AgeError
from .entities import bare_label
from .links import not_fetched

Row = dict[str, str]


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
    one that is not there is an error).

    ``inherited`` are sidecars further up, the most general first; the one beside the table overrides them. Labels are
    keyed without ``sub-``/``ses-``, file names as POSIX paths. Raises :class:`~posepipe.errors.AgeError` for a broken
    file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        if problem := not_fetched(path):
            raise AgeError(f"{problem}, or give --age WEEKS") from error
        return None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read as UTF-8 text ({error})"
        raise AgeError(msg) from error
    reader = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    lines = [[cell.strip() for cell in line] for line in reader if any(cell.strip() for cell in line)]
    columns = tuple(lines[0]) if lines else ()
    if key not in columns:
        msg = f"{path}: no column {key!r} in its first line ({', '.join(columns) or 'empty'}); is it separated by tabs?"
        raise AgeError(msg)
    rows: dict[str, list[Row]] = defaultdict(list)
    for line in lines[1:]:
        row = dict(zip(columns, line, strict=False))
        rows[_row_key(row[key], key) if key in row else ""].append(row)
    sidecar: dict[str, Any] = {}
    for source in (*inherited, path.with_suffix(".json")):
        sidecar |= _read_sidecar(source)
    return Table(path, columns, dict(rows), sidecar)


def _row_key(value: str, key: str) -> str:
    if key == "filename":
        return Path(value).as_posix()
    return bare_label(value, {"participant_id": "sub", "session_id": "ses"}[key])


def _read_sidecar(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        if problem := not_fetched(path):
            raise AgeError(f"{problem}, or give --age WEEKS") from error
        return {}
    except (OSError, ValueError) as error:
        msg = f"{path}: not valid JSON ({error}); ages need the units it gives. Repair it, or use --age"
        raise AgeError(msg) from error
    return content if isinstance(content, dict) else {}
