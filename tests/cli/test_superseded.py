"""Results that a newer one of the same image supersedes: they are removed, and never counted or shown beside it."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posepipe.bids import current, results_in
from posepipe.cli.app import main as app

FAST = ("--participant-label", "01", "--init", "center", "--refine", "none")
NAME = "sub-01_rec-svr"


@pytest.fixture
def study(raw_study: Any, tmp_path: Path) -> Any:
    shutil.copytree(raw_study.bids, tmp_path / "bids")
    demo = replace(raw_study.demo, bids_dir=tmp_path / "bids", masks_dir=tmp_path / "bids" / "derivatives" / "masks")
    study = replace(raw_study, demo=demo, out=tmp_path / "out", work=tmp_path / "work")
    set_age(study, "24.3")
    code, output = study.main(*FAST)
    assert code == 0, output
    return study


def set_age(study: Any, weeks: str) -> None:
    path = study.bids / "participants.tsv"
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    column = next(n for n, name in enumerate(lines[0]) if "weeks" in name)
    next(line for line in lines if line[0] == "sub-01")[column] = weeks
    path.write_text("\n".join("\t".join(line) for line in lines) + "\n", encoding="utf-8")


def other_atlas(study: Any, folder: Path) -> list[str]:
    """Options for the study's atlas under another name."""
    shutil.copytree(study.demo.atlas_dir / "tpl-Phantom", folder / "tpl-Other")
    for path in sorted(folder.rglob("*Phantom*")):
        path.rename(path.with_name(path.name.replace("Phantom", "Other")))
    return ["--atlas-dir", str(folder), "--atlas", "Other"]


def spaces(study: Any) -> set[str]:
    """The cohorts that files of the image name."""
    names = [path.name for path in (study.out / "sub-01" / "anat").iterdir()]
    return {word for word in ("24", "27") for name in names if f"+{word}_" in name or f"_cohort-{word}_" in name}


def group_rows(study: Any) -> tuple[list[dict[str, str]], str]:
    code = app([str(study.bids), str(study.out), "group", "--participant-label", "01"])
    assert code == 0
    with (study.out / "group_pose.tsv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t")), (study.out / "sub-01.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_corrected_age_takes_the_old_result_away(study: Any) -> None:
    assert spaces(study) == {"24"}
    set_age(study, "27.1")
    code, output = study.main(*FAST)
    assert code == 0 and "its earlier result at Phantom+24 is superseded by that at Phantom+27, and removed" in output
    assert spaces(study) == {"27"}
    anat = study.out / "sub-01" / "anat"
    assert len(list(anat.iterdir())) == len(results_in(study.out, anat)[0].names.files())
    (row,), page = group_rows(study)
    assert row["age"] == "27.1" and "Phantom+24" not in page
    assert "1 done before" in study.main(*FAST)[1]


@pytest.mark.slow
def test_result_left_by_a_run_that_was_stopped_is_not_counted_and_goes_with_the_next(
    study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anat = study.out / "sub-01" / "anat"
    shutil.copytree(anat, tmp_path / "old")
    set_age(study, "27.1")
    study.main(*FAST)
    for path in (tmp_path / "old").iterdir():
        if not (anat / path.name).exists():
            shutil.copyfile(path, anat / path.name)  # the newest by its time
    kept, older = current(results_in(study.out, anat))
    assert [r.names.template for r in kept] == ["Phantom+27"] and [r.names.template for r in older] == ["Phantom+24"]
    (row,), _ = group_rows(study)
    assert row["age"] == "27.1" and "to-Phantom+24_mode-image_xfm.json: not counted" in capsys.readouterr().out
    (study.out / "sub-01.html").write_text("as an older version wrote it", encoding="utf-8")
    code, output = study.main(*FAST)
    assert code == 0 and "1 done before" in output and "superseded" in output
    assert spaces(study) == {"27"}
    _, page = group_rows(study)
    assert "Phantom+27" in page and "Phantom+24" not in page


@pytest.mark.slow
def test_atlas_requested_by_name_stays_beside_another_until_the_age_is_another(study: Any, tmp_path: Path) -> None:
    other = other_atlas(study, tmp_path / "atlas")
    assert study.main(*FAST, *other)[0] == 0
    anat = study.out / "sub-01" / "anat"
    assert {r.names.template for r in current(results_in(study.out, anat))[0]} == {"Phantom+24", "Other+24"}
    set_age(study, "27.1")
    code, output = study.main(*FAST, *other)
    assert code == 0 and "at Phantom+24 is superseded" in output and "at Other+24 is superseded" in output
    assert [r.names.template for r in results_in(study.out, anat)] == ["Other+27"]


@pytest.mark.slow
def test_poses_of_slices_that_are_no_longer_wanted_go(study: Any) -> None:
    """What a T1w image of the same name was converted to is that image's."""
    anat = study.out / "sub-01" / "anat"
    stale = [anat / f"{NAME}_desc-slices_pose.tsv"]
    others = [anat / f"{name}_T2w.nii.gz" for name in (f"{NAME}_desc-mine", f"{NAME}_desc-synth", "sub-01_run-2_desc-synth")]
    for path in (*stale, *others):
        path.touch()
    assert study.main(*FAST)[0] == 0
    assert not any(path.exists() for path in stale) and all(path.exists() for path in others)


@pytest.mark.slow
def test_page_that_a_stopped_run_did_not_write_is_written(study: Any) -> None:
    page = study.out / "sub-01.html"
    before = page.read_text(encoding="utf-8")
    page.write_text("older", encoding="utf-8")
    os.utime(page, (1.0, 1.0))
    sidecar = results_in(study.out, study.out / "sub-01" / "anat")[0].sidecar
    sidecar.touch()
    assert "1 done before" in study.main(*FAST)[1]
    assert len(page.read_text(encoding="utf-8")) > len(before) / 2
