"""The viewer's data of one image: sheets of slices in three planes, and overlaid outlines.

**Frame: RAS millimetres. A pose maps template points to image points, ``x_image = R x_atlas + t``.** Slices lie on the
template's world axes (:mod:`posepipe.reports.stacks`); nothing is written but pictures.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ImageError
from ..geometry import Rigid
from ..imaging.volume import Float, Volume
from .outlines import halved, inner_paths, mask_paths, middle_level
from .slices import PLANES, start_pose
from .stacks import Stack, sample_stack, stacks, tight

#: What a page may show, in its order.
LAYERS = ("before", "after", "synth", "atlas")
_QUALITY = 80  # of WebP


@dataclass(frozen=True)
class PlaneView:
    """One plane: the slices of each layer are tiled row by row on a sheet that is ``across`` slices wide.

    ``width`` and ``height`` are those of a slice, in pixels. ``axes`` are the world axes to the right, upwards and through the slices;
    ``corner`` holds the world coordinates (mm) of the centre of the top left pixel along the first two, ``at`` the positions of the
    slices (mm) along the third. ``titles`` and ``sides`` as of a :class:`~posepipe.reports.stacks.Stack`.
    """

    name: str
    width: int
    height: int
    across: int
    pixel: float
    axes: tuple[int, int, int]
    corner: tuple[float, float]
    at: tuple[float, ...]
    titles: tuple[str, ...]
    sides: str


@dataclass(frozen=True)
class Views:
    """``layers``: name → one sheet (WebP) per plane. ``outlines``: name → for each plane one path per slice, with
    :data:`~posepipe.reports.outlines.UNITS` units per pixel.

    Layers are ``before``, ``after``, ``atlas`` and, for converted images, ``synth``. Outlines are ``mask-before`` and
    ``mask-after`` (the image's brain mask), ``subject`` (structures of the image after its pose), ``atlas`` (the brain
    of the template) and ``structures`` (those of the template).
    """

    planes: tuple[PlaneView, ...]
    layers: Mapping[str, tuple[bytes, ...]]
    outlines: Mapping[str, tuple[tuple[str, ...], ...]]

    @property
    def path_size(self) -> int:
        """Total number of characters of all outlines."""
        return sum(len(path) for outline in self.outlines.values() for plane in outline for path in plane)


def make_views(
    image: Volume,
    mask: Volume,
    template: Volume,
    template_mask: Volume,
    pose: Rigid,
    *,
    synth: Volume | None = None,
) -> Views:
    """The views of an image before and after its ``pose``, and of its template.

    Before: the orientation of its header, with the centroid of its mask moved to the template's. ``mask`` (above 0.5 inside)
    may be on another grid, in the image's world. ``synth`` is the image in the template's contrast, in the image's
    world. Raises :class:`~posepipe.errors.MaskError` for an empty mask.
    """
    planes = stacks(template_mask)
    mask, brain = tight(mask), tight(template_mask)
    places = {"before": start_pose(mask, template_mask), "after": pose}
    grey = {name: _sampled(image, planes, place) for name, place in places.items()}
    inside = {name: _sampled(mask, planes, place) for name, place in places.items()}
    grey["atlas"], inside["atlas"] = _sampled(template, planes), _sampled(brain, planes)
    windows = {name: window(grey[name], inside[name]) for name in ("after", "atlas")}
    windows["before"] = windows["after"]  # the same for both, so that they are comparable
    if synth is not None:
        grey["synth"], inside["synth"] = _sampled(synth, planes, pose), inside["after"]
        windows["synth"] = window(grey["synth"], inside["synth"])
    outlines = {
        "mask-before": _masks(inside["before"]),
        "mask-after": _masks(inside["after"]),
        "subject": _structures(grey["after"], inside["after"]),
        "atlas": _masks(inside["atlas"]),
        "structures": _structures(grey["atlas"], inside["atlas"]),
    }
    sheets = {name: tuple(_sheet(g, *windows[name]) for g in grey[name]) for name in LAYERS if name in grey}
    return Views(tuple(_plane(stack) for stack in planes), sheets, outlines)


def window(grey: Sequence[Float], inside: Sequence[Float]) -> tuple[float, float]:
    """Intensities displayed as black and white: the range of the brain without outliers."""
    values = np.concatenate([g[m > 0.5] for g, m in zip(grey, inside, strict=True)])
    if values.size == 0:
        values = np.concatenate([g.ravel() for g in grey])
    darkest, quarter, high = (float(v) for v in np.percentile(values, [0.5, 25, 99.7]))
    if high <= darkest:
        return darkest, darkest + 1.0
    # The margin of a loose mask contains background, which must not determine the black level.
    return max(darkest, quarter - 0.6 * (high - quarter)), high


def reduced(views: Views) -> Views:
    """The same views with every second slice, or, if there are few slices, with half the resolution."""
    if min(len(plane.at) for plane in views.planes) >= 10:
        return _every_second(views)
    return _halved(views)


def write_views(views: Views, path: str | Path) -> Path:
    """Write ``views`` to a JSON file, for another process to read."""
    from ..files import write_text

    content = {
        "planes": [plane.__dict__ for plane in views.planes],
        "layers": {name: [base64.b64encode(s).decode("ascii") for s in layer] for name, layer in views.layers.items()},
        "outlines": dict(views.outlines),
    }
    return write_text(path, json.dumps(content))


def read_views(path: str | Path) -> Views:
    """What :func:`write_views` wrote. Raises :class:`~posepipe.errors.ImageError` where it cannot be read."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return Views(
            tuple(PlaneView(**{k: _frozen(v) for k, v in plane.items()}) for plane in content["planes"]),
            {name: tuple(base64.b64decode(s) for s in layer) for name, layer in content["layers"].items()},
            {name: _frozen(outline) for name, outline in content["outlines"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path}: the pictures of an image cannot be read ({error!r}); run posepipe again for it"
        raise ImageError(msg) from error


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _sampled(volume: Volume, planes: Sequence[Stack], place: Rigid | None = None) -> list[Float]:
    return [sample_stack(volume, stack, place) for stack in planes]


def _masks(inside: Sequence[Float]) -> tuple[tuple[str, ...], ...]:
    return tuple(mask_paths(stack) for stack in inside)


def _structures(grey: Sequence[Float], inside: Sequence[Float]) -> tuple[tuple[str, ...], ...]:
    values = np.concatenate([g[m > 0.5] for g, m in zip(grey, inside, strict=True)])
    if values.size == 0:  # the pose maps the brain outside of the view
        return tuple(("",) * len(stack) for stack in grey)
    level = middle_level(values)
    return tuple(inner_paths(g, m, level) for g, m in zip(grey, inside, strict=True))


def _plane(stack: Stack) -> PlaneView:
    axes = PLANES[stack.plane]
    count, height, width = stack.shape
    corner = (float(stack.affine[axes[0], 3]), float(stack.affine[axes[1], 3]))
    return PlaneView(
        stack.plane, width, height, _across(count, height, width), stack.pixel, axes, corner, stack.at,
        tuple(stack.titles), stack.sides,
    )  # fmt: skip


def _across(count: int, height: int, width: int) -> int:
    """Number of slices per row for which the sheet is about square."""
    return max(1, round(np.sqrt(count * height / width)))


def _sheet(grey: Float, low: float, high: float) -> bytes:
    return _encoded(np.rint(255 * np.clip((grey - low) / (high - low), 0, 1)).astype(np.uint8))


def _encoded(tiles: npt.NDArray[np.uint8]) -> bytes:
    """Slices (n, H, W) tiled in one WebP, which has half the size of a JPEG of the same quality."""
    from PIL import Image

    count, height, width = tiles.shape
    across = _across(*tiles.shape)
    full = np.zeros((-(-count // across) * across, height, width), np.uint8)
    full[:count] = tiles
    sheet = full.reshape(-1, across, height, width).swapaxes(1, 2).reshape(-1, across * width)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=_QUALITY, method=2)
    return buffer.getvalue()


def decoded(sheet: bytes, plane: PlaneView) -> npt.NDArray[np.uint8]:
    """The slices (n, H, W) of a sheet."""
    from PIL import Image

    grey = np.asarray(Image.open(io.BytesIO(sheet)).convert("L"))
    tiles = grey.reshape(-1, plane.height, plane.across, plane.width).swapaxes(1, 2)
    return tiles.reshape(-1, plane.height, plane.width)[: len(plane.at)]


def _every_second(views: Views) -> Views:
    planes = tuple(
        replace(p, at=p.at[::2], titles=p.titles[::2], across=_across(len(p.at[::2]), p.height, p.width))
        for p in views.planes
    )
    layers = {
        name: tuple(_encoded(decoded(s, p)[::2]) for s, p in zip(layer, views.planes, strict=True))
        for name, layer in views.layers.items()
    }
    return Views(planes, layers, {name: tuple(plane[::2] for plane in o) for name, o in views.outlines.items()})


def _halved(views: Views) -> Views:
    planes = tuple(
        replace(
            p, width=p.width // 2, height=p.height // 2, pixel=2 * p.pixel,
            across=_across(len(p.at), p.height // 2, p.width // 2),
            corner=(p.corner[0] + p.pixel / 2, p.corner[1] - p.pixel / 2),
        )
        for p in views.planes
    )  # fmt: skip
    layers = {}
    for name, layer in views.layers.items():
        tiles = [decoded(s, p)[:, : 2 * (p.height // 2), : 2 * (p.width // 2)] for s, p in zip(layer, views.planes, strict=True)]
        small = [t.reshape(len(t), t.shape[1] // 2, 2, t.shape[2] // 2, 2).mean(axis=(2, 4)).round().astype(np.uint8) for t in tiles]
        layers[name] = tuple(_encoded(t) for t in small)
    outlines = {name: tuple(tuple(halved(path) for path in plane) for plane in o) for name, o in views.outlines.items()}
    return Views(planes, layers, outlines)
