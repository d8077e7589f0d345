"""Links to what is not there: of a dataset under git-annex (DataLad) whose contents were not fetched."""

from __future__ import annotations

from pathlib import Path


def not_fetched(path: Path) -> str | None:
    """What is wrong with ``path`` if it, or a folder that it lies in, is a link to what is not there; None if none is.

    >>> not_fetched(Path("/nowhere/at/all.tsv")) is None
    True
    """
    for part in (path, *path.parents):
        if part.is_symlink() and not part.exists():
            return f"{part}: a link to what is not there; fetch it (datalad get, git annex get), or remove the link"
    return None
