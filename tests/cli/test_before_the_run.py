"""Checks before the run: outputs can be written, and no other run is processing the same images."""

from __future__ import annotations

import csv
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import alive, start

from posepipe.cli.parser import parse_settings
from posepipe.cli.plan import make_plan

FAST = ("--participant-label", "01", "--init", "center", "--refine", "none")


@pytest.mark.parametrize(("which", "remedy"), [("work", "name another folder for intermediate files with -w"), ("out", "another output")])
def test_folder_that_cannot_be_written_is_reported_before_anything_is_done(raw_study: Any, tmp_path: Path, which: str, remedy: str) -> None:
    (tmp_path / "file").touch()
    study = replace(raw_study, **{"out": tmp_path / "out", "work": tmp_path / "work", which: tmp_path / "file" / "in it"})
    code, output = study.main(*FAST)
    assert code == 1 and remedy in output
    assert f"posepipe: error: {tmp_path}/file/in it: cannot be written to (Not a directory)" in output
    assert not (tmp_path / "out").exists()


def test_logs_and_the_images_folder_are_looked_at_too(raw_study: Any, tmp_path: Path) -> None:
    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")
    for blocked in (study.out / "logs", study.out / "sub-01"):
        blocked.parent.mkdir(exist_ok=True)
        blocked.touch()
        code, output = study.main(*FAST)
        assert code == 1 and f"{blocked}" in output and "cannot be written to (Not a directory); make it writable" in output
        blocked.unlink()


def test_node_that_cannot_start_says_why(raw_study: Any, tmp_path: Path) -> None:
    """A folder that goes bad once the run has begun."""
    from posepipe.workflows.base import init_posepipe_wf

    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")
    settings = parse_settings(study.command(*FAST))
    folder = study.work / init_posepipe_wf(plan=make_plan(settings), settings=settings).name
    folder.mkdir(parents=True)
    (folder / "sub_01_wf").touch()
    code, output = study.main(*FAST)
    with (study.out / "failures.tsv").open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream, delimiter="\t")
    assert code == 1 and "sub_01_wf" in row["error"] and "Error: [Errno" in row["error"], row
    assert "without a message" not in output and "this crashfile" not in row["error"]


@pytest.mark.slow
def test_image_is_left_to_the_run_that_works_on_it(raw_study: Any, tmp_path: Path) -> None:
    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")
    first = start(study, *FAST)
    try:
        os.kill(first.pid, signal.SIGSTOP)  # so that it is at work still
        code, output = study.main("--participant-label", "01", "04", *FAST[2:])
        assert code == 1 and "sub-01_rec-svr_T2w.nii.gz: another run is working on it" in output, output
        assert "1 aligned, 0 done before, 0 failed, 1 left to another run" in output
        assert (study.out / "failures.tsv").read_text(encoding="utf-8").count("\n") == 1
        os.kill(first.pid, signal.SIGCONT)
        rest, _ = first.communicate(timeout=120)
        assert first.returncode == 0, rest
        code, output = study.main(*FAST)
        assert code == 0 and "1 done before" in output
    finally:
        if alive(first.pid):
            os.killpg(first.pid, signal.SIGKILL)


@pytest.mark.slow
def test_run_that_was_killed_holds_no_image(raw_study: Any, tmp_path: Path) -> None:
    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")
    first = start(study, *FAST)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    code, output = study.main(*FAST)
    assert code == 0 and "1 aligned" in output, output
