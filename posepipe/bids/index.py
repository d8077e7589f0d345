"""Index of a dataset by pybids, restricted to the requested folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SUFFIXES = ("T1w", "T2w")
INPUT = re.compile(rf"sub-[^/]+_(?:{'|'.join(SUFFIXES)})\.nii(?:\.gz)?", re.DOTALL)
# pybids reads files of this name in each folder as settings of its own; none is called so
_NO_CONFIG = ".no-layout-config.json"


def indexed_images(root: Path, anat: Sequence[str]) -> set[Path]:
    """The T1w and T2w images in the folders ``anat`` (POSIX paths relative to ``root``), by a pybids index that reads no other folders.

    Exceptions of pybids and its database are not converted, for example for undecodable names and unreadable folders.
    """
    with _some_home():
        from bids.layout import BIDSLayout, BIDSLayoutIndexer

    ignore = [_Elsewhere(anat)]
    indexer = BIDSLayoutIndexer(validate=False, ignore=ignore, index_metadata=False, config_filename=_NO_CONFIG)
    # the "bids" rules alone: entities of derivatives are read from the names, without loss
    layout = BIDSLayout(root, validate=False, derivatives=False, config=["bids"], indexer=indexer)
    return {Path(name) for name in layout.get(suffix=list(SUFFIXES), extension=[".nii", ".nii.gz"], return_type="filename")}


class _Elsewhere:
    """Matches what the index need not read: all but the folders ``anat`` (POSIX paths relative to the dataset), those above them, and the
    T1w and T2w images in them. pybids asks its ``search`` for every path (POSIX, from the dataset's ``/``).

    A regular expression that lists the folders would be read from its beginning for every path: for n participants, n² steps.
    """

    def __init__(self, anat: Sequence[str]) -> None:
        self._inside = set(anat)
        self._entered = {parent for path in anat for parent in (path, *(p.as_posix() for p in Path(path).parents))} - {"."}

    def search(self, path: str) -> bool:
        """Whether ``path`` is to be ignored."""
        folder, _, name = path.removeprefix("/").rpartition("/")
        return path.removeprefix("/") not in self._entered and not (folder in self._inside and INPUT.fullmatch(name))


@contextmanager
def _some_home() -> Iterator[None]:
    """Context with a (possibly empty) home folder: pybids looks for settings in it at import, and in a container that runs with an unknown
    user id there may be none."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = os.devnull
    try:
        yield
    finally:
        if os.environ.get("HOME") == os.devnull:
            del os.environ["HOME"]
