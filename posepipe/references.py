"""A reference: the line of a list of references, and its BibTeX entry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SPECIAL = re.compile(r"([&%#_$])")
_PLACES = {"article": "journal", "inproceedings": "booktitle"}


@dataclass(frozen=True)
class Reference:
    """A reference with its citation ``key``.

    ``kind`` is BibTeX's: ``article``, ``inproceedings`` or ``misc``. ``authors`` are written ``Family AB``, with ``et al`` last if some are
    left out; ``venue`` is the journal, the proceedings or the repository. ``volume``, ``number``, ``pages`` and ``doi`` may be empty.
    """

    key: str
    kind: str
    authors: tuple[str, ...]
    title: str
    venue: str
    year: int
    volume: str = ""
    number: str = ""
    pages: str = ""
    doi: str = ""

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Reference:
        """From a TOML table with the fields of this class; ``authors`` in one string, separated by commas.

        >>> Reference.from_table({"key": "a", "kind": "misc", "authors": "A B, et al", "title": "T", "venue": "V", "year": 2001}).text
        'A B, et al. T. V, 2001.'
        """
        return cls(**{**table, "authors": tuple(name.strip() for name in str(table["authors"]).split(","))})

    @property
    def text(self) -> str:
        """Authors, title, venue, volume(number):pages, year and DOI, in one line."""
        where = self.volume + (f"({self.number})" if self.number else "") + (f":{self.pages}" if self.volume and self.pages else "")
        where = where or self.pages
        place = f"{self.venue} {where}".rstrip()
        return f"{', '.join(self.authors)}. {self.title}. {place}, {self.year}." + (f" doi:{self.doi}" if self.doi else "")

    @property
    def bibtex(self) -> str:
        """The BibTeX entry. Letters of the title keep their case."""
        fields = {
            "author": " and ".join(map(_bibtex_author, self.authors)),
            "title": f"{{{_escaped(self.title)}}}",
            _PLACES.get(self.kind, "howpublished"): _escaped(self.venue),
            "year": str(self.year),
            "volume": self.volume,
            "number": self.number,
            "pages": self.pages.replace("-", "--"),
            "doi": self.doi,
        }
        lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
        return f"@{self.kind}{{{self.key},\n" + ",\n".join(lines) + "\n}\n"


def _bibtex_author(name: str) -> str:
    """``Mohseni Salehi SS`` → ``Mohseni Salehi, S. S.``; names without initials are kept together."""
    if name == "et al":
        return "others"
    family, _, initials = name.rpartition(" ")
    if not family or not initials.isupper():
        return f"{{{_escaped(name)}}}"
    return f"{_escaped(family)}, {' '.join(f'{letter}.' for letter in initials)}"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
