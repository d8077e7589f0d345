"""docs/reference/requests.md: each test that it names is there, and each row names a public thread."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "requests.md"
THREAD = re.compile(r"\[(?:([\w.-]+/[\w.-]+))?#(\d+)\]\(https://github\.com/([\w.-]+/[\w.-]+)/(?:issues|pull)/(\d+)\)")


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ") and not line.startswith("| asked for")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def missing(named: str) -> bool:
    """Whether the test ``path::name`` is not there."""
    path, _, name = named.partition("::")
    if not (ROOT / path).is_file():
        return True
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return name not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_named_test_is_there():
    named = [test for _, _, tests in rows() for test in re.findall(r"`(tests/[^`]+)`", tests)]
    assert len(named) > 40
    assert not [test for test in named if missing(test)]
    assert missing("tests/test_requests.py::test_that_is_not_there") and missing("tests/no_such.py::test_x")


def test_each_row_has_a_thread_an_answer_and_a_test_or_says_no():
    threads = set()
    for row in rows():
        asked, answer, tests = row
        found = THREAD.findall(asked)
        assert found, asked
        for repository, number, linked, linked_number in found:
            assert number == linked_number and (not repository or repository == linked), asked
            threads.add(f"{linked}#{number}")
        assert re.match(r"yes|in part|reported|the pose, yes|\*\*no\*\*", answer), answer
        assert "`tests/" in tests or answer.startswith("**no**"), asked
    assert len(threads) >= 40
