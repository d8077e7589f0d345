"""Files that appear whole or not at all: the one way in which posepipe writes what it keeps."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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
    temporary = path.with_name(temporary_name(path.name))
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a full disk is told while bytes are written, without the file's name
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            temporary.unlink()


def temporary_name(name: str) -> str:
    """A name that nobody else has, for a file that is to be called ``name``."""
    stem, dot, extension = name.partition(".")
    return f".{stem}.{uuid.uuid4().hex[:12]}{_MARK}{dot}{extension}"


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` (UTF-8; bytes of file names that are none come as escapes) to ``path`` whole."""
    return write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write ``content`` to ``path`` whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def parse_json(text: str) -> Any:
    """What ``text`` says in JSON. Raises ValueError for what is not JSON, is nested too deeply to be read, or says two things by one name.

    >>> parse_json('{"a": 1, "a": 1}')
    {'a': 1}
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        msg = "nested too deeply"
        raise ValueError(msg) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if found[key] != value:
                msg = f"{key[:60]!r} is there twice, with different values"
                raise ValueError(msg)
    return found


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
