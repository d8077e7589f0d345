"""Transforms agree for different numbers of threads. Separate processes are used, as ITK fixes its number at the first registration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from posepipe.atlas.add import add
from posepipe.geometry import Rigid, read_itk
from posepipe.imaging.volume import save_volume

pytestmark = pytest.mark.usefixtures("one_thread_no_cache")

AGREE_DEGREES = 0.05
"""Largest difference between numbers of threads, degrees."""
AGREE_MM = 0.1
"""How far a point beyond the brain, 80 mm from the atlas's origin, may lie from where it was, mm."""


@pytest.fixture(scope="module")
def study(tmp_path_factory, average, head) -> Path:
    """A folder with an atlas, a head and its mask."""
    folder = tmp_path_factory.mktemp("threads")
    image, mask = (save_volume(v, folder / f"{name}.nii.gz") for name, v in zip(("template", "template_mask"), average, strict=True))
    add("Phantom", image=image, mask=mask, age=29, dest=folder / "atlases")
    save_volume(head.image, folder / "head_T2w.nii.gz")
    save_volume(head.mask, folder / "head_mask.nii.gz")
    return folder


def aligned(study: Path, init: str, refine: str, threads: int) -> Rigid:
    """The pose that ``posepipe-tools align`` finds with so many threads of torch, ITK and the linear algebra under numpy."""
    out = study / f"{init}-{refine}-{threads}"
    command = [
        sys.executable, "-c", "from posepipe.cli.tools import main; raise SystemExit(main())",
        "align", study / "head_T2w.nii.gz", "--mask-file", study / "head_mask.nii.gz", "--age", "29", "-o", out,
        "--atlas", "Phantom", "--atlas-dir", study / "atlases", "--init", init, "--refine", refine, "--omp-nthreads", str(threads),
    ]  # fmt: skip
    number = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    done = subprocess.run(command, env=os.environ | number, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (forward,) = out.glob("*_from-T2w_to-Phantom*_xfm.txt")
    return read_itk(forward)


@pytest.mark.slow
@pytest.mark.parametrize(("init", "refine"), [("auto", "ants"), ("search", "torch")])
def test_transforms_agree_across_numbers_of_threads(study, head, init, refine):
    one = aligned(study, init, refine, 1)
    assert one.degrees_from(head.pose) < 3
    two = aligned(study, init, refine, 2)
    assert two.degrees_from(one) < AGREE_DEGREES and two.mm_from(one, (80, 0, 0)) < AGREE_MM
