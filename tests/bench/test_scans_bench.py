"""Brains with synthetic background keep brain and mask; the tables of the bench of scans match the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from posepipe.bench.scans import (
    BACKGROUND_SPACING_MM,
    BACKGROUNDS,
    CLEAR_MM,
    ScanBench,
    ScanCase,
    negative_controls,
    overlap,
    report,
    scan_cases,
    side_by_side,
    with_synthetic_background,
)
from posepipe.imaging.moments import moments
from posepipe.imaging.volume import Volume
from posepipe.training.split import load_folds

ROW = {
    "part": "epi", "name": "sub-E11", "fold": "a", "kind": "as it is", "trial": "0", "seconds": "0.5", "dice": "", "mm": "4.0",
    "ml": "300", "true_ml": "", "network": "8.0", "degrees": "8.0", "seconds_all": "2.0", "qc": "pass", "confidence": "0.9",
    "rotvec": "",
}  # fmt: skip


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_a_brain_with_synthetic_background_is_the_same_brain(kind: str) -> None:
    offset = np.moveaxis(np.indices((50, 44, 40)), 0, -1) * 2.0 - np.array([48, 44, 40])
    inside = (offset / np.array([30, 26, 22])) ** 2 @ np.ones(3) < 1
    affine = np.diag([2.0, 2, 2, 1])
    image = Volume(np.where(inside, 500 + 200 * (offset[..., 0] > 0), 0).astype(np.float32), affine)
    ratios: list[float] = []
    for seed in range(4):
        whole, truth = with_synthetic_background(image, image.with_data(inside), kind, seed=[2, seed])
        assert whole.same_grid(truth) and whole.spacing == pytest.approx(BACKGROUND_SPACING_MM)
        before, after = moments(image.with_data(inside)), moments(truth)
        assert after.center == pytest.approx(before.center, abs=0.7)
        assert after.millilitres == pytest.approx(before.millilitres, rel=0.03)
        world = np.argwhere(truth.data) @ truth.affine[:3, :3].T + truth.affine[:3, 3]
        value = whole.data[truth.data]
        right, left = world[:, 0] > before.center[0] + 4, world[:, 0] < before.center[0] - 4
        # turned voxels, the same place in the world: the two halves are distinguished as before, whatever the bias field
        ratios.append(value[right].mean() / value[left].mean())
        assert ratios[-1] > 1
        if kind == "body":
            # single voxels of dark tissue may be 0 by noise, but no place is empty
            assert (ndimage.uniform_filter(whole.data, 3)[~truth.data] > 0).mean() > 0.99
        else:
            assert (whole.data[~truth.data] > 0).mean() > 0.005
    assert np.mean(ratios) > 1.2


def test_negative_controls_are_the_larger_parts_at_their_place() -> None:
    """A scan of 240, 180 and 60 mm, turned in space, whose brain lies nearer to the beginning of the first axis."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ np.diag([3.0, 2, 5])
    affine[:3, 3] = 7, -8, 9
    image = Volume(np.arange(80 * 90 * 12, dtype=np.float32).reshape(80, 90, 12), affine, "a_T2w.nii.gz")
    at = np.array([30, 40, 6])
    center = affine[:3, :3] @ at + affine[:3, 3]
    ((name, piece),) = negative_controls(image, center)  # along the second axis there are 20 mm at most
    assert name == "axis 0 from 50" and piece.source == image.source
    np.testing.assert_array_equal(piece.data, image.data[50:])
    first = piece.affine[:3, 3]
    assert first == pytest.approx(affine[:3, :3] @ np.array([50, 0, 0]) + affine[:3, 3])
    assert np.linalg.norm(first - center) >= CLEAR_MM
    farther = affine[:3, :3] @ np.array([49.2, 40, 6]) + affine[:3, 3]
    ((name, piece),) = negative_controls(image, farther)
    assert name == "axis 0 from 0" and piece.affine == pytest.approx(affine)
    np.testing.assert_array_equal(piece.data, image.data[:29])


def test_two_scans_side_by_side_keep_their_brains_where_they_are() -> None:
    one = Volume(np.full((20, 30, 10), 100, np.float32), np.diag([2.0, 2, 4, 1]), "a_T2w.nii.gz")
    affine = np.diag([-3.0, 3, 3, 1])
    affine[:3, 3] = 50, -20, 7
    data = np.full((16, 12, 20), 5, np.float32)
    data[5:8, 3:6, 10:13] = 50  # the middle is voxel (6, 4, 11)
    both, center = side_by_side(one, Volume(data, affine, "b_T2w.nii.gz"), affine[:3, :3] @ [6, 4, 11] + affine[:3, 3])
    assert both.shape == (44, 30, 15) and both.affine == pytest.approx(one.affine) and (both.data[:20, :, :10] == 100).all()
    bright = np.where(both.data[20:] > 300, both.data[20:], 0)
    middle = np.array(ndimage.center_of_mass(bright)) + np.array([20, 0, 0])
    assert one.affine[:3, :3] @ middle == pytest.approx(center, abs=1)


def test_overlap_is_that_of_dice() -> None:
    a, b = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 0], bool)
    assert overlap(a, b) == pytest.approx(0.8) and overlap(a, ~a) == 0 and overlap(a, a) == 1


def test_the_tables_say_what_the_rows_say() -> None:
    missed = ROW | {"name": "sub-E13", "mm": "", "network": "", "degrees": "", "seconds_all": "", "qc": "refused"}
    wrong = ROW | {"name": "sub-E14", "fold": "b", "network": "20.0", "degrees": "40.0"}
    stacks = [
        ROW | {"part": "stacks", "name": f"sub-01_run-{k}", "dice": d, "degrees": "", "rotvec": turn}
        for k, d, turn in ((4, "0.91", "0 0 0"), (5, "0.89", "0 0 0.1"))
    ]
    heads = [ROW | {"part": "heads", "kind": "air", "fold": fold, "dice": "0.95", "degrees": ""} for fold in ("test", "validation")]
    text = report([*stacks, *heads, ROW, missed, wrong])
    assert "| stacks | folds | 2 | 0.900 | 0.890 | 4.0 | 2 | 2 | 0 | 0 | 0.50 |" in text
    assert "| heads, air | test | 1 | 0.950 |" in text and "| heads, air | validation | 1 | 0.950 |" in text
    assert "| epi | folds | 3 | – | – | 4.0 | 2 | 2 | 1 | 1 | 0.50 |" in text
    assert "| epi | folds | 3 | 20.0° | 1 | 2 | 40.0° | 1 | 1 | 1 of 1 | 1 of 2 | 2.00 |" in text
    assert "2 poses, 1 pairs apart by 5.7° (median)" in text and "cut" not in text


def test_outcomes_of_images_without_a_brain() -> None:
    empty = ROW | {"part": "cut", "kind": "axis 0 from 50", "mm": "", "degrees": ""}
    text = report([empty | {"qc": "refused"}, empty | {"qc": "fail"}, empty | {"qc": "failed"}, empty | {"qc": "review"}])
    assert "| cut | 4 | 2 | 1 | 1 | 0 |" in text and "Dice" not in text and "median" not in text
    assert "| epi | folds | 1 | – |" in report([ROW, empty | {"qc": "fail"}])


def test_a_real_scan_is_processed_by_the_network_trained_without_its_fold(tmp_path: Path) -> None:
    bench = ScanBench(tmp_path, tmp_path / "all", {"b": tmp_path / "b"})
    cases = (ScanCase("epi", "sub-E11", fold, tmp_path) for fold in ("a", "b", "test"))
    assert [bench.weights_of(case).name for case in cases] == ["all", "b", "all"]


def test_every_real_scan_is_in_one_fold_and_a_subject_s_scans_in_the_same(data_dir: Path) -> None:
    cases = scan_cases(data_dir, ("epi", "scans", "stacks"))
    assert len(cases) == 37 and {case.fold for case in cases} == set(load_folds())
    assert len({case.fold for case in cases if case.part == "stacks"}) == 1
    by_age = {weeks: {case.fold for case in cases if case.weeks == weeks} for weeks in {case.weeks for case in cases} - {None}}
    assert all(len(folds) == 1 for folds in by_age.values())
