"""The methods text for a page: the subset of Markdown that posepipe writes, as HTML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup


CITED = re.compile(r"\[@([\w-]+)\]")
"""A citation; the group is the key of the reference."""


def prose(text: str) -> Markup:
    """Headings (``#``), lists (``-``), emphasis (``*…*``), paragraphs and citations (``[@key]``), which lead to the list entry that begins
    with ``*key*:``; everything else is escaped and shown unchanged.

    >>> print(prose("# Methods\\n\\nBy *posepipe* <1>.\\n\\n- One\\n- Two"))
    <h3>Methods</h3>
    <p>By <em>posepipe</em> &lt;1&gt;.</p>
    <ul><li>One</li><li>Two</li></ul>
    >>> print(prose("Said [@a2001].\\n\\n- *a2001*: A"))
    <p>Said [<a href="#ref-a2001">a2001</a>].</p>
    <ul><li id="ref-a2001"><em>a2001</em>: A</li></ul>
    """
    from markupsafe import Markup

    return Markup("\n").join(_block(block) for block in re.split(r"\n\s*\n", text.strip()) if block.strip())


def _block(block: str) -> Markup:
    from markupsafe import Markup

    lines = block.strip().splitlines()
    if len(lines) == 1 and lines[0].startswith("#"):
        return Markup("<h3>{}</h3>").format(_inline(lines[0].lstrip("# ")))
    if all(line.startswith("- ") for line in lines):
        return Markup("<ul>{}</ul>").format(Markup("").join(map(_item, lines)))
    return Markup("<p>{}</p>").format(_inline("\n".join(lines)))


def _item(line: str) -> Markup:
    from markupsafe import Markup

    key = re.match(r"- \*([\w-]+)\*: ", line)
    identity = Markup(' id="ref-{}"').format(key[1]) if key else ""
    return Markup("<li{}>{}</li>").format(identity, _inline(line[2:]))


def _inline(text: str) -> Markup:
    from markupsafe import Markup, escape

    emphasised = re.sub(r"\*([^*\n]+)\*", r"<em>\1</em>", str(escape(text)))
    return Markup(CITED.sub(r'[<a href="#ref-\1">\1</a>]', emphasised))
