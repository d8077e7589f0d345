"""The report of one image as a fragment of HTML, for the pages of other pipelines."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import facts
from .outlines import UNITS
from .page import data_uri, render, write_page
from .verdict import verdict_of
from .views import LAYERS, Views, decoded

_QUALITY = 80  # of WebP, as in the pages
_TITLES = {"before": "as it was scanned", "after": "aligned", "synth": "aligned, synthetic T2w", "atlas": "atlas"}
_OUTLINES = {"before": "mask-before", "after": "atlas", "synth": "atlas", "atlas": "atlas"}
"""Layer → the outline that is drawn over it: the atlas's brain over what was aligned to it."""


def write_snippet(path: str | Path, name: str, sidecar: Mapping[str, Any], views: Views) -> Path:
    """Write a ``<section>`` with the verdict on an image, the reasons, its pose, and the middle slice of each of three planes before
    and after, with outlines: no script, no style of the page's, nothing that is loaded.

    ``name`` is the image's, ``sidecar`` the contents of the forward transform's, ``views`` its pictures.
    """
    verdict, reasons = verdict_of(sidecar)
    rows = [*facts.image_rows(sidecar)[:3], *facts.pose_rows(sidecar)]
    shown = [layer for layer in LAYERS if layer in views.layers]
    pictures = [(_TITLES[layer], [_picture(views, layer, plane) for plane in range(len(views.planes))]) for layer in shown]
    html = render("snippet.html", styles=(), name=name, verdict=verdict, reasons=reasons, rows=rows, pictures=pictures, units=UNITS)
    return write_page(path, html)


def _picture(views: Views, layer: str, plane: int) -> dict[str, Any]:
    """The middle slice of a layer in one plane, and the outline over it."""
    from PIL import Image

    view = views.planes[plane]
    middle = len(view.at) // 2
    stream = io.BytesIO()
    Image.fromarray(decoded(views.layers[layer][plane], view)[middle]).save(stream, "WEBP", quality=_QUALITY)
    return {
        "name": view.name,
        "width": view.width,
        "height": view.height,
        "image": data_uri(stream.getvalue()),
        "outline": views.outlines[_OUTLINES[layer]][plane][middle],
    }
