"""Thumbnails: their content, and that they are made only once."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from group_outputs import Output, write_output
from PIL import Image

from posepipe.errors import MaskError
from posepipe.geometry import Rigid
from posepipe.imaging.volume import Volume
from posepipe.reports.group_rows import collect
from posepipe.reports.group_thumbnails import SIDE, STORE, make_thumbnails, thumbnail


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("L"), dtype=float)


def ball(lean: str) -> tuple[Volume, Volume]:
    """A ball that is brighter towards one end of an axis of its world, and its mask, on an oddly ordered grid."""
    affine = np.array([[0, -2.0, 0, 60], [0, 0, 2.0, -40], [2.0, 0, 0, -50], [0, 0, 0, 1]])
    index = np.stack(np.meshgrid(*[np.arange(n) for n in (52, 60, 44)], indexing="ij"), axis=-1)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    inside = np.linalg.norm(points - [1, 2, 3], axis=-1) < 30
    axis = "RAS".index(lean)
    return Volume((inside * (60 + points[..., axis])).astype(np.float32), affine), Volume(inside, affine)


@pytest.mark.parametrize(
    ("lean", "part", "brighter"),
    [
        ("R", 0, np.s_[:, SIDE // 2 :]),  # the subject's right is on the right
        ("A", 0, np.s_[: SIDE // 2]),
        ("A", 1, np.s_[:, SIDE // 2 :]),
        ("S", 1, np.s_[: SIDE // 2]),
    ],
)
def test_directions(lean: str, part: int, brighter: tuple[slice, ...]):
    picture = pixels(thumbnail(*ball(lean), Rigid.identity()))
    assert picture.shape == (SIDE, 2 * SIDE)
    half = picture[:, part * SIDE : (part + 1) * SIDE]
    assert half[brighter].sum() > 0.56 * half.sum()


def test_the_brain_fills_the_picture_wherever_the_mask_s_image_lay():
    volume, mask = ball("R")
    pose = Rigid.from_rotvec([0.4, -1.0, 2.0], [30.0, -20.0, 10.0])
    straight, turned = thumbnail(volume, mask, Rigid.identity()), thumbnail(volume, mask.moved(pose), pose)
    assert np.abs(pixels(straight) - pixels(turned)).mean() < 3
    assert 0.45 < (pixels(straight)[:, :SIDE] > 30).mean() < 0.75


def test_an_empty_mask_has_no_centre():
    volume, mask = ball("R")
    with pytest.raises(MaskError, match="empty"):
        thumbnail(volume, mask.with_data(np.zeros(mask.shape)), Rigid.identity())


def test_they_are_made_once_and_again_where_the_image_changed(tmp_path: Path):
    outputs = [Output("01"), Output("02", contrast="T1w", angle=120.0)]
    for output in outputs:
        write_output(tmp_path, output, images=True)
    rows = collect(tmp_path).rows
    printed: list[tuple[int, int]] = []
    first, problems = make_thumbnails(tmp_path, rows, workers=2, progress=lambda *n: printed.append(n))
    assert sorted(first) == sorted(row.resampled for row in rows) and not problems and printed == [(1, 2), (2, 2)]
    assert all(len(picture) < 1500 for picture in first.values())
    again, _ = make_thumbnails(tmp_path, rows, progress=lambda *n: printed.append(n))
    assert again == first and len(printed) == 2
    status = (tmp_path / rows[0].resampled).stat()
    os.utime(tmp_path / rows[0].resampled, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    make_thumbnails(tmp_path, rows, progress=lambda *n: printed.append(n))
    assert printed[2:] == [(1, 1)]


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": {"stamp": [1, 2]}}', '{"a": {"webp": "*"}}'])
def test_a_damaged_store_is_made_again(tmp_path: Path, content: str):
    write_output(tmp_path, Output("01"), images=True)
    (tmp_path / "logs").mkdir()
    (tmp_path / STORE).write_text(content)
    found, problems = make_thumbnails(tmp_path, collect(tmp_path).rows)
    assert len(found) == 1 and not problems
    assert list(json.loads((tmp_path / STORE).read_text())) == list(found)


def test_images_that_cannot_be_read_are_named_and_the_others_shown(tmp_path: Path):
    for subject in ("01", "02", "03", "04"):
        write_output(tmp_path, Output(subject), images=True)
    rows = collect(tmp_path).rows
    (tmp_path / rows[0].resampled).unlink()
    (tmp_path / rows[1].resampled).write_bytes(b"no image")
    (tmp_path / rows[2].mask).unlink()
    found, problems = make_thumbnails(tmp_path, rows)
    assert list(found) == [rows[3].resampled]
    assert [Path(p.split(": ")[0]).name for p in problems] == [
        Path(name).name for name in (rows[0].resampled, rows[1].resampled, rows[2].mask)
    ]
