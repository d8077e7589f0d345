"""Digests of the datasets that models were fitted on, which the calibration file holds beside those of the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ..atlas.sidecars import file_sha256

DATASETS = ("atlases", "ds-epi", "ds-neonates", "ds-scans", "ds-stacks")
"""Folders of the data that ``bench calibration`` and ``bench slices`` read."""


def data_digests(data: Path) -> dict[str, str]:
    """Name of each of :data:`DATASETS` in the folder ``data`` → SHA-256 over names and contents of all its files."""
    found = {}
    for name in DATASETS:
        paths = sorted(path for path in (data / name).rglob("*") if path.is_file())
        if paths:
            lines = (f"{path.relative_to(data).as_posix()} {file_sha256(path)}\n" for path in paths)
            found[name] = hashlib.sha256("".join(lines).encode()).hexdigest()
    return found


def other_data(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """A sentence on the datasets that differ between two calibrations; empty if none is known to.

    >>> other_data({"atlases": "1", "ds-epi": "2"}, {"atlases": "1", "ds-epi": "3"})
    'The data differ from those of the calibration before: ds-epi.'
    """
    names = sorted(name for name in {*before, *now} if before and before.get(name) != now.get(name))
    return f"The data differ from those of the calibration before: {', '.join(names)}." if names else ""
