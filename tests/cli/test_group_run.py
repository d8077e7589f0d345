"""Runs of the group level: exit codes, messages, and one damaged file stops nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from group_outputs import Output, rating, write_failure, write_output, write_ratings

Run = Callable[[list[str]], tuple[int, str]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Three images with a pose, one that failed."""
    folder = tmp_path / "out"
    for output in (Output("01", age=24.0), Output("02", "1", qc="review"), Output("03", contrast="T1w", qc="fail")):
        write_output(folder, output, images=True)
    write_failure(folder, "sub-04/anat/sub-04_T2w.nii.gz")
    (folder / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "posepipe", "Version": "0.1.0"}]}')
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def group(run: Run, out: Path, *options: str, bids: str = "/nowhere") -> tuple[int, str]:
    return run([bids, str(out), "group", "--nprocs", "1", *options])


def test_without_the_input_dataset(run_posepipe: Run, out: Path):
    code, printed = group(run_posepipe, out)
    assert code == 0
    assert "4 images in" in printed and "1 failed, 1 fail, 1 review, 1 pass" in printed
    assert "note: images without outputs are not listed: /nowhere: no such folder" in printed
    assert printed.rstrip().endswith(f"report: {out / 'group_pose.html'}")
    assert [row["qc"] for row in rows(out / "group_pose.tsv")] == ["pass", "review", "fail", "failed"]
    assert [row["queue"] for row in rows(out / "group_pose.tsv")] == ["3", "2", "1", "n/a"]
    assert "group_*" in (out / ".bidsignore").read_text().splitlines()
    page = (out / "group_pose.html").read_text()
    assert page.count('"picture":"UklG') == 3  # WebP, three times


def test_images_of_the_dataset_without_outputs_are_listed(run_posepipe: Run, out: Path, tmp_path: Path):
    bids = tmp_path / "bids"
    for subject in ("01", "04", "09"):
        anat = bids / f"sub-{subject}" / "anat"
        anat.mkdir(parents=True)
        (anat / f"sub-{subject}_T2w.nii.gz").touch()
    (bids / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    code, printed = group(run_posepipe, out, bids=str(bids))
    assert code == 0 and "1 not done" in printed and "note:" not in printed
    assert [row["image"] for row in rows(out / "group_pose.tsv") if row["qc"] == "missing"] == ["sub-09/anat/sub-09_T2w.nii.gz"]


def test_a_damaged_sidecar_an_image_and_a_rating_file_are_named_and_the_rest_is_done(run_posepipe: Run, out: Path, tmp_path: Path):
    (out / Output("01").forward).write_text("{")
    (out / Output("02", "1").resampled).with_suffix(".nii.gz").write_bytes(b"")
    write_ratings(tmp_path / "r" / "ab.json", "AB", [rating("sub-02_ses-1_T2w")])
    (tmp_path / "r" / "cd.json").write_text("[]")
    code, printed = group(run_posepipe, out, "--ratings", str(tmp_path / "r"))
    assert code == 1
    problems = [line for line in printed.splitlines() if line.startswith("PROBLEM: ")]
    assert [Path(line.split(": ")[1]).name for line in problems] == [
        Output("01").forward.name, "sub-02_ses-1_space-CRL_cohort-29_T2w.nii.gz", "cd.json",
    ]  # fmt: skip
    assert [row["qc"] for row in rows(out / "group_pose.tsv")] == ["unreadable", "review", "fail", "failed"]
    assert [row["rater"] for row in rows(out / "group_ratings.tsv")] == ["AB"]
    assert "3 files could not be read" in (out / "group_pose.html").read_text()


def test_a_damaged_description_is_named(run_posepipe: Run, out: Path):
    (out / "dataset_description.json").write_text("{")
    code, printed = group(run_posepipe, out)
    assert code == 1 and f"PROBLEM: {out / 'dataset_description.json'}: cannot be read as JSON" in printed
    assert (out / "group_pose.html").is_file() and (out / "dataset_description.json").read_text() == "{"


def test_ratings_are_merged_and_kept(run_posepipe: Run, out: Path, tmp_path: Path):
    for rater, quality in (("AB", 4), ("CD", 2)):
        said = [rating("sub-01_T2w", quality=quality), rating("sub-03_T1w", "reject", 1), rating("sub-99_T2w")]
        write_ratings(tmp_path / "r" / f"{rater}.json", rater, said)
    code, printed = group(run_posepipe, out, "--ratings", str(tmp_path / "r"))
    assert code == 0 and "6 ratings by 2 raters; weighted kappa of the quality 0.67" in printed
    assert "note: 1 rated images are not in out: sub-99_T2w" in printed
    assert [row["queue"] for row in rows(out / "group_pose.tsv")] == ["n/a", "1", "n/a", "n/a"]
    (pair,) = rows(out / "group_agreement.tsv")
    assert pair["images"] == "3" and pair["decision_kappa"] == "1" and pair["quality_kappa"] == "0.666667"
    before = (out / "group_ratings.tsv").read_bytes()
    code, printed = group(run_posepipe, out)
    assert code == 0 and "group_ratings.tsv of an earlier run is left as it is" in printed
    assert (out / "group_ratings.tsv").read_bytes() == before


def test_orders_for_blind_raters(run_posepipe: Run, out: Path):
    code, printed = group(run_posepipe, out, "--blind", "AB", "C-2")
    assert code == 0 and f"order: {out / 'group_order_AB.html'}" in printed
    turns = rows(out / "group_order.tsv")
    assert [turn["rater"] for turn in turns] == ["AB"] * 3 + ["C-2"] * 3
    assert sorted(turn["page"] for turn in turns[:3]) == ["sub-01.html#blind", "sub-02_ses-1.html#blind", "sub-03.html#blind"]
    text = (out / "group_order_C-2.html").read_text()
    assert [text.index(turn["page"]) for turn in turns[3:]] == sorted(text.index(turn["page"]) for turn in turns[3:])


def test_participants_can_be_chosen_and_the_methods_text_stays_whole(run_posepipe: Run, out: Path):
    code, _ = group(run_posepipe, out, "--participant-label", "sub-01")
    assert code == 0 and [row["participant_id"] for row in rows(out / "group_pose.tsv")] == ["sub-01"]
    assert "T1w images were aligned" in (out / "logs" / "CITATION.md").read_text()


def test_dry_run_writes_nothing(run_posepipe: Run, out: Path, tmp_path: Path):
    write_ratings(tmp_path / "r" / "ab.json", "AB", [])
    before = sorted(out.rglob("*"))
    code, printed = group(run_posepipe, out, "--dry-run", "--ratings", str(tmp_path / "r"), "--blind", "AB")
    assert code == 0 and sorted(out.rglob("*")) == before
    assert "sub-04/anat/sub-04_T2w.nii.gz: failed" in printed
    assert "group_pose.tsv, group_pose.json, group_pose.html, group_ratings.tsv" in printed and "group_order_AB.html" in printed


def test_boilerplate_tells_what_ran_and_hashes_are_recorded(run_posepipe: Run, out: Path):
    more = {"InitMethod": "oracle", "RefineMethod": "torch", "Mask": "given", "Weights": {"pose": "ab" * 32}}
    write_output(out, Output("05", more=more), images=True)
    code, printed = group(run_posepipe, out, "--boilerplate-only")
    text = (out / "logs" / "CITATION.md").read_text(encoding="utf-8")
    assert code == 0 and text.strip() in printed and not (out / "group_pose.html").exists()
    assert "The pose was found by a search over all rotations" in text and "by the method 'oracle', and refined by maximising" in text
    assert "Weights of the networks: pose (SHA-256 abababababab…)." in text
    assert "Avants" in text and "- *gholipour2017*: " in text  # as the manifest cites it
    (ours,) = json.loads((out / "dataset_description.json").read_text())["GeneratedBy"]
    assert ours == {
        "Name": "posepipe", "Version": "0.1.0",
        "AtlasFiles": {"tpl-CRL_cohort-29_T2w.nii.gz": "0a" * 32}, "Weights": {"pose": "ab" * 32},
    }  # fmt: skip


@pytest.mark.parametrize("make", [True, False])
def test_nothing_to_show_is_a_usage_error(run_posepipe: Run, tmp_path: Path, make: bool):
    folder = tmp_path / "out"
    if make:
        folder.mkdir()
    code, printed = group(run_posepipe, folder)
    assert code == 2 and "run the participant level first" in printed
    assert not folder.exists() or not list(folder.iterdir())


def test_no_ratings_where_they_should_be_is_a_usage_error(run_posepipe: Run, out: Path):
    code, printed = group(run_posepipe, out, "--ratings", str(out / "none"))
    assert code == 2 and "no such folder" in printed and not (out / "group_pose.tsv").exists()


def test_a_second_run_opens_no_image(run_posepipe: Run, out: Path, monkeypatch: pytest.MonkeyPatch):
    group(run_posepipe, out)
    pictures = (out / "group_pose.html").read_text().count('"picture":"UklG')
    monkeypatch.setattr("posepipe.reports.group_thumbnails.load_volume", None)
    code, _ = group(run_posepipe, out)
    assert code == 0 and (out / "group_pose.html").read_text().count('"picture":"UklG') == pictures == 3
