"""The app without masks: the network finds the brain; if there is none, the run continues."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posepipe.bench.brains import smooth_noise
from posepipe.bench.scans import negative_controls
from posepipe.bids import read_json, write_json
from posepipe.cli.tools import main as tools
from posepipe.imaging.volume import load_volume, save_volume
from posepipe.models.calibration import ConfidenceModel, load_calibration, write_calibration
from posepipe.models.weights import SCAN_NETWORKS, hashes
from posepipe.training.scene_files import read_landmarks

FAST = ("--init", "center", "--refine", "none")
pytestmark = pytest.mark.decisions


def failures(study: Any) -> dict[str, dict[str, str]]:
    with (study.out / "failures.tsv").open(newline="", encoding="utf-8") as stream:
        return {row["subject"]: row for row in csv.DictReader(stream, delimiter="\t")}


@pytest.fixture
def study(raw_study: Any, tmp_path: Path) -> Any:
    """Outputs and work of its own; nothing is written to the dataset."""
    return replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")


@pytest.mark.slow
def test_outputs_tell_of_masks_by_networks(study: Any, scan_weights: Any) -> None:
    weights = scan_weights(0.1)  # head and brain alike are bright enough
    always = replace(load_calibration(), weights=hashes(SCAN_NETWORKS, weights), brain=ConfidenceModel({}, 9.0, 0.5, 0.1))
    write_calibration(always, weights / "calibration.toml")
    code, output = study.main("--mask", "network", "--participant-label", "04", "--weights", str(weights), *FAST)
    assert code == 0, output
    used, stem = hashes(SCAN_NETWORKS, weights), study.out / "sub-04/anat/sub-04_rec-svr"
    sidecar = read_json(Path(f"{stem}_desc-brain_mask.json"))
    assert (sidecar["Type"], sidecar["Mask"], sidecar["Weights"]) == ("Brain", "network", used)
    mask = load_volume(Path(f"{stem}_desc-brain_mask.nii.gz"))
    assert sidecar["Voxels"] == int(mask.data.sum())
    assert sidecar["Millilitres"] == pytest.approx(sidecar["Voxels"] * mask.voxel_volume / 1000)
    assert sidecar["VolumeRatio"] == pytest.approx(sidecar["Millilitres"] / sidecar["ExpectedMillilitres"])
    assert sidecar["Sources"] == ["bids:raw:sub-04/anat/sub-04_rec-svr_T2w.nii.gz"]  # not the mask that came with it
    assert any("edge of the image" in warning for warning in sidecar["Warnings"])  # so is what the border cuts
    forward = read_json(Path(f"{stem}_from-T2w_to-Phantom+34_mode-image_xfm.json"))
    assert forward["Mask"] == "network" and forward["Weights"].items() >= used.items()
    assert forward["QC"] != "pass" and any("part of the brain may lie outside" in reason for reason in forward["QCReasons"])
    text = (study.out / "logs" / "CITATION.md").read_text(encoding="utf-8")
    assert "SynthStrip" in text and f"scan (SHA-256 {used['scan'][:12]}…)" in text
    assert used["scan"] in (study.out / "dataset_description.json").read_text(encoding="utf-8")
    assert f"network, {sidecar['Millilitres']:.0f} ml" in (study.out / "sub-04.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_voxels_of_masks_that_are_not_finite_are_reported(study: Any, tmp_path: Path) -> None:
    """Of the given mask, and of the template's files."""
    masks, atlases = tmp_path / "masks", tmp_path / "atlases"
    shutil.copytree(study.demo.masks_dir, masks)
    shutil.copytree(study.demo.atlas_dir, atlases)
    spoilt = [*masks.rglob("*_mask.nii.gz"), *atlases.rglob("*cohort-34_T2w.nii.gz"), *atlases.rglob("*cohort-34_desc-brain_mask.nii.gz")]
    assert len(spoilt) == 3
    for path in spoilt:
        volume = load_volume(path)
        data = volume.data.copy()
        data[0, 0, 0] = np.nan
        save_volume(volume.with_data(data), path)
    study = replace(study, demo=replace(study.demo, masks_dir=masks, atlas_dir=atlases))
    code, output = study.main("--participant-label", "04", *FAST)
    assert code == 0, output
    stem = study.out / "sub-04/anat/sub-04_rec-svr"
    words = "in the brain mask 1 of "
    assert any(words in warning for warning in read_json(Path(f"{stem}_desc-brain_mask.json"))["Warnings"])
    forward = read_json(Path(f"{stem}_from-T2w_to-Phantom+34_mode-image_xfm.json"))
    assert any(words in reason for reason in forward["QCReasons"]) and forward["QC"] != "pass"
    assert [note.split(":")[0] for note in forward["Warnings"]] == [f"template {path.name}" for path in spoilt[1:]]
    assert words in (study.out / "sub-04.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_image_without_a_brain_fails_and_the_others_do_not(study: Any, scan_weights: Any) -> None:
    options = ("--participant-label", "01", "04", "--weights", str(scan_weights(2.0)), *FAST)
    assert study.main(*options)[0] == 0  # neither needs the networks
    shutil.rmtree(study.out)
    code, output = study.main(*options, "--mask", "network")
    assert code == 1 and "0 aligned, 0 done before, 2 failed" in output
    rows = failures(study)
    assert {subject: row["stage"] for subject, row in rows.items()} == {"sub-01": "mask", "sub-04": "mask"}
    assert rows["sub-01"]["error"].startswith("MaskError: ") and "sub-01_rec-svr_T2w.nii.gz: no brain was found" in rows["sub-01"]["error"]
    assert "no brain was found" in (study.out / "sub-01.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_noise_is_no_brain_to_the_networks_of_the_package(raw_study: Any, tmp_path: Path) -> None:
    study = raw_study.copy(tmp_path)
    study = replace(study, out=tmp_path / "new", work=tmp_path / "new-work")
    noise = study.bids / "sub-05/anat/sub-05_T2w.nii.gz"
    save_volume(smooth_noise(0), noise, np.int16)
    code, output = study.main("--age", "24", "--participant-label", "01", "05", *FAST)
    assert code == 1 and "1 aligned, 0 done before, 1 failed" in output
    (row,) = failures(study).values()
    assert (row["subject"], row["stage"]) == ("sub-05", "mask") and "no brain was found" in row["error"]
    assert (study.out / "sub-01/anat").is_dir() and not (study.out / "sub-05/anat").exists()


@pytest.mark.slow
def test_a_scan_without_its_brain_is_called_fail_and_the_others_pass(
    data_dir: Path, tmp_path: Path, run_posepipe: Any, home: Path
) -> None:
    """Of a whole-uterus scan the piece beside the brain, in which the networks do mask something, and the next scan as it is; both taught
    the networks."""
    marks = read_landmarks(data_dir / "ds-epi")
    scans = {s: load_volume(data_dir / f"ds-epi/{s}/anat/{s}_acq-epi_T2w.nii.gz") for s in ("sub-E01", "sub-E02")}
    _, scans["sub-E01"] = next(negative_controls(scans["sub-E01"], marks["sub-E01"].brain))
    bids = tmp_path / "bids"
    for subject, scan in scans.items():
        folder = bids / subject / "anat"
        folder.mkdir(parents=True)
        save_volume(scan, folder / f"{subject}_T2w.nii.gz", np.int16)
    write_json(bids / "dataset_description.json", {"Name": "Two", "BIDSVersion": "1.10.0"})
    out = tmp_path / "out"
    options = ("--age", "31", "--atlas", "CRL", "--atlas-dir", str(data_dir / "atlases"), "--nprocs", "1", "--refine", "torch")
    code, output = run_posepipe([str(bids), str(out), "participant", "-w", str(tmp_path / "work"), *options])
    assert code == 0 and "2 aligned, 0 done before, 0 failed" in output
    beside, whole = (read_json(next((out / subject / "anat").glob("*_from-T2w_to-*_xfm.json"))) for subject in scans)
    assert beside["QC"] == "fail" and beside["Confidence"] < 0.3
    assert any("is a brain with a probability of only" in reason for reason in beside["QCReasons"])
    assert whole["QC"] == "pass" and whole["Confidence"] > 0.8


@pytest.mark.slow
def test_align_masks_a_whole_head_by_itself(raw_study: Any, tmp_path: Path, capsys: Any) -> None:
    """The networks of the package on the phantom with skull and scalp, against the mask it was made with."""
    image = raw_study.bids / "sub-04/anat/sub-04_rec-svr_T2w.nii.gz"
    places = ["-o", str(tmp_path), "--atlas", "Phantom", "--atlas-dir", str(raw_study.demo.atlas_dir)]
    assert tools(["align", str(image), "--age", "34", *places, *FAST]) == 0, capsys.readouterr()
    (path,) = tmp_path.glob("*_desc-brain_mask.nii.gz")
    assert read_json(path.with_name(path.name.replace(".nii.gz", ".json")))["Mask"] == "network"
    (truth,) = raw_study.demo.masks_dir.rglob("*_mask.nii.gz")
    found, true = (load_volume(p).data > 0 for p in (path, truth))
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.85
