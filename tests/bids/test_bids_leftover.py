"""Files that the walk leaves out or cannot reach are reported, never dropped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from posepipe.bids import AgeReader, find_images, survey_images
from posepipe.bids.links import not_fetched
from posepipe.bids.sidecars import read_json
from posepipe.bids.tables import read_table
from posepipe.errors import AgeError, BidsError

NOWHERE = "../../.git/annex/objects/xx/yy/MD5E-s9--0/MD5E-s9--0"


def test_every_image_like_file_is_listed_with_the_reason(make_dataset, caplog):
    root = make_dataset(
        "sub-01_T2w.nii.gz",
        "sub-01_run-2_T2w.nii.gz",
        "sub-01/anat/sub-01_acq-a_T2w.NII.GZ",
        "sub-01/anat/sub-01_acq-b_t2w.nii.gz",
        "sub-01/anat/sub-01_acq-c_T2w.mgz",
        "sub-01/anat/sub-01_T2w_heudiconv1_Eq_1.nii.gz",
        "sub-01/anat/sub-01_FLAIR.nii.gz",
        "sub-01/anat/sub-01_acq-d_T2w.nii",
        "sub-01/anat/sub-02_T2w.nii.gz",
        "sub-01/anat/sub-01_desc-synth_T2w.nii.gz",
        "sub-01/anat/sub-01_T2w.json",
        "sub-01/sub-01_T2w.nii.gz",
        "sub-01/func/sub-01_task-rest_bold.nii.gz",
        "sub-01/log/x/picture.nii.gz",
    )
    found = survey_images(root, filters={"t2w": {"run": None, "acq": None}})
    assert [image.path.name for image in found.images] == ["sub-01_T2w.nii.gz"]
    lines = dict(line.split(": ", 1) for line in found.left_out)
    anat = "sub-01/anat/sub-01_"
    assert lines[f"{anat}acq-a_T2w.NII.GZ"] == "its extension is .NII.GZ, and BIDS knows .nii and .nii.gz alone: rename it"
    assert lines[f"{anat}acq-c_T2w.mgz"].endswith("convert it")
    assert lines[f"{anat}acq-b_t2w.nii.gz"] == "its suffix is t2w; only T1w and T2w are aligned"
    assert lines[f"{anat}FLAIR.nii.gz"] == "its suffix is FLAIR; only T1w and T2w are aligned"
    assert lines[f"{anat}T2w_heudiconv1_Eq_1.nii.gz"].startswith("the name is not BIDS: dcm2niix resampled it")
    assert lines[f"{anat}run-2_T2w.nii.gz"] == lines[f"{anat}acq-d_T2w.nii"] == "the filter does not let it through"
    assert lines["sub-01/anat/sub-02_T2w.nii.gz"].startswith("the name is not BIDS, or does not agree")
    assert lines[f"{anat}desc-synth_T2w.nii.gz"] == "an output of posepipe"
    assert lines["sub-01/sub-01_T2w.nii.gz"] == "it is not in a folder anat"
    assert len(lines) == 10 and found.lacking == ()
    warned = [record.getMessage() for record in caplog.records]
    for name in ("acq-a_T2w.NII.GZ", "acq-b_t2w.nii.gz", "acq-c_T2w.mgz", "T2w_heudiconv1_Eq_1.nii.gz", "sub-01/sub-01_T2w.nii.gz"):
        assert any(name in message and "left out" in message for message in warned), name
    assert not any(name in message for message in warned for name in ("FLAIR", "synth", "run-2"))


def test_other_folders_are_looked_through_when_asked(make_dataset):
    root = make_dataset("sub-01_ses-1_T2w.nii.gz", "sub-01/ses-1/func/sub-01_ses-1_task-rest_bold.nii.gz", "sub-01/ses-2/anat/x.nii.gz")
    assert survey_images(root, sessions=["1"]).left_out == ()
    (line,) = survey_images(root, sessions=["1"], everywhere=True).left_out
    assert line.startswith("sub-01/ses-1/func/sub-01_ses-1_task-rest_bold.nii.gz: its suffix is bold")


def test_links_that_lead_round_in_a_circle_are_not_followed(make_dataset):
    root = make_dataset("sub-01_T2w.nii.gz", "sub-01/func/sub-01_task-rest_bold.nii.gz")
    for name in "abcd":  # four at each of some forty levels: more than any computer can walk
        (root / "sub-01" / name).symlink_to(root / "sub-01", target_is_directory=True)
        (root / "sub-01" / "func" / name).symlink_to("..", target_is_directory=True)
    found = survey_images(root, everywhere=True)
    assert [line.partition(":")[0] for line in found.left_out] == ["sub-01/func/sub-01_task-rest_bold.nii.gz"]
    assert len(found.images) == 1


def test_participants_and_sessions_requested_by_name_that_have_no_image_are_lacking(make_dataset):
    root = make_dataset("sub-01/anat/sub-01_T2w.NII.GZ", "sub-02_T2w.nii.gz", "sub-03/func/sub-03_task-rest_bold.nii.gz")
    assert survey_images(root).lacking == ()
    first, third = survey_images(root, participants=["01", "02", "sub-03"]).lacking
    assert first.startswith("sub-01 was selected") and "sub-01_T2w.NII.GZ: its extension is .NII.GZ" in first
    assert third == "sub-03 was selected, but has no usable T1w or T2w image"
    with pytest.raises(BidsError, match=r"no image found.*left out 1: .*its extension is \.NII\.GZ"):
        survey_images(root, participants=["01"])


def test_of_participants_and_sessions_each_pair_is_requested(make_dataset):
    root = make_dataset("sub-01_ses-1_T2w.nii.gz", "sub-01_ses-2_T2w.nii.gz", "sub-02_ses-1_T2w.nii.gz", "sub-02/ses-3/func/x.json")
    assert survey_images(root, sessions=["1", "2"]).lacking == ()  # 02 has none of 2, and was not asked for it by name
    (line,) = survey_images(root, participants=["01", "02"], sessions=["1", "2"]).lacking
    assert line.startswith("sub-02, ses-2 was selected")
    (line,) = survey_images(root, sessions=["1", "3"]).lacking
    assert line.startswith("ses-3 was selected, but no participant")


def test_a_filter_that_leaves_no_image_of_a_selected_participant_is_reported(make_dataset):
    root = make_dataset("sub-01_rec-svr_T2w.nii.gz", "sub-02_T2w.nii.gz")
    (line,) = survey_images(root, participants=["01", "02"], filters={"t2w": {"rec": "svr"}}).lacking
    assert line.startswith("sub-02 was selected") and "the filter does not let it through" in line


def test_folders_that_are_links_to_nothing_are_lacking_whether_requested_by_name_or_not(make_dataset):
    root = make_dataset("sub-01_T2w.nii.gz", "sub-03/x.json")
    (root / "sub-02").symlink_to("../elsewhere/sub-02")
    (root / "sub-03" / "anat").symlink_to("../../elsewhere/anat")
    assert [line.partition(":")[0] for line in survey_images(root).lacking] == ["sub-02", "sub-03/anat"]
    second, third = survey_images(root, participants=["01", "02", "03"]).lacking
    assert second.startswith("sub-02 was selected") and "a link to a folder that is not there" in second
    assert third.startswith("sub-03 was selected") and "sub-03/anat" in third
    with pytest.raises(BidsError, match="no image found"):
        survey_images(root, participants=["02"])


@pytest.mark.parametrize("table", ["participants.tsv", "sub-01/sub-01_sessions.tsv", "sub-01/ses-1/sub-01_ses-1_scans.tsv"])
def test_a_table_that_is_a_link_to_nothing_is_an_error_that_names_it(make_dataset, table):
    rows = "participant_id\tga_weeks\nsub-01\t29\n"
    root = make_dataset("sub-01_ses-1_T2w.nii.gz", texts={"participants.tsv": rows})
    (image,) = survey_images(root).images
    assert AgeReader(root).age_of(image).weeks == 29
    (root / table).unlink(missing_ok=True)
    (root / table).symlink_to(NOWHERE)
    with pytest.raises(AgeError, match="a link to what is not there; fetch it") as error:
        AgeReader(root).age_of(image)
    assert str(root / table) in str(error.value)
    assert AgeReader(root, age=29.0).age_of(image).weeks == 29  # then it is not read


@pytest.mark.parametrize("sidecar", ["participants.json", "scans.json", "sub-01/sub-01_scans.json"])
def test_so_is_the_sidecar_of_a_table(make_dataset, sidecar):
    scans = "filename\tx\nanat/sub-01_T2w.nii.gz\t1\n"
    texts = {"participants.tsv": "participant_id\tga_weeks\nsub-01\t29\n", "sub-01/sub-01_scans.tsv": scans}
    root = make_dataset("sub-01_T2w.nii.gz", texts=texts)
    (root / sidecar).symlink_to(NOWHERE)
    (image,) = survey_images(root).images
    with pytest.raises(AgeError) as error:
        AgeReader(root).age_of(image)
    assert str(root / sidecar) in str(error.value)


def test_so_are_the_description_and_what_belongs_to_masks(make_dataset):
    root = make_dataset("sub-01_T2w.nii.gz")
    masks = make_dataset("sub-01_desc-brain_mask.nii.gz", "sub-02_desc-brain_mask.nii.gz", folder="masks")
    (image,) = survey_images(root, derivatives=[str(masks)]).images
    assert image.mask is not None
    (masks / "sub-01/anat/sub-01_desc-brain_mask.json").symlink_to(NOWHERE)
    ((path, error),) = survey_images(root, derivatives=[str(masks)]).unmasked.items()
    assert path == image.path and "desc-brain_mask.json: a link to what is not there" in str(error)
    with pytest.raises(BidsError, match=r"desc-brain_mask\.json: a link to what is not there"):
        find_images(root, derivatives=[str(masks)])
    (masks / "sub-01").rename(masks / "moved")
    (masks / "sub-01").symlink_to("../nowhere")
    (error,) = survey_images(root, derivatives=[str(masks)]).unmasked.values()
    assert "masks/sub-01: a link to what is not there" in str(error)
    (root / "dataset_description.json").unlink()
    (root / "dataset_description.json").symlink_to(NOWHERE)
    with pytest.raises(BidsError, match=r"dataset_description\.json: a link to what is not there"):
        survey_images(root)


def test_links_to_what_is_there_and_files_that_are_not_are_no_such_thing(tmp_path):
    (tmp_path / "there.tsv").write_text("participant_id\n")
    (tmp_path / "link.tsv").symlink_to("there.tsv")
    assert not_fetched(tmp_path / "link.tsv") is None
    assert not_fetched(tmp_path / "missing.tsv") is None
    assert read_table(tmp_path / "missing.tsv", "participant_id") is None
    (tmp_path / "gone.json").symlink_to(NOWHERE)
    with pytest.raises(BidsError, match="a link to what is not there"):
        read_json(tmp_path / "gone.json")


def test_one_age_for_several_sessions_is_doubted(make_dataset, caplog):
    table = {"participants.tsv": "participant_id\tga_weeks\nsub-01\t29\nsub-02\t30\n"}
    names = ["sub-01_ses-fetal_T2w.nii.gz", "sub-01_ses-neonatal_T2w.nii.gz", "sub-02_ses-fetal_T2w.nii.gz"]
    root = make_dataset(*names, texts=table)
    reader = AgeReader(root)
    first, second, alone = (reader.age_of(image) for image in survey_images(root).images)
    assert first.doubts == second.doubts and alone.doubts == ()
    (doubt,) = first.doubts
    assert "(fetal, neonatal)" in doubt and "sub-01/sub-01_sessions.tsv" in doubt
    assert [record.getMessage() for record in caplog.records] == [doubt]
    # also where one session alone is asked for
    (image,) = survey_images(root, participants=["01"], sessions=["neonatal"]).images
    assert AgeReader(root).age_of(image).doubts == (doubt,)


def test_an_age_for_each_session_is_not_doubted(make_dataset):
    names = ["sub-01_ses-fetal_T2w.nii.gz", "sub-01_ses-neonatal_T2w.nii.gz"]
    by_row = {"participants.tsv": "participant_id\tsession_id\tga_weeks\nsub-01\tses-fetal\t29\nsub-01\tses-neonatal\t40\n"}
    by_session = {
        "participants.tsv": "participant_id\tga_weeks\nsub-01\t29\n",
        "sub-01/sub-01_sessions.tsv": "session_id\tpma_weeks\nses-fetal\t29\nses-neonatal\t40\n",
    }
    for folder, texts in (("rows", by_row), ("sessions", by_session)):
        root = make_dataset(*names, folder=folder, texts=texts)
        ages = [AgeReader(root).age_of(image) for image in survey_images(root).images]
        assert [(age.weeks, age.doubts) for age in ages] == [(29, ()), (40, ())]
    root = make_dataset(*names, folder="given", texts=by_session)
    assert AgeReader(root, age=33.0).age_of(survey_images(root).images[0]).doubts == ()  # as the user says


def test_a_dataset_is_read_where_there_is_no_home(make_dataset):
    root = make_dataset("sub-01_T2w.nii.gz")
    code = (
        "import sys, pwd, os\n"
        "def nobody(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = nobody\n"
        "from posepipe.bids import find_images\n"
        "assert len(find_images(sys.argv[1])) == 1\n"
        "assert 'HOME' not in os.environ\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in {"HOME", "XDG_CACHE_HOME"}}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code, str(root)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
