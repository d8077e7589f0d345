"""Real images have the same poses with one thread and with two, and by Linear and MultiProc. Each run is a process, as users start it."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest
from posepipe.workflows.memory import memory_gb

from posepipe.bids import read_json
from posepipe.cli.parser import cores
from posepipe.cli.threads import VARIABLES
from posepipe.geometry import Rigid, read_itk

AGREE_DEGREES = 0.05
AGREE_MM = 0.05
"""What the project promises of the angle (degrees), and of where the template's middle comes to lie (mm)."""
IMAGES = {
    "newborn": ("ds-neonates/sub-A01/anat/sub-A01_T2w.nii.gz", 41),
    "fetus": ("ds-fetal/sub-f234/anat/sub-f234_rec-svr_T2w.nii.gz", 29),
}
WAYS = {"one": ("Linear", 1), "two": ("Linear", 2), "multiproc": ("MultiProc", 1)}
_RUN = "import sys; from posepipe.cli.app import main; sys.exit(main())"


def dataset(data: Path, folder: Path) -> Path:
    """A newborn and a fetus, with their ages."""
    bids = folder / "bids"
    rows = ["participant_id\tga_weeks"]
    for name, (image, weeks) in IMAGES.items():
        path = bids / f"sub-{name}/anat/sub-{name}_T2w.nii.gz"
        path.parent.mkdir(parents=True)
        shutil.copyfile(data / image, path)
        rows.append(f"sub-{name}\t{weeks}")
    (bids / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (bids / "dataset_description.json").write_text(json.dumps({"Name": "two", "BIDSVersion": "1.9.0"}), encoding="utf-8")
    return bids


def poses(data: Path, folder: Path, refine: str, way: str) -> dict[str, tuple[Rigid, Path]]:
    """Pose and sidecar of each image by one way."""
    plugin, threads = WAYS[way]
    out = folder / f"{refine}-{way}"
    command = [sys.executable, "-c", _RUN, folder / "bids", out, "participant", "-w", folder / f"work-{refine}-{way}"]
    command += ["--atlas-dir", data / "atlases", "--refine", refine, "--nprocs", "2"]
    command += ["--omp-nthreads", str(threads), "--nipype-plugin", plugin]
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for name in IMAGES:
        (forward,) = (out / f"sub-{name}/anat").glob("*_from-T2w_to-*_xfm.txt")
        found[name] = read_itk(forward), forward.with_suffix(".json")
    return found


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("refine", ["torch", "ants"])
def test_poses_agree_across_threads_and_plugins(data_dir: Path, tmp_path: Path, home: Path, refine: str) -> None:
    if cores() < 2:
        pytest.skip("one core only: there is nothing to compare")
    bids = dataset(data_dir, tmp_path)
    found = {way: poses(data_dir, tmp_path, refine, way) for way in WAYS}
    for name in IMAGES:
        one, sidecar = found["one"][name]
        template = nib.load(next(sidecar.parent.glob("*_space-*_cohort-*_T2w.nii.gz")))  # on the template's grid
        middle = template.affine[:3] @ [*((n - 1) / 2 for n in template.shape), 1]
        for way in ("two", "multiproc"):
            other = found[way][name][0]
            print(f"{refine}, {name}, one thread and {way}: {other.degrees_from(one):.5f} degrees, {other.mm_from(one, middle):.5f} mm")
            assert other.degrees_from(one) < AGREE_DEGREES and other.mm_from(one, middle) < AGREE_MM
        voxels = math.prod(nib.load(bids / f"sub-{name}/anat/sub-{name}_T2w.nii.gz").shape)
        for way in WAYS:
            for stage, peak in read_json(found[way][name][1])["PeakMemoryMB"].items():
                assert peak / 1000 <= memory_gb({"InitialPose": "initial_pose"}.get(stage, stage.lower()), voxels), (way, stage, peak)
