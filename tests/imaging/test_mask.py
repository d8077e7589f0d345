"""Where a brain mask comes from, and what is refused as one."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.errors import MaskError
from posepipe.imaging.mask import brain_mask, given_mask, is_skull_stripped, nonzero_mask
from posepipe.imaging.volume import Volume

AFFINE = np.diag([2.0, 2, 2, 1])
SHAPE = (40, 42, 44)


def ball(radius: float = 14, center=(20, 21, 22)) -> np.ndarray:
    """Bool (40, 42, 44); radius 14 voxels of 2 mm holds 92 ml."""
    offset = np.moveaxis(np.indices(SHAPE), 0, -1) - np.array(center)
    return np.linalg.norm(offset, axis=-1) < radius


def volume(data: np.ndarray, name: str = "sub-01_T2w.nii.gz", affine=AFFINE) -> Volume:
    return Volume(data.astype(np.float32), affine, name)


IMAGE = volume(100 + 10 * np.random.default_rng(0).random(SHAPE))
EXTRACTED = volume(np.where(ball(), IMAGE.data, 0))


def refusal(call, *args, **options) -> str:
    with pytest.raises(MaskError) as error:
        call(*args, **options)
    return str(error.value)


@pytest.mark.parametrize(
    "data",
    [ball(), ball() * 1.0, np.where(ball(), 0.51, 0.49), ball() * 5, ball() * 3 - ball(8) * 2],
    ids=["bool", "binary", "probability", "label", "labels"],
)
def test_given_masks_of_every_kind_mean_the_same_voxels(data):
    mask = given_mask(volume(data, "mask.nii.gz"), IMAGE)
    np.testing.assert_array_equal(mask.volume.data, ball())
    assert mask.volume.data.dtype == bool
    assert mask.source == "given"
    assert mask.warnings == ()
    assert mask.millilitres == pytest.approx(ball().sum() * 8 / 1000)


def test_a_mask_on_another_grid_is_refused_naming_both_files():
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.5
    for other in (volume(ball(), "mask.nii.gz", shifted), volume(ball()[:-1], "mask.nii.gz")):
        message = refusal(given_mask, other, IMAGE)
        assert "mask.nii.gz" in message
        assert "sub-01_T2w.nii.gz" in message
        assert "resample" in message


def test_a_mask_off_by_rounding_of_the_header_is_taken():
    rounded = AFFINE.copy()
    rounded[:3, 3] += 0.01
    assert given_mask(volume(ball(), affine=rounded), IMAGE).volume.same_grid(IMAGE)


def test_holes_are_filled_and_small_pieces_dropped_without_a_word():
    data = ball() & ~ball(5)
    data[1, 1, 1] = True
    mask = given_mask(volume(data), IMAGE)
    np.testing.assert_array_equal(mask.volume.data, ball())
    assert mask.warnings == ()


def test_a_large_second_piece_is_dropped_with_a_warning():
    data = ball(10, (11, 21, 22)) | ball(6, (32, 21, 22))
    mask = given_mask(volume(data), IMAGE)
    np.testing.assert_array_equal(mask.volume.data, ball(10, (11, 21, 22)))
    (warning,) = mask.warnings
    assert "2 pieces" in warning
    share = 100 * ball(6).sum() / (ball(10).sum() + ball(6).sum())
    assert f"{share:.0f} %" in warning


def test_too_small_a_mask_is_refused_with_its_size():
    message = refusal(given_mask, volume(ball(4), "mask.nii.gz"), IMAGE)
    assert "mask.nii.gz" in message
    assert f"{ball(4).sum() * 8 / 1000:.1f} ml" in message
    assert "too little" in refusal(given_mask, volume(np.zeros(SHAPE)), IMAGE)
    metres = np.diag([0.002, 0.002, 0.002, 1])  # an affine in metres makes any brain tiny
    with pytest.raises(Exception, match=r"affine|too little"):
        given_mask(volume(ball(), affine=metres), volume(IMAGE.data, affine=metres))


def test_nonzero_voxels_of_an_extracted_brain():
    mask = nonzero_mask(EXTRACTED)
    np.testing.assert_array_equal(mask.volume.data, ball())
    assert mask.source == "nonzero"


def test_zeros_inside_the_brain_are_part_of_it():
    data = EXTRACTED.data.copy()
    data[18:22, 18:22, 18:22] = 0
    np.testing.assert_array_equal(nonzero_mask(volume(data)).volume.data, ball())


def test_an_image_with_a_background_is_refused_and_told_what_to_do():
    message = refusal(nonzero_mask, IMAGE)
    for part in ("sub-01_T2w.nii.gz", "no brain mask was given", "0 % of the voxels are 0", "-d", "--mask-file"):
        assert part in message


def test_a_padded_uterus_is_not_an_empty_background():
    padded = IMAGE.data.copy()
    padded[:, :, :8] = 0  # 18 % of the voxels
    message = refusal(nonzero_mask, volume(padded))
    assert "18 % of the voxels are 0" in message


def test_a_brain_that_fills_its_box_is_taken():
    """A tight crop: the brain touches all six faces, yet its corners are empty."""
    box = np.moveaxis(np.indices(SHAPE), 0, -1) - (np.array(SHAPE) - 1) / 2
    inside = np.linalg.norm(box / (np.array(SHAPE) / 2), axis=-1) <= 1
    assert all(np.take(inside, i, axis=a).any() for a in range(3) for i in (0, -1))
    np.testing.assert_array_equal(nonzero_mask(volume(np.where(inside, IMAGE.data, 0))).volume.data, inside)


def test_modes():
    mask = volume(ball(12), "mask.nii.gz")
    assert brain_mask(EXTRACTED, mask).source == "given"
    assert brain_mask(EXTRACTED, mask, "given").source == "given"
    assert brain_mask(EXTRACTED).source == "nonzero"
    forced = brain_mask(EXTRACTED, mask, "nonzero")
    assert forced.source == "nonzero"
    np.testing.assert_array_equal(forced.volume.data, ball())
    assert "--mask given" in refusal(brain_mask, EXTRACTED, None, "given")
    assert "no brain mask was given" in refusal(brain_mask, IMAGE)
    with pytest.raises(ValueError, match="choose auto, given or nonzero"):
        brain_mask(EXTRACTED, mask, "magic")


def test_a_bad_given_mask_is_an_error_and_not_a_reason_to_fall_back():
    assert "too little" in refusal(brain_mask, EXTRACTED, volume(ball(3)))


def test_an_image_is_skull_stripped_where_little_but_the_brain_is_left():
    index = np.stack(np.meshgrid(*[np.arange(40) - 20] * 3, indexing="ij"))
    distance = np.sqrt((index**2).sum(0))
    whole = Volume((distance < 19).astype(np.float32), np.eye(4))
    brain = Volume((distance < 15).astype(np.float32), np.eye(4))
    mask, tight = Volume(distance < 15, np.eye(4)), Volume(distance < 14.5, np.eye(4))
    assert is_skull_stripped(brain, mask) and is_skull_stripped(brain, tight)  # with another mask, a rim is left
    assert not is_skull_stripped(whole, mask)
