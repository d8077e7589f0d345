from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from posepipe.bids import find_images, list_subjects, read_filter_file
from posepipe.errors import BidsError, UsageError


def names(images):
    return [image.path.name for image in images]


def test_one_image_and_its_fields(make_dataset):
    root = make_dataset("sub-01_ses-a_rec-svr_run-01_T2w.nii.gz")
    (image,) = find_images(root)
    assert image.relative == Path("sub-01/ses-a/anat/sub-01_ses-a_rec-svr_run-01_T2w.nii.gz")
    assert image.path == root / image.relative
    assert image.root == root
    assert list(image.entities.items()) == [("sub", "01"), ("ses", "a"), ("rec", "svr"), ("run", "01")]
    assert (image.suffix, image.subject, image.session, image.mask) == ("T2w", "01", "a", None)
    assert image.uri == "bids::sub-01/ses-a/anat/sub-01_ses-a_rec-svr_run-01_T2w.nii.gz"
    assert image.source_uri.startswith("bids:raw:sub-01/")
    assert hash(image) == hash(image)


def test_raw_and_derivative_spellings_are_inputs(make_dataset):
    inputs = [
        "sub-01_T1w.nii.gz",
        "sub-01_T2w.nii",
        "sub-01_acq-haste_run-2_T2w.nii.gz",
        "sub-01_desc-preproc_T2w.nii.gz",
        "sub-01_part-mag_T2w.nii.gz",
        "sub-01_rec-nesvor_desc-preproc_res-0p8_T2w.nii.gz",
        "sub-01_space-T2w_T1w.nii.gz",
    ]
    others = [
        "sub-01_T2w.json",
        "sub-01_T2star.nii.gz",
        "sub-01_dseg.nii.gz",
        "sub-01_desc-brain_mask.nii.gz",
        "sub-01_part-phase_T2w.nii.gz",
        "sub-01_desc-reoriented_T2w.nii.gz",
        "sub-01_desc-preproc+reoriented_T2w.nii.gz",
        "sub-01_desc-synth_T2w.nii.gz",
        "sub-01_space-CRL_cohort-29_T2w.nii.gz",
        "sub-01/func/sub-01_task-rest_bold.nii.gz",
        "derivatives/x/sub-01/anat/sub-01_T2w.nii.gz",
        "sourcedata/sub-01/anat/sub-01_T2w.nii.gz",
    ]
    root = make_dataset(*inputs, *others, description={"Name": "x", "DatasetType": "derivative"})
    assert sorted(names(find_images(root))) == sorted(inputs)


def test_with_and_without_sessions_in_one_dataset(make_dataset):
    root = make_dataset("sub-01_T2w.nii.gz", "sub-02_ses-1_T2w.nii.gz", "sub-02_ses-2_T2w.nii.gz")
    assert [i.session for i in find_images(root)] == [None, "1", "2"]


@pytest.mark.parametrize("label", ["02", "sub-02"])
def test_participant_label_with_or_without_prefix(make_dataset, label):
    root = make_dataset("sub-01_T2w.nii.gz", "sub-02_T2w.nii.gz", "sub-022_T2w.nii.gz")
    assert names(find_images(root, participants=[label])) == ["sub-02_T2w.nii.gz"]


@pytest.mark.parametrize("label", ["1", "ses-1"])
def test_session_label_with_or_without_prefix(make_dataset, label, caplog):
    root = make_dataset("sub-01_ses-1_T2w.nii.gz", "sub-01_ses-11_T2w.nii.gz", "sub-02_ses-2_T2w.nii.gz")
    with caplog.at_level(logging.WARNING):
        assert names(find_images(root, sessions=[label])) == ["sub-01_ses-1_T2w.nii.gz"]
    assert "sub-02 has no T1w or T2w image in session 1" in caplog.text


def test_unknown_participant_lists_near_names(make_dataset):
    root = make_dataset("sub-007_T2w.nii.gz", "sub-F12_T2w.nii.gz")
    with pytest.raises(UsageError, match=r"no sub-7 \(near names: 007.*no sub-F13 \(near names: F12"):
        find_images(root, participants=["7", "sub-F13"])


def test_unknown_session_lists_what_is_there(make_dataset):
    root = make_dataset("sub-01_ses-1_T2w.nii.gz")
    with pytest.raises(UsageError, match=r"no ses-two \(there are: 1\)"):
        find_images(root, sessions=["two"])


def test_nothing_found_says_what_was_looked_for(make_dataset):
    root = make_dataset("sub-01/func/sub-01_task-rest_bold.nii.gz", "sub-01_space-CRL_cohort-29_T2w.nii.gz")
    with pytest.raises(BidsError, match=r"\*_T1w and \*_T2w .* of sub-01.*left out 1: .*already in a template's space"):
        find_images(root)
    with pytest.raises(BidsError, match="no sub-"):
        find_images(root / "sub-01")
    with pytest.raises(BidsError, match="no such folder"):
        find_images(root / "nowhere")


def test_missing_or_broken_description_is_warned_about(make_dataset, caplog):
    root = make_dataset("sub-01_T2w.nii.gz")
    (root / "dataset_description.json").unlink()
    assert len(find_images(root, validate=True)) == 1
    assert "no dataset_description.json" in caplog.text
    (root / "dataset_description.json").write_text("{")
    assert len(find_images(root)) == 1
    assert "cannot be read as JSON" in caplog.text


def test_misnamed_files_are_left_out_aloud(make_dataset, caplog):
    root = make_dataset(
        "sub-01_T2w.nii.gz",
        "sub-01/anat/sub-02_T2w.nii.gz",
        "sub-01/anat/sub-01_ses-1_T2w.nii.gz",
        "sub-01/anat/sub-01_cropped_T2w.nii.gz",
    )
    assert names(find_images(root)) == ["sub-01_T2w.nii.gz"]
    assert caplog.text.count("left out, the name is not BIDS") == 3


def test_links_are_followed_and_broken_ones_listed(make_dataset, tmp_path):
    root = make_dataset("sub-01_T2w.nii.gz")
    (root / "sub-02" / "anat").mkdir(parents=True)
    (root / "sub-02" / "anat" / "sub-02_T2w.nii.gz").symlink_to(root / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    # what a dataset under git-annex looks like before its contents are fetched
    (root / "sub-02" / "anat" / "sub-02_T1w.nii.gz").symlink_to(root / ".git" / "annex" / "none")
    (root / "sub-03").symlink_to(tmp_path / "elsewhere" / "sub-03", target_is_directory=True)
    make_dataset("sub-03_T2w.nii.gz", folder="elsewhere")
    assert names(find_images(root)) == [
        "sub-01_T2w.nii.gz",
        "sub-02_T1w.nii.gz",
        "sub-02_T2w.nii.gz",
        "sub-03_T2w.nii.gz",
    ]


def test_validation_of_names_in_raw_datasets(make_dataset):
    root = make_dataset("sub-01_T2w.nii.gz", "sub-01_desc-x_T2w.nii.gz")
    assert len(find_images(root)) == 2
    with pytest.raises(BidsError, match=r"1 names are not valid.*desc-x.*--skip-bids-validation"):
        find_images(root, validate=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "DatasetType": "derivative"}')
    assert len(find_images(root, validate=True)) == 2


FILTERED = ["sub-01_T1w.nii.gz", "sub-01_rec-svr_T2w.nii.gz", "sub-01_run-01_T2w.nii.gz", "sub-01_run-2_T2w.nii.gz"]


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ({"t2w": {"reconstruction": "svr"}}, [0, 1]),
        ({"T2w": {"rec": "svr"}, "t1w": None}, [1]),
        ({"t2w": {"rec": None}}, [0, 2, 3]),
        ({"t2w": {"run": 1}}, [0, 2]),
        ({"t2w": {"run": ["01", 2]}, "t1w": {"run": 1}}, [2, 3]),
        ({"t2w": {"run": "*"}}, [0, 2, 3]),
        ({"t2w": {"run": ["Query.NONE"], "suffix": "T2w", "datatype": "anat"}}, [0, 1]),
        ({"t2w": {"run": "Query.OPTIONAL", "extension": ".nii"}}, [0]),
        ({"bold": {"task": "rest"}}, [0, 1, 2, 3]),
    ],
)
def test_filters(make_dataset, tmp_path, query, kept):
    root = make_dataset(*FILTERED)
    path = tmp_path / "filter.json"
    path.write_text(json.dumps(query))
    assert names(find_images(root, filters=read_filter_file(path))) == [FILTERED[i] for i in kept]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"t2w": {"recon": "a"}}', "unknown entity 'recon'; did you mean rec"),
        ("{", "not valid JSON"),
        ("[1]", "expected an object"),
        ('{"t2w": "svr"}', "must hold an object"),
    ],
)
def test_bad_filter_files_name_the_file(tmp_path, text, message):
    path = tmp_path / "filter.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_filter_file(path)
    assert str(path) in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read_filter_file(tmp_path / "none.json")


def test_filter_that_lets_nothing_through_is_named(make_dataset):
    root = make_dataset(*FILTERED)
    with pytest.raises(BidsError, match=r'"rec": "none"\}.*none of 4 images'):
        find_images(root, filters={"t2w": {"rec": "none"}, "t1w": None})


def big_dataset(root: Path, subjects: int) -> Path:
    for number in range(subjects):
        for session in (1, 2):
            stem = f"sub-{number:03d}_ses-{session}"
            folder = root / f"sub-{number:03d}" / f"ses-{session}"
            for kind, name in (("anat", "T2w"), ("func", "task-rest_bold"), ("dwi", "dwi")):
                (folder / kind).mkdir(parents=True)
                (folder / kind / f"{stem}_{name}.nii.gz").touch()
    return root


def test_only_the_folders_requested_are_read(tmp_path, watch_folders):
    root = big_dataset(tmp_path / "big", 300)
    find_images(root, participants=["000"])  # imports and caches out of the way
    with watch_folders() as listed:
        images = find_images(root, participants=["005", "042"], sessions=["1"])
    assert names(images) == ["sub-005_ses-1_T2w.nii.gz", "sub-042_ses-1_T2w.nii.gz"]
    inside = [Path(path).relative_to(root).parts for path in listed if Path(path).is_relative_to(root)]
    entered = {parts for parts in inside if parts}
    assert {parts[0] for parts in entered} == {"sub-005", "sub-042"}
    assert {parts[1] for parts in entered if len(parts) > 1} == {"ses-1"}
    assert not any({"func", "dwi"} & set(parts) for parts in entered)


def test_work_grows_with_the_images_not_with_their_square(tmp_path, watch_folders):
    root = big_dataset(tmp_path / "big", 40)
    find_images(root, participants=["000"])
    counts = {}
    for number in (10, 20, 40):
        with watch_folders() as listed:
            images = find_images(root, participants=[f"{i:03d}" for i in range(number)])
        assert len(images) == 2 * number
        counts[number] = len(listed)
    # per participant: its folder, two sessions, two anat folders, by posepipe and by pybids; besides, the root a fixed number of times
    assert counts[20] - counts[10] == 2 * 10 * 5
    assert counts[40] - counts[20] == 2 * 20 * 5


def test_list_subjects_enters_no_folder(make_dataset, watch_folders):
    root = make_dataset("sub-02_T2w.nii.gz", "sub-01_T2w.nii.gz")
    (root / "sub-01.html").touch()
    with watch_folders() as listed:
        assert list_subjects(root) == ["01", "02"]
    assert listed == [str(root)]


@pytest.mark.data
def test_real_datasets(data_dir):
    neonates = find_images(data_dir / "ds-neonates", validate=True)
    assert len(neonates) == 32
    assert [i.suffix for i in neonates[:2]] == ["T1w", "T2w"]
    assert len(find_images(data_dir / "ds-epi")) == 23
    (fetal,) = find_images(data_dir / "ds-fetal", validate=True)
    assert fetal.entities == {"sub": "f234", "rec": "svr"}
