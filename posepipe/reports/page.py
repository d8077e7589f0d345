"""Rendering of HTML templates, and atomic writing of pages."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import ImageError
from ..files import write_bytes

_KINDS = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"RIFF", "image/webp"))


def render(
    template: str, *, styles: Sequence[str] = ("page.css",), scripts: Sequence[str] = (), **values: Any
) -> str:
    """The HTML of ``templates/<template>``: all values are escaped, and a missing value is an error.

    ``styles`` and ``scripts`` name files of ``static/``, which are included in the page. Its content security policy allows only these
    scripts, identified by their digests, and no loading of external resources.
    """
    import jinja2
    from markupsafe import Markup

    folder = resources.files(__package__) / "static"
    css, script = ("\n".join((folder / n).read_text(encoding="utf-8") for n in names) for names in (styles, scripts))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(str(__package__)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        policy += f"; script-src 'sha256-{digest}'"
    return environment.get_template(template).render(
        css=Markup(css), page_script=Markup(script), policy=Markup(policy), **values
    )


def json_block(content: Any) -> str:
    """``content`` as JSON for a ``<script type="application/json">``, in which nothing can end the element.

    >>> print(json_block({"a": "</script>"}))
    {"a":"\\u003c/script>"}
    """
    from markupsafe import Markup

    return Markup(json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"))


def write_page(path: str | Path, html: str) -> Path:
    """Write ``html`` to ``path`` atomically; the folder is created if needed."""
    return write_bytes(path, html.encode("utf-8", "backslashreplace"))  # file names may contain undecodable bytes


def data_uri(picture: bytes) -> str:
    """A picture (JPEG, PNG or WebP) as a ``data:`` address.

    Raises :class:`~posepipe.errors.ImageError` for anything else.
    """
    for start, kind in _KINDS:
        if picture.startswith(start):
            return f"data:{kind};base64,{base64.b64encode(picture).decode('ascii')}"
    msg = "a figure: not a JPEG, PNG or WebP picture, so the page cannot show it; make the figure again"
    raise ImageError(msg)


def link(path: str) -> str:
    """Address of a file given relative to the page, whatever characters its name holds.

    >>> link("sub-01/anat/a b+29#1.txt"), link("javascript:alert(1)")
    ('sub-01/anat/a%20b%2B29%231.txt', 'javascript%3Aalert%281%29')
    """
    return quote(os.fsencode(path))
