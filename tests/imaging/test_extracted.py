"""Nonzero voxels: an extracted brain, or a head, a body, or a part of one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from posepipe import phantom
from posepipe.errors import MaskError
from posepipe.imaging.extracted import Signs, filled, not_a_brain, signs
from posepipe.imaging.mask import has_empty_background, is_extracted, maybe_older, nonzero_mask
from posepipe.imaging.volume import Volume

AGES = (22.0, 29.0, 40.0)


@pytest.fixture(scope="module")
def brains() -> dict[tuple[float, str], tuple[Volume, Volume]]:
    """Age and contrast → image and mask, room about them."""
    made = {}
    for age in AGES:
        labels = phantom.brain_labels(age, 2.0)
        labels = padded(labels, 12)
        for contrast in ("T2w", "T1w"):
            mask = phantom.brain_mask(labels)
            image = phantom.render(labels, age, contrast)
            made[age, contrast] = image.with_data(image.data * (mask.data > 0)), mask.with_data(mask.data > 0)
    return made


def padded(volume: Volume, voxels: int) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, voxels)
    return Volume(np.pad(volume.data, voxels), affine, volume.source)


def in_zero_air(image: Volume, mask: Volume, shell=(3.0, 4.0, 8.0)) -> Volume:
    """A head: fluid, dark bone and scalp about the brain, then exactly 0."""
    far = ndimage.distance_transform_edt(~mask.data, image.spacing)
    fluid, bone, skin = np.cumsum(shell)
    top = float(np.quantile(image.data[mask.data], 0.99))
    levels = [image.data, np.full_like(image.data, 0.9 * top), 0.06 * top, 0.42 * top]
    return image.with_data(np.select([far == 0, far <= fluid, far <= bone, far <= skin], levels, 0).astype(np.float32))


@pytest.mark.parametrize(("age", "contrast"), list(product(AGES, ("T2w", "T1w"))))
def test_brains_of_all_ages_can_be_brains(brains, age, contrast):
    image, _ = brains[age, contrast]
    assert not_a_brain(signs(image)) == "" and is_extracted(image)
    assert nonzero_mask(image).warnings == ()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("age", AGES)
def test_most_of_a_brain_still_can(brains, age, axis):
    image, mask = brains[age, "T2w"]
    end = int(np.quantile(np.argwhere(mask.data)[:, axis], 0.85))
    left = np.moveaxis(image.data.copy(), axis, 0)
    left[end:] = 0
    assert is_extracted(image.with_data(np.moveaxis(left, 0, axis)))


@pytest.mark.parametrize(("age", "contrast"), list(product(AGES, ("T2w", "T1w"))))
def test_a_head_in_zero_air_is_no_extracted_brain(brains, age, contrast):
    image, mask = brains[age, contrast]
    head = in_zero_air(image, mask)
    assert has_empty_background(head) and not is_extracted(head)
    (warning,) = (w for w in nonzero_mask(head).warnings if "brain-extracted" in w)  # asked for: kept, and said
    assert "--mask network" in warning


def test_a_small_head_of_the_size_of_a_brain_is_recognised_by_its_skin(brains):
    head = in_zero_air(*brains[22.0, "T2w"])
    found = signs(head)
    assert 200 < found.millilitres < 400 and found.fullness > 0.95 and found.dip < 0.3
    assert "bone under skin" in not_a_brain(found)


def test_a_body_with_zeroed_surroundings_is_no_brain_and_is_refused_where_requested():
    body = np.zeros((90, 60, 60), np.float32)
    body[4:-4, 4:-4, 4:-4] = 100  # at 5 mm 27 litres
    image = Volume(body, np.diag([5.0, 5, 5, 1]), "uterus.nii.gz")
    assert has_empty_background(image) and not is_extracted(image)
    with pytest.raises(MaskError, match=r"uterus\.nii\.gz: the nonzero voxels hold .* ml, more than any brain.*--mask network"):
        nonzero_mask(image)


def test_a_neck_makes_a_head_less_round():
    head = np.linalg.norm(np.moveaxis(np.indices((60, 60, 90)), 0, -1) - [30, 30, 55], axis=-1) < 20
    neck = np.zeros_like(head)
    neck[22:38, 22:38, 2:50] = True
    shoulders = np.zeros_like(head)
    shoulders[4:56, 22:38, 2:12] = True
    image = Volume(100.0 * (head | neck | shoulders), np.diag([2.0, 2, 2, 1]))
    assert "not as round" in not_a_brain(signs(image))
    assert not_a_brain(signs(image.with_data(100.0 * head))) == ""


def test_the_brain_of_an_older_child_is_distinguished_from_a_head(brains):
    image, mask = brains[40.0, "T2w"]
    side = 2.2 ** (1 / 3)
    child = Volume(image.data, np.diag([side, side, side, 1]) @ image.affine)
    assert not is_extracted(child) and "more than any up to 44 weeks" in maybe_older(child)
    assert maybe_older(image) == "" and maybe_older(in_zero_air(image, mask, (4.0, 6.0, 12.0))) == ""
    assert maybe_older(child.with_data(child.data + 1)) != ""  # whatever the value of the background
    assert maybe_older(child.with_data(child.data + np.random.default_rng(0).random(child.shape))) == ""


@pytest.mark.parametrize(
    ("name", "inside", "outside", "word"),
    [
        ("millilitres", 26, 24, "less than any brain"),
        ("millilitres", 699, 701, "more than any brain"),
        ("fullness", 0.91, 0.89, "not as round"),
        ("elongation", 2.3, 2.5, "2.5 times as long as wide"),
        ("dip", 0.51, 0.49, "a whole head"),
    ],
)
def test_limits(name, inside, outside, word):
    """The numbers are written out, so that a limit that is changed fails here."""
    sound = {"millilitres": 300.0, "fullness": 0.96, "elongation": 1.3, "dip": 0.9}
    assert not_a_brain(Signs(**sound | {name: inside})) == ""
    assert word in not_a_brain(Signs(**sound | {name: outside}))


def test_an_ellipsoid_is_full_and_as_long_as_it_is():
    index = np.moveaxis(np.indices((50, 50, 80)), 0, -1) - [25, 25, 40]
    found = signs(Volume((np.linalg.norm(index / [12, 18, 36], axis=-1) < 1) * 50.0, np.diag([-2.0, 2, 2, 1])))
    assert found.fullness == pytest.approx(1, abs=0.02) and found.elongation == pytest.approx(3, rel=0.03)
    assert found.millilitres == pytest.approx(4 / 3 * np.pi * 24 * 36 * 72 / 1000, rel=0.02) and found.dip == 1


def test_the_largest_piece_counts_its_holes_filled():
    data = np.zeros((20, 20, 20), bool)
    data[2:12, 2:12, 2:12] = True
    data[5:8, 5:8, 5:8] = False
    data[16, 16, 16] = True
    expected = np.zeros_like(data)
    expected[2:12, 2:12, 2:12] = True
    np.testing.assert_array_equal(filled(data), expected)
    assert not filled(np.zeros((3, 3, 3), bool)).any()
    assert signs(Volume(np.zeros((9, 9, 9)), np.eye(4))) is None
