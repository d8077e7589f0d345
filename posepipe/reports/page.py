"""Making a page: templates, the parts put into them, and writing them so that no half page is ever seen."""

from __future__ import annotations

import base64
import os
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import ImageError

_KINDS = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"RIFF", "image/webp"))


def render(template: str, **values: Any) -> str:
    """The HTML of ``templates/<template>``: every value is escaped, and a value left out is an error."""
    import jinja2
    from markupsafe import Markup

    folder = resources.files(__package__)
    style = (folder / "static" / "page.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(str(__package__)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(css=Markup(style), **values)


def write_page(path: str | Path, html: str) -> Path:
    """Write ``html`` to ``path`` by way of a temporary name in the same folder, made if it is not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(html.encode("utf-8", "backslashreplace"))  # file names may hold bytes that are no text
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def data_uri(figure: bytes | str | Path) -> str:
    """A picture (JPEG, PNG or WebP; bytes or a file) as a ``data:`` address.

    Raises :class:`~posepipe.errors.ImageError` for a file that is not there and for anything else than such a picture.
    """
    name = "a figure" if isinstance(figure, bytes) else str(figure)
    if not isinstance(figure, bytes):
        try:
            figure = Path(figure).read_bytes()
        except OSError as error:
            msg = f"{name}: the figure cannot be read ({error.strerror}); make it again"
            raise ImageError(msg) from error
    for start, kind in _KINDS:
        if figure.startswith(start):
            return f"data:{kind};base64,{base64.b64encode(figure).decode('ascii')}"
    msg = f"{name}: not a JPEG, PNG or WebP picture, so the page cannot show it; make the figure again"
    raise ImageError(msg)


def link(path: str) -> str:
    """Address of a file given relative to the page, whatever characters its name holds.

    >>> link("sub-01/anat/a b+29#1.txt"), link("javascript:alert(1)")
    ('sub-01/anat/a%20b%2B29%231.txt', 'javascript%3Aalert%281%29')
    """
    return quote(os.fsencode(path))
