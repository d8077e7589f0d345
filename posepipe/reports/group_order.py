"""Random reading orders of the pages for several raters, for blind rating."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .group_rows import GroupRow


@dataclass(frozen=True)
class Turn:
    """One page in a rater's order: ``position`` counts from 1; ``images`` are the names of its images with a pose."""

    rater: str
    position: int
    page: str
    images: tuple[str, ...]


def reading_order(rows: Sequence[GroupRow], raters: Iterable[str], seed: int) -> list[Turn]:
    """The pages with a pose, in a random order for each rater.

    Pages are sorted by a hash of seed, rater and page. The order is therefore reproducible, independent of the other raters, and new images
    are inserted without changing the order of the others.
    """
    pages: dict[str, list[str]] = {}
    for row in rows:
        if row.has_pose:
            names = pages.setdefault(row.page, [])
            if row.name not in names:  # one image may have poses on two atlases
                names.append(row.name)
    turns = []
    for rater in dict.fromkeys(raters):
        shuffled = sorted(pages, key=lambda page: _digest(seed, rater, page))
        turns += [Turn(rater, n, page, tuple(pages[page])) for n, page in enumerate(shuffled, start=1)]
    return turns


def _digest(seed: int, rater: str, page: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{rater}\0{page}".encode()).digest()
