"""``CITATION.md``, ``.bib`` and ``.html``: every key is cited and resolved, the BibTeX is valid, and the page loads nothing."""

from __future__ import annotations

import html.parser
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from posepipe.workflows.citation import Citation
from posepipe.workflows.methods import Methods, citation_of

from posepipe.atlas import load_manifests
from posepipe.references import Reference

REQUIRED = {
    "article": {"author", "title", "journal", "year"},
    "inproceedings": {"author", "title", "booktitle", "year"},
    "misc": {"author", "title", "year"},
}


def everything() -> Citation:
    """The text of all methods, at all atlases."""
    atlases = list(load_manifests())
    ways = product(("given", "network"), ("deep", "posenet", "search"), ("ants", "torch"), (False, True))
    some = [Methods("T1w", atlases[n % len(atlases)], "T2w", m, i, r, converted=c) for n, (m, i, r, c) in enumerate(ways)]
    return citation_of(some, [{"posepipe": "0.1.0"}], [("CRL", "29")])


def entries(text: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Kind, key and fields of BibTeX entries; raises ValueError for what BibTeX would not take."""
    at = 0
    while (start := re.compile(r"\s*@(\w+)\{([^\s,{}]+),").match(text, at)) is not None:
        fields, at = {}, start.end()
        while (field := re.compile(r"\s*(\w+)\s*=\s*\{").match(text, at)) is not None:
            depth, at = 1, field.end()
            while depth:
                depth += {"{": 1, "}": -1}.get(text[at], 0)
                at += 1
            fields[field[1]] = text[field.end() : at - 1]
            if text[at : at + 1] == ",":
                at += 1
        end = re.compile(r"\s*\}").match(text, at)
        if end is None:
            msg = f"no end at {text[at : at + 40]!r}"
            raise ValueError(msg)
        at = end.end()
        yield start[1], start[2], fields
    if text[at:].strip():
        msg = f"no entry at {text[at : at + 40]!r}"
        raise ValueError(msg)


def test_each_key_is_cited_listed_and_in_the_bibtex_once():
    citation = everything()
    text, _, listed = citation.markdown.partition("# References")
    cited = set(re.findall(r"@([\w-]+)", text))
    keys = [key for _, key, _ in entries(citation.bibtex)]
    assert sorted(keys) == sorted(cited) == sorted(re.findall(r"^- \*([\w-]+)\*: ", listed, re.M))
    assert len(keys) == len(set(keys)) >= 17


def test_the_bibtex_has_what_each_kind_needs():
    for kind, key, fields in entries(everything().bibtex):
        assert REQUIRED[kind] <= fields.keys(), key
        assert all(value and not re.search(r"(?<!\\)[&%#_$]", value) for value in fields.values()), key
        assert fields["year"].isdigit() and ("doi" in fields or key == "paszke2019"), key
        assert " and " in fields["author"] and "et al" not in fields["author"], key


def test_bibtex_of_names_and_signs():
    reference = Reference("k", "article", ("van der Walt SJ", "The ANTs team", "et al"), "A & B_1", "J", 2001, pages="1-2")
    ((_, _, fields),) = entries(reference.bibtex)
    assert fields["author"] == "van der Walt, S. J. and {The ANTs team} and others"
    assert (fields["title"], fields["pages"]) == (r"{A \& B\_1}", "1--2")
    assert reference.text == "van der Walt SJ, The ANTs team, et al. A & B_1. J 1-2, 2001."


def test_another_parser_reads_the_same_bibtex(tmp_path: Path):
    database = pytest.importorskip("pybtex.database", reason="pybtex is not installed: pip install pybtex")
    citation = everything()
    citation.write(tmp_path)
    read = database.parse_file(str(tmp_path / "CITATION.bib"), bib_format="bibtex")
    assert sorted(read.entries) == sorted(reference.key for reference in citation.references)
    assert next(str(p) for p in read.entries["salehi2019"].persons["author"]) == "Salehi, S. S. M."


class _Loads(html.parser.HTMLParser):
    """What a page would load, the targets of its links and the ids in it."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" else []
        self.loads += [tag] if tag in {"script", "link", "img", "iframe"} or "src" in values else []


def test_the_page_loads_nothing_and_its_links_lead_somewhere(tmp_path: Path):
    citation = everything()
    citation.write(tmp_path)
    page = (tmp_path / "CITATION.html").read_text(encoding="utf-8")
    found = _Loads()
    found.feed(page)
    inner = {link[1:] for link in found.links if link.startswith("#")}
    assert not found.loads and "url(" not in page and "@import" not in page
    assert inner == {f"ref-{reference.key}" for reference in citation.references} == set(found.ids)
    outer = [link for link in found.links if not link.startswith("#")]
    assert sorted(outer) == sorted(f"https://doi.org/{r.doi}" for r in citation.references if r.doi)
    assert "[@" not in page and (tmp_path / "CITATION.md").read_text(encoding="utf-8") == citation.markdown
