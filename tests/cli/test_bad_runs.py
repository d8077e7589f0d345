"""Invalid datasets, run to the end: healthy images have their outputs, the others are in ``failures.tsv``."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bad_datasets import put, table

FAST = ("--participant-label", "01", "02", "--init", "center", "--refine", "none")
IMAGE = "sub-01/anat/sub-01_T2w.nii.gz"
LONG = "A" * 230
DEEP = "[" * 100_000


@dataclass(frozen=True)
class Run:
    """``failed``: names of images that must be in ``failures.tsv``; ``says``: what else must be said; ``code``: the exit code."""

    name: str
    spoil: Callable[[Path], object]
    failed: tuple[str, ...] = ()
    says: str = ""
    code: int = 1
    options: tuple[str, ...] = FAST


def renamed(root: Path, name: str) -> None:
    (root / "sub-01/anat" / name).parent.mkdir(parents=True, exist_ok=True)
    (root / IMAGE).rename(root / "sub-01/anat" / name)


def copied(root: Path, name: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / IMAGE, root / name)


ALL = FAST[3:]
RUNS = [
    Run("another encoding", lambda r: put(r / "participants.tsv", (r / "participants.tsv").read_text().encode("utf-16")),
        ("sub-01_T2w.nii.gz",), "participants.tsv: is not UTF-8 text (it is UTF-16); save it as UTF-8"),
    Run("rows that disagree", lambda r: (r / "participants.tsv").open("a").write("01\t31\n"), ("sub-01_T2w.nii.gz",), "2 rows for"),
    Run("a range for an age", lambda r: put(r / "participants.tsv", table(("participant_id", "ga_weeks"), ("sub-01", "28-30"))),
        ("sub-01_T2w.nii.gz",), "'28-30', neither a number"),
    Run("a row too long", lambda r: put(r / "participants.tsv", table(("participant_id", "ga_weeks"), ("sub-01", "24.3", "31"))),
        ("sub-01_T2w.nii.gz",), "3 cells for 2 columns"),
    Run("JSON nested too deeply", lambda r: (put(r / "participants.json", DEEP), put(r / "dataset_description.json", DEEP)),
        ("sub-01_T2w.nii.gz",), "participants.json: cannot be read as JSON (nested too deeply); repair or remove it"),
    Run("description is a folder", lambda r: ((r / "dataset_description.json").unlink(), put(r / "dataset_description.json/x")), code=0,
        says="dataset_description.json: expected a file"),
    Run("link to itself", lambda r: ((r / IMAGE).unlink(), (r / IMAGE).symlink_to("sub-01_T2w.nii.gz")), ("sub-01_T2w.nii.gz",), "link"),
    Run("image is a folder", lambda r: ((r / IMAGE).unlink(), put(r / IMAGE / "x")), says="LACKING: sub-01 was selected"),
    Run("extension in capitals", lambda r: renamed(r, "sub-01_T2w.NII.GZ"), says="LACKING: sub-01 was selected"),
    Run("name that is not valid", lambda r: copied(r, "sub-01/anat/sub-01_foo-1_T2w.nii.gz"), ("sub-01_foo-1_T2w.nii.gz",), "--skip-bids"),
    Run("name too long for its outputs", lambda r: renamed(r, f"sub-01_acq-{LONG}_T2w.nii.gz"), (f"sub-01_acq-{LONG}_T2w.nii.gz",),
        "shorten"),
    Run("name that is no text", lambda r: copied(r, f"sub-01/anat/{os.fsdecode(b'sub-01_acq-%c_T2w.nii.gz' % 0xfc)}"), code=0,
        says="sub-01_acq-\\udcfc_T2w.nii.gz: left out"),
    Run("folders that lead in circles", lambda r: ((r / "sub-09").symlink_to("sub-09"), (r / "sub-08").symlink_to(".")), code=1,
        says="LACKING: sub-09: a link", options=ALL),
    Run("folders misnamed", lambda r: copied(r, "Sub-01/anat/sub-01_T2w.nii.gz"), code=0, says="Sub-01: left out", options=ALL),
    Run("mask is a folder", lambda r: put(r / "derivatives/masks/sub-01/anat/sub-01_desc-brain_mask.nii.gz/x"), ("sub-01_T2w.nii.gz",),
        "expected a file, found a folder", options=(*FAST, "-d", "ROOT/derivatives/masks")),
]  # fmt: skip


@pytest.fixture
def study(raw_study: Any, tmp_path: Path) -> Any:
    """Two participants: 01, whose age is in ``participants.tsv``, and 02, who is healthy and has a table of their own."""
    bids = tmp_path / "bids"
    put(bids / "dataset_description.json", {"Name": "test", "BIDSVersion": "1.10.0"})
    put(bids / "participants.tsv", table(("participant_id", "ga_weeks"), ("sub-01", "24.3")))
    put(bids / "sub-02/sub-02_scans.tsv", table(("filename", "ga_weeks"), ("anat/sub-02_T2w.nii.gz", "24.3")))
    for label in ("01", "02"):
        put(bids / f"sub-{label}/anat/sub-{label}_T2w.nii.gz", (raw_study.bids / "sub-01/anat/sub-01_rec-svr_T2w.nii.gz").read_bytes())
    return bids


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_runs(run: Run, study: Path, raw_study: Any, run_posepipe: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run.spoil(study)
    out = tmp_path / "out"
    options = [option.replace("ROOT", str(study)) for option in run.options]
    if "-d" not in options and (study / "derivatives").exists():
        raise AssertionError
    command = [
        str(study), str(out), "participant", "-w", str(tmp_path / "work"), "--atlas", "Phantom",
        "--atlas-dir", str(raw_study.demo.atlas_dir), "--nprocs", "1", *options,
    ]  # fmt: skip
    code, output = run_posepipe(command)
    output += "\n".join(record.getMessage() for record in caplog.records)
    assert code == run.code and "Traceback" not in output, output
    assert run.says in output, output
    assert (out / "sub-02/anat/sub-02_from-T2w_to-Phantom+24_mode-image_xfm.txt").is_file() and (out / "sub-02.html").is_file(), output
    with (out / "failures.tsv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [Path(row["image"]).name for row in rows] == list(run.failed), rows
    assert not [path for path in out.rglob("*") if ".tmp." in path.name]
