"""The methods text for a page: the subset of Markdown that posepipe writes, as HTML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup


def prose(text: str) -> Markup:
    """Headings (``#``), lists (``-``), emphasis (``*…*``) and paragraphs; everything else is escaped and shown unchanged.

    >>> print(prose("# Methods\\n\\nBy *posepipe* <1>.\\n\\n- One\\n- Two"))
    <h3>Methods</h3>
    <p>By <em>posepipe</em> &lt;1&gt;.</p>
    <ul><li>One</li><li>Two</li></ul>
    """
    from markupsafe import Markup

    return Markup("\n").join(_block(block) for block in re.split(r"\n\s*\n", text.strip()) if block.strip())


def _block(block: str) -> Markup:
    from markupsafe import Markup

    lines = block.strip().splitlines()
    if len(lines) == 1 and lines[0].startswith("#"):
        return Markup("<h3>{}</h3>").format(_inline(lines[0].lstrip("# ")))
    if all(line.startswith("- ") for line in lines):
        return Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(_inline(x[2:])) for x in lines))
    return Markup("<p>{}</p>").format(_inline("\n".join(lines)))


def _inline(text: str) -> Markup:
    from markupsafe import Markup, escape

    return Markup(re.sub(r"\*([^*\n]+)\*", r"<em>\1</em>", str(escape(text))))
