"""``--age estimate``: used only if no table has an age, once per image, and reported in all outputs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posepipe.bids import read_json
from posepipe.cli.ages import AgesOfImages
from posepipe.cli.parser import age_option, parse_settings
from posepipe.cli.plan import make_plan
from posepipe.cli.tools import main as tools
from posepipe.errors import UsageError


def plan_of(study: Any, *options: str) -> Any:
    return make_plan(parse_settings(study.command("--age", "estimate", *options)))


@pytest.fixture(scope="module")
def estimated(raw_study: Any, tmp_path_factory: Any) -> Any:
    """A study of sub-01, whose age is known, and sub-05, whose is not, planned once with estimates."""
    folder = tmp_path_factory.mktemp("ages")
    study = raw_study.copy(folder)
    for label in ("02", "03", "04", "06", "07"):
        shutil.rmtree(study.bids / f"sub-{label}")
    return replace(study, out=folder / "out", work=folder / "work"), plan_of(replace(study, work=folder / "work"))


def test_known_ages_stay_and_others_are_estimated(estimated: Any) -> None:
    study, plan = estimated
    known, guessed = plan.images
    assert not plan.failures
    assert (known.age.weeks, known.age.source, known.age.error) == (24.3, "participants.tsv:ga_weeks", None)
    # sub-05 is a copy of sub-01
    assert guessed.age.source == "estimated" and abs(guessed.age.weeks - 24.3) < 3 and guessed.age.error > 0
    assert any("estimated from the image" in warning for warning in guessed.warnings)
    (kept,) = (study.work / "ages").glob("*.json")
    assert read_json(kept)["weeks"] == guessed.age.weeks and "sub-05" in read_json(kept)["image"]


def test_estimates_are_kept_for_the_next_run(estimated: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    study, plan = estimated
    monkeypatch.setattr(AgesOfImages, "_estimate", lambda *_: pytest.fail("estimated again"))
    again = plan_of(study)
    assert [image.parameters_hash for image in again.images] == [image.parameters_hash for image in plan.images]
    assert "estimating" not in capsys.readouterr().out


def test_another_image_or_a_spoilt_file_is_estimated_again(estimated: Any, tmp_path: Path) -> None:
    study, _ = estimated
    study = study.copy(tmp_path)
    (kept,) = (study.work / "ages").glob("*.json")
    weeks, content = read_json(kept)["weeks"], kept.read_text()
    kept.write_text(content[:20])
    list(plan_of(study).images)
    assert read_json(kept)["weeks"] == weeks
    with (study.bids / "sub-05/anat/sub-05_T2w.nii.gz").open("ab") as stream:
        stream.write(b"\0")
    list(plan_of(study).images)
    assert len(list((study.work / "ages").glob("*.json"))) == 2


def test_dry_run_tells_the_estimate_and_writes_nothing(estimated: Any, tmp_path: Path) -> None:
    study = replace(estimated[0], work=tmp_path / "work", out=tmp_path / "out")
    code, output = study.main("--age", "estimate", "--dry-run", "--participant-label", "05")
    assert code == 0 and not study.work.exists()
    weeks, error = (getattr(list(estimated[1].images)[1].age, name) for name in ("weeks", "error"))
    assert f"{weeks:.2f} ± {error:.1f} weeks (estimated)" in output


def test_sidecars_and_page_say_that_the_age_was_estimated(estimated: Any) -> None:
    study, plan = estimated
    code, output = study.main("--age", "estimate", "--init", "deep", "--refine", "none", "--participant-label", "05")
    assert code == 0, output
    age = list(plan.images)[1].age
    (forward,) = (path for path in study.out.rglob("*from-T2w*_xfm.json"))
    sidecar = read_json(forward)
    assert (sidecar["Age"], sidecar["AgeSource"], sidecar["AgeStandardError"]) == (age.weeks, "estimated", age.error)
    page = (study.out / "sub-05.html").read_text(encoding="utf-8")
    assert f"{age.weeks:g} ± {age.error:.4g} weeks, estimated from the image" in page
    assert "the age was estimated from the image" in page
    code, output = study.main("--age", "estimate", "--init", "deep", "--refine", "none", "--participant-label", "05")
    assert code == 0 and "done already" in output


def test_an_image_that_cannot_be_estimated_is_a_failure_of_its_own(raw_study: Any, tmp_path: Path) -> None:
    study = raw_study.copy(tmp_path)
    shutil.copy(study.bids / "sub-06/anat/sub-06_T2w.nii.gz", study.bids / "sub-05/anat/sub-05_T2w.nii.gz")  # damaged
    plan = plan_of(study, "--participant-label", "01", "05")
    assert len(list(plan.images)) == 1
    (failure,) = plan.failures
    assert failure.stage == "age" and "sub-05_T2w.nii.gz" in str(failure.error)


@pytest.mark.slow
def test_align_estimates_too(raw_study: Any, tmp_path: Path, capsys: Any) -> None:
    image = raw_study.bids / "sub-03/anat/sub-03_T2w.nii.gz"
    command = ["align", str(image), "--age", "estimate", "-o", str(tmp_path), "--atlas", "Phantom", "--init", "deep", "--refine", "none"]
    assert tools([*command, "--atlas-dir", str(raw_study.demo.atlas_dir)]) == 0
    assert "note: the age was estimated" in capsys.readouterr().out
    (path,) = tmp_path.glob("*from-T2w*.json")
    sidecar = json.loads(path.read_text())
    assert sidecar["AgeSource"] == "estimated" and abs(sidecar["Age"] - 39.1) < 5 and sidecar["AgeStandardError"] > 0


def test_option() -> None:
    places = ["/data/bids", "/data/out", "participant"]
    assert age_option("29.5") == 29.5
    assert parse_settings([*places, "--age", "estimate", "--age-column", "weeks"]).age == "estimate"
    with pytest.raises(UsageError, match="exclude each other"):
        parse_settings([*places, "--age", "29", "--age-column", "weeks"])
    with pytest.raises(SystemExit):
        parse_settings([*places, "--age", "old"])
