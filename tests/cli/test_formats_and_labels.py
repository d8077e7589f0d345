"""``--xfm-formats`` and ``--labels`` of the app: what is written, reported, updated and removed; and the dataset stays valid."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posepipe.bids import read_json
from posepipe.cli.app import main as app
from posepipe.geometry import read_itk
from posepipe.imaging.grid import Grid
from posepipe.imaging.restore import labels_on_image
from posepipe.imaging.transform_files import read_transform
from posepipe.imaging.volume import load_volume
from posepipe.settings import XFM_FORMATS

FAST = ("--participant-label", "01", "--init", "center", "--refine", "none")
ALL = ("--xfm-formats", *XFM_FORMATS)
STEM = "sub-01_rec-svr"
FORWARD, BACKWARD = (f"{STEM}_from-{a}_to-{b}_mode-image_xfm" for a, b in (("T2w", "Phantom+24"), ("Phantom+24", "T2w")))
LABELS = f"{STEM}_seg-tissues_desc-atlas_dseg"


@pytest.fixture(scope="module")
def asked(raw_study: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """The study after a run of one fetus and one newborn with three formats and labels, and its output."""
    folder = tmp_path_factory.mktemp("asked")
    study = replace(raw_study, out=folder / "out", work=folder / "work")
    code, output = study.main(*FAST[:2], "03", *FAST[2:], "--xfm-formats", "itk", "fsl", "lta", "--labels")
    assert code == 0, output
    return study, output


def anat(study: Any, label: str = "01") -> Path:
    return Path(study.out) / f"sub-{label}" / "anat"


def mine(raw_study: Any, tmp_path: Path) -> Any:
    return replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")


def run(study: Any, *options: str) -> str:
    code, output = study.main(*FAST, *options)
    assert code == 0, output
    return str(output)


@pytest.mark.slow
def test_formats_are_written_beside_the_itk_files_and_say_the_same(asked: tuple[Any, str]) -> None:
    study, _ = asked
    folder = anat(study)
    image, template = (Grid.load(path) for path in (
        study.bids / "sub-01/anat" / f"{STEM}_T2w.nii.gz", study.demo.atlas_dir / "tpl-Phantom/cohort-24/tpl-Phantom_cohort-24_T2w.nii.gz",
    ))  # fmt: skip
    for name, moving, reference in ((FORWARD, image, template), (BACKWARD, template, image)):
        pose, files = read_itk(folder / f"{name}.txt"), read_json(folder / f"{name}.json")["TransformFiles"]
        assert set(files) == {"fsl", "lta"}
        for form, one in files.items():
            assert one["File"] == f"{name}{XFM_FORMATS[form]}"
            assert one["NeedsGeometryOf"] == [Path(moving.source).name, Path(reference.source).name]
            other = read_transform(folder / one["File"], None, moving, reference)
            np.testing.assert_allclose(other.apply(reference.corners), pose.apply(reference.corners), atol=1e-4)
    found = {path.name for path in folder.glob("*_xfm.*")}
    assert found == {f"{name}{end}" for name in (FORWARD, BACKWARD) for end in (".txt", ".json", ".mat", ".lta")}


@pytest.mark.slow
def test_labels_are_the_atlas_s_on_the_image_s_grid(asked: tuple[Any, str]) -> None:
    study, _ = asked
    image = load_volume(study.bids / "sub-01/anat" / f"{STEM}_T2w.nii.gz")
    labels = load_volume(anat(study) / f"{LABELS}.nii.gz", None)
    atlas = load_volume(study.demo.atlas_dir / "tpl-Phantom/cohort-24/tpl-Phantom_cohort-24_desc-tissues_dseg.nii.gz", None)
    pose = read_itk(anat(study) / f"{FORWARD}.txt")
    assert labels.same_grid(image) and labels.data.dtype == np.uint8
    assert np.mean(labels.data != labels_on_image(atlas, image, pose).data) < 1e-5
    sidecar = read_json(anat(study) / f"{LABELS}.json")
    assert "not a segmentation" in sidecar["Description"] and sidecar["LabelMap"] == "tissues"
    assert sidecar["Interpolation"] == "nearest neighbour"
    assert sidecar["Transform"] == f"bids::sub-01/anat/{FORWARD}.txt"
    # the phantoms' atlas names no labels; of two images of one newborn neither writes over the other's
    assert not list(study.out.rglob("*_dseg.tsv"))
    assert {path.name for path in anat(study, "03").glob("*_dseg.nii.gz")} == {
        "sub-03_seg-tissues_desc-atlas_dseg.nii.gz", "sub-03_mod-T1w_seg-tissues_desc-atlas_dseg.nii.gz",
    }  # fmt: skip


@pytest.mark.slow
def test_dataset_with_them_is_valid_and_the_group_level_takes_it(asked: tuple[Any, str], tmp_path: Path) -> None:
    study, _ = asked
    assert app([str(study.bids), str(study.out), "group", "--participant-label", "01", "03"]) == 0
    with (study.out / "group_pose.tsv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert len(rows) == 3 and all(row["qc"] != "failed" for row in rows)
    assert f"{FORWARD}.mat" in (study.out / "sub-01.html").read_text(encoding="utf-8")
    if importlib.util.find_spec("bids_validator_deno") is None:
        pytest.skip("bids-validator-deno is not installed: pip install bids-validator-deno")
    report = tmp_path / "report.json"
    command = [str(Path(sys.executable).with_name("bids-validator-deno")), str(study.out), "--format", "json", "--outfile", str(report)]
    subprocess.run(command, capture_output=True, text=True, check=False)
    issues = json.loads(report.read_text())["issues"]["issues"]
    assert not [(i["code"], i.get("subCode"), i.get("location")) for i in issues if i["severity"] == "error"]


@pytest.mark.slow
def test_second_run_does_nothing_and_another_format_is_added_without_another_pose(raw_study: Any, tmp_path: Path) -> None:
    study = mine(raw_study, tmp_path)
    run(study, "--xfm-formats", "fsl", "--labels")
    before = {path: path.stat().st_mtime_ns for path in anat(study).iterdir()}
    assert "1 done before" in run(study, "--xfm-formats", "fsl", "--labels")
    assert {path: path.stat().st_mtime_ns for path in anat(study).iterdir()} == before
    pose = (anat(study) / f"{FORWARD}.txt").read_bytes()
    assert "1 aligned" in run(study, "--xfm-formats", "mirtk", "x5", "--labels")
    assert (anat(study) / f"{FORWARD}.txt").read_bytes() == pose
    found = {path.name.partition("_xfm")[2] for path in anat(study).glob(f"{FORWARD}*")}
    # the result was written anew, and what it does not tell of is gone
    assert found == {".txt", ".json", ".dof", ".x5"}
    # fewer are asked for: the result of now has them all the same
    assert "1 done before" in run(study)
    assert (anat(study) / f"{FORWARD}.x5").is_file() and (anat(study) / f"{LABELS}.nii.gz").is_file()
    (anat(study) / f"{BACKWARD}.dof").unlink()
    assert "1 done before" in run(study) and "1 aligned" in run(study, "--xfm-formats", "mirtk")
    assert (anat(study) / f"{BACKWARD}.dof").is_file() and not (anat(study) / f"{FORWARD}.x5").exists()


@pytest.mark.slow
def test_another_pose_leaves_no_transform_or_labels_of_the_old_one(raw_study: Any, tmp_path: Path) -> None:
    study = mine(raw_study, tmp_path)
    run(study, *ALL, "--labels")
    old = {path.name: path.read_bytes() for path in anat(study).iterdir()}
    assert sum(FORWARD in name for name in old) == len(XFM_FORMATS) + 1
    code, output = study.main(*FAST[:2], "--init", "axes", "--refine", "none")
    assert code == 0, output
    left = {path.name for path in anat(study).iterdir()}
    assert {name for name in old if name not in left} == {
        f"{name}{end}" for name in (FORWARD, BACKWARD) for form, end in XFM_FORMATS.items() if form != "itk"
    } | {f"{LABELS}.nii.gz", f"{LABELS}.json"}
    # files of an older pose under the right names count for nothing
    for name in (f"{FORWARD}.mat", f"{BACKWARD}.mat"):
        (anat(study) / name).write_bytes(old[name])
    code, output = study.main(*FAST[:2], "--init", "axes", "--refine", "none", "--xfm-formats", "fsl")
    assert code == 0 and "1 aligned" in output
    assert (anat(study) / f"{FORWARD}.mat").read_bytes() != old[f"{FORWARD}.mat"]


def test_changed_labels_are_made_again_and_an_atlas_without_labels_is_reported(raw_study: Any, tmp_path: Path) -> None:
    shutil.copytree(raw_study.demo.atlas_dir, tmp_path / "atlas")
    study = replace(mine(raw_study, tmp_path), demo=replace(raw_study.demo, atlas_dir=tmp_path / "atlas"))
    dseg = tmp_path / "atlas/tpl-Phantom/cohort-24/tpl-Phantom_cohort-24_desc-tissues_dseg.nii.gz"
    table = dseg.with_name(dseg.name.replace(".nii.gz", ".tsv"))
    table.write_text("index\tname\n1\twhite matter\n2\tventricles\n", encoding="utf-8")
    run(study, "--labels")
    assert (anat(study) / f"{LABELS}.tsv").read_text(encoding="utf-8") == table.read_text(encoding="utf-8")
    table.write_text("index\tname\n1\tsomething\n", encoding="utf-8")
    assert "1 aligned" in run(study, "--labels") and "something" in (anat(study) / f"{LABELS}.tsv").read_text(encoding="utf-8")
    assert "1 done before" in run(study, "--labels")
    table.write_text("number\tname\n1\tsomething\n", encoding="utf-8")
    code, output = study.main(*FAST, "--labels")
    assert code == 1 and "needs the columns index and name" in output
    table.unlink()
    dseg.unlink()
    study = replace(study, out=tmp_path / "second")
    run(study, "--labels")
    assert not list(anat(study).glob("*_dseg.*"))
    resampled = read_json(next(anat(study).glob("*_space-Phantom*.json")))
    assert any("--labels: the template Phantom+24 has no label map" in note for note in resampled["Warnings"])
    assert "has no label map" in study.main(*FAST, "--labels", "--dry-run")[1]
