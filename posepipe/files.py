"""Atomic writing of files: every file that posepipe keeps is written through this module."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_MARK = ".tmp"
_EXTENSION = re.compile(r"(\.(nii|img|hdr|mgh|mgz|niftyreg))?\.[^.]+$", re.IGNORECASE)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to. It replaces ``path`` on success and is removed on failure.

    Readers see the old file or the new one, never a part. The folder is created if needed. The temporary name is hidden, keeps the
    extension (libraries derive the format from it), and is unique among processes and threads of all machines that share the folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name(path.name))
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # "disk full" is raised during a write, without the file's name
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            temporary.unlink()


@contextmanager
def alone(lock: str | Path) -> Iterator[None]:
    """Wait until no other process, on any machine that shares the folder, holds the file ``lock``, and hold it during the block.

    For files that are read, changed and written by several runs at once. The lock is released when the process ends for any reason. On
    file systems without locks nothing is waited for.
    """
    lock = Path(lock)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as file:
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def name_stem(path: str | Path) -> str:
    """The name of ``path`` without its extension; other dots belong to the name.

    >>> name_stem("a/my.brain.nii.gz"), name_stem("b_xfm.niftyreg.txt"), name_stem("sub-01_T2w.json")
    ('my.brain', 'b_xfm', 'sub-01_T2w')
    """
    return _EXTENSION.sub("", Path(path).name)


def temporary_name(name: str) -> str:
    """A unique temporary name for the file ``name``."""
    stem, dot, extension = name.partition(".")
    return f".{stem}.{uuid.uuid4().hex[:12]}{_MARK}{dot}{extension}"


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` to ``path`` atomically, as UTF-8; undecodable bytes of file names are written as escapes."""
    return write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write ``content`` to ``path`` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def parse_json(text: str) -> Any:
    """Parse JSON ``text``. Raises ValueError for invalid JSON, too deep nesting, and a key with two different values.

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
    """Copy the contents of ``source`` to ``target`` atomically."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    return Path(target)


def remove_leftovers(path: str | Path) -> None:
    """Remove temporary files that killed processes left while writing ``path``. No other process may be writing ``path`` now."""
    path = Path(path)
    stem, dot, extension = path.name.partition(".")
    for left in path.parent.glob(f".{stem}.{'[0-9a-f]' * 12}{_MARK}{dot}{extension}"):
        left.unlink(missing_ok=True)
