"""The rows of the group level: poses, failures, images without outputs, and files that are damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from group_outputs import Output, write_failure, write_output

from posepipe.bids import Failures, InputImage
from posepipe.reports.group_queue import review_queue, rule_of
from posepipe.reports.group_rows import Collected, collect, number


def read(out: Path) -> dict[str, object]:
    return {row.image: row for row in collect(out).rows}


def test_a_pose_is_read_with_all_that_is_known(tmp_path: Path):
    write_output(tmp_path, Output("02", "1", age=31.5, qc="review", reasons=("why",), confidence=0.75))
    (row,) = collect(tmp_path).rows
    assert (row.subject, row.session, row.label, row.page) == ("02", "1", "sub-02_ses-1", "sub-02_ses-1.html")
    assert (row.image, row.name) == ("sub-02/ses-1/anat/sub-02_ses-1_T2w.nii.gz", "sub-02_ses-1_T2w")
    assert (row.verdict.key, row.reasons, row.confidence, row.age) == ("review", ("why",), 0.75, 31.5)
    assert row.angle == pytest.approx(40) and row.seconds == 2.0 and row.space == "CRL+29"
    assert row.similarity()["NCC"] == (pytest.approx(0.8), 0.9)
    assert row.forward == "sub-02/ses-1/anat/sub-02_ses-1_from-T2w_to-CRL+29_mode-image_xfm.txt"
    assert row.resampled.endswith("_space-CRL_cohort-29_T2w.nii.gz") and row.mask.endswith("_desc-brain_mask.nii.gz")


def test_both_contrasts_of_a_session_have_rows_and_inverses_have_none(tmp_path: Path):
    write_output(tmp_path, Output("01"))
    write_output(tmp_path, Output("01", contrast="T1w"))
    assert [row.contrast for row in collect(tmp_path).rows] == ["T1w", "T2w"]


def test_an_image_that_failed_last_is_shown_as_failed(tmp_path: Path):
    done = Output("01")
    write_output(tmp_path, done)
    write_failure(tmp_path, done.image)
    (row,) = collect(tmp_path).rows
    assert (row.verdict.key, row.has_pose, row.reasons) == ("failed", False, ("stopped in mask",))
    assert row.error == "MaskError: the mask is empty"


def test_an_image_that_failed_at_one_atlas_keeps_its_pose_at_another(tmp_path: Path):
    done = Output("01")
    write_output(tmp_path, done)
    image = InputImage(tmp_path / done.image, Path(done.image), {"sub": "01"}, "T2w")
    Failures(tmp_path).record(image, "refinement", "diverged", atlas="Serag")
    assert sorted((row.space, row.reasons) for row in collect(tmp_path).rows) == [("", ("stopped in refinement at Serag",)), ("CRL+29", ())]
    Failures(tmp_path).record(image, "refinement", "diverged", atlas="CRL")
    assert not any(row.has_pose for row in collect(tmp_path).rows)


def test_each_pose_of_an_image_is_rated_under_a_name_of_its_own(tmp_path: Path):
    write_output(tmp_path, Output("01"))
    (row,) = collect(tmp_path).rows
    assert row.name == "sub-01_T2w"
    assert replace(row, sidecar={**row.sidecar, "NamedBySpace": True}).name == "sub-01_T2w at CRL+29"


def test_inputs_without_outputs_are_missing(tmp_path: Path):
    write_output(tmp_path, Output("01"))
    inputs = [
        InputImage(Path("/d", name), Path(name), {"sub": name[4:6]}, "T2w")
        for name in ("sub-01/anat/sub-01_T2w.nii", "sub-03/anat/sub-03_T2w.nii", "sub-03/anat/sub-03_T2w.nii.gz")
    ]  # .nii: the extension may be another than a transform's name makes one think
    assert [(row.subject, row.verdict.key) for row in collect(tmp_path, inputs=inputs).rows] == [("01", "pass"), ("03", "missing")]


@pytest.mark.parametrize(
    "damage",
    [
        "{ not json",
        "[1, 2]",
        json.dumps({}),
        json.dumps(Output("01").sidecar() | {"RotationMatrix": [[1, 0, 0]]}),
        json.dumps(Output("01").sidecar() | {"TranslationMM": "<script>"}),
        json.dumps(Output("01").sidecar() | {"Sources": ["bids:raw:sub-01/anat/noname"]}),
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_sidecar_is_named_and_its_image_kept(tmp_path: Path, damage: str | bytes):
    bad, good = Output("01"), Output("02")
    write_output(tmp_path, bad)
    write_output(tmp_path, good)
    (tmp_path / bad.forward).write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    found = collect(tmp_path)
    assert [(row.image, row.verdict.key) for row in found.rows] == [(bad.image, "unreadable"), (good.image, "pass")]
    (problem,) = found.problems
    assert problem.startswith(str(tmp_path / bad.forward))
    assert found.rows[0].error == problem


def test_a_damaged_sidecar_of_the_resampled_image_is_named_too(tmp_path: Path):
    write_output(tmp_path, Output("01"))
    (tmp_path / Output("01").resampled).write_text("{")
    found = collect(tmp_path)
    assert found.rows[0].verdict.key == "unreadable" and "space-CRL" in found.problems[0]


def test_a_damaged_failure_record_is_named(tmp_path: Path):
    write_failure(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz")
    write_failure(tmp_path, "sub-02/anat/sub-02_T2w.nii.gz")
    (tmp_path / "logs" / "failures" / "sub-02_T2w.json").write_text("{")
    found = collect(tmp_path)
    assert [row.subject for row in found.rows] == ["01"]
    assert len(found.problems) == 1 and "sub-02_T2w.json" in found.problems[0]


def test_participants_and_sessions_can_be_chosen(tmp_path: Path):
    for subject, session in (("01", "1"), ("01", "2"), ("02", "1")):
        write_output(tmp_path, Output(subject, session))
    assert [row.label for row in collect(tmp_path, subjects=["01"], sessions=["2"]).rows] == ["sub-01_ses-2"]


def test_values_of_another_kind_count_as_unknown(tmp_path: Path):
    odd = {"Age": "29", "Confidence": True, "Similarity": ["x"], "Seconds": None, "QC": 3}
    write_output(tmp_path, Output("01", more=odd))
    (row,) = collect(tmp_path).rows
    assert (row.age, row.confidence, row.similarity(), row.seconds, row.verdict.key) == (None, None, {}, None, "review")
    assert number(float("inf")) is None


def test_an_empty_folder_has_no_rows(tmp_path: Path):
    assert collect(tmp_path) == Collected((), ())


def test_queue_puts_doubt_first_and_leaves_out_what_is_rated_or_has_no_pose(tmp_path: Path):
    outputs = [
        Output("01", confidence=0.9), Output("02", confidence=0.2), Output("03", dice=0.9), Output("04", qc="review", dice=0.97),
        Output("05", qc="fail"), Output("06", dice=0.8), Output("07", confidence=0.1),
    ]  # fmt: skip
    for output in outputs:
        write_output(tmp_path, output)
    write_failure(tmp_path, "sub-08/anat/sub-08_T2w.nii.gz")
    rows = collect(tmp_path).rows
    queue = review_queue(rows, {("07", None, "sub-07_T2w")})
    assert [rows[i].subject for i in queue] == ["05", "04", "06", "03", "02", "01"]
    assert "4 images without an estimated confidence come first" in rule_of(rows)
    assert rule_of(rows[:2]) == "Ordered by confidence, the least first."
    assert rule_of(rows[2:6]).startswith("No confidence was estimated: ordered by verdict")
