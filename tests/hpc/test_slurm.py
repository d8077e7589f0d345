"""Job arrays and Nipype's plugins on a real Slurm of one node, which the test starts."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from slurm_here import Slurm, until

from posepipe.cli.tools import main as tools

FAST = ("--atlas", "Phantom", "--atlas-dir", "atlas", "--init", "center", "--refine", "none")
JOBS = Path("posepipe_jobs")
pytestmark = pytest.mark.slow


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def submitted(slurm: Slurm) -> tuple[str, str]:
    """Numbers of the array and of the group level, by the script that submits them."""
    found = re.search(r"submitted: array (\d+) \(.*then the group level (\d+);", slurm.call("bash", str(JOBS / "submit.sh")))
    assert found is not None
    return found[1], found[2]


def log(array: str, task: int) -> str:
    path = JOBS / "logs" / f"array-{array}_{task}.log"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def test_array_killed_task_only_failed_and_group(slurm: Slurm, hard: Any, capsys: Any) -> None:
    """A task that is cancelled and one with a broken image; the group level runs all the same; `--only-failed` does these two alone."""
    broken = hard.bids_dir / "sub-03/anat/sub-03_T1w.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(b"no image")
    asked = ["array", "bids", "out", "--scheduler", "slurm", "--mem-gb", "1", "--", *FAST]
    assert tools(asked) == 0 and "3 tasks (participants)" in capsys.readouterr().out
    array, group = submitted(slurm)
    until(lambda: "images to align" in log(array, 2), 120, lambda: log(array, 2) + slurm.logs())
    slurm.call("scancel", f"{array}_2")
    slurm.wait()
    ended = slurm.ended()
    assert [ended[f"{array}_{task}"][0] for task in (1, 2, 3)] == ["COMPLETED", "CANCELLED", "FAILED"]
    assert ended[f"{array}_3"][1] == "1:0" and ended[group][0] == "COMPLETED"
    assert "task 2 of 3: sub-02 on" in log(array, 2) and "posepipe: stopped by SIGTERM" in log(array, 2)
    verdicts = {row["image"]: row["qc"] for row in table(Path("out/group_pose.tsv"))}
    assert "missing" in verdicts.values() and verdicts["sub-03/anat/sub-03_T1w.nii.gz"] == "failed"
    assert [row["subject"] for row in table(Path("out/failures.tsv"))] == ["sub-03"]
    before = {path: path.stat().st_mtime_ns for path in Path("out/sub-01").rglob("*")}

    broken.write_bytes(whole)
    assert tools([*asked[:5], "--only-failed", *asked[5:]]) == 0 and "2 tasks (participants)" in capsys.readouterr().out
    array, group = submitted(slurm)
    slurm.wait()
    ended = slurm.ended()
    assert [ended[number][0] for number in (f"{array}_1", f"{array}_2", group)] == ["COMPLETED"] * 3
    assert "sub-02" in log(array, 1) and "sub-03" in log(array, 2)
    rows = table(Path("out/group_pose.tsv"))
    assert len(rows) == 5 and not {"missing", "failed"} & {row["qc"] for row in rows}
    assert not table(Path("out/failures.tsv"))
    assert {path: path.stat().st_mtime_ns for path in Path("out/sub-01").rglob("*")} == before
    assert tools([*asked[:5], "--only-failed", *asked[5:]]) == 0 and "nothing failed and nothing is missing" in capsys.readouterr().out


def app(slurm: Slurm, folder: Path, *options: str, label: str = "01", out: str = "out") -> subprocess.Popen[str]:
    """The app over one participant as a process of its own; ``folder`` is for the work."""
    command = [sys.executable, "-c", "import sys; from posepipe.cli.app import main; sys.exit(main())"]
    given = ["bids", out, "participant", "--participant-label", label, "-w", str(folder), *FAST]
    environment = {name: value for name, value in slurm.environment.items() if name != "LOGNAME"}
    return subprocess.Popen([*command, *given, *options], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture
def plugin_args() -> list[str]:
    Path("args.json").write_text(json.dumps({"sbatch_args": "--mem=1000M"}), encoding="utf-8")
    return ["--plugin-args", "args.json"]


def test_nipype_hands_nodes_to_slurm(slurm: Slurm, two: Any, tmp_path: Path, plugin_args: list[str]) -> None:
    run = app(slurm, tmp_path / "work", "--nipype-plugin", "SLURM", *plugin_args)
    output, _ = run.communicate(timeout=400)
    assert run.returncode == 0 and "1 aligned, 0 done before, 0 failed" in output, output
    assert Path("out/sub-01.html").is_file() and len(slurm.ended()) >= 5


def test_a_node_that_is_cancelled_is_a_failure_of_its_image(slurm: Slurm, two: Any, tmp_path: Path, plugin_args: list[str]) -> None:
    run = app(slurm, tmp_path / "work", "--nipype-plugin", "SLURM", *plugin_args, label="02")
    until(lambda: list((tmp_path / "work").rglob("*ses_1*/mask/_inputs.pklz")), 120, slurm.logs)  # the node is at work
    names = dict(line.split() for line in slurm.call("squeue", "--noheader", "--format=%i %j").splitlines())
    (number,) = (number for number, name in names.items() if "ses_1" in name and name.startswith("mask"))
    slurm.call("scancel", number)
    output, _ = run.communicate(timeout=400)
    assert run.returncode == 1 and "1 aligned, 0 done before, 1 failed" in output, output
    (row,) = table(Path("out/failures.tsv"))
    assert (row["session"], row["stage"]) == ("ses-1", "mask") and f"Job id ({number}) finished or terminated" in row["error"], row
    assert row["log"] != "n/a" and "finished or terminated" in Path("out", row["log"]).read_text(encoding="utf-8")


def test_nipype_hands_the_whole_graph_to_slurm(slurm: Slurm, two: Any, tmp_path: Path, plugin_args: list[str]) -> None:
    run = app(slurm, tmp_path / "work", "--nipype-plugin", "SLURMGraph", *plugin_args)
    output, _ = run.communicate(timeout=200)
    assert run.returncode == 1 and "1 handed to the scheduler" in output, output
    assert "run the same command without --nipype-plugin" in output, output
    slurm.wait()
    again = app(slurm, tmp_path / "work")
    output, _ = again.communicate(timeout=200)
    assert again.returncode == 0 and "0 aligned, 1 done before, 0 failed" in output, output
    assert Path("out/sub-01.html").is_file()


def test_what_slurm_does_not_accept_is_reported(slurm: Slurm, two: Any, tmp_path: Path) -> None:
    Path("args.json").write_text(json.dumps({"sbatch_args": "--partition=none", "max_tries": 0}), encoding="utf-8")
    run = app(slurm, tmp_path / "work", "--nipype-plugin", "SLURM", "--plugin-args", "args.json")
    output, _ = run.communicate(timeout=200)
    assert run.returncode == 1 and "--nipype-plugin SLURM: a job could not be handed to the scheduler" in output, output
    assert "Traceback" not in output
    run = app(slurm, Path("work"), "--nipype-plugin", "SLURM")  # whose path has blanks
    output, _ = run.communicate(timeout=200)
    assert run.returncode == 2 and "passes this path to a shell unquoted" in output, output
    run = app(slurm, tmp_path / "work", "--nipype-plugin", "SLURM", out=str(tmp_path / "100%"))
    output, _ = run.communicate(timeout=200)
    assert run.returncode == 2 and "cannot pass a path with a % in it to its jobs" in output, output
