"""Reading of text and JSON files of datasets, with error messages for all encodings and file types."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from ..errors import BidsError
from ..files import parse_json
from .links import not_fetched


def read_text(path: str | Path) -> str | None:
    """The text of a file, without a byte-order mark; None if there is no such file.

    Raises :class:`~posepipe.errors.BidsError` for a broken link, for anything but a readable regular file, and for text that is not UTF-8.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would block
            msg = f"{path}: expected a file, found a folder, a pipe or a device; remove it, or put the file in its place"
            raise BidsError(msg)
        content = path.read_bytes()
    except OSError as error:
        if problem := not_fetched(path):
            raise BidsError(problem) from error
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return None
        msg = f"{path}: cannot be read ({error.strerror}); make it readable"
        raise BidsError(msg) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        utf16 = content[:2] in {b"\xff\xfe", b"\xfe\xff"}
        why = "it is UTF-16" if utf16 else f"the byte 0x{content[error.start]:02x} at {error.start}"
        msg = f"{path}: is not UTF-8 text ({why}); save it as UTF-8"
        raise BidsError(msg) from error
    if "\0" in text:
        msg = f"{path}: is not text (it holds zero bytes, as UTF-16 and binary files do); save it as UTF-8"
        raise BidsError(msg)
    return text


def read_object(path: str | Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file.

    Raises :class:`~posepipe.errors.BidsError` as :func:`read_text` does, for what is not JSON, and for JSON that is no object.
    """
    text = read_text(path)
    if text is None:
        return None
    try:
        content = parse_json(text)
    except ValueError as error:
        msg = f"{path}: cannot be read as JSON ({error}); repair or remove it"
        raise BidsError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path}: expected a JSON object, found {type(content).__name__}; repair or remove it"
        raise BidsError(msg)
    return content
