"""Sheets and outlines of the viewer: positions, directions and sizes checked against volumes whose truth is known."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from head_truth import BLOB, TRUTH, grid
from PIL import Image
from scipy.ndimage import gaussian_filter

from posepipe.errors import ImageError, MaskError
from posepipe.geometry import Rigid
from posepipe.imaging.volume import Volume, load_volume
from posepipe.reports.outlines import UNITS, halved, inner_paths, mask_paths, middle_level
from posepipe.reports.slices import centroid, extent, sample, start_pose
from posepipe.reports.stacks import sample_stack, stacks, tight
from posepipe.reports.views import PlaneView, Views, make_views, read_views, reduced, write_views

Scene = tuple[Volume, Volume, Volume, Volume]


def tiles(views: Views, layer: str) -> list[np.ndarray]:
    """The slices (n, H, W) of each plane of a layer, cut out of its sheet as the page's script does."""
    found = []
    for sheet, plane in zip(views.layers[layer], views.planes, strict=True):
        grey = np.asarray(Image.open(io.BytesIO(sheet)).convert("L"))
        corners = [divmod(n, plane.across) for n in range(len(plane.at))]
        h, w = plane.height, plane.width
        found.append(np.stack([grey[r * h : r * h + h, c * w : c * w + w] for r, c in corners]))
    return found


def lines(path: str) -> list[np.ndarray]:
    """The lines (n, 2) of a path, in pixels."""
    found = []
    for x, y, moves, _ in re.findall(r"M(-?\d+) (-?\d+)l([^Mz]*)(z?)", path):
        steps = [int(x), int(y), *map(int, re.findall(r"-?\d+", moves))]
        found.append(np.cumsum(np.reshape(steps, (-1, 2)), axis=0) / UNITS)
    return found


def world(plane: PlaneView, number: int, row: float, column: float) -> np.ndarray:
    """Where a pixel lies, RAS mm, from what the page's script knows."""
    point = np.empty(3)
    right, up, across = plane.axes
    point[right], point[up] = plane.corner[0] + column * plane.pixel, plane.corner[1] - row * plane.pixel
    point[across] = plane.at[number]
    return point


def brightest(stack: np.ndarray) -> tuple[int, int, int]:
    smooth = gaussian_filter(stack.astype(float), (0, 1, 1))
    n, row, column = np.unravel_index(int(smooth.argmax()), stack.shape)
    return int(n), int(row), int(column)


def at_blob(plane: PlaneView, stack: np.ndarray) -> bool:
    """Whether the brightest spot is the blob: in the plane to a few mm, across it to a slice."""
    off = np.abs(world(plane, *brightest(stack)) - BLOB)
    across = plane.axes[2]
    return bool(np.delete(off, across).max() < 2.5 and off[across] < plane.at[1] - plane.at[0] + 0.1)


def test_the_truth_brings_the_blob_where_the_template_has_it(views: Views) -> None:
    for layer in ("after", "atlas"):
        for plane, stack in zip(views.planes, tiles(views, layer), strict=True):
            assert at_blob(plane, stack), (layer, plane.name)
    for plane, stack in zip(views.planes, tiles(views, "before"), strict=True):
        assert np.abs(world(plane, *brightest(stack)) - BLOB).max() > 5


@pytest.mark.parametrize(
    ("plane", "sides", "axes"), [("axial", "LRAP", (0, 1, 2)), ("coronal", "LRSI", (0, 2, 1)), ("sagittal", "PASI", (1, 2, 0))]
)
def test_the_letters_name_the_sides(scene: Scene, plane: str, sides: str, axes: tuple[int, int, int]) -> None:
    stack = next(s for s in stacks(scene[3]) if s.plane == plane)
    right, up, across = axes
    assert stack.sides == sides
    assert stack.affine[right, 2] > 0 > stack.affine[up, 1] and stack.affine[across, 0] > 0
    names = {"L": (0, -1), "R": (0, 1), "P": (1, -1), "A": (1, 1), "I": (2, -1), "S": (2, 1)}
    rows, columns = stack.shape[1:]
    edges = [(rows // 2, 0), (rows // 2, columns - 1), (0, columns // 2), (rows - 1, columns // 2)]
    for letter, (row, column) in zip(sides, edges, strict=True):
        axis, sign = names[letter]
        at = stack.affine @ [0, row, column, 1]
        assert np.sign(at[axis] - centroid(scene[3])[axis]) == sign


def test_stacks_go_through_the_whole_brain_with_room_to_turn(scene: Scene) -> None:
    low, high = extent(scene[3])
    for stack, across in zip(stacks(scene[3]), (2, 1, 0), strict=True):
        step = stack.at[1] - stack.at[0]
        assert low[across] < stack.at[0] < low[across] + step and high[across] - step < stack.at[-1] < high[across]
        assert 3 <= len(stack.at) == stack.shape[0] == len(stack.titles) <= 24
        corners = stack.affine @ np.array([[0, *np.subtract(stack.shape, 1)[1:], 1], [0, 0, 0, 1]]).T
        assert np.ptp(corners[:3], axis=1).max() > (high - low).max()


@pytest.mark.parametrize("turn", [None, TRUTH, Rigid(np.eye(3), np.array([3.0, -2.0, 700.0]))])
def test_stacks_hold_what_sampling_point_by_point_gives(scene: Scene, turn: Rigid | None) -> None:
    for stack in stacks(scene[3]):
        points = grid(stack.shape, stack.affine)
        for volume in scene[:3]:
            expected = sample(volume, points if turn is None else turn.apply(points))
            # at the very rim of a grid the two may differ in what they call outside
            differ = np.abs(sample_stack(volume, stack, turn) - expected) > 0.05
            assert differ.mean() < 1e-3


def test_a_mask_cut_to_its_box_is_the_same_mask(scene: Scene) -> None:
    small = tight(scene[1])
    assert np.prod(small.shape) < np.prod(scene[1].shape) and small.data.sum() == scene[1].data.sum()
    assert centroid(small) == pytest.approx(centroid(scene[1]))
    empty = Volume(np.zeros((3, 3, 3), bool), np.eye(4))
    assert tight(empty) is empty


def test_outlines_follow_the_masks(views: Views) -> None:
    for number in range(3):
        middle = len(views.planes[number].at) // 2
        own, atlas = (np.concatenate(lines(views.outlines[name][number][middle])) for name in ("mask-after", "atlas"))
        assert own.min(axis=0) == pytest.approx(atlas.min(axis=0), abs=2.5)
        assert own.max(axis=0) == pytest.approx(atlas.max(axis=0), abs=2.5)
        bright = tiles(views, "atlas")[number][middle] > 20
        rows, columns = np.nonzero(bright)
        assert atlas.min(axis=0) == pytest.approx([columns.min(), rows.min()], abs=2)
        assert atlas.max(axis=0) == pytest.approx([columns.max(), rows.max()], abs=2)


def test_an_outline_is_closed_lies_on_the_edge_and_is_short() -> None:
    rows, columns = np.mgrid[:80, :90]
    disc = (np.hypot(rows - 40, columns - 50) < 25).astype(np.float32)
    first, second, third = mask_paths(np.stack([disc, 0 * disc, disc]))
    assert second == "" and first.endswith("z") and third.endswith("z")
    for path in (first, third):
        (line,) = lines(path)
        assert np.hypot(line[:, 0] - 50, line[:, 1] - 40) == pytest.approx(24.7, abs=0.6)
    assert len(first) < 450  # of 150 points as they are found
    at_the_edge = mask_paths(np.ones((1, 20, 30), np.float32))[0]
    assert at_the_edge


def test_lines_inside_keep_off_the_rim_of_the_mask() -> None:
    rows, columns = np.mgrid[:120, :120]
    radius = np.hypot(rows - 60, columns - 60)[None]
    grey, inside = np.where(radius < 20, 100, np.where(radius < 50, 40, 0)), (radius < 50)
    path = inner_paths(grey.astype(np.float32), inside.astype(np.float32), 70)[0]
    (line,) = lines(path)
    assert np.hypot(*(line - 60).T) == pytest.approx(20, abs=1.2)
    assert inner_paths(grey.astype(np.float32), np.zeros((1, 120, 120), np.float32), 70) == ("",)


def test_the_middle_level_parts_two_classes() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10, 2, 3000), rng.normal(40, 4, 500)])
    assert 17 < middle_level(values) < 30
    assert middle_level(np.ones(5)) >= 1


def test_before_has_the_header_rotation_and_matched_centroids(scene: Scene) -> None:
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


def test_an_empty_mask_is_refused_by_name(scene: Scene) -> None:
    image, mask, template, template_mask = scene
    empty = Volume(np.zeros(mask.shape, bool), mask.affine, "sub-01_mask.nii.gz")
    with pytest.raises(MaskError, match=r"sub-01_mask\.nii\.gz: the brain mask is empty"):
        make_views(image, empty, template, template_mask, TRUTH)


def test_a_pose_that_misses_the_image_still_gives_views(scene: Scene) -> None:
    views = make_views(*scene, Rigid(np.eye(3), np.array([900.0, 0, 0])))
    assert all(stack.max() == 0 for stack in tiles(views, "after"))
    assert set(views.outlines["mask-after"][0]) == set(views.outlines["subject"][0]) == {""}
    assert any(views.outlines["mask-before"][0])


def test_a_synthetic_contrast_is_a_layer_of_its_own_in_the_same_place(scene: Scene) -> None:
    image, *rest = scene
    synth = image.with_data(np.where(image.data > 0, 600 - image.data, 0))
    views = make_views(image, *rest, TRUTH, synth=synth)
    assert list(views.layers) == ["before", "after", "synth", "atlas"]
    for after, other in zip(tiles(views, "after"), tiles(views, "synth"), strict=True):
        inside = (after > 30) & (other > 30)
        assert np.corrcoef(after[inside].astype(float), other[inside].astype(float))[0, 1] < -0.7


def test_views_survive_their_file(views: Views, tmp_path) -> None:
    again = read_views(write_views(views, tmp_path / "views.json"))
    assert again == views
    (tmp_path / "half.json").write_text('{"planes": [')
    with pytest.raises(ImageError, match=r"half\.json: the pictures of an image cannot be read"):
        read_views(tmp_path / "half.json")
    with pytest.raises(ImageError, match=r"none\.json"):
        read_views(tmp_path / "none.json")


def test_lighter_views_show_the_same_at_the_same_place(views: Views) -> None:
    fewer = reduced(views)
    assert [p.at for p in fewer.planes] == [p.at[::2] for p in views.planes]
    smaller = reduced(reduced(fewer))
    size = [sum(len(s) for layer in v.layers.values() for s in layer) for v in (views, fewer, smaller)]
    assert size[0] > 1.6 * size[1] > 1.6 * 1.6 * size[2]
    for light in (fewer, smaller):
        for number, (plane, stack) in enumerate(zip(light.planes, tiles(light, "atlas"), strict=True)):
            assert at_blob(plane, stack), plane.name
            middle = len(plane.at) // 2
            path = np.concatenate(lines(light.outlines["atlas"][number][middle]))
            shown = np.argwhere(stack[middle] > 20)[:, ::-1]
            assert path.min(axis=0) == pytest.approx(shown.min(axis=0), abs=2)
            assert path.max(axis=0) == pytest.approx(shown.max(axis=0), abs=2)


def test_a_path_for_pixels_twice_as_large() -> None:
    (line,) = lines(halved(f"M{2 * UNITS} {4 * UNITS}l{8 * UNITS} 0 0 {8 * UNITS}z"))
    assert line.tolist() == [[0.75, 1.75], [4.75, 1.75], [4.75, 5.75]]
    assert halved("M1 1l1 0") == "" or halved("M1 1l1 0").startswith("M")


@pytest.mark.data
def test_views_of_a_real_fetus(data_dir) -> None:
    stem = data_dir / "atlases" / "tpl-CRL" / "cohort-29" / "tpl-CRL_cohort-29_"
    image = load_volume(data_dir / "ds-fetal" / "sub-f234" / "anat" / "sub-f234_rec-svr_T2w.nii.gz")
    mask = image.with_data(image.data > 0)
    template, brain = load_volume(f"{stem}T2w.nii.gz"), load_volume(f"{stem}desc-brain_mask.nii.gz")
    turn = Rigid.from_rotvec([1.2, -0.7, 1.5], [20, -10, 5])
    views = make_views(image.moved(turn), mask.moved(turn), template, brain, turn @ start_pose(mask, brain))
    alike = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(tiles(views, "after"), tiles(views, "atlas"), strict=True)
    ]
    assert min(alike) > 0.8
    assert sum(len(s) for layer in views.layers.values() for s in layer) < 400_000 and views.path_size < 250_000
