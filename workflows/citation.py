"""``CITATION.md``, ``CITATION.bib`` and ``CITATION.html``: a methods text with its references."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from posepipe.files import write_text
from posepipe.references import Reference
from posepipe.reports.prose import CITED, prose

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DOI = re.compile(r"\bdoi:(10\.[^\s<]+)")
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>posepipe: methods and references</title>
<style>body {{ max-width: 48em; margin: 2em auto; padding: 0 1em; font-family: sans-serif; line-height: 1.5; }}</style>
</head>
<body>
{}
</body>
</html>
"""


@dataclass(frozen=True)
class Citation:
    """A methods text: its paragraphs, which cite ``[@key]``, and the references that they cite, each once."""

    paragraphs: tuple[str, ...]
    references: tuple[Reference, ...]

    @classmethod
    def of(cls, parts: Iterable[tuple[str, Iterable[Reference]]]) -> Citation:
        """From pairs of text and references."""
        pairs = [(text, tuple(references)) for text, references in parts]
        return cls(
            tuple(dict.fromkeys(text for text, _ in pairs if text)),
            tuple(dict.fromkeys(reference for _, references in pairs for reference in references)),
        )

    @property
    def markdown(self) -> str:
        """Text and list of references; pandoc resolves ``[@key]`` with :attr:`bibtex`."""
        listed = "\n".join(f"- *{reference.key}*: {reference.text}" for reference in self.references)
        return "# Methods\n\n" + "\n\n".join(self.paragraphs) + f"\n\n# References\n\n{listed}\n"

    @property
    def bibtex(self) -> str:
        """The references as BibTeX entries."""
        return "\n".join(reference.bibtex for reference in self.references)

    @property
    def html(self) -> str:
        """The text as a page that loads nothing; keys lead to the references, and DOIs to their publications."""
        return _PAGE.format(_DOI.sub(r'<a href="https://doi.org/\1">doi:\1</a>', str(prose(self.markdown))))

    def write(self, folder: Path) -> None:
        """Write ``CITATION.bib``, ``.html`` and ``.md`` to ``folder``, each atomically, the Markdown last."""
        for extension, text in (("bib", self.bibtex), ("html", self.html), ("md", self.markdown)):
            write_text(folder / f"CITATION.{extension}", text)


@cache
def _known() -> dict[str, Reference]:
    text = resources.files("posepipe.workflows").joinpath("references.toml").read_text(encoding="utf-8")
    return {table["key"]: Reference.from_table(table) for table in tomllib.loads(text)["reference"]}


def by_keys(text: str) -> tuple[Reference, ...]:
    """The references that ``text`` cites as ``[@key]``, without those of atlases, which lie in their manifests."""
    known = _known()
    return tuple(known[key] for key in dict.fromkeys(CITED.findall(text)) if key in known)
