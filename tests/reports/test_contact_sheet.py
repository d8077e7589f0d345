"""Contact sheets: the image is drawn in its pose, and pages are complete."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posepipe import phantom
from posepipe.errors import MaskError
from posepipe.geometry import Rigid, random_rotations
from posepipe.imaging.volume import Volume
from posepipe.reports import contact_sheet
from posepipe.reports.contact_sheet import COLUMNS, ROWS, SIDE, Case, make_case, write_sheets


@pytest.fixture(scope="module")
def brain() -> tuple[Volume, Volume]:
    """Image and mask of a template."""
    labels = phantom.brain_labels(29, 3.0)
    return phantom.render(labels, 29), phantom.brain_mask(labels)


def test_a_case_shows_the_image_in_the_template_s_frame(brain: tuple[Volume, Volume]) -> None:
    pose = Rigid(random_rotations(1, np.random.default_rng(2))[0], np.array([30.0, -10, 5]))
    moved = tuple(volume.moved(pose) for volume in brain)
    case = make_case("right", *moved, *brain, pose)
    assert case.grey.shape == case.outline.shape == (2 * SIDE, 3 * SIDE)
    image, template = case.grey[:SIDE], case.grey[SIDE:]
    assert np.abs(image - template).max() < 1e-3 and image[case.outline[:SIDE] > 0.5].std() > 0.1
    assert np.abs(make_case("turned", *moved, *brain, ~pose).grey[:SIDE] - template).mean() > 0.05
    # right of the head is on the right, its front on top of the axial view and to the right of the sagittal one
    right, top = np.s_[:, SIDE // 2 :], np.s_[: SIDE // 2]
    for axis, view, place in ((0, 0, right), (1, 0, top), (0, 1, right), (2, 1, top), (1, 2, right), (2, 2, top)):
        grid = np.indices(brain[1].shape)[axis]
        half = brain[1].with_data(((grid > brain[1].shape[axis] / 2) & (brain[1].data > 0)).astype(np.float32))
        seen = make_case("half", half, brain[1], *brain, Rigid.identity()).grey[:SIDE, view * SIDE : (view + 1) * SIDE]
        assert seen[place].sum() > 0.8 * seen.sum() > 0
    with pytest.raises(MaskError, match="empty"):
        make_case("none", *moved, brain[0], brain[1].with_data(0 * brain[1].data), pose)


def test_full_pages_and_none_of_an_earlier_time(
    brain: tuple[Volume, Volume], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ROWS * COLUMNS == 20
    monkeypatch.setattr(contact_sheet, "ROWS", 1)
    case = make_case("sub-01, 29 weeks", *brain, *brain, Rigid.identity())
    other = tmp_path / "references-notes.png"
    other.write_bytes(b"mine")

    def cases(n: int) -> list[Case]:
        return [replace(case, doubt=bool(i % 2)) for i in range(n)]

    pages = write_sheets(cases(COLUMNS + 1), tmp_path, "references")
    assert [page.name for page in pages] == ["references-01.png", "references-02.png"]
    assert all(page.read_bytes().startswith(b"\x89PNG") for page in pages)
    assert write_sheets(cases(1), tmp_path, "references") == pages[:1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["references-01.png", "references-notes.png"]
    assert write_sheets([], tmp_path, "references") == []
    assert other.read_bytes() == b"mine"
