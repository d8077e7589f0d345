"""Paths given by users: made absolute when they are parsed, independent of later changes of the working folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import UsageError


def absolute_path(text: str | Path) -> Path:
    """``text`` as an absolute path, from the current folder; ``~`` is the user's home.

    Raises :class:`~posepipe.errors.UsageError` for a ``~`` without a known home folder.

    >>> absolute_path("/data/../atlases"), absolute_path("a") == Path.cwd() / "a"
    (PosixPath('/data/../atlases'), True)
    """
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        msg = f"{text}: the home folder for ~ is not known; give the full path"
        raise UsageError(msg) from error


def split_derivative(spec: str | Path) -> tuple[str, Path]:
    """Split ``[NAME=]PATH`` into the name (empty if not given) and an absolute path.

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
    """``path`` as one line of text, with unprintable characters (such as line breaks) escaped.

    >>> printable("sub-01/a\\nb")
    'sub-01/a\\\\nb'
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape", "backslashreplace").decode() for sign in str(path))


def check_writable(folder: Path) -> None:
    """Check that files can be created in ``folder``, or in its nearest existing parent; leaves no file. Raises OSError."""
    there = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    with tempfile.TemporaryFile(dir=there):
        pass
