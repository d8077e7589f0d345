"""Terminals and machines with limitations: encodings that lack characters, no home folder."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run(command: list[str], **environment: str) -> tuple[int, str]:
    """Exit code and output of the app in a process of its own."""
    code = "import sys; from posepipe.cli.app import main; sys.exit(main())"
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, *command], env={**os.environ, "PYTHONPATH": paths, **environment}, capture_output=True, check=False
    )
    return done.returncode, (done.stdout + done.stderr).decode("ascii" if "ascii" in environment.values() else "latin-1")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_name_that_the_terminal_cannot_show_does_not_stop_the_run(first_run: Any, tmp_path: Path, encoding: str) -> None:
    folder = tmp_path / "Zürich → 東京"
    folder.mkdir()
    study = first_run.study.copy(folder)
    code, output = run(study.command("--participant-label", "01", "05"), PYTHONIOENCODING=encoding)
    assert code == 1
    assert "sub-05_T2w.nii.gz: FAILED (age)" in output and "\\u6771" in output
    assert "0 aligned, 1 done before, 1 failed" in output
    with (study.out / "failures.tsv").open(encoding="utf-8") as stream:
        (row,) = [row for row in csv.DictReader(stream, delimiter="\t") if row["subject"] == "sub-05"]
    assert "東京" in row["error"]
    code, output = run(study.command("--participant-label", "01", "--dry-run"), PYTHONIOENCODING=encoding)
    assert code == 0 and "\\u6771" in output


def test_texts_with_names_that_are_not_unicode_are_written(tmp_path: Path) -> None:
    from posepipe.bids import read_json, write_json
    from posepipe.files import write_text

    name = os.fsdecode(b"M\xfcnchen")
    assert write_text(tmp_path / "a.txt", name).read_text(encoding="utf-8") == "M\\udcfcnchen"
    assert read_json(write_json(tmp_path / "a.json", {"image": name})) == {"image": name}


@pytest.mark.slow
def test_tools_show_such_names_too(tmp_path: Path) -> None:
    code = "import sys; from posepipe.cli.tools import main; sys.exit(main())"
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, "align", str(tmp_path / "東京.nii.gz"), "--age", "29", "-o", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and b"Traceback" not in done.stderr and b"no such file" in done.stderr
