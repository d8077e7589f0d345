"""The options of the commands, from their own parsers: no text of theirs is written twice.

The directive ``command-options`` shows those of ``posepipe``, in a page of reStructuredText or a block ``{eval-rst}``. Each command of
``posepipe-tools`` gets a page, with a section for each of its subcommands, in ``docs/reference/commands``, which git ignores. Every option
can be linked to with the role ``option``.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from api_pages import write_pages
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from posepipe.cli import parser as app_parser
from posepipe.cli import tools

SIGNS = "=-~^\"'"
"""Underlines of sections by depth."""


def plain(text: str) -> str:
    """Text of a help line as reStructuredText: what stands in backquotes is code, all else is as it stands."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts = [text.replace("`", "'")]
    return "".join(f"``{part}``" if i % 2 else re.sub(r"([\\*|_<>])", r"\\\1", part) for i, part in enumerate(parts))


def invocation(action: argparse.Action, formatter: argparse.HelpFormatter) -> str:
    """How an option or a positional argument is written, such as ``-o DIR, --out-dir DIR``."""
    if not action.option_strings:
        return str(formatter._metavar_formatter(action, action.dest)(1)[0])
    if action.nargs == 0:
        return ", ".join(action.option_strings)
    values = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    return ", ".join(f"{option} {values}" for option in action.option_strings)


def option_lines(action: argparse.Action, formatter: argparse.HelpFormatter) -> list[str]:
    """One option as the directive ``option``."""
    told = [plain(formatter._expand_help(action))] if action.help else []
    if action.choices and action.metavar:
        told.append("(one of " + ", ".join(f"``{choice}``" for choice in action.choices) + ")")
    if action.required and action.option_strings:
        told.append("(required)")
    name = invocation(action, formatter)
    return [f".. option:: {name}", "", "   " + (" ".join(told) or "\\ "), ""]


def parser_lines(parser: argparse.ArgumentParser, depth: int, *, titled: bool) -> list[str]:
    """A parser and those below it, as lines of reStructuredText."""
    formatter = parser._get_formatter()
    lines = [parser.prog, SIGNS[depth] * len(parser.prog), ""] if titled else []
    if parser.description and titled:
        lines += [plain(parser.description), ""]
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    lines += [f".. program:: {parser.prog}", "", ".. code-block:: text", "   :class: usage", "", f"   {usage}", ""]
    below: list[argparse.ArgumentParser] = []
    for group in parser._action_groups:
        shown = [a for a in group._group_actions if a.help != argparse.SUPPRESS and not isinstance(a, argparse._HelpAction)]
        inner = [a for a in shown if isinstance(a, argparse._SubParsersAction)]
        below += [child for action in inner for child in action.choices.values()]
        shown = [a for a in shown if a not in inner]
        if shown:
            lines += [f".. rubric:: {(group.title or '').capitalize()}", ""]
            for action in shown:
                lines += option_lines(action, formatter)
    for child in below:
        lines += parser_lines(child, depth + 1, titled=True)
    return lines


def pages() -> dict[str, str]:
    """File name → text: a page for each command of ``posepipe-tools``."""
    (commands,) = [a for a in tools.build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return {f"{name}.rst": "\n".join(parser_lines(parser, 0, titled=True)) for name, parser in commands.choices.items()}


class CommandOptions(Directive):
    """The options of ``posepipe``."""

    def run(self) -> list[nodes.Node]:
        """The nodes that stand in the directive's place."""
        lines = parser_lines(app_parser.build_parser(), 0, titled=False)
        holder = nodes.section()
        holder.document = self.state.document
        self.state.nested_parse(StringList(lines, source="parser of posepipe"), 0, holder)
        return holder.children


def write(app: Any) -> None:
    """Write the pages."""
    write_pages(Path(app.srcdir) / "reference" / "commands", pages())


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_directive("command-options", CommandOptions)
    app.connect("builder-inited", write)
    return {"version": "1", "parallel_read_safe": True}
