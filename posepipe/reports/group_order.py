"""In which order each of several raters reads the pages, so that none knows what comes next or what others saw before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .group_rows import GroupRow


@dataclass(frozen=True)
class Turn:
    """One page in a rater's order: ``position`` counts from 1; ``images`` are the names of those it shows with a pose."""

    rater: str
    position: int
    page: str
    images: tuple[str, ...]


def reading_order(rows: Sequence[GroupRow], raters: Iterable[str], seed: int) -> list[Turn]:
    """The pages that show a pose, in a random order of each rater's own.

    The place of a page comes from a digest of seed, rater and page. So the same call gives the same order; another rater
    changes nothing for the first; and images that come later fall in between without disturbing what is begun.
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
