"""The pictures of all images of a page as one data block of limited size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .outlines import UNITS
from .page import data_uri
from .views import Views, reduced

_ENOUGH = 2_600_000  # bytes; the whole page then is below 3 MB
_ROUNDS = 8


def embedded(views: Mapping[str, Views]) -> tuple[dict[str, Any], bool]:
    """The data of the viewer's script: ``sheets``, each picture once, and ``images``, which refer to them by index.

    ``views`` maps the anchor of each image to its views. If they exceed the size limit, all are reduced until they fit; the second value
    says whether they were.
    """
    block, size = _block(views)
    rounds = 0
    while size > _ENOUGH and rounds < _ROUNDS:
        rounds += 1
        views = {anchor: reduced(view) for anchor, view in views.items()}
        block, size = _block(views)
    return block, rounds > 0


def _block(views: Mapping[str, Views]) -> tuple[dict[str, Any], int]:
    """The block and its approximate size, bytes; images with the same template share its sheets."""
    numbers: dict[bytes, int] = {}
    images = {}
    for anchor, view in views.items():
        layers = {
            name: [numbers.setdefault(sheet, len(numbers)) for sheet in layer] for name, layer in view.layers.items()
        }
        planes = [{**asdict(plane), "pixel": round(plane.pixel, 6)} for plane in view.planes]
        images[anchor] = {"planes": planes, "layers": layers, "outlines": view.outlines}
    size = sum(4 * len(sheet) // 3 for sheet in numbers) + sum(view.path_size for view in views.values())
    return {"units": UNITS, "sheets": [data_uri(sheet) for sheet in numbers], "images": images}, size
