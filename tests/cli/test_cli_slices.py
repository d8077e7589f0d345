"""The app and stacks of thick slices: the pose of each slice, and how it is reported."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posepipe.bids import read_json
from posepipe.bids.slice_table import COLUMNS, read_table
from posepipe.cli.parser import parse_settings
from posepipe.cli.plan import make_plan
from posepipe.cli.tools import main as tools
from posepipe.geometry import read_itk
from posepipe.imaging.volume import Volume, load_volume, save_volume
from posepipe.models.slices import SliceCoordinateNet
from posepipe.models.weights import hashes, save_network

IMAGE = "sub-01/anat/sub-01_rec-svr_T2w.nii.gz"
FAST = ("--participant-label", "01", "--init", "search", "--refine", "torch")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice network that has learnt nothing: what it proposes is wrong."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    options = {"size": 16, "width": [2, 2, 2, 2]}
    network = SliceCoordinateNet(16, (2, 2, 2, 2)).eval()
    save_network(network, "slice-coordinates", folder, architecture="SliceCoordinateNet", options=options, card="For tests.", terms="none")
    return folder


@pytest.fixture
def study(raw_study: Any, tmp_path: Path) -> Any:
    """The study with a stack for participant 01: slices three times as thick, acquired in two interleaves."""
    own = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work").copy(tmp_path)
    image = own.bids / IMAGE
    save_volume(thickened(load_volume(image)), image, np.int16)
    n = load_volume(image).shape[2]
    acquired = {"SliceTiming": [1.5 * (k // 2 + (n + 1) // 2 * (k % 2)) for k in range(n)], "SliceThickness": 4.5}
    sidecar_of(image).write_text(json.dumps(read_json(sidecar_of(image)) | acquired))
    return own


def sidecar_of(image: Path) -> Path:
    return image.with_name(image.name.replace(".nii.gz", ".json"))


def thickened(volume: Volume) -> Volume:
    """Means of three slices along the last voxel axis, 0 where one of them is outside the brain."""
    n = volume.shape[2] // 3
    three = volume.data[:, :, : 3 * n].reshape(*volume.shape[:2], n, 3)
    data = np.where((three > 0).all(-1), three.mean(-1), 0)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 2]
    affine[:3, 2] *= 3
    return Volume(data.astype(np.float32), affine, volume.source)


def plans(study: Any, *options: str) -> Any:
    return list(make_plan(parse_settings(study.command(*FAST, *options))).images)


@pytest.mark.parametrize(("mode", "stack", "other"), [("auto", True, False), ("on", True, True), ("off", False, False)])
def test_modes(study: Any, weights: Path, mode: str, stack: bool, other: bool) -> None:
    (plan,) = plans(study, "--slices", mode, "--weights", str(weights))
    assert (plan.timing is not None) is stack is (plan.names.slices in plan.files)
    assert ("slice-coordinates" in plan.parameters["weights"]) is stack
    other_plan, *_ = plans(study, "--slices", mode, "--weights", str(weights), "--participant-label", "02")
    assert (other_plan.timing is not None) is other


def test_slices_are_compared_with_their_own_contrast_alone(study: Any, weights: Path, tmp_path: Path) -> None:
    shutil.copytree(study.demo.atlas_dir, tmp_path / "t2w", ignore=shutil.ignore_patterns("*_T1w*"))
    only_t2w = replace(study, demo=replace(study.demo, atlas_dir=tmp_path / "t2w"))
    said = ("--contrast", "T1w", "--slices", "on", "--weights", str(weights))
    (never,), (auto,) = plans(only_t2w, *said, "--convert", "never"), plans(only_t2w, *said)
    assert never.timing is None and never.names.slices not in never.files
    assert auto.converted and auto.timing is not None


@pytest.mark.slow
def test_run_dry_wet_again_and_with_another_timing(study: Any, weights: Path) -> None:
    options = (*FAST, "--slices", "auto", "--weights", str(weights))
    code, output = study.main(*options, "--dry-run")
    assert code == 0 and "slices    a pose of each; order of acquisition as SliceTiming has it" in output
    assert "sub-01_rec-svr_desc-slices_pose.tsv" in output and "sub-01_rec-svr_desc-slices_pose.json" in output
    code, output = study.main(*options)
    assert code == 0, output
    _check_outputs(study, hashes(("slice-coordinates",), weights))
    table = study.out / "sub-01/anat/sub-01_rec-svr_desc-slices_pose.tsv"
    before = table.read_bytes()
    assert "0 aligned, 1 done before" in study.main(*options)[1]
    table.unlink()
    assert "1 aligned" in study.main(*options)[1] and table.read_bytes() == before
    sidecar = sidecar_of(study.bids / IMAGE)
    sidecar.write_text(json.dumps({k: v for k, v in read_json(sidecar).items() if k != "SliceTiming"}))
    assert "1 aligned" in study.main(*options)[1]
    assert "assumed" in read_json(table.with_suffix(".json"))["SliceOrderNote"]


def _check_outputs(study: Any, used: dict[str, str]) -> None:
    anat = study.out / "sub-01/anat"
    rows = read_table((anat / "sub-01_rec-svr_desc-slices_pose.tsv").read_text())
    image = load_volume(study.bids / IMAGE)
    mask = load_volume(anat / "sub-01_rec-svr_desc-brain_mask.nii.gz").data > 0
    assert [r.slice for r in rows] == list(range(image.shape[2]))
    area = mask.sum((0, 1)) * float(np.prod(image.spacing[:2]))
    assert [r.pose is not None for r in rows] == (area > 100).tolist()
    dictionary = read_json(anat / "sub-01_rec-svr_desc-slices_pose.json")
    assert dictionary.keys() >= COLUMNS.keys() and dictionary["Weights"] == used
    assert dictionary["Sources"][0] == f"bids:raw:{IMAGE}" and dictionary["SliceOrder"] == "SliceTiming"
    (transform,) = anat.glob("sub-01_rec-svr_from-T2w_to-*_xfm.txt")
    pose, forward = read_itk(transform), read_json(transform.with_suffix(".json"))
    about = forward["Slices"]
    assert about["SlicesWithPose"] == sum(r.pose is not None for r in rows) and "Weights" not in about
    assert forward["Weights"].items() >= used.items() and forward["Seconds"]["Slices"] > 0
    assert (forward["RefineMethod"] == "slices") is (about["StackPose"] == "slices")
    for r in rows:  # the head is still: its slices lie where the stack does, though the network knows nothing
        if r.pose is not None:
            assert r.motion_deg == pytest.approx(r.pose.degrees_from(pose), abs=1e-3)
    assert np.median([r.motion_deg for r in rows if r.motion_deg is not None]) < 3
    html = (study.out / "sub-01.html").read_text(encoding="utf-8")
    assert '<svg class="motion"' in html and "Slices with a pose" in html and "sub-01_rec-svr_desc-slices_pose.tsv" in html
    assert "The pose of each slice was proposed" in (study.out / "logs/CITATION.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_one_image_with_a_sidecar_beside_it(study: Any, weights: Path, tmp_path: Path, capsys: Any) -> None:
    image = study.bids / IMAGE
    command = [
        "align", str(image), "--age", "29", "--atlas", "Phantom", "--atlas-dir", str(study.demo.atlas_dir), "--init", "search",
        "--refine", "torch", "--age-policy", "nearest", "--weights", str(weights), "-o", str(tmp_path / "one"),
    ]  # fmt: skip
    assert tools([*command, "--slices", "auto"]) == 0
    assert "sub-01_rec-svr_T2w_desc-slices_pose.tsv" in capsys.readouterr().out
    dictionary = read_json(tmp_path / "one/sub-01_rec-svr_T2w_desc-slices_pose.json")
    assert dictionary["SliceOrder"] == "SliceTiming" and dictionary.keys() >= COLUMNS.keys()
    assert '<svg class="motion"' in (tmp_path / "one/sub-01_rec-svr_T2w.html").read_text(encoding="utf-8")
