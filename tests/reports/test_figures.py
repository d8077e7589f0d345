"""Slices, montages and drawings: positions, directions and sizes checked against volumes whose truth is known."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from posepipe.errors import MaskError
from posepipe.geometry import Rigid
from posepipe.imaging.volume import Volume, load_volume
from posepipe.reports.figures import (
    MASK,
    Panel,
    Pen,
    before_after,
    centroid,
    cuts,
    head_turn,
    layout,
    montage,
    pose_panels,
    sample,
    start_pose,
)
from posepipe.reports.slices import contours, extent, label_contours

TRUTH = Rigid.from_rotvec([0.5, -0.4, 1.1], [35.0, -20.0, 12.0])
BLOB = np.array([14.0, 4.0, 3.0])  # in the template's world: right, a little anterior and superior of the centre


def grid(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """World coordinates (X, Y, Z, 3) of the voxel centres."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def head(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A grey ellipsoid with one bright blob at BLOB, and its mask, at template points (..., 3)."""
    mask = ((points / [26.0, 32.0, 24.0]) ** 2).sum(axis=-1) <= 1
    blob = np.exp(-((points - BLOB) ** 2).sum(axis=-1) / (2 * 2.5**2))
    return (100.0 * mask + 400.0 * blob).astype(np.float32), mask


@pytest.fixture(scope="module")
def scene() -> tuple[Volume, Volume, Volume, Volume]:
    """Image and mask turned by TRUTH, on an LAS-like grid with unequal voxels; template and mask."""
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = [-40, -42, -38]
    data, mask = head(grid((81, 85, 77), affine))
    template, template_mask = Volume(data, affine), Volume(mask, affine)
    affine = np.array([[-1.3, 0, 0, 100], [0, 1.1, 0, -75], [0, 0, 1.6, -45], [0, 0, 0, 1]], float)
    data, mask = head((~TRUTH).apply(grid((105, 100, 75), affine)))
    return Volume(data, affine), Volume(mask, affine), template, template_mask


def brightest(picture: np.ndarray) -> tuple[int, int]:
    row, column = np.unravel_index(int(picture.argmax()), picture.shape)
    return int(row), int(column)


def test_the_truth_brings_the_blob_over_the_templates(scene: tuple[Volume, Volume, Volume, Volume]) -> None:
    slices = cuts(scene[3], per_plane=1, pixels=400)
    before, after, template = pose_panels(*scene, TRUTH, slices)
    for s, was, now, aim in zip(slices, before, after, template, strict=True):
        blob = brightest(aim.grey)
        assert np.abs(np.subtract(brightest(now.grey), blob)).max() * s.pixel < 1.5, s.name
        assert np.abs(np.subtract(brightest(was.grey), blob)).max() * s.pixel > 5, s.name
        right, up = s.points[blob][[0, 1]], s.points[blob]
        assert right[0] == pytest.approx(BLOB[0], abs=2) or s.name == "sagittal"
        assert up[2] == pytest.approx(BLOB[2], abs=2) or s.name == "axial"


def test_the_blob_is_where_it_is_in_the_picture_itself(scene: tuple[Volume, Volume, Volume, Volume]) -> None:
    from PIL import Image

    slices = cuts(scene[3], per_plane=1, pixels=600)
    rows = pose_panels(*scene, TRUTH, slices)
    place = layout(rows)
    picture = np.asarray(Image.open(io.BytesIO(before_after(*scene, TRUTH, per_plane=1, size=600))).convert("RGB"))
    assert picture.shape == (place.height, place.width, 3)
    whitest = picture.min(axis=2).astype(float)  # coloured outlines are dark in one of the three
    for row in (1, 2):
        x, y = place.left[0], place.top[row]
        height, width = rows[row][0].grey.shape
        found = brightest(whitest[y + 30 : y + height - 30, x + 30 : x + width - 30])
        point = slices[0].points[found[0] + 30, found[1] + 30]
        assert point[:2] == pytest.approx(BLOB[:2], abs=3)
        assert found[1] + 30 > width / 2  # right is on the right


@pytest.mark.parametrize(
    ("plane", "sides", "rightwards", "upwards"),
    [("axial", "LRAP", 0, 1), ("coronal", "LRSI", 0, 2), ("sagittal", "PASI", 1, 2)],
)
def test_the_letters_name_the_sides(
    scene: tuple[Volume, Volume, Volume, Volume], plane: str, sides: str, rightwards: int, upwards: int
) -> None:
    s = next(s for s in cuts(scene[3], per_plane=1, pixels=300) if s.name == plane)
    assert s.sides == sides
    assert (np.diff(s.points[0, :, rightwards]) > 0).all()
    assert (np.diff(s.points[:, 0, upwards]) < 0).all()
    names = {"L": (0, -1), "R": (0, 1), "P": (1, -1), "A": (1, 1), "I": (2, -1), "S": (2, 1)}
    middle = np.array(s.points.shape[:2]) // 2
    centre = s.points[middle[0], middle[1]]
    edges = (s.points[middle[0], 0], s.points[middle[0], -1], s.points[0, middle[1]], s.points[-1, middle[1]])
    for letter, edge in zip(s.sides, edges, strict=True):
        axis, sign = names[letter]
        assert np.sign(edge - centre)[axis] == sign


def test_slices_pass_through_the_centroid_and_either_side(scene: tuple[Volume, Volume, Volume, Volume]) -> None:
    slices = cuts(scene[3], per_plane=3, pixels=900)
    assert [s.name for s in slices] == ["axial"] * 3 + ["coronal"] * 3 + ["sagittal"] * 3
    middle = centroid(scene[3])
    for first, across in ((0, 2), (3, 1), (6, 0)):
        below, through, above = (s.at for s in slices[first : first + 3])
        assert through == pytest.approx(middle[across])
        assert below < through - 8 and above > through + 8
    assert slices[0].title == "Axial, 12 mm I" and slices[4].title == "Coronal, 0 mm"
    assert sum(s.points.shape[1] for s in slices) == pytest.approx(900, abs=9)
    with pytest.raises(ValueError, match="1, 2 or 3"):
        cuts(scene[3], per_plane=4)


def test_masks_are_drawn_round_the_image_and_follow_it(scene: tuple[Volume, Volume, Volume, Volume]) -> None:
    slices = cuts(scene[3], per_plane=1, pixels=400)
    _, after, template = pose_panels(*scene, TRUTH, slices)
    for panel, aim in zip(after, template, strict=True):
        own = np.concatenate(dict(panel.lines)[MASK])
        atlas = np.concatenate(next(lines for pen, lines in aim.lines if pen.name == "atlas brain outline"))
        assert own.min(axis=0) == pytest.approx(atlas.min(axis=0), abs=2.5)
        assert own.max(axis=0) == pytest.approx(atlas.max(axis=0), abs=2.5)


def test_before_has_the_header_rotation_and_matched_centroids(scene: tuple[Volume, Volume, Volume, Volume]) -> None:
    start = start_pose(scene[1], scene[3])
    assert start.angle_degrees == pytest.approx(0)
    assert start.apply(centroid(scene[3])) == pytest.approx(centroid(scene[1]))


def test_centroid_and_extent_in_world_coordinates() -> None:
    data = np.zeros((10, 12, 14), bool)
    data[2:4, 5:6, 7:11] = True
    mask = Volume(data, np.array([[-2, 0, 0, 5], [0, 1, 0, -3], [0, 0, 3, 1], [0, 0, 0, 1]], float))
    assert centroid(mask) == pytest.approx([0, 2, 26.5])
    low, high = extent(mask)
    assert low == pytest.approx([-2, 1.5, 20.5]) and high == pytest.approx([2, 2.5, 32.5])


def test_sample_interpolates_and_is_zero_outside() -> None:
    volume = Volume(np.arange(27, dtype=np.float32).reshape(3, 3, 3), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert sample(volume, [[2, 2, 2], [2, 2, 3], [50, 0, 0]]) == pytest.approx([13, 13.5, 0])
    inside = Volume(np.ones((3, 3, 3), bool), np.eye(4))
    assert sample(inside, [[1, 1, 1]])[0] == 1


def test_an_empty_mask_is_refused_by_name(scene: tuple[Volume, Volume, Volume, Volume]) -> None:
    image, mask, template, template_mask = scene
    empty = Volume(np.zeros(mask.shape, bool), mask.affine, "sub-01_mask.nii.gz")
    with pytest.raises(MaskError, match=r"sub-01_mask\.nii\.gz: the brain mask is empty"):
        before_after(image, empty, template, template_mask, TRUTH)


def test_label_outlines_are_those_asked_for(scene: tuple[Volume, Volume, Volume, Volume]) -> None:
    template_mask = scene[3]
    labels = template_mask.data.astype(np.int16)
    labels[:, :42] *= 2
    volume = Volume(labels, template_mask.affine)
    s = cuts(template_mask, per_plane=1, pixels=400)[0]
    both, posterior = label_contours(volume, s), label_contours(volume, s, keep=[2])
    assert len(both) == 2 and len(posterior) == 1
    middle = (s.points.shape[0] - 1) / 2
    assert posterior[0][:, 1].min() > middle - 3  # rows run down: posterior is the lower half
    assert contours(np.zeros((5, 5))) == []


def test_a_pose_that_misses_the_image_still_gives_a_figure(scene: tuple[Volume, Volume, Volume, Volume]) -> None:
    far = Rigid(np.eye(3), np.array([900.0, 0, 0]))
    slices = cuts(scene[3], per_plane=1, pixels=300)
    _, after, _ = pose_panels(*scene, far, slices)
    assert all(panel.grey.max() <= 0 and dict(panel.lines)[MASK] == [] for panel in after)
    assert before_after(*scene, far, per_plane=1, size=300)


@pytest.mark.parametrize(("sides", "row", "column"), [("R   ", 1, 0), (" R  ", 1, 2), ("  A ", 0, 1), ("   A", 2, 1)])
def test_letters_are_written_left_right_top_bottom(sides: str, row: int, column: int) -> None:
    from PIL import Image

    panel = Panel(np.zeros((90, 90), np.float32), sides=sides)
    picture = Image.open(io.BytesIO(montage([[panel]], row_titles=["row"], column_titles=["column"])))
    place = layout([[panel]])
    shown = np.asarray(picture.convert("L"))[place.top[0] :, place.left[0] :][:90, :90]
    thirds = shown.reshape(3, 30, 3, 30).max(axis=(1, 3))
    assert [tuple(spot) for spot in np.argwhere(thirds > 120)] == [(row, column)]


def test_a_montage_keeps_its_rows_and_columns() -> None:
    grey = np.zeros((20, 30), np.float32)
    wide = [Panel(grey), Panel(np.zeros((20, 40), np.float32))]
    place = layout([wide, wide], group=2)
    assert place.left[1] - place.left[0] == 33 and place.top[1] > place.top[0] + 20
    with pytest.raises(ValueError, match="same columns"):
        layout([wide, wide[::-1]])
    with pytest.raises(ValueError, match="titles"):
        montage([wide], row_titles=["only"], column_titles=["one"], legend=[Pen("line", "#ffffff")])
    with pytest.raises(ValueError, match="at least one"):
        layout([])


def test_the_head_turns_as_the_pose_says() -> None:
    drawing = head_turn(Rigid.from_rotvec([0, 0, np.pi / 2]))
    root = ET.fromstring(drawing)
    assert root.get("role") == "img"
    text = root.findtext("title") or ""
    assert text == root.get("aria-label")
    assert "Head turned by 90 degrees." in text
    assert "The head's right points to the image's anterior (0° off)." in text
    assert "The head's anterior points to the image's left (0° off)." in text
    places = [(t, (float(t.get("x", 0)), float(t.get("y", 0)))) for t in root.iter("text")]
    bold = {t.text: place for t, place in places if t.get("font-weight")}
    plain = {t.text: place for t, place in places if not t.get("font-weight")}
    assert bold["R"] == pytest.approx(plain["A"], abs=6)  # the head's right lies along the image's anterior
    assert bold["A"][0] < 100 < 160 < plain["R"][0]  # and its anterior on the left, where the world's right is not
    assert bold["S"] == pytest.approx(plain["S"], abs=6)


@pytest.mark.data
def test_eight_real_figures_fit_a_page(data_dir) -> None:
    folder = data_dir / "atlases" / "tpl-CRL" / "cohort-29"
    stem = folder / "tpl-CRL_cohort-29_"
    image = load_volume(data_dir / "ds-fetal" / "sub-f234" / "anat" / "sub-f234_rec-svr_T2w.nii.gz")
    mask = image.with_data(image.data > 0)
    template, brain = load_volume(f"{stem}T2w.nii.gz"), load_volume(f"{stem}desc-brain_mask.nii.gz")
    tissues = load_volume(f"{stem}desc-tissues_dseg.nii.gz")
    turn = Rigid.from_rotvec([1.2, -0.7, 1.5], [20, -10, 5])
    pose = turn @ start_pose(mask, brain)
    figure = before_after(image.moved(turn), mask.moved(turn), template, brain, pose, tissues=tissues)
    assert len(figure) * 8 * 4 / 3 < 2_800_000
    _, after, aim = pose_panels(image.moved(turn), mask.moved(turn), template, brain, pose, cuts(brain, pixels=500))
    alike = [np.corrcoef(a.grey.ravel(), b.grey.ravel())[0, 1] for a, b in zip(after, aim, strict=True)]
    assert min(alike) > 0.8
