"""Paths as users give them: absolute from the moment they are read, whatever folder the work is done in."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import UsageError


def absolute_path(text: str | Path) -> Path:
    """``text`` as an absolute path, from the current folder; ``~`` is the user's home.

    Raises :class:`~posepipe.errors.UsageError` for a ``~`` of which nothing is known.

    >>> absolute_path("/data/../atlases"), absolute_path("a") == Path.cwd() / "a"
    (PosixPath('/data/../atlases'), True)
    """
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        msg = f"{text}: nothing is known of a home folder that ~ may stand for; give the whole path"
        raise UsageError(msg) from error


def split_derivative(spec: str | Path) -> tuple[str, Path]:
    """``[NAME=]PATH`` as a name, empty where none is given, and an absolute path.

    >>> split_derivative("masks=/data/masks"), split_derivative("/data/a=b")
    (('masks', PosixPath('/data/masks')), ('', PosixPath('/data/a=b')))
    """
    name, equals, rest = str(spec).partition("=")
    if not equals or "/" in name or os.path.isdir(spec):  # noqa: PTH112 - of Path it raises for what is too long
        return "", absolute_path(spec)
    return name, absolute_path(rest)


def absolute_derivative(spec: str) -> str:
    """``[NAME=]PATH`` with an absolute path.

    >>> absolute_derivative("masks=/data/masks")
    'masks=/data/masks'
    """
    name, path = split_derivative(spec)
    return f"{name}={path}" if name else str(path)


def printable(path: str | Path) -> str:
    """``path`` in one line of text: signs that cannot be shown, such as a line break, as escapes.

    >>> printable("sub-01/a\\nb")
    'sub-01/a\\\\nb'
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape", "backslashreplace").decode() for sign in str(path))


def check_writable(folder: Path) -> None:
    """Make sure that files can be made in ``folder``, or where it would be made; nothing is left behind. Raises OSError."""
    there = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    with tempfile.TemporaryFile(dir=there):
        pass
