"""The file format of sources and scenes: a compressed .npz with arrays and a JSON text that describes them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import UsageError
from ..files import replacing

FORMAT = 1
_T = TypeVar("_T")


def save_archive(path: str | Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """Write one compressed file by atomic replace; raises :class:`~posepipe.errors.UsageError` for a name that does not end in .npz."""
    path = Path(path)
    if path.suffix != ".npz":
        msg = f"{path}: training data are written as .npz; give the file that ending"
        raise UsageError(msg)
    text = np.array(json.dumps({"format": FORMAT, **about}))
    with replacing(path) as temporary:
        np.savez_compressed(temporary, about=text, **arrays)  # type: ignore[arg-type]
    return path


def load_archive(path: str | Path, what: str, made: Callable[[dict[str, Any], Any], _T]) -> _T:
    """Read a file of :func:`save_archive` and return ``made(about, arrays)``. ``what``: what it should hold (sources, scenes).

    Raises :class:`~posepipe.errors.UsageError` for any other file.
    """
    again = f"`posepipe-tools train {what}`"
    try:
        with np.load(path) as file:
            about = json.loads(str(file["about"]))
            if about["format"] != FORMAT:
                msg = f"{path}: made by another version of posepipe; make it again with {again}"
                raise UsageError(msg)
            return made(about, file)
    except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        msg = f"{path}: not a file of training {what} ({error}); make one with {again}"
        raise UsageError(msg) from error
