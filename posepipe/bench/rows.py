"""Result rows on disk: one CSV for each case, written row by row, so that an interrupted run can be resumed."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from ..files import replacing

T = TypeVar("T")
_KINDS: dict[str, Callable[[str], object]] = {
    "str": str, "int": int, "float": float, "float | None": lambda text: float(text) if text else None
}  # fmt: skip


class PartFile:
    """The rows of one case in the file ``path``. The first row determines the columns. An incomplete last line is removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = read_rows([path])
        if path.exists():
            write_rows(path, self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Append ``row`` to the file; floats with five decimals."""
        tidy = {k: "" if v is None else f"{v:.5f}" if isinstance(v, float) else str(v) for k, v in row.items()}
        with self._path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, list(self.rows[0] if self.rows else tidy))
            if stream.tell() == 0:
                writer.writeheader()
            writer.writerow(tidy)
        self.rows.append(tidy)


def read_rows(paths: Iterable[Path]) -> list[dict[str, str]]:
    """All complete rows of the files that exist."""
    out: list[dict[str, str]] = []
    for path in paths:
        if path.exists():
            with path.open(newline="") as stream:
                out += [row for row in csv.DictReader(stream) if None not in row.values() and None not in row]
    return out


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Write ``rows`` with equal columns by atomic replace; without rows the file is deleted."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def typed(cls: type[T], row: dict[str, str]) -> T:
    """A row of a CSV as the dataclass ``cls``, whose fields are str, int, float or ``float | None`` (empty cell)."""
    return cls(**{f.name: _KINDS[str(f.type)](row[f.name]) for f in fields(cls)})  # type: ignore[arg-type]
