"""Which voxels of a mask file count as inside."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from scipy import ndimage

from posepipe.imaging.inside import as_inside, inside_of, load_mask
from posepipe.imaging.mask import given_mask
from posepipe.imaging.volume import Volume, load_volume, save_volume

AFFINE = np.diag([2.0, 2, 2, 1])


def ball(radius: float = 14) -> np.ndarray:
    return np.linalg.norm(np.moveaxis(np.indices((40, 42, 44)), 0, -1) - [20, 21, 22], axis=-1) < radius


SOFT = ndimage.gaussian_filter(ball().astype(float), 1.5)
HALF = SOFT.max() / 2 <= SOFT
NOT_BINARY = {
    "probability": SOFT,
    "spline": np.where(SOFT > 1e-3, SOFT * 1.02, 0),
    "per cent": np.round(SOFT * 100),
    "of 255": np.round(SOFT * 255),
    "of 255, less one": np.round(SOFT * 255 - 1),
}
PLAIN = {
    "bool": ball(),
    "bits": ball().astype(np.uint8),
    "255": ball() * np.uint8(255),
    "0.999": ball() * np.float32(0.999),
    "apart": np.where(ball(), 0.51, 0.49),
    "label": ball() * 5,
    "labels": ball() * 3 - ball(8) * 2,
    "aseg": ball() * (np.arange(44) % 43 + 2005),
}


@pytest.mark.parametrize("kind", NOT_BINARY)
def test_half_of_the_largest_value_is_inside_and_that_is_said(kind):
    data, image = NOT_BINARY[kind].astype(np.float32), Volume(np.ones((40, 42, 44), np.float32), AFFINE, "image.nii.gz")
    inside, note = inside_of(data)
    assert "not binary" in note and "half of its largest value" in note
    assert (inside ^ HALF).sum() <= 0.02 * HALF.sum()
    assert ((data > 0) & ~inside).sum() > 0.5 * HALF.sum()  # what was taken in before
    mask = given_mask(Volume(data, AFFINE, "mask.nii.gz"), image)
    assert mask.warnings == (note,) and mask.voxels == inside.sum()


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_masks_and_labels_are_taken_without_a_word(kind):
    inside, note = inside_of(PLAIN[kind])
    assert note == ""
    np.testing.assert_array_equal(inside, ball())


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.arange(1, 61), True),
        (np.arange(1, 62), False),
        (np.arange(1, 62) * 4, True),  # sparse, as the numbers of structures are
        ([9] * 60 + [1] * 40, True),
        ([10] * 49 + [1] * 51, True),
        ([10] * 50 + [1] * 50, False),  # tenths, most of them ten
        ([100] * 60 + [50] * 40, False),
    ],
)
def test_what_makes_whole_numbers_labels(values, labels):
    """The limits are written out, so that one that is changed fails here."""
    data = np.zeros((10, 10, 2))
    data.ravel()[: len(values)] = values
    inside, note = inside_of(data)
    assert bool(note) is not labels
    assert inside.sum() == (len(values) if labels else (np.asarray(values) >= max(values) / 2).sum())


@pytest.mark.parametrize("top", [1, 100, 255])
@pytest.mark.parametrize("shift", [(0.5, 0, 0), (0.5, 0.5, 0.5), (0.3, 0.45, 0.2)])
def test_masks_that_were_moved_by_parts_of_a_voxel(top, shift):
    """Half a voxel leaves two to eight grades."""
    moved = ndimage.shift(ball() * float(top), shift, order=1)
    inside, note = inside_of(moved if top == 1 else np.round(moved))
    assert note and abs(int(inside.sum()) - int(ball().sum())) < 0.1 * ball().sum()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["0.999", "labels", "probability"])
def test_what_is_not_finite_is_outside_and_that_is_said(kind, value, tmp_path, caplog):
    """As an array, and as a file, whose voxels are made finite when it is read."""
    plain = {**PLAIN, **NOT_BINARY}[kind].astype(np.float32)
    spoilt = plain.copy()
    spoilt[20, 21, 20:24] = spoilt[:, :, 0] = value
    plain[20, 21, 20:24] = plain[:, :, 0] = 0
    inside, note = inside_of(spoilt)
    np.testing.assert_array_equal(inside, inside_of(plain)[0])
    words = "in the brain mask 1684 of 73920 voxels (2.3 %) are NaN or infinite; they were set to 0, outside of the brain"
    assert note.startswith(words) and ("not binary" in note) == (kind == "probability")
    path = save_volume(Volume(spoilt, AFFINE), tmp_path / "mask.nii.gz")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(load_mask(path).data, inside)
    assert f"{path}: {note}" in caplog.text
    (warning,) = given_mask(load_volume(path), Volume(np.ones_like(plain), AFFINE)).warnings
    assert warning == note


def test_nothing_is_inside_of_nothing():
    for data in (np.zeros((3, 3, 3)), -np.arange(27.0).reshape(3, 3, 3) - 0.5):
        assert not inside_of(data)[0].any()
    assert inside_of(np.ones((3, 3, 3)))[0].all()


def test_files_are_read_by_the_same_rule_and_it_is_logged(tmp_path, caplog):
    path = save_volume(Volume(np.round(SOFT * 100).astype(np.uint8), AFFINE), tmp_path / "mask.nii.gz")
    with caplog.at_level(logging.WARNING):
        mask = load_mask(path)
    np.testing.assert_array_equal(mask.data, np.round(SOFT * 100) >= np.round(SOFT * 100).max() / 2)
    assert mask.data.dtype == bool and "mask.nii.gz" in caplog.text and "not binary" in caplog.text
    caplog.clear()
    assert as_inside(mask).data is mask.data and not caplog.text
