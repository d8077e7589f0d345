"""``--session-pose``: what is planned, and a session with images of one head, one of which was turned and one of which is broken."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posepipe.bids import read_json
from posepipe.cli.parser import parse_settings
from posepipe.cli.plan import describe, make_plan
from posepipe.errors import UsageError
from posepipe.geometry import Rigid
from posepipe.imaging.volume import load_volume, save_volume
from posepipe.plan import ImagePlan

CONSISTENT = ("--participant-label", "03", "--session-pose", "consistent")
TURN = Rigid.from_rotvec([0.4, 0.2, 0.0], [5.0, 0.0, 0.0])


def add_runs(study: Any) -> Path:
    """A second T2w image of participant 03, whose head turned before it, and a third one that is damaged; their folder."""
    anat = study.bids / "sub-03" / "anat"
    image = load_volume(anat / "sub-03_T2w.nii.gz")
    save_volume(image.moved(TURN), anat / "sub-03_run-2_T2w.nii.gz", np.int16)
    packed = (anat / "sub-03_T2w.nii.gz").read_bytes()
    (anat / "sub-03_run-3_T2w.nii.gz").write_bytes(packed[:-8] + bytes(4) + packed[-4:])
    return Path(anat)


@pytest.fixture
def study(raw_study: Any, tmp_path: Path) -> Any:
    """Outputs and work of its own; nothing is written to the dataset."""
    return replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")


def planned(study: Any, *options: str) -> dict[str, ImagePlan]:
    return {image.image.path.name: image for image in make_plan(parse_settings(study.command(*options))).images}


def test_an_image_s_result_depends_on_the_others_of_its_session(study, tmp_path):
    alone = planned(study, "--participant-label", "03")
    both = planned(study, *CONSISTENT)
    assert alone.keys() == both.keys() == {"sub-03_T1w.nii.gz", "sub-03_T2w.nii.gz"}
    for name, image in both.items():
        assert image.alone_hash == alone[name].parameters_hash != image.parameters_hash
        assert alone[name].alone_hash == ""
    some = tmp_path / "filter.json"
    some.write_text('{"t2w": {"suffix": "T2w"}}')
    single = planned(study, *CONSISTENT, "--bids-filter-file", str(some))
    if len(single) == 1:  # one image alone has the pose that it always has
        assert [i.parameters_hash for i in single.values()] == [alone["sub-03_T2w.nii.gz"].parameters_hash]
    text = "\n".join(describe(make_plan(parse_settings(study.command(*CONSISTENT))), parse_settings(study.command(*CONSISTENT))))
    assert text.count("one pose with the other images at Phantom+39") == 2


def test_images_of_other_templates_are_not_put_together(study):
    apart = planned(study, *CONSISTENT, "--participant-label", "02", "03")
    assert {name: bool(image.alone_hash) for name, image in apart.items() if "sub-02" in name} == {
        "sub-02_ses-1_rec-svr_T2w.nii.gz": False, "sub-02_ses-2_rec-svr_T2w.nii.gz": False,
    }  # fmt: skip


def test_one_more_image_makes_the_results_out_of_date(raw_study, tmp_path):
    study = raw_study.copy(tmp_path)
    before = planned(study, *CONSISTENT)
    add_runs(study)
    after = planned(study, *CONSISTENT)
    assert all(after[name].parameters_hash != image.parameters_hash for name, image in before.items())
    assert all(after[name].alone_hash == image.alone_hash for name, image in before.items())


def test_what_another_run_works_on_is_left_to_it_with_all_that_share_its_pose(study):
    plan = make_plan(parse_settings(study.command("--session-pose", "consistent", "--participant-label", "02", "03")))
    first = next(image for image in plan.images if image.alone_hash)
    rest = plan.without([first])
    assert {image.image.subject for image in rest.images} == {"02"}


def test_nothing_is_refined_together_without_a_refinement(study):
    with pytest.raises(UsageError, match="give one of the two"):
        parse_settings([*study.command("--session-pose", "consistent"), "--refine", "none"])


@pytest.fixture(scope="module")
def session(raw_study: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, int, str]:
    """The study after a run with one pose, its exit code and what was printed."""
    study = raw_study.copy(tmp_path_factory.mktemp("session"))
    add_runs(study)
    return study, *study.main(*CONSISTENT)


def forward(study: Any, name: str, ending: str = "json") -> Path:
    stem, suffix = name.rsplit("_", 1)
    return Path(study.out / "sub-03" / "anat" / f"{stem}_from-{suffix}_to-Phantom+39_mode-image_xfm.{ending}")


@pytest.mark.slow
def test_one_head_has_one_pose_and_what_turned_or_failed_stops_nobody(session):
    study, code, told = session
    assert code == 1 and "3 aligned, 0 done before, 1 failed" in told, told
    names = ("sub-03_T1w", "sub-03_T2w", "sub-03_run-2_T2w")
    t1, t2, again = (read_json(forward(study, name)) for name in names)
    assert forward(study, names[0], "txt").read_bytes() == forward(study, names[1], "txt").read_bytes()
    assert t1["RotationMatrix"] == t2["RotationMatrix"] and t1["TranslationMM"] == t2["TranslationMM"]
    uris = [f"bids:raw:sub-03/anat/{name}.nii.gz" for name in names]
    assert t1["SessionPose"]["SharedBy"] == t2["SessionPose"]["SharedBy"] == uris[:2]
    assert t1["SessionPose"]["Method"] in {"joint", "mean"} and t1["SessionPose"]["MovedDegrees"] < 5
    # the turned image is told apart, and keeps its own pose
    assert again["SessionPose"]["SharedBy"] == uris[2:]
    np.testing.assert_allclose(again["SessionPose"]["PoseBefore"]["RotationMatrix"], again["RotationMatrix"], atol=1e-9)
    assert [one["Image"] for one in again["SessionPose"]["NotSharedBy"]] == uris[:2]
    assert 20 < again["SessionSpread"] < 30 and t1["SessionSpreadImages"] == uris[1:]
    assert t1["Seconds"].keys() >= {"SessionPose", "Quality", "Outputs"}
    with (study.out / "failures.tsv").open() as table:
        assert [row["image"] for row in csv.DictReader(table, delimiter="\t")] == ["sub-03/anat/sub-03_run-3_T2w.nii.gz"]
    page = (study.out / "sub-03.html").read_text()
    assert "Pose shared with" in page and "Apart from sub-03_run-2_T2w.nii.gz" in page


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(session):
    study, _, _ = session
    written = {path: path.read_bytes() for path in (study.out / "sub-03" / "anat").iterdir() if path.suffix in {".txt", ".gz", ".tsv"}}
    forward(study, "sub-03_T2w").unlink()  # killed before the last file of this image
    forward(study, "sub-03_run-2_T2w", "txt").write_text("half")
    code, told = study.main(*CONSISTENT)
    # the one that failed is tried again, and with it those that would share its pose
    assert code == 1 and "3 aligned, 0 done before, 1 failed" in told, told
    assert {path: path.read_bytes() for path in written} == written
    (study.bids / "sub-03" / "anat" / "sub-03_run-3_T2w.nii.gz").unlink()
    assert study.main(*CONSISTENT)[0] == 0
    assert {path: path.read_bytes() for path in written} == written
    code, told = study.main(*CONSISTENT)
    assert code == 0 and "0 aligned, 3 done before" in told, told
