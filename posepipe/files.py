"""Files that appear whole or not at all: the one way in which posepipe writes what it keeps."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MARK = ".tmp"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to, which takes the place of ``path`` when all went well and is gone otherwise.

    Readers see the old file or the new, never half. The folder is made if it is not there. The name is hidden, keeps the extension, by
    which libraries tell formats, and is used by nobody else: neither by another process, of whatever machine that shares the folder, nor
    by another thread.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stem, dot, extension = path.name.partition(".")
    temporary = path.with_name(f".{stem}.{uuid.uuid4().hex[:12]}{_MARK}{dot}{extension}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            temporary.unlink()


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` (UTF-8; bytes of file names that are none come as escapes) to ``path`` whole."""
    return write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write ``content`` to ``path`` whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def copy_file(source: str | Path, target: str | Path) -> Path:
    """Copy the contents of ``source`` to ``target`` whole."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    return Path(target)


def remove_leftovers(path: str | Path) -> None:
    """Remove what processes that were killed while they wrote ``path`` have left beside it; nobody else may be writing it now."""
    path = Path(path)
    stem, dot, extension = path.name.partition(".")
    for left in path.parent.glob(f".{stem}.{'[0-9a-f]' * 12}{_MARK}{dot}{extension}"):
        left.unlink(missing_ok=True)
