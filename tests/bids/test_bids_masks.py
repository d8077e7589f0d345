from __future__ import annotations

import json
import logging

import pytest

from posepipe.bids import find_images, parse_derivative, survey_images
from posepipe.errors import BidsError, UsageError


def masks_of(root, *derivatives, **chosen):
    return {i.path.name: i.mask and i.mask.name for i in find_images(root, derivatives=derivatives, **chosen)}


def test_masks_are_used_only_when_given(make_dataset):
    mask = "derivatives/masks/sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    root = make_dataset("sub-01_T2w.nii.gz", mask)
    assert masks_of(root) == {"sub-01_T2w.nii.gz": None}
    given = f"manual={root / 'derivatives' / 'masks'}"
    (image,) = find_images(root, derivatives=[given])
    assert image.mask == root / mask


def test_mask_by_all_entities(make_dataset):
    stems = ["sub-01_ses-1_acq-a_rec-svr_run-1", "sub-01_ses-1_acq-a_rec-svr_run-2", "sub-01_ses-2_acq-a_rec-svr_run-1"]
    root = make_dataset(*(f"{stem}_T2w.nii.gz" for stem in stems))
    masks = make_dataset(*(f"{stem}_desc-brain_mask.nii.gz" for stem in stems), folder="masks")
    assert masks_of(root, masks) == {f"{stem}_T2w.nii.gz": f"{stem}_desc-brain_mask.nii.gz" for stem in stems}


def test_other_masks_are_not_brain_masks(make_dataset):
    root = make_dataset("sub-01_T2w.nii.gz")
    masks = make_dataset(
        "sub-01_desc-csf_mask.nii.gz",
        "sub-01_mask.nii.gz",
        "sub-01_desc-brain_label-GM_mask.nii.gz",
        "sub-01_space-CRL_cohort-29_desc-brain_mask.nii.gz",
        "sub-01_rec-svr_desc-brain_mask.nii.gz",
        "sub-01_desc-brain_probseg.nii.gz",
        folder="masks",
    )
    assert masks_of(root, masks) == {"sub-01_T2w.nii.gz": None}


@pytest.mark.parametrize("space", ["orig", "T2w"])
def test_a_space_that_is_the_images_own(make_dataset, space):
    root = make_dataset("sub-01_T2w.nii.gz")
    masks = make_dataset(f"sub-01_space-{space}_desc-brain_mask.nii.gz", folder="masks")
    assert masks_of(root, masks) == {"sub-01_T2w.nii.gz": f"sub-01_space-{space}_desc-brain_mask.nii.gz"}


def test_mask_of_the_subject_only_is_used_for_its_only_image(make_dataset, caplog):
    masks = make_dataset("sub-01_desc-brain_mask.nii.gz", folder="masks")
    root = make_dataset("sub-01_rec-svr_T2w.nii.gz")
    assert masks_of(root, masks) == {"sub-01_rec-svr_T2w.nii.gz": "sub-01_desc-brain_mask.nii.gz"}
    make_dataset("sub-01_run-1_T2w.nii.gz")
    with caplog.at_level(logging.WARNING):
        found = masks_of(root, masks)
        assert set(found.values()) == {None}
        # a filter does not make it the only image
        assert set(masks_of(root, masks, filters={"t2w": {"rec": "svr"}}).values()) == {None}
    assert "its name fits 2 images" in caplog.text


def test_mask_of_another_session_or_of_none_is_not_used(make_dataset):
    root = make_dataset("sub-01_ses-1_T2w.nii.gz")
    masks = make_dataset(
        "sub-01_ses-2_desc-brain_mask.nii.gz", "sub-01/ses-1/anat/sub-01_desc-brain_mask.nii.gz", folder="masks"
    )
    assert masks_of(root, masks) == {"sub-01_ses-1_T2w.nii.gz": None}


def test_exact_match_leaves_more_detailed_images_without(make_dataset):
    root = make_dataset("sub-01_T2w.nii.gz", "sub-01_desc-preproc_T2w.nii.gz")
    masks = make_dataset("sub-01_desc-brain_mask.nii.gz", folder="masks")
    assert masks_of(root, masks) == {
        "sub-01_T2w.nii.gz": "sub-01_desc-brain_mask.nii.gz",
        "sub-01_desc-preproc_T2w.nii.gz": None,
    }


def test_contrasts_are_distinguished_if_the_mask_names_its_own(make_dataset):
    root = make_dataset("sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz")
    masks = make_dataset("sub-01_mod-T1w_desc-brain_mask.nii.gz", "sub-01_desc-brain_mask.nii.gz", folder="masks")
    assert masks_of(root, masks) == {
        "sub-01_T1w.nii.gz": "sub-01_mod-T1w_desc-brain_mask.nii.gz",
        "sub-01_T2w.nii.gz": "sub-01_desc-brain_mask.nii.gz",
    }


def test_posepipes_own_masks_of_described_images(make_dataset):
    root = make_dataset("sub-01_desc-a_T2w.nii.gz", "sub-01_desc-b_T2w.nii.gz")
    masks = make_dataset("sub-01_desc-a+brain_mask.nii.gz", "sub-01_desc-b+brain_mask.nii.gz", folder="masks")
    assert masks_of(root, masks) == {
        "sub-01_desc-a_T2w.nii.gz": "sub-01_desc-a+brain_mask.nii.gz",
        "sub-01_desc-b_T2w.nii.gz": "sub-01_desc-b+brain_mask.nii.gz",
    }


@pytest.mark.parametrize("key", ["Sources", "RawSources", "Rawsources"])
def test_the_source_a_sidecar_names_wins(make_dataset, key):
    root = make_dataset("sub-01_run-1_T2w.nii.gz", "sub-01_run-2_T2w.nii.gz")
    # the name says run 1, the sidecar run 2
    sidecar = json.dumps({key: ["bids::sub-01/anat/sub-01_run-2_T2w.nii.gz"]})
    masks = make_dataset(
        "sub-01_run-1_desc-brain_mask.nii.gz",
        folder="masks",
        texts={"sub-01/anat/sub-01_run-1_desc-brain_mask.json": sidecar},
    )
    assert masks_of(root, masks) == {
        "sub-01_run-1_T2w.nii.gz": None,
        "sub-01_run-2_T2w.nii.gz": "sub-01_run-1_desc-brain_mask.nii.gz",
    }


def test_several_sources_bind_to_no_stack(make_dataset):
    root = make_dataset("sub-01_run-1_T2w.nii.gz", "sub-01_run-2_T2w.nii.gz", "sub-01_rec-svr_T2w.nii.gz")
    stacks = [f"sub-01/anat/sub-01_run-{n}_T2w.nii.gz" for n in (1, 2)]
    masks = make_dataset(
        "sub-01_rec-svr_desc-brain_mask.nii.gz",
        folder="masks",
        texts={"sub-01/anat/sub-01_rec-svr_desc-brain_mask.json": json.dumps({"RawSources": stacks})},
    )
    found = masks_of(root, masks)
    assert found.pop("sub-01_rec-svr_T2w.nii.gz") == "sub-01_rec-svr_desc-brain_mask.nii.gz"
    assert set(found.values()) == {None}


def test_broken_sidecar_is_said_and_the_name_decides(make_dataset, caplog):
    root = make_dataset("sub-01_T2w.nii.gz")
    masks = make_dataset(
        "sub-01_desc-brain_mask.nii.gz", folder="masks", texts={"sub-01/anat/sub-01_desc-brain_mask.json": "{"}
    )
    assert masks_of(root, masks) == {"sub-01_T2w.nii.gz": "sub-01_desc-brain_mask.nii.gz"}
    assert "matched by its name" in caplog.text


def test_two_equal_masks_are_an_error_naming_both(make_dataset):
    root = make_dataset("sub-01_T2w.nii.gz")
    one, two = (make_dataset("sub-01_desc-brain_mask.nii.gz", folder=name) for name in ("one", "two"))
    with pytest.raises(BidsError) as caught:
        find_images(root, derivatives=[one, two])
    assert str(one / "sub-01/anat") in str(caught.value)
    assert str(two / "sub-01/anat") in str(caught.value)


def test_two_equal_masks_stand_against_their_image_alone(make_dataset):
    root = make_dataset("sub-01_T2w.nii.gz", "sub-01_run-1_T2w.nii.gz", "sub-02_T2w.nii.gz")
    both = ("sub-01_desc-brain_mask.nii", "sub-01_desc-brain_mask.nii.gz")
    masks = make_dataset(*both, "sub-01_run-1_desc-brain_mask.nii.gz", "sub-02_desc-brain_mask.nii", folder="masks")
    found = survey_images(root, derivatives=[masks])
    assert [image.mask is None for image in found.images] == [True, False, False]
    ((path, error),) = found.unmasked.items()
    assert path.name == "sub-01_T2w.nii.gz" and all(name in str(error) for name in both)


def test_no_mask_for_anyone_is_warned_about(make_dataset, caplog):
    root = make_dataset("sub-01_T2w.nii.gz")
    masks = make_dataset("sub-02_desc-brain_mask.nii.gz", folder="masks")
    assert masks_of(root, masks) == {"sub-01_T2w.nii.gz": None}
    assert "no brain mask" in caplog.text


def test_derivative_option(make_dataset, tmp_path):
    masks = make_dataset("sub-01_desc-brain_mask.nii.gz", folder="masks")
    assert parse_derivative(f"m={masks}") == ("m", masks)
    assert parse_derivative(masks) == ("masks", masks)
    odd = make_dataset("sub-01_desc-brain_mask.nii.gz", folder="a=b")
    assert parse_derivative(str(odd)) == ("a=b", odd)
    with pytest.raises(UsageError, match=r"-d m=.*no such folder"):
        parse_derivative(f"m={tmp_path / 'none'}")
    with pytest.raises(UsageError, match="no sub-"):
        parse_derivative(tmp_path)


def test_only_asked_participants_of_a_derivative_are_read(make_dataset, watch_folders):
    subjects = [f"{n:02d}" for n in range(20)]
    root = make_dataset(*(f"sub-{s}_T2w.nii.gz" for s in subjects))
    masks = make_dataset(*(f"sub-{s}_desc-brain_mask.nii.gz" for s in subjects), folder="masks")
    with watch_folders() as listed:
        (image,) = find_images(root, participants=["03"], derivatives=[masks])
    assert image.mask is not None
    assert {path for path in listed if path.startswith(str(masks))} == {str(masks), str(masks / "sub-03" / "anat")}


@pytest.mark.data
def test_real_manual_masks_of_stacks(data_dir):
    root = data_dir / "ds-stacks"
    images = find_images(root, derivatives=[root / "derivatives" / "manual_masks"])
    assert [image.mask and image.mask.name for image in images] == [
        f"sub-01_run-{n}_T2w_desc-brain_mask.nii.gz" for n in range(1, 7)
    ]
