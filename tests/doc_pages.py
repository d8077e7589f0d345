"""Pages of the documentation: their blocks of code, the commands in them, and whether the real parsers take these."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from posepipe.cli import parser as app
from posepipe.cli import tools
from posepipe.errors import PosepipeError
from posepipe.training.recipes import recipe_stages

ROOT = Path(__file__).resolve().parents[1]
MORE = "…"
"""Stands in a command for options that are not repeated."""
NOT_RUN = re.compile(r"<!-- not run: .+ -->")
_FENCE = re.compile(r"^\s*(`{3,}|:{3,})\s*(\{?[\w-]*\}?)")


def pages() -> list[Path]:
    """Every page: README.md, CONTRIBUTING.md, and what the site has of docs/."""
    left_out = ast.literal_eval(re.search(r"^exclude_patterns = (.*)$", (ROOT / "docs/conf.py").read_text(encoding="utf-8"), re.M)[1])
    docs = ROOT / "docs"
    found = {page for page in docs.rglob("*.md") if "_build" not in page.parts}
    for pattern in left_out:
        found -= {*docs.glob(pattern)}
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(found)]


def named(page: Path) -> str:
    """A page as messages name it: from the root of the checkout."""
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else str(page)


@dataclass(frozen=True)
class Block:
    """A block of code: its page, the line of its fence, its language, its lines, and whether it is one that can be run as it stands."""

    page: Path
    line: int
    language: str
    lines: tuple[str, ...]
    runs: bool

    @property
    def text(self) -> str:
        """Its lines as one text."""
        return "\n".join(self.lines) + "\n"

    def at(self, line: int) -> str:
        """Where its line ``line``, from 0, stands."""
        return f"{named(self.page)}:{self.line + 1 + line}"


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    i, before = 0, ""
    while i < len(lines):
        fence = _FENCE.match(lines[i])
        if fence:
            sign, first = fence[1], i
            i += 1
            while i < len(lines) and not lines[i].strip().startswith(sign):
                i += 1
            indent = len(lines[first]) - len(lines[first].lstrip())
            inner = tuple(line[indent:] for line in lines[first + 1 : i])
            yield Block(page, first + 1, fence[2], inner, NOT_RUN.fullmatch(before.strip()) is None)
        before = lines[i] if i < len(lines) else ""
        i += 1


def prose(page: Path) -> str:
    """A page without its blocks and without code in its lines."""
    text = re.sub(r"^\s*(`{3,})[^`]*?^\s*\1\s*$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text)


def commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """Each command of a ``bash`` block: its first line, from 0, and its words. A backslash at a line's end joins it to the next; ``&&``,
    ``;`` and ``|`` part commands; what follows ``>`` is a file; ``NAME=value`` before a command, and comments, are left out."""
    line = 0
    while line < len(block.lines):
        first, text = line, block.lines[line]
        while text.endswith("\\") and line + 1 < len(block.lines):
            line += 1
            text = text[:-1] + " " + block.lines[line].strip()
        lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        to_file = False
        for word in [*lexer, ";"]:
            if set(word) <= set("();&|"):
                while words and re.fullmatch(r"\w+=.*", words[0]):
                    words.pop(0)
                if words:
                    yield first, words
                words = []
            elif set(word) <= set("<>"):
                to_file = True
            elif to_file:
                to_file = False
            else:
                words.append(word)
        line += 1


def check_command(words: list[str]) -> None:
    """Check one command against the parser of its program, or what it runs or names against the checkout. Raises ValueError."""
    program, *rest = words
    if program == "posepipe":
        _parse(app.build_parser(), rest)
    elif program == "posepipe-tools":
        own, handed = tools._parted(rest)
        args = _parse(tools.build_parser(), own)
        if own[:1] == ["array"]:
            _parse(app.build_parser(), ["BIDS_DIR", "OUT_DIR", "participant", *handed])
        if own[:2] == ["train", "recipe"] and args is not None:
            for stage in recipe_stages(args.name):
                _parse(tools.build_parser(), ["train", *stage, *args.options, "-o", "OUT", *({MORE} & set(own))])
    elif program == "python" and rest[:1] == ["-m"] and rest[1].startswith("posepipe"):
        if importlib.util.find_spec(rest[1]) is None:
            msg = f"no module {rest[1]}"
            raise ValueError(msg)
    elif program in {"python", "pytest", "sphinx-build"}:
        for word in rest:
            if re.match(r"(docs|tests|posepipe|workflows)\b", word) and word != "docs/_build" and not (ROOT / word).exists():
                msg = f"no {word} in the checkout"
                raise ValueError(msg)


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace | None:
    """What ``parser`` makes of ``words``; None where they ask for help or the version. Raises ValueError."""
    if MORE in words:
        _require_nothing(parser)
        words = [word for word in words if word != MORE]

    def refuse(self: argparse.ArgumentParser, message: str) -> None:
        raise ValueError(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "error", refuse)
        try:
            return parser.parse_args(words)
        except SystemExit as leave:
            if leave.code:
                msg = f"exit code {leave.code}"
                raise ValueError(msg) from leave
            return None


def _require_nothing(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _require_nothing(inner)
        elif action.option_strings:
            action.required = False


def check_python(text: str) -> None:
    """Check a ``python`` block: that it compiles, that what it names of posepipe exists, and that this takes the arguments by the names
    given. Raises ValueError."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(str(error)) from error
    known = {"posepipe": importlib.import_module("posepipe")}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "posepipe":
            for alias in node.names:
                known[alias.asname or alias.name] = _found(importlib.import_module(node.module), alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "posepipe":
                    importlib.import_module(alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "posepipe":
            _found(known["posepipe"], node.attr)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                called = known.get(node.func.id)
            elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and node.func.value.id == "posepipe":
                called = _found(known["posepipe"], node.func.attr)
            else:
                called = None
            if called is not None:
                _check_names(called, [k.arg for k in node.keywords if k.arg])


def _found(holder: object, name: str) -> object:
    if not hasattr(holder, name):
        try:
            return importlib.import_module(f"{holder.__name__}.{name}")
        except ImportError:
            msg = f"no {name} in {holder.__name__}"
            raise ValueError(msg) from None
    return getattr(holder, name)


def _check_names(called: object, names: list[str]) -> None:
    import posepipe

    takes = dict(inspect.signature(called).parameters)
    if any(p.kind is p.VAR_KEYWORD for p in takes.values()):  # of posepipe.align, which hands them on
        takes |= inspect.signature(posepipe.Aligner).parameters
    for name in names:
        if name not in takes:
            msg = f"{called.__name__} takes no argument {name}"
            raise ValueError(msg)


def check_page(page: Path) -> list[str]:
    """What is wrong with the commands and the Python of a page, each with page and line."""
    wrong = []
    for block in blocks(page):
        if block.language == "bash":
            for line, words in commands(block):
                try:
                    check_command(words)
                except (ValueError, PosepipeError) as error:
                    wrong.append(f"{block.at(line)}: {' '.join(words)}: {error}")
        elif block.language == "python":
            try:
                check_python(block.text)
            except (ValueError, ImportError) as error:
                wrong.append(f"{block.at(0)}: {error}")
    return wrong


def missing_links(page: Path) -> list[str]:
    """Links and pictures of a page that lead to no file of the checkout."""
    targets = re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", prose(page))
    inside = [t for t in targets if not re.match(r"[a-z]+:|#", t)]
    return [f"{named(page)}: {t}" for t in inside if not (page.parent / t.partition("#")[0]).exists()]
