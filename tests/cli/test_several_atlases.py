"""Several atlases in one run (``--atlas A B``): a pose at each, what is shared made once, and one atlas's trouble left to itself."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atlas_runs import OTHER, PHANTOM, TURN, Runs, content, names, stem, write_other

from posepipe.bids import read_json, results_in
from posepipe.cli.parser import parse_settings
from posepipe.errors import UsageError
from posepipe.geometry import read_itk
from posepipe.imaging.restore import is_reoriented
from posepipe.imaging.volume import load_volume, save_volume
from posepipe.phantom.demo_data import write_demo


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, home: Path, run_posepipe: Any) -> Runs:
    """Two participants with the same image, of 24.3 and 26.9 weeks; the second atlas has no cohort for the later one."""
    folder = tmp_path_factory.mktemp("several")
    demo = write_demo(folder, spacing=2.0, n_subjects=1, weeks=[24, 26])
    shutil.copytree(demo.bids_dir / "sub-01", demo.bids_dir / "sub-02")
    for path in sorted((demo.bids_dir / "sub-02").rglob("sub-01*")):
        path.rename(path.with_name(path.name.replace("sub-01", "sub-02")))
    (demo.bids_dir / "participants.tsv").write_text("participant_id\tga_weeks\nsub-01\t24.3\nsub-02\t26.9\n", encoding="utf-8")
    return Runs(folder, demo.bids_dir, (demo.atlas_dir, write_other(demo.atlas_dir, folder / "other", ("24",))), run_posepipe)


@pytest.fixture(scope="module")
def both(runs: Runs) -> tuple[int, str]:
    """Both participants at both atlases, in the folder ``both``."""
    return runs("both", "--atlas", PHANTOM, OTHER)


@pytest.fixture(scope="module")
def one(runs: Runs) -> tuple[int, str]:
    """The first participant at the first atlas alone, in the folder ``one``."""
    return runs("one", "--atlas", PHANTOM, "--participant-label", "01", work="work-one")


FIRST = "sub-01_rec-svr_"
AT_OTHER = {
    FIRST + name
    for stem in ("from-T2w_to-Other+24_mode-image_xfm", "from-Other+24_to-T2w_mode-image_xfm")
    for name in (f"{stem}.txt", f"{stem}.json")
} | {FIRST + f"space-Other_cohort-24_{name}T2w.{kind}" for name in ("", "desc-reoriented_") for kind in ("nii.gz", "json")}


@pytest.mark.slow
def test_outputs_at_the_first_atlas_are_those_of_a_run_with_it_alone(runs: Runs, both: tuple[int, str], one: tuple[int, str]) -> None:
    assert (both[0], one[0]) == (0, 0), both[1] + one[1]
    alone, together = runs.anat("one", "01"), runs.anat("both", "01")
    assert names(together) - names(alone) == AT_OTHER and names(alone) <= names(together)
    for path in alone.iterdir():
        assert content(path) == content(together / path.name), path.name


@pytest.mark.slow
def test_each_atlas_has_a_pose_of_its_own_and_images_in_its_frame(runs: Runs, both: tuple[int, str]) -> None:
    base, image = stem(runs, "both"), load_volume(runs.bids / "sub-01/anat/sub-01_rec-svr_T2w.nii.gz")
    first = read_itk(f"{base}_from-T2w_to-Phantom+24_mode-image_xfm.txt")
    further = read_itk(f"{base}_from-T2w_to-Other+24_mode-image_xfm.txt")
    assert np.allclose(further.matrix, (first @ ~TURN).matrix, atol=0.3)  # found anew on each grid
    assert not np.allclose(further.matrix, first.matrix, atol=0.1)
    assert is_reoriented(load_volume(f"{base}_desc-reoriented_T2w.nii.gz"), image, first)
    assert is_reoriented(load_volume(f"{base}_space-Other_cohort-24_desc-reoriented_T2w.nii.gz"), image, further)
    template = runs.atlases[1] / "tpl-Other/cohort-24/tpl-Other_cohort-24_T2w.nii.gz"
    assert load_volume(f"{base}_space-Other_cohort-24_T2w.nii.gz").same_grid(load_volume(template))
    sidecar = read_json(f"{base}_from-T2w_to-Other+24_mode-image_xfm.json")
    assert (sidecar["Atlas"], sidecar["NamedBySpace"]) == (OTHER, True)
    assert "NamedBySpace" not in read_json(f"{base}_from-T2w_to-Phantom+24_mode-image_xfm.json")


@pytest.mark.slow
def test_atlas_without_a_template_of_the_age_is_told_and_the_other_goes_on(runs: Runs, both: tuple[int, str]) -> None:
    code, told = both
    line = "sub-02_rec-svr_T2w.nii.gz: no pose at the atlas Other: 26.9 weeks is outside what the atlas Other covers here (24 to 24 weeks)"
    assert code == 0 and line in told and "2 images to align, 3 poses" in told and "3 aligned, 0 done before, 0 failed" in told
    assert not any("Other" in name for name in names(runs.anat("both", "02")))
    warnings = read_json(f"{stem(runs, 'both', '02')}_space-Phantom_cohort-26_T2w.json")["Warnings"]
    assert any(warning.startswith("no pose at the atlas Other: 26.9 weeks") for warning in warnings)
    assert "no pose at the atlas Other" in (runs.folder / "both/sub-02.html").read_text(encoding="utf-8")
    code, told = runs("nothing", "--atlas", OTHER, PHANTOM, "--age", "35", "--dry-run")
    assert code == 1 and told.count("CANNOT BE PROCESSED (atlas)") == 2 and "the atlas Other covers" in told and "Phantom covers" in told


@pytest.mark.slow
def test_second_run_leaves_all_as_it_is_and_an_atlas_added_later_is_all_that_is_done(
    runs: Runs, both: tuple[int, str], one: tuple[int, str]
) -> None:
    code, told = runs("both", "--atlas", PHANTOM, OTHER)
    assert code == 0 and "0 aligned, 3 done before" in told and "done already with these settings at Other+24" in told
    shutil.copytree(runs.folder / "one", runs.folder / "later")
    before = {path.name: path.stat().st_mtime_ns for path in runs.anat("later", "01").glob("*Phantom*")}
    code, told = runs("later", "--atlas", PHANTOM, OTHER, "--participant-label", "01")
    assert code == 0 and "1 aligned, 1 done before" in told, told
    assert before == {path.name: path.stat().st_mtime_ns for path in runs.anat("later", "01").glob("*Phantom*")}
    for path in runs.anat("both", "01").iterdir():
        assert content(path) == content(runs.anat("later", "01") / path.name), path.name


@pytest.mark.slow
def test_another_order_names_the_outputs_anew_and_leaves_none_behind(runs: Runs, both: tuple[int, str]) -> None:
    shutil.copytree(runs.folder / "both", runs.folder / "order")
    code, told = runs("order", "--atlas", OTHER, PHANTOM, "--participant-label", "01")
    assert code == 0 and "2 aligned, 0 done before" in told, told
    base = stem(runs, "order")
    assert Path(f"{base}_space-Phantom_cohort-24_desc-reoriented_T2w.nii.gz").is_file()
    assert not Path(f"{base}_space-Other_cohort-24_desc-reoriented_T2w.nii.gz").exists()
    assert read_json(f"{base}_desc-reoriented_T2w.json")["Transform"].endswith("to-Other+24_mode-image_xfm.txt")
    assert "2 done before" in runs("order", "--atlas", OTHER, PHANTOM, "--participant-label", "01")[1]
    code, told = runs("order", "--atlas", PHANTOM, "--participant-label", "01")  # alone: the other result stays beside it
    assert code == 0, told
    assert {result.atlas for result in results_in(runs.folder / "order", runs.anat("order", "01"))} == {PHANTOM, OTHER}
    assert not Path(f"{base}_space-Phantom_cohort-24_desc-reoriented_T2w.nii.gz").exists()


@pytest.mark.slow
def test_pages_and_tables_show_each_atlas(runs: Runs, both: tuple[int, str]) -> None:
    code, told = runs("both", level="group")
    assert code == 0 and "3 images" in told, told
    with (runs.folder / "both/group_pose.tsv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [(row["participant_id"], row["atlas"], row["cohort"]) for row in rows] == [
        ("sub-01", "Other", "24"), ("sub-01", "Phantom", "24"), ("sub-02", "Phantom", "26"),
    ]  # fmt: skip
    page = (runs.folder / "both/sub-01.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("Other, cohort 24", "Phantom, cohort 24", "space-Other_cohort-24_desc-reoriented_T2w.nii.gz"))
    assert runs("both", "--atlas", PHANTOM, OTHER, "--reports-only")[0] == 0
    assert "It could not be made" not in (runs.folder / "both/sub-01.html").read_text(encoding="utf-8")
    table = min((runs.folder / "both").glob("logs/runs/*/resources.tsv"), key=lambda path: path.stat().st_mtime_ns)  # of the first run
    with table.open(newline="", encoding="utf-8") as stream:
        nodes = [row["node"] for row in csv.DictReader(stream, delimiter="\t") if row["participant_id"] == "sub-01"]
    assert nodes.count("mask") == 1 and not any(node.startswith("mask at") for node in nodes) and "refinement at Other+24" in nodes
    citation = (runs.folder / "both/logs/CITATION.md").read_text(encoding="utf-8")
    assert "the atlas Phantom" in citation and "the atlas Other" in citation


@pytest.mark.slow
def test_the_bids_validator_takes_the_outputs(runs: Runs, both: tuple[int, str], tmp_path: Path) -> None:
    if importlib.util.find_spec("bids_validator_deno") is None:
        pytest.skip("bids-validator-deno is not installed: pip install bids-validator-deno")
    program, report = Path(sys.executable).with_name("bids-validator-deno"), tmp_path / "report.json"
    assert runs("labels", "--atlas", PHANTOM, OTHER, "--labels", "--level", "header", "--participant-label", "01")[0] == 0
    for out in ("both", "labels"):
        subprocess.run([str(program), str(runs.folder / out), "--format", "json", "--outfile", str(report)], check=False)
        issues = json.loads(report.read_text())["issues"]["issues"]
        assert not [(issue["code"], issue.get("location")) for issue in issues if issue["severity"] == "error"]


@pytest.mark.slow
def test_trouble_at_one_atlas_is_its_own_and_goes_with_the_next_run(runs: Runs, one: tuple[int, str]) -> None:
    template = runs.atlases[1] / "tpl-Other/cohort-24/tpl-Other_cohort-24_T2w.nii.gz"
    whole = template.read_bytes()
    template.write_bytes(whole[:2000])
    shutil.copytree(runs.folder / "one", runs.folder / "trouble")
    options = ("--atlas", PHANTOM, OTHER, "--participant-label", "01")
    try:
        code, told = runs("trouble", *options)
    finally:
        template.write_bytes(whole)
    assert code == 1 and "1 done before, 1 failed" in told, told
    with (runs.folder / "trouble/failures.tsv").open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream, delimiter="\t")
    assert row["stage"].endswith(" at Other") and "tpl-Other_cohort-24_T2w.nii.gz" in row["error"]
    page = (runs.folder / "trouble/sub-01.html").read_text(encoding="utf-8")
    assert "Phantom, cohort 24" in page and "at Other" in page
    code, told = runs("trouble", level="group")
    assert "1 not processed" in told or "1 failed" in told, told
    code, told = runs("trouble", *options)
    assert code == 0 and "1 aligned, 1 done before, 0 failed" in told, told
    assert len((runs.folder / "trouble/failures.tsv").read_text(encoding="utf-8").splitlines()) == 1


def test_a_mask_that_cannot_be_found_fails_the_image_at_all_atlases(runs: Runs) -> None:
    """It is made once, for all of them."""
    image = runs.bids / "sub-02/anat/sub-02_rec-svr_T2w.nii.gz"
    whole = image.read_bytes()
    volume = load_volume(image, None)
    save_volume(volume.with_data(np.zeros_like(volume.data)), image, volume.data.dtype)
    try:
        code, told = runs("empty", "--atlas", PHANTOM, OTHER, "--participant-label", "02", "--age", "24", "--mask", "nonzero")
    finally:
        image.write_bytes(whole)
    assert code == 1 and "0 aligned, 0 done before, 2 failed" in told, told
    with (runs.folder / "empty/failures.tsv").open(newline="", encoding="utf-8") as stream:
        assert {row["stage"] for row in csv.DictReader(stream, delimiter="\t")} == {"mask at Phantom", "mask at Other"}


def test_names_of_atlases_are_read_from_the_command_line_and_config_files(tmp_path: Path) -> None:
    places = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant"]
    assert parse_settings(places).atlas == ("auto",)
    assert parse_settings([*places, "--atlas", "CRL", "Serag"]).atlas == ("CRL", "Serag")
    for text, atlases in (('atlas = "CRL"', ("CRL",)), ('atlas = ["CRL", "Serag"]\nlevel = "header"', ("CRL", "Serag"))):
        config = tmp_path / "config.toml"
        config.write_text(text, encoding="utf-8")
        settings = parse_settings([*places, "--config-file", str(config)])
        assert settings.atlas == atlases
        config.write_text(settings.to_toml({}), encoding="utf-8")  # the record of a run is a config file
        again = parse_settings([*places, "--config-file", str(config)])
        assert (again.atlas, again.level) == (settings.atlas, settings.level)
    with pytest.raises(UsageError, match="auto chooses one atlas by itself"):
        parse_settings([*places, "--atlas", "auto", "CRL"])
    with pytest.raises(UsageError, match="CRL is named twice"):
        parse_settings([*places, "--atlas", "CRL", "Serag", "CRL"])


def test_each_name_must_be_an_atlas(runs: Runs) -> None:
    code, told = runs("nothing", "--atlas", PHANTOM, "Nowhere", "--dry-run")
    assert code == 2 or code == 1
    assert "no atlas named 'Nowhere'" in told
