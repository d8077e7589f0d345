"""What makes a result out of date: one digest for posepipe's own check, Nipype's cache and estimated ages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import posepipe
from posepipe.atlas import AtlasLibrary
from posepipe.bids import read_json
from posepipe.cli.ages import AgesOfImages
from posepipe.cli.parameters import FileDigests, parameters_of
from posepipe.cli.parser import parse_settings
from posepipe.cli.plan import make_plan
from posepipe.matching import rotation_bank as bank
from posepipe.matching.brain import Brain
from posepipe.models import save_network
from posepipe.models.calibration import NAME
from posepipe.models.calibration import PACKAGED as CALIBRATION
from posepipe.models.posenet import PoseNet
from posepipe.models.weights import PACKAGED

ROOT = Path(posepipe.__file__).parent
ONE = ("--participant-label", "04", "--init", "center", "--refine", "none")


def digest_of(study: Any, *options: str) -> str:
    (image,) = make_plan(parse_settings(study.command(*ONE, *options))).images
    return image.parameters_hash


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder of weights with one network in it, the paper's first."""
    folder = tmp_path / "weights"
    save_weights(folder, 1)
    return folder


def save_weights(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    options = {"size": 32}
    save_network(PoseNet(**options), "pose-net", folder, architecture="PoseNet", options=options, card="# Test\n", terms="none")


def test_another_calibration_is_another_result(raw_study: Any, weights: Path) -> None:
    before = digest_of(raw_study, "--weights", str(weights))
    text = CALIBRATION.read_text(encoding="utf-8")
    (weights / NAME).write_text(text.replace("votes = ", "votes = 0.0"), encoding="utf-8")
    assert digest_of(raw_study, "--weights", str(weights)) != before
    (weights / NAME).write_text(text, encoding="utf-8")  # the package's own, word for word
    assert digest_of(raw_study, "--weights", str(weights)) == before


def test_networks_of_the_paper_count_where_they_find_the_pose(raw_study: Any, weights: Path) -> None:
    found = {}
    for seed in (1, 2):
        save_weights(weights, seed)
        found[seed] = [digest_of(raw_study, "--weights", str(weights), "--init", method) for method in ("posenet", "search")]
    assert found[1][0] != found[2][0] and found[1][1] == found[2][1]


def test_what_a_manifest_says_of_a_template_counts(raw_study: Any) -> None:
    template = AtlasLibrary.default([raw_study.demo.atlas_dir]).template("Phantom", "34", "T2w")
    files, turned = FileDigests(), np.diag([-1.0, -1.0, 1.0])

    def of(one: Any) -> str:
        return str(parameters_of(networks=(), weights_dir=None, templates=[one], settings={}, files=files))

    assert of(replace(template, age=34.5)) != of(template) != of(replace(template, to_canonical=turned))


def test_estimated_age_is_kept_for_what_it_was_made_by(raw_study: Any, weights: Path) -> None:
    (image,) = make_plan(parse_settings(raw_study.command("--participant-label", "01"))).images
    library = AtlasLibrary.default([raw_study.demo.atlas_dir])

    def key(*options: str) -> str:
        settings = parse_settings(raw_study.command("--age", "estimate", "--weights", str(weights), *options))
        return AgesOfImages(settings, library, FileDigests())._key(image.image)

    before = key()
    assert key("--nprocs", "2", "-v") == before
    # how it is aligned tells nothing of its age, but how it is masked does
    assert {key("--refine", "none"), key("--init", "axes"), key("--random-seed", "2")} == {before} != {key("--mask", "nonzero")}
    (weights / NAME).write_text(CALIBRATION.read_text(encoding="utf-8").replace("votes = ", "votes = 0.0"), encoding="utf-8")
    assert key() != before


def test_rotation_bank_of_another_version_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ball = torch.zeros(8, 8, 8)
    ball[2:6, 2:6, 2:6] = 1
    from posepipe.imaging.volume import Volume

    volume = Volume(ball.numpy(), np.eye(4))
    brain = Brain.prepare(volume, volume, 1.0)
    before = bank._fingerprint(brain)
    monkeypatch.setattr(bank, "__version__", "another")
    assert bank._fingerprint(brain) != before


@pytest.mark.slow
def test_upgrade_makes_everything_again(raw_study: Any, tmp_path: Path) -> None:
    """Another version of the code with the same work folder: what it writes is its own, resampled image included."""
    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")
    code, output = study.main(*ONE)
    assert code == 0, output
    (resampled,) = study.out.rglob("*_space-*.nii.gz")
    before = nib.load(resampled).get_fdata()
    new = tmp_path / "new" / "posepipe"
    shutil.copytree(ROOT, new, ignore=shutil.ignore_patterns("data", "__pycache__"))
    (new / "models" / "data").symlink_to(PACKAGED)
    for name in ("workflows", "atlases"):
        package = Path(__import__(f"posepipe.{name}", fromlist=[name]).__file__).parent
        shutil.copytree(package, new / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (new / "_version.py").write_text('__version__ = "999.0"\n', encoding="utf-8")
    apply = new / "interfaces" / "apply.py"
    text = apply.read_text(encoding="utf-8")
    assert text.count("save_volume(resampled, ") == 1
    apply.write_text(text.replace("save_volume(resampled, ", "save_volume(resampled.with_data(resampled.data + 1000), "), encoding="utf-8")
    app = "import sys; from posepipe.cli.app import main; sys.exit(main())"
    run = subprocess.run(
        [sys.executable, "-c", app, *study.command(*ONE)], env=os.environ | {"PYTHONPATH": str(new.parent)}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0 and "1 aligned" in run.stdout, run.stdout + run.stderr
    assert np.allclose(nib.load(resampled).get_fdata(), before + 1000, atol=0.1)
    made_by = read_json(study.out / "dataset_description.json")["GeneratedBy"]
    assert [entry["Version"] for entry in made_by] == ["999.0"]
