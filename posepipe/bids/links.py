"""Folder listings and broken links. Entries whose type cannot be determined count as not being folders.

Broken links occur in datasets under git-annex (DataLad) whose contents were not fetched.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def not_fetched(path: Path) -> str | None:
    """Error message if ``path``, or one of its parent folders, is a broken link; else None.

    >>> not_fetched(Path("/nowhere/at/all.tsv")) is None
    True
    """
    for part in (path, *path.parents):
        if is_broken_link(part):
            return f"{part}: a link to what is not there; fetch it (datalad get, git annex get), or remove the link"
    return None


def is_broken_link(path: Path) -> bool:
    """Whether ``path`` is a broken link, or a link to itself."""
    return os.path.islink(path) and not os.path.exists(path)  # noqa: PTH110,PTH114 - Path's raise where a link leads in a circle or nowhere allowed


@dataclass(frozen=True)
class Entry:
    """An entry of a folder: its name, whether it is a folder (or a link to one), and whether it is a broken link."""

    name: str
    is_folder: bool
    is_broken: bool


class Folders:
    """Listings of folders, each read once."""

    def __init__(self) -> None:
        self._known: dict[Path, list[Entry]] = {}

    def entries(self, folder: Path) -> list[Entry]:
        """The entries of ``folder``, sorted by name. Raises OSError for a folder that cannot be read."""
        if folder not in self._known:
            with os.scandir(folder) as found:
                entries = [Entry(e.name, _is_folder(e), e.is_symlink() and is_broken_link(folder / e.name)) for e in found]
            self._known[folder] = sorted(entries, key=lambda e: e.name)
        return self._known[folder]

    def folders(self, folder: Path, prefix: str) -> list[str]:
        """Names of the folders in ``folder`` that begin with ``prefix``; empty if it cannot be read."""
        try:
            return [e.name for e in self.entries(folder) if e.is_folder and e.name.startswith(prefix)]
        except OSError:
            return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or to where one may not go
        return False
