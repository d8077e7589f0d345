"""Every table in docs/results is marked with the command that its numbers come from, or as written by hand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from doc_pages import ROOT, check_command, named

FOLDER = ROOT / "docs" / "results"
NOT_MARKED = ("measured-deep.md", "paper.md")
"""Pages whose tables have no marks yet."""
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.name not in NOT_MARKED)
MARK = re.compile(r"<!-- table (?:(?P<kind>of|by hand, from): (?P<command>[^>]+)|by hand) -->")


def tables(text: str) -> list[tuple[int, str]]:
    """Each table of a page: the number of its first line, from 1, and the line before it."""
    lines = ["", *map(str.strip, text.splitlines())]
    return [(i, lines[i - 1]) for i in range(1, len(lines)) if lines[i].startswith("|") and not lines[i - 1].startswith("|")]


def faults(page: Path) -> list[str]:
    """Tables of a page that have no mark, or a command that its program does not accept."""
    found = []
    for line, before in tables(page.read_text(encoding="utf-8")):
        mark = MARK.fullmatch(before)
        if mark is None:
            found.append(f"{named(page)}:{line}: no mark")
        elif mark["command"]:
            try:
                check_command(shlex.split(mark["command"]))
            except ValueError as error:
                found.append(f"{named(page)}:{line}: {mark['command']}: {error}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_table_is_marked_and_its_command_parses(page: Path) -> None:
    assert not faults(page)


def test_pages_and_tables_are_found() -> None:
    assert {(FOLDER / name).is_file() for name in NOT_MARKED} == {True}
    marks = [MARK.fullmatch(before) for page in PAGES for _, before in tables(page.read_text(encoding="utf-8"))]
    assert {mark["kind"] for mark in marks if mark} == {"of", "by hand, from", None}


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ("", "no mark"),
        ("<!-- table of -->", "no mark"),
        ("<!-- table of: posepipe-tools bench volumes DATA -o OUT -->", "volumes"),
        ("<!-- table by hand, from: posepipe-tools bench age DATA -->", "required"),
        ("<!-- table of: python -m posepipe.bench.no_such DATA -->", "no_such"),
    ],
)
def test_a_wrong_mark_is_reported_with_its_line(tmp_path: Path, mark: str, says: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{mark}\n| a | b |\n|---|---|\n| 1 | 2 |\n", encoding="utf-8")
    (fault,) = faults(page)
    assert fault.startswith(f"{page}:4: ") and says in fault


def test_right_marks_have_no_faults(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = "posepipe-tools bench age DATA -o OUT"
    page.write_text(f"<!-- table by hand -->\n| a |\n|---|\n\n- b\n\n  <!-- table of: {command} -->\n  | a |\n  |---|\n", encoding="utf-8")
    assert not faults(page)
    page.write_text("- b\n\n  | a |\n  |---|\n", encoding="utf-8")
    assert faults(page) == [f"{page}:3: no mark"]
