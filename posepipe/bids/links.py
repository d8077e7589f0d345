"""Folders and links as they are found: what cannot be told of an entry, for whatever reason, is no folder.

Links to what is not there are those of a dataset under git-annex (DataLad) whose contents were not fetched.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def not_fetched(path: Path) -> str | None:
    """What is wrong with ``path`` if it, or a folder that it lies in, is a link to what is not there; None if none is.

    >>> not_fetched(Path("/nowhere/at/all.tsv")) is None
    True
    """
    for part in (path, *path.parents):
        if is_lost_link(part):
            return f"{part}: a link to what is not there; fetch it (datalad get, git annex get), or remove the link"
    return None


def is_lost_link(path: Path) -> bool:
    """Whether ``path`` is a link that leads to nothing, itself for one."""
    return os.path.islink(path) and not os.path.exists(path)  # noqa: PTH110,PTH114 - Path's raise where a link leads in a circle or nowhere allowed


@dataclass(frozen=True)
class Entry:
    """What lies in a folder: its name, whether it is a folder (or a link to one), and whether it is a link to nothing."""

    name: str
    is_folder: bool
    is_lost: bool


class Folders:
    """Folders and what lies in them, each read once."""

    def __init__(self) -> None:
        self._known: dict[Path, list[Entry]] = {}

    def entries(self, folder: Path) -> list[Entry]:
        """What lies in ``folder``, by name. Raises OSError for a folder that cannot be read."""
        if folder not in self._known:
            with os.scandir(folder) as found:
                entries = [Entry(e.name, _is_folder(e), e.is_symlink() and is_lost_link(folder / e.name)) for e in found]
            self._known[folder] = sorted(entries, key=lambda e: e.name)
        return self._known[folder]

    def folders(self, folder: Path, prefix: str) -> list[str]:
        """Names of the folders in ``folder`` that begin with ``prefix``; none where it cannot be read."""
        try:
            return [e.name for e in self.entries(folder) if e.is_folder and e.name.startswith(prefix)]
        except OSError:
            return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or to where one may not go
        return False
