"""The examples for other pipelines (docs/examples): each is run as it stands, up to the door of what cannot be installed here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_docs import PROGRAM

from posepipe.aligner import Aligner
from posepipe.cli.app import main as app
from posepipe.cli.tools import main
from posepipe.geometry import Rigid, read_itk
from posepipe.imaging.apply import reorient
from posepipe.imaging.volume import Volume, load_volume, save_volume, stored_type
from posepipe.phantom import subject
from posepipe.phantom.demo_data import DemoDataset, write_demo

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
WEEKS = 24.3
FAST = "--init deep --refine torch --device cpu"
STEP = yaml.safe_load((EXAMPLES / "fetpype_pose.yaml").read_text(encoding="utf-8"))["postprocessing"]["pose"]
FETPYPE_TAGS = {"mount", "input_stacks", "input_masks", "output_stacks", "output_masks", "singularity_path", "singularity_mount"}
"""What fetpype (1.1) fills in in commands of pre- and post-processing."""


@dataclass(frozen=True)
class Place:
    """A folder to work in, the environment of what is run there, and an atlas of one week."""

    folder: Path
    environment: dict[str, str]
    demo: DemoDataset

    def run(self, *command: object, **more: str) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in command]
        return subprocess.run(
            words, cwd=self.folder, env={**self.environment, **more}, capture_output=True, text=True, timeout=900, check=False
        )

    def program(self, name: str, text: str) -> None:
        path = self.folder / ".programs" / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoDataset:
    return write_demo(tmp_path_factory.mktemp("demo"), n_subjects=1, spacing=2.5)


@pytest.fixture
def place(tmp_path: Path, home: Path, demo: DemoDataset) -> Place:
    """``posepipe-tools`` on the path is that of this interpreter, as of the documentation's own test."""
    programs = tmp_path / ".programs"
    programs.mkdir()
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(paths),
        "POSEPIPE_ATLAS_PATH": str(demo.atlas_dir),
    }  # fmt: skip
    made = Place(tmp_path, environment, demo)
    made.program("posepipe-tools", PROGRAM.format(python=sys.executable, module="tools"))
    return made


def write_stack(path: Path, spacing: Any = (2.0, 2.0, 4.0)) -> Path:
    """A stack of a brain, turned, as whole numbers."""
    pose = Rigid.from_rotvec([0.4, -1.9, 0.7], [5.0, -8.0, 3.0])
    image, _, _ = subject(WEEKS, rng=np.random.default_rng(3), pose=pose, contrast="T2w", spacing=spacing, surroundings=False)
    return save_volume(image, path, np.int16)


def is_upright(image: Path, upright: Path, pose: Path) -> bool:
    """Whether the voxels are those of ``image``, of a type that every reader takes, and the header puts them into the atlas's frame."""
    before, after = load_volume(image, None), load_volume(upright, None)
    same = after.data.dtype == stored_type(before.data.dtype) and np.array_equal(before.data, after.data)
    return same and np.allclose(read_itk(pose).matrix @ after.affine, before.affine, atol=1e-3)


def forward_of(folder: Path) -> Path:
    (pose,) = folder.glob("*_from-T2w_to-*_xfm.txt")
    return pose


NESVOR = """#!{python}
# stands for nesvor: keeps what it is given, and writes an isotropic volume in the frame of the first stack
import json, sys, pathlib
import nibabel, nibabel.processing
words = sys.argv[1:]
at = {{word: i for i, word in enumerate(words) if word.startswith("--")}}
first, out = words[at["--input-stacks"] + 1], pathlib.Path(words[at["--output-volume"] + 1])
(out.parent / "given.json").write_text(json.dumps(words))
nibabel.processing.resample_to_output(nibabel.load(first), 1.5, order=1).to_filename(out)
"""


@pytest.mark.slow
def test_nesvor_is_handed_upright_stacks_and_its_volume_comes_back(place: Place) -> None:
    stack, odd = write_stack(place.folder / "stack-2.nii.gz"), place.folder / "stack-1.nii.gz"
    image = load_volume(stack, None)
    save_volume(Volume(image.data, np.diag([1.6, 1.6, 1.6, 1]) @ image.affine), odd, np.int16)  # too large for its age: fail
    place.program("nesvor", NESVOR.format(python=sys.executable))
    done = place.run("bash", EXAMPLES / "nesvor.sh", odd, stack, AGE=str(WEEKS), OUT="out", OPTIONS=f"--atlas Phantom {FAST}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{odd}: left out, its pose is not to be trusted" in done.stderr
    out = place.folder / "out"
    assert json.loads((out / "given.json").read_text(encoding="utf-8")) == [
        "reconstruct", "--input-stacks", "out/stack-2.nii.gz", "--stack-masks", "out/stack-2_mask.nii.gz",
        "--output-volume", "out/volume.nii.gz", "--registration", "none",
    ]  # fmt: skip
    pose = forward_of(out / "stack-2")
    assert is_upright(stack, out / "stack-2.nii.gz", pose)
    upright, mask = load_volume(out / "stack-2.nii.gz", None), load_volume(out / "stack-2_mask.nii.gz", None)
    assert mask.shape == upright.shape and np.abs(mask.affine - upright.affine).max() < 1e-3  # NeSVoR's own condition
    assert np.allclose(upright.spacing, image.spacing, atol=1e-4) and np.array_equal(mask.data > 0, upright.data > 0)
    back = load_volume(out / "volume_on_stack.nii.gz")
    assert back.same_grid(image) and np.corrcoef(back.data.ravel(), image.data.ravel())[0, 1] > 0.95


def test_nesvor_is_not_run_without_an_age_or_a_stack(place: Place) -> None:
    for words, more, says in (
        (["a.nii"], {"OUT": "out"}, "give the gestational age"), (["a.nii"], {"AGE": "29"}, "give a folder"),
        ([], {"AGE": "29", "OUT": "out"}, "give the stacks"),
    ):  # fmt: skip
        done = place.run("bash", EXAMPLES / "nesvor.sh", *words, **more)
        assert done.returncode != 0 and says in done.stderr


@pytest.mark.slow
def test_the_plain_shell_example_goes_on_after_an_image_that_fails(place: Place) -> None:
    image = write_stack(place.folder / "a b.nii.gz", 2.5)
    (place.folder / "images.csv").write_text(f"no-such.nii.gz,29\n{image},{WEEKS}", encoding="utf-8")  # the last line without its end
    done = place.run("bash", EXAMPLES / "align_all.sh", "images.csv", "out", "--atlas", "Phantom", *FAST.split())
    verdicts = (place.folder / "out/verdicts.tsv").read_text(encoding="utf-8").splitlines()
    told = json.loads(forward_of(place.folder / "out/a b").with_suffix(".json").read_text(encoding="utf-8"))
    assert verdicts == ["image\tverdict", "no-such.nii.gz\tnone", f"{image}\t{told['QC']}"] and told["QC"] in {"pass", "review"}
    assert done.returncode == 1 and "no-such.nii.gz: no such file" in done.stderr
    assert is_upright(image, place.folder / "out/a b.nii.gz", forward_of(place.folder / "out/a b"))
    assert place.run("bash", EXAMPLES / "align_all.sh", "images.csv").returncode == 2


@pytest.mark.slow
def test_the_rule_for_snakemake(place: Place) -> None:
    snakemake = os.environ.get("SNAKEMAKE") or shutil.which("snakemake")
    if snakemake is None:
        pytest.skip("snakemake is not installed: pip install snakemake, in any environment, and put it on the PATH or name it in SNAKEMAKE")
    image = write_stack(place.folder / "sub-01.nii.gz", 2.5)
    ages = json.dumps({"sub-01": WEEKS})
    command = [snakemake, "--snakefile", EXAMPLES / "Snakefile", "--cores", "1", "--config", f"ages={ages}", "out=made"]
    command += [f"images={place.folder}", f"options=--atlas Phantom {FAST}"]
    done = place.run(*command)
    assert done.returncode == 0, done.stderr
    assert is_upright(image, place.folder / "made/sub-01_upright.nii.gz", forward_of(place.folder / "made/sub-01"))
    again = place.run(*command, "-n")
    assert "Nothing to be done" in again.stdout + again.stderr


def filled_in(command: str, image: Path, folder: Path) -> tuple[str, Path]:
    """A command with its tags replaced as fetpype does it, and the file that fetpype takes from it."""
    assert set(re.findall(r"<(.*?)>", command)) <= FETPYPE_TAGS and ("docker" not in command or "<mount>" in command)
    output = folder / "output" / image.name
    for tag, value in (
        ("input_stacks", image), ("output_stacks", output), ("mount", " ".join(f"-v {one}:{one}" for one in (image.parent, output.parent))),
        ("singularity_path", "/containers"), ("singularity_mount", folder),
    ):  # fmt: skip
        command = command.replace(f"<{tag}>", str(value))
    return command, output


def test_the_step_for_fetpype_is_one_command_in_all_containers(tmp_path: Path) -> None:
    assert set(STEP) == {"enabled", "docker", "singularity", "native"}
    filled = {name: filled_in(STEP[name]["cmd"], tmp_path / "recon.nii.gz", tmp_path)[0] for name in ("docker", "singularity", "native")}
    ends = {command.partition(" align ")[2] for command in filled.values()}
    assert len(ends) == 1 and filled["native"].startswith("posepipe-tools align ") and not re.search(r"<\w+>", "".join(filled.values()))
    assert filled["singularity"].startswith(f"singularity exec --bind {tmp_path} /containers/posepipe.sif posepipe-tools align ")
    docker = filled["docker"]
    assert f"-v {tmp_path}/output:{tmp_path}/output" in docker and "--entrypoint posepipe-tools posepipe align" in docker


@pytest.mark.slow
@pytest.mark.data
def test_the_step_for_fetpype_on_its_own_simulated_subject(place: Place, data_dir: Path) -> None:
    (place.folder / "recon").mkdir()
    image = place.folder / "recon" / "recon.nii.gz"
    shutil.copy(data_dir / "ds-simulated/sub-simu001/ses-01/anat/sub-simu001_ses-01_run-1_T2w.nii.gz", image)
    command, output = filled_in(STEP["native"]["cmd"], image, place.folder)
    (place.folder / "atlases").mkdir()
    (place.folder / "atlases/tpl-CRL").symlink_to(data_dir / "atlases/tpl-CRL")
    done = place.run("sh", "-c", command, POSEPIPE_ATLAS_PATH=str(place.folder / "atlases"))
    assert done.returncode == 0, done.stderr
    pose = forward_of(Path(f"{output}.pose"))
    told = json.loads(pose.with_suffix(".json").read_text(encoding="utf-8"))
    assert is_upright(image, output, pose)
    # the brain is of the size of 29 weeks (272 ml), whatever participants.csv says, and is CRL's own of that week: 0.1° and 28.7 weeks seen
    assert told["AgeSource"] == "estimated" and abs(told["Age"] - 29) < 2 and told["QC"] == "pass"
    assert told["RotationAngleDegrees"] < 2 and Path(f"{output}.pose/recon.html").is_file()


@pytest.mark.data
def test_ages_of_fetpypes_subject_are_those_of_its_table(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(data_dir / "ds-simulated"), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work"), "--dry-run"]
    assert app([*command, "--atlas", "CRL", "--atlas-dir", str(data_dir / "atlases")]) == 0
    assert capsys.readouterr().out.count("age       23.00 weeks (participants.csv:ga)") == 3


@pytest.mark.slow
@pytest.mark.data
def test_fetpypes_simulated_subject_as_it_is(data_dir: Path, tmp_path: Path, home: Path) -> None:
    filters, out = tmp_path / "filter.json", tmp_path / "out"
    filters.write_text('{"t2w": {"run": 2}}', encoding="utf-8")
    command = [str(data_dir / "ds-simulated"), str(out), "participant", "-w", str(tmp_path / "work"), "--nprocs", "1"]
    command += ["--atlas", "CRL", "--atlas-dir", str(data_dir / "atlases"), "--slices", "off", "--bids-filter-file", str(filters)]
    assert app([*command, *FAST.split()]) == 0
    (sidecar,) = out.rglob("*_from-T2w_*_xfm.json")
    told = json.loads(sidecar.read_text(encoding="utf-8"))
    assert (told["Age"], told["AgeSource"], told["QC"]) == (23, "participants.csv:ga", "fail")
    assert any("272 ml, 2.54 times the template's at 23 weeks: check mask and age" in reason for reason in told["QCReasons"])
    # at the age of its size it is well, and so are the others, which are orthogonal to it
    aligner = Aligner(atlas="CRL", atlas_dirs=[data_dir / "atlases"], init="deep", refine="torch", slices="off", device="cpu", threads=1)
    anat = data_dir / "ds-simulated/sub-simu001/ses-01/anat"
    found = [aligner.align(anat / f"sub-simu001_ses-01_run-{run}_T2w.nii.gz", 29.0) for run in (2, 3)]
    assert [one.quality.qc for one in found] == ["pass", "pass"] and all(one.pose.angle_degrees < 2 for one in found)


def test_upright_is_what_reorient_writes(demo: DemoDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], home: Path) -> None:
    image = write_stack(tmp_path / "a.nii.gz", 2.5)
    options = ["--age", str(WEEKS), "--atlas", "Phantom", "--atlas-dir", str(demo.atlas_dir), "--init", "axes", "--refine", "none"]
    upright = tmp_path / "new" / "folder" / "up.nii"
    assert main(["align", str(image), "-o", str(tmp_path / "out"), "--upright", str(upright), *options]) == 0
    assert str(upright) in capsys.readouterr().out
    pose = forward_of(tmp_path / "out")
    assert is_upright(image, upright, pose) and load_volume(upright).same_grid(reorient(load_volume(image), read_itk(pose)))
    for wrong, says in ((image, "written over"), (tmp_path / "up.mgz", ".nii or .nii.gz")):
        assert main(["align", str(image), "-o", str(tmp_path / "other"), "--upright", str(wrong), *options]) == 2
        assert says in capsys.readouterr().err and not (tmp_path / "other").exists()
