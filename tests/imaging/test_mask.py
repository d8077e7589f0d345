"""The source of a brain mask, and masks that are rejected."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from posepipe.errors import MaskError
from posepipe.geometry import Rigid
from posepipe.imaging.mask import checked_mask, given_mask, is_skull_stripped, nonzero_mask
from posepipe.imaging.volume import Volume, load_volume

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
    with pytest.raises(Exception, match=r"affine|units|too little"):
        given_mask(volume(ball(), affine=metres), volume(IMAGE.data, affine=metres))


def test_a_mask_of_everything_is_refused():
    assert "mask.nii.gz: the brain mask fills the whole image" in refusal(given_mask, volume(np.ones(SHAPE), "mask.nii.gz"), IMAGE)


def test_nonzero_voxels_of_an_extracted_brain():
    mask = nonzero_mask(EXTRACTED)
    np.testing.assert_array_equal(mask.volume.data, ball())
    assert mask.source == "nonzero"


def test_zeros_inside_the_brain_are_part_of_it():
    data = EXTRACTED.data.copy()
    data[18:22, 18:22, 18:22] = 0
    np.testing.assert_array_equal(nonzero_mask(volume(data)).volume.data, ball())


def test_an_image_with_a_background_is_refused_with_advice():
    message = refusal(nonzero_mask, IMAGE)
    for part in ("sub-01_T2w.nii.gz", "not exactly empty", "0 % of the voxels are 0", "--mask network", "-d", "--mask-file"):
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


def whole(shape: tuple[int, int, int], spacing: tuple[float, float, float], codes: str = "RAS") -> Volume:
    """A mask that fills the first half of a grid along its last axis, whose axes point to ``codes``."""
    data = np.zeros(shape, dtype=bool)
    data[3:-3, 3:-3, : shape[2] // 2] = True
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), shape)
    return Volume(data, np.linalg.inv(turn @ np.diag([1 / s for s in spacing] + [1])), "mask.nii.gz")


@pytest.mark.parametrize(
    ("codes", "side"),
    [("RAS", "inferior"), ("RAI", "superior"), ("SAR", "left"), ("SAL", "right"), ("IRP", "anterior"), ("IRA", "posterior")],
)
def test_a_mask_cut_by_the_border_is_reported_with_the_side_of_the_image(codes, side):
    mask = whole((36, 36, 30), (2, 2, 2), codes)
    assert nib.aff2axcodes(mask.affine) == tuple(codes)
    (warning,) = given_mask(mask, mask).warnings
    assert f"reaches the {side} edge of the image (36 cm²): part of the brain may lie outside" in warning  # 30 × 30 voxels of 4 mm²


def test_oblique_grids_have_sides_too():
    mask = whole((36, 36, 30), (2, 2, 2))
    turned = mask.moved(Rigid.from_rotvec(np.radians([20, 10, -15])))
    assert "inferior edge" in given_mask(turned, turned).warnings[0]


@pytest.mark.parametrize(("side", "reported"), [(19, False), (21, True)])
def test_a_mask_that_only_touches_the_border_is_not_cut(side, reported):
    """The section on the face must be larger than 4 cm², whatever the voxels."""
    data = ball(12, (20, 21, 20)).copy()
    data[10 : 10 + side, 10:30, 0:20] = True  # 20 voxels of 0.5 mm by ``side`` of 2 mm: 1 cm² for each 5
    grid = Volume(data, np.diag([2.0, 0.5, 4, 1]), "mask.nii.gz")
    warnings = given_mask(grid, grid).warnings
    assert bool(warnings) is reported


def test_border_is_looked_at_whatever_the_source_and_the_largest_piece_counts():
    cut = np.where(ball(center=(6, 21, 22)), IMAGE.data, 0)
    (warning,) = nonzero_mask(volume(cut)).warnings
    assert "reaches the left edge" in warning
    small = ball(14) | ball(5, (0, 2, 2))
    assert given_mask(volume(small), IMAGE).warnings == ()
    found = checked_mask(ball(center=(6, 21, 22)), IMAGE, "network", "image")
    assert found.source == "network" and found.warnings == (warning,)


def test_networks_may_stop_short_of_the_border_that_cuts_the_brain():
    cut = ball(center=(6, 21, 22))
    cut[0] = False  # 2 mm
    assert given_mask(volume(cut), IMAGE).warnings == ()
    (warning,) = checked_mask(cut, IMAGE, "network", "image").warnings
    assert "reaches the left edge" in warning
    near = ball(center=(15, 21, 22))  # a whole brain from the second slice on
    assert near[2].any() and not near[0].any()
    assert checked_mask(near, IMAGE, "network", "image").warnings == ()


@pytest.mark.slow
def test_sound_real_images_are_not_cut(data_dir):
    """All templates, the fetus and the newborns, of whom A09 is truly cut: its three outermost slices on the left all hold 11 cm²."""
    reported = {}
    files = [*data_dir.glob("ds-neonates/sub-A*/anat/*T2w.nii.gz"), *data_dir.glob("ds-fetal/sub-*/**/*T2w.nii.gz")]
    for path in files:
        mask = nonzero_mask(load_volume(path))
        reported[path.name] = (*mask.warnings, *checked_mask(mask.volume.data, mask.volume, "network", "").warnings)
    for path in data_dir.glob("atlases/tpl-*/cohort-*/*_desc-brain_mask.nii.gz"):
        mask = load_volume(path)
        reported[path.name] = (*given_mask(mask, mask).warnings, *checked_mask(mask.data > 0, mask, "network", "").warnings)
    cut = {name for name, warnings in reported.items() if any("edge of the image" in warning for warning in warnings)}
    assert len(reported) > 60 and cut <= {"sub-A09_T2w.nii.gz"}


def test_an_image_is_skull_stripped_where_little_but_the_brain_is_left():
    index = np.stack(np.meshgrid(*[np.arange(40) - 20] * 3, indexing="ij"))
    distance = np.sqrt((index**2).sum(0))
    whole = Volume((distance < 19).astype(np.float32), np.eye(4))
    brain = Volume((distance < 15).astype(np.float32), np.eye(4))
    mask, tight = Volume(distance < 15, np.eye(4)), Volume(distance < 14.5, np.eye(4))
    assert is_skull_stripped(brain, mask) and is_skull_stripped(brain, tight)  # with another mask, a rim is left
    assert not is_skull_stripped(whole, mask)
