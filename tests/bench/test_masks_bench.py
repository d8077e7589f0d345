"""Dressed brains keep their brain and its mask; the tables of the masks' bench say what the rows say."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from posepipe.bench.masks import CLEAR_MM, DRESSED_MM, DRESSES, MaskBench, MaskCase, brainless, dressed, overlap, report
from posepipe.imaging.mask import BrainMask, no_brain
from posepipe.imaging.moments import moments
from posepipe.imaging.volume import Volume

ROW = {
    "part": "epi", "name": "sub-E11", "kept": "test", "kind": "as it is", "trial": "0", "seconds": "0.5", "dice": "", "mm": "4.0",
    "ml": "300", "true_ml": "", "warnings": "", "degrees": "8.0", "seconds_all": "2.0", "qc": "pass", "confidence": "0.9", "rotvec": "",
}  # fmt: skip


@pytest.mark.parametrize("kind", DRESSES)
def test_a_dressed_brain_is_the_same_brain(kind: str) -> None:
    offset = np.moveaxis(np.indices((50, 44, 40)), 0, -1) * 2.0 - np.array([48, 44, 40])
    inside = (offset / np.array([30, 26, 22])) ** 2 @ np.ones(3) < 1
    affine = np.diag([2.0, 2, 2, 1])
    image = Volume(np.where(inside, 500 + 200 * (offset[..., 0] > 0), 0).astype(np.float32), affine)
    for seed in range(4):
        whole, truth = dressed(image, image.with_data(inside), kind, seed=[2, seed])
        assert whole.same_grid(truth) and whole.spacing == pytest.approx(DRESSED_MM)
        before, after = moments(image.with_data(inside)), moments(truth)
        assert after.center == pytest.approx(before.center, abs=0.7)
        assert after.millilitres == pytest.approx(before.millilitres, rel=0.03)
        world = np.argwhere(truth.data) @ truth.affine[:3, :3].T + truth.affine[:3, 3]
        value = whole.data[truth.data]
        right, left = world[:, 0] > before.center[0] + 4, world[:, 0] < before.center[0] - 4
        # turned voxels, the same place in the world: the two halves are told apart as before
        assert value[right].mean() > 1.15 * value[left].mean()
        if kind == "body":
            # single voxels of dark tissue may be 0 by noise, but no place is empty
            assert (ndimage.uniform_filter(whole.data, 3)[~truth.data] > 0).mean() > 0.99
        else:
            assert (whole.data[~truth.data] > 0).mean() > 0.005


def test_pieces_without_the_brain_are_the_larger_ones_where_they_were() -> None:
    """A scan of 240, 180 and 60 mm, turned in space, whose brain lies nearer to the beginning of the first axis."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ np.diag([3.0, 2, 5])
    affine[:3, 3] = 7, -8, 9
    image = Volume(np.arange(80 * 90 * 12, dtype=np.float32).reshape(80, 90, 12), affine, "a_T2w.nii.gz")
    at = np.array([30, 40, 6])
    center = affine[:3, :3] @ at + affine[:3, 3]
    ((name, piece),) = brainless(image, center)  # along the second axis there are 20 mm at most
    assert name == "axis 0 from 50" and piece.source == image.source
    np.testing.assert_array_equal(piece.data, image.data[50:])
    first = piece.affine[:3, 3]
    assert first == pytest.approx(affine[:3, :3] @ np.array([50, 0, 0]) + affine[:3, 3])
    assert np.linalg.norm(first - center) >= CLEAR_MM
    farther = affine[:3, :3] @ np.array([49.2, 40, 6]) + affine[:3, 3]
    ((name, piece),) = brainless(image, farther)
    assert name == "axis 0 from 0" and piece.affine == pytest.approx(affine)
    np.testing.assert_array_equal(piece.data, image.data[:29])


def test_overlap_is_that_of_dice() -> None:
    a, b = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 0], bool)
    assert overlap(a, b) == pytest.approx(0.8) and overlap(a, ~a) == 0 and overlap(a, a) == 1


def test_the_tables_say_what_the_rows_say() -> None:
    missed = ROW | {"name": "sub-E13", "mm": "", "warnings": "no brain", "degrees": "", "seconds_all": "", "qc": "failed"}
    stacks = [
        ROW | {"part": "stacks", "name": f"sub-01_run-{k}", "dice": d, "degrees": "", "rotvec": turn}
        for k, d, turn in ((4, "0.91", "0 0 0"), (5, "0.89", "0 0 0.1"))
    ]
    text = report([*stacks, ROW, missed])
    assert "| stacks | test | 2 | 0.900 | 0.890 | 4.0 | 100 % | 100 % | 0 | 0.50 |" in text
    assert "| epi | test | 2 | – | – | inf | 50 % | 50 % | 1 | 0.50 |" in text
    assert "| epi | test | 2 | 94.0° | 94.0° | 180.0° | 50 % | 50 % | 50 % | 1 | 2.00 |" in text
    assert "2 poses, 1 pairs apart by 5.7° (median)" in text
    assert "brainless" not in text


@pytest.mark.parametrize(("sure", "fits", "dice"), [(True, None, 0.5), (False, "other", 1.0), (False, None, 0.0)])
def test_the_mask_is_the_one_that_posepipe_would_give(sure: bool, fits: str | None, dice: float) -> None:
    """The first is half of the brain; where the networks are not sure of it the other, all of it, may fit better, or nothing."""
    inside = np.zeros((20, 20, 20), dtype=bool)
    inside[4:16, 5:15, 6:14] = True
    image = Volume(inside.astype(np.float32), np.diag([3.0, 3, 3, 1]), "a_T2w.nii.gz")
    half = inside.copy()
    half[8:] = False
    truth = image.with_data(inside)
    bench = object.__new__(MaskBench)
    bench._finder = Namespace(find=lambda _: BrainMask(image.with_data(half), "network", sure=sure))

    def aligned(_: MaskCase, image: Volume) -> Namespace:
        if fits is None:
            raise no_brain(image.source)
        return Namespace(mask=BrainMask(truth, "network", sure=False))

    bench._aligned = aligned
    row = bench._row(MaskCase("dressed", "sub-A13", "test", Path("a")), "body", 0, image, truth)
    assert row["dice"] == pytest.approx(dice) and (row["warnings"] == "no brain") == (dice == 0)


def test_what_becomes_of_images_without_a_brain() -> None:
    empty = ROW | {"part": "brainless", "kind": "axis 0 from 50", "mm": "", "degrees": "", "warnings": "a doubt"}
    rows = [empty | {"qc": "failed"}, empty | {"qc": "fail"}, empty | {"qc": "failed", "warnings": "no brain"}]
    text = report(rows)
    assert "| brainless | test | 3 | 2 | 2 | 1 | 0 | 0 |" in text and "Dice" not in text and "median" not in text
    assert "| epi | test | 1 | – |" in report([ROW, *rows])
