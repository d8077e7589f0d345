"""Thumbnails of aligned images for the group page: an axial and a sagittal slice, some hundred bytes together.

They are made from the outputs and kept in ``logs/thumbnails.json``, so that only images that are new or have changed
are opened.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..bids import read_json, write_json
from ..errors import BidsError, PosepipeError
from ..geometry import Rigid
from ..imaging.moments import moments
from ..imaging.volume import Float, Volume, load_volume
from .facts import pose_of
from .group_rows import GroupRow
from .slices import sample

logger = logging.getLogger(__name__)

SIDE = 56
"""Edge of each of the two squares, pixels."""
_QUALITY = 40
_MARGIN = 1.15
STORE = Path("logs", "thumbnails.json")


def thumbnail(resampled: Volume, mask: Volume, pose: Rigid) -> bytes:
    """A picture (WebP, 2 ``SIDE`` × ``SIDE``) of an image on its template's grid, through the centre of its brain.

    Left: the axial slice, anterior up and the subject's right on the right. Right: the sagittal slice, anterior to the
    right. ``mask`` is the brain mask on the grid of the acquired image, ``pose`` the map from atlas to image
    points. Raises :class:`~posepipe.errors.MaskError` for an empty mask.
    """
    from PIL import Image

    brain = moments(mask.moved(~pose))
    longest = float(np.linalg.eigvalsh(brain.covariance)[-1])
    half = _MARGIN * np.sqrt(5 * longest)  # semi-axis of the ellipsoid with these moments
    pictures = [
        _slice(resampled, brain.center, across=0, up=1, half=half),
        _slice(resampled, brain.center, across=1, up=2, half=half),
    ]
    both = np.concatenate(pictures, axis=1)
    dark, bright = np.percentile(both, [2, 99.5])
    gray = np.clip((both - dark) / max(float(bright - dark), 1e-6) * 255, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(gray).save(stream, "WEBP", quality=_QUALITY, method=4)
    return stream.getvalue()


def _slice(volume: Volume, center: Any, *, across: int, up: int, half: float) -> Float:
    """A square slice (``SIDE``, ``SIDE``) of 2 ``half`` mm about ``center``; each pixel the mean of four samples."""
    steps = (np.arange(2 * SIDE) + 0.5) / SIDE - 1
    points = np.empty((2 * SIDE, 2 * SIDE, 3))
    points[:] = center
    points[..., across] += half * steps
    points[..., up] += -half * steps[:, None]
    fine = sample(volume, points)
    return fine.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3), dtype=np.float32)


def make_thumbnails(
    out_dir: str | Path, rows: Sequence[GroupRow], *, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, bytes], list[str]]:
    """Thumbnails of the ``rows`` that have a pose, by the path of the image on the template's grid, and what went wrong.

    ``workers`` threads read images in parallel (most of the time is decompression, which releases the GIL). ``progress`` is called with the
    number of thumbnails made and the number to make.
    """
    out_dir = Path(out_dir)
    store = _read_store(out_dir)
    found: dict[str, bytes] = {}
    stamps: dict[str, list[int]] = {}
    problems: list[str] = []
    missing = []
    for row in rows:
        if not row.has_pose or not row.resampled:
            continue
        try:
            stamps[row.resampled] = _stamp(out_dir / row.resampled)
        except OSError as error:
            problems.append(f"{out_dir / row.resampled}: cannot be read ({error.strerror}); run posepipe again for this image")
            continue
        kept = store.get(row.resampled, {})
        if kept.get("stamp") == stamps[row.resampled] and "webp" in kept:
            found[row.resampled] = base64.b64decode(kept["webp"])
        else:
            missing.append(row)
    made: dict[str, bytes] = {}
    pool = ThreadPoolExecutor(max_workers=max(1, workers))
    try:
        for number, (row, result) in enumerate(zip(missing, pool.map(lambda r: _one(out_dir, r), missing), strict=True), start=1):
            if isinstance(result, bytes):
                made[row.resampled] = result
            else:
                problems.append(str(result))
            if progress:
                progress(number, len(missing))
    finally:  # save the finished ones even if the run is stopped
        pool.shutdown(cancel_futures=True)
        if made:
            new = {k: {"stamp": stamps[k], "webp": base64.b64encode(v).decode("ascii")} for k, v in made.items()}
            write_json(out_dir / STORE, store | new)
    return found | made, problems


def _one(out_dir: Path, row: GroupRow) -> bytes | PosepipeError:
    try:
        pose = pose_of(row.sidecar)
        assert pose is not None  # as the row has one
        return thumbnail(load_volume(out_dir / row.resampled), load_volume(out_dir / row.mask, np.uint8), pose)
    except PosepipeError as error:
        return error


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _read_store(out_dir: Path) -> dict[str, Any]:
    """The thumbnails of an earlier run; an unreadable store is ignored, and they are made again."""
    path = out_dir / STORE
    if not path.exists():
        return {}
    try:
        store = read_json(path)
        for kept in store.values():
            base64.b64decode(kept["webp"], validate=True)
    except (BidsError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        logger.warning("%s: not usable (%s); the thumbnails are made again", path, error)
        return {}
    return store
