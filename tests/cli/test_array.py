"""The scripts of `posepipe-tools array`, run by a real shell; what they start writes down how it was called. On a real Slurm: tests/hpc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posepipe.bids import find_images
from posepipe.cli.tools import main as tools
from posepipe.cli.unfinished import unfinished

HARD = "it's a \"study\" 100% $HOME; `x` é"
INDEX = {"slurm": "SLURM_ARRAY_TASK_ID", "sge": "SGE_TASK_ID", "pbs": "PBS_ARRAY_INDEX"}
RECORDER = """#!/bin/bash
{ printf '%s\\0' "$PWD" "${POSEPIPE_ATLAS_PATH:-}" "$@"; } > "$RECORD"
exit 3
"""


@pytest.fixture
def here(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is hard to quote, in which one stands: a dataset of names alone, an atlas, and a stand-in for posepipe."""
    folder = tmp_path / HARD
    for name in ("sub-01/anat/sub-01_T2w", *(f"sub-02/ses-{s}/anat/sub-02_ses-{s}_T2w" for s in "ab"), "sub-10/anat/sub-10_T1w"):
        path = folder / "bids" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True)
        path.touch()
    (folder / "bids/sub-11").mkdir()
    (folder / "bids/dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    template = folder / "atlases/tpl-CRL/cohort-29/tpl-CRL_cohort-29_T2w.nii.gz"
    template.parent.mkdir(parents=True)
    template.write_bytes(b"x")
    recorder = folder / "venv/bin/posepipe"
    recorder.parent.mkdir(parents=True)
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    monkeypatch.chdir(folder)
    return folder


def array(*options: str, scheduler: str = "slurm", rest: tuple[str, ...] = ("--atlas-dir", "atlases", "--age", "29")) -> int:
    jobs = ["-o", str(jobs_dir())] if scheduler != "slurm" else []
    return tools(["array", "bids", "out", "--scheduler", scheduler, "--venv", "venv", *jobs, *options, "--", *rest])


def jobs_dir() -> Path:
    """SGE and PBS write to plain folders only."""
    return Path.cwd().parent / "jobs"


def started(script: Path, **environment: str) -> tuple[Path, str, list[str]]:
    """Folder, atlas path and arguments with which the script starts posepipe, whose exit code is the script's."""
    record = Path.cwd().parent / "record"
    known = {"PATH": os.environ["PATH"], "RECORD": str(record), **environment}
    done = subprocess.run(["bash", str(script)], env=known, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    where, atlases, *arguments = record.read_bytes().decode().split("\0")[:-1]
    return Path(where), atlases, arguments


@pytest.mark.parametrize("scheduler", INDEX)
def test_each_task_is_one_participant_and_nothing_is_lost_on_the_way(
    here: Path, scheduler: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSEPIPE_ATLAS_PATH", "/some where/else")
    assert array("--cpus", "2", scheduler=scheduler, rest=("--atlas-dir", "atlases", "--age-column", "it's \"weeks\"\n$(touch no)")) == 0
    output = capsys.readouterr().out
    assert "3 tasks (participants), each 2 cores" in output and "no selected T1w or T2w image: sub-11" in output
    folder = here / "posepipe_jobs" if scheduler == "slurm" else jobs_dir()
    for task, label in enumerate(("01", "02", "10"), 1):
        where, atlases, arguments = started(folder / "array.sh", **{INDEX[scheduler]: str(task)})
        assert where == here and atlases == "/some where/else"
        own = ["--participant-label", label, "--nprocs", "2", "-w", str(here / "work")]
        given = ["--atlas-dir", "atlases", "--age-column", "it's \"weeks\"\n$(touch no)"]
        assert arguments == [str(here / "bids"), str(here / "out"), "participant", *own, *given]
    assert started(folder / "group.sh")[2][2:6] == ["group", "--nprocs", "2", "-w"]
    assert not (here / "no").exists()
    for number in ("", "0", "4", "undefined"):
        if scheduler != "pbs" or number:
            known = {INDEX[scheduler]: number}
            done = subprocess.run(["bash", str(folder / "array.sh")], env=known, capture_output=True, text=True, check=False)
            assert done.returncode == 2 and "no task of the array" in done.stderr


def test_a_task_may_be_a_session(here: Path) -> None:
    assert array("--by-session") == 0
    found = [started(here / "posepipe_jobs/array.sh", SLURM_ARRAY_TASK_ID=str(task))[2][3:7] for task in (1, 2, 3, 4)]
    labels = [("01", None), ("02", "a"), ("02", "b"), ("10", None)]
    plain = "--nprocs"
    assert found == [["--participant-label", s, "--session-label" if n else plain, n or "1"] for s, n in labels]
    assert array("--participant-label", "sub-02", "--session-label", "b") == 0
    found = started(here / "posepipe_jobs/array.sh", SLURM_ARRAY_TASK_ID="1")[2]
    assert found[3:7] == ["--participant-label", "02", "--session-label", "b"]


DIRECTIVES = {
    "slurm": ["--array=1-3%2", "--cpus-per-task=2", "--mem=2500M", "--time=02:00:00", "--partition=short"],
    "sge": ["-t 1-3", "-tc 2", "-pe smp 2", "-l mem_free=2500M", "-l h_rt=02:00:00", "-j y", "-S /bin/bash", "--partition=short"],
    "pbs": ["-J 1-3%2", "-l select=1:ncpus=2:mem=2500mb", "-l walltime=02:00:00", "-j oe", "--partition=short"],
}
SUBMITTED = {
    "slurm": ["--parsable", "{array}", "--parsable --dependency=afterany:7", "{group}"],
    "sge": ["-terse", "{array}", "-terse -hold_jid 7", "{group}"],
    "pbs": ["{array}", "-W depend=afterany:7.1-3:1", "{group}"],
}


@pytest.mark.parametrize("scheduler", INDEX)
def test_options_for_the_scheduler(here: Path, scheduler: str) -> None:
    options = ("--cpus", "2", "--mem-gb", "2.5", "--time", "02:00:00", "--max-running", "2", "--scheduler-option=--partition=short")
    assert array(*options, scheduler=scheduler) == 0
    folder = here / "posepipe_jobs" if scheduler == "slurm" else jobs_dir()
    prefix = {"slurm": "#SBATCH ", "sge": "#$ ", "pbs": "#PBS "}[scheduler]
    lines = (folder / "array.sh").read_text(encoding="utf-8").splitlines()
    output = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    assert set(DIRECTIVES[scheduler]) <= set(output)
    if scheduler == "slurm":
        logs = str(folder / "logs").replace("%", "%%").replace('"', '\\"')
        assert f'--output="{logs}/array-%A_%a.log"' in output
    else:
        assert f"-o {folder}/logs" in {line.rstrip("/") for line in output}
    assert (folder / "logs").is_dir()
    # the submission, to a scheduler that answers as each of them does
    bin_dir = here.parent / "bin"
    bin_dir.mkdir()
    for name in ("sbatch", "qsub"):
        answer = "7" if name == "sbatch" else "7.1-3:1"
        (bin_dir / name).write_text(f'#!/bin/bash\nprintf "%s\\n" "$*" >> "{here.parent}/calls"\necho {answer}\n')
        (bin_dir / name).chmod(0o755)
    path = {**os.environ, "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(folder / "submit.sh")], env=path, capture_output=True, text=True, check=True)
    assert "submitted: array 7" in done.stdout and str(folder / "logs") in done.stdout
    calls = (here.parent / "calls").read_text(encoding="utf-8").replace("\n", " ").strip()
    wanted = " ".join(SUBMITTED[scheduler]).format(array=folder / "array.sh", group=folder / "group.sh")
    assert calls == wanted


def test_one_task_is_no_array_to_pbs(here: Path) -> None:
    assert array("--participant-label", "10", scheduler="pbs") == 0
    assert "#PBS -J" not in (jobs_dir() / "array.sh").read_text(encoding="utf-8")
    assert started(jobs_dir() / "array.sh")[2][3:5] == ["--participant-label", "10"]


def test_in_a_container_every_folder_is_bound(here: Path, capsys: Any) -> None:
    image, bin_dir = here / "pose pipe.sif", here.parent / "bin"
    image.touch()
    bin_dir.mkdir()
    shutil.copy(here / "venv/bin/posepipe", bin_dir / "apptainer")
    masks = here.parent / "masks" / "sub-01"
    masks.mkdir(parents=True)
    rest = ["--atlas-dir", "atlases", "-d", f"drawn={masks.parent}", "-w", str(here.parent / "scratch")]
    asked = ["array", "bids", "out", "--scheduler", "slurm", "--container", image.name, "--setup", "export A=1; B=$A"]
    assert tools([*asked, "--", *rest]) == 0, capsys.readouterr()
    script = here / "posepipe_jobs/array.sh"
    assert "export A=1; B=$A\n" in script.read_text(encoding="utf-8")
    where, _, arguments = started(script, SLURM_ARRAY_TASK_ID="1", PATH=f"{bin_dir}{os.pathsep}{os.environ['PATH']}")
    at = arguments.index(str(image))
    assert where == here and arguments[:2] == ["run", "--cleanenv"]
    bound = [arguments[i + 1] for i in range(at) if arguments[i] == "--bind"]
    assert set(bound) == {str(here), str(masks.parent), str(here.parent / "scratch")}  # what lies in the folder needs none of its own
    known = dict(arguments[i + 1].split("=", 1) for i in range(at) if arguments[i] == "--env")
    assert known["XDG_CACHE_HOME"] == str(here.parent / "scratch/cache") and known["PYTHONUNBUFFERED"] == "1"
    assert arguments[at + 1 : at + 4] == [str(here / "bids"), str(here / "out"), "participant"] and arguments[-len(rest) :] == rest
    assert (here / "out").is_dir() and (here.parent / "scratch").is_dir()  # what is not there cannot be bound
    lone = {"PATH": "/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "1"}
    if shutil.which("apptainer") is None and shutil.which("singularity") is None:
        done = subprocess.run(["bash", str(script)], env=lone, capture_output=True, text=True, check=False)
        assert done.returncode == 127 and "neither apptainer nor singularity" in done.stderr


@pytest.mark.parametrize(
    ("options", "rest", "words"),
    [
        ([], ["--participant-label", "01"], "give --participant-label before the -- instead"),
        ([], ["--nprocs", "2"], "give --cpus instead"),
        ([], ["--dry-run"], "--dry-run cannot be used in a job array"),
        ([], ["--nipype-plugin", "SLURM"], "--nipype-plugin cannot be used in a job array"),
        ([], ["--atlas-dir", "nowhere"], "--atlas-dir takes a folder"),
        ([], ["--atlas", "Serag"], "the atlas Serag is not on this machine"),
        (["--participant-label", "99"], [], "no sub-99"),
        (["--venv", "nowhere"], [], "no posepipe there"),
        (["--setup", "a\nb"], [], "one line, please"),
        (["--scheduler-option", "a\n#SBATCH b"], [], "one line, please"),
        (["-o", "a\\b"], [], "slurm cannot write logs to a folder with '\\\\' in its path"),
        (["--scheduler", "sge"], [], "sge cannot write logs to a folder with"),
    ],
)
def test_what_cannot_work_is_reported_at_once(here: Path, options: list[str], rest: list[str], words: str, capsys: Any) -> None:
    assert array(*options, rest=("--atlas-dir", "atlases", *rest)) == 2
    assert words in capsys.readouterr().err
    assert not (here / "posepipe_jobs/array.sh").exists()


def test_a_wrong_option_of_posepipe_gives_the_message_of_posepipe(here: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        array(rest=("--refine", "none", "--inti", "deep"))
    assert stopped.value.code == 2 and "posepipe: error: unrecognized arguments: --inti deep" in capsys.readouterr().err


def test_a_container_takes_no_colons(here: Path, capsys: Any) -> None:
    (here / "a:b.sif").touch()
    assert tools(["array", "bids", "out", "--scheduler", "slurm", "--container", "a:b.sif"]) == 2
    assert "with a comma or a colon in it" in capsys.readouterr().err


@pytest.mark.slow
def test_only_failed_is_what_failed_what_is_missing_and_what_was_ended(first_run: Any, tmp_path: Path, capsys: Any) -> None:
    """05, 06 and 07 failed. Then 02's second session has no outputs, and a run for 04 was killed: no page came after its settings."""
    study = first_run.study.copy(tmp_path)
    images = find_images(study.bids)
    failed = {("05", None), ("06", None), ("07", None)}
    assert unfinished(study.out, images) == failed
    shutil.rmtree(study.out / "sub-02/ses-2")
    (study.out / "sub-02_ses-2.html").unlink()
    log = study.out / "sub-04/log/20300101-000000_0"
    log.mkdir()
    (log / "posepipe.toml").touch()
    assert unfinished(study.out, images) == failed | {("02", "2"), ("04", None)}
    assert unfinished(tmp_path / "none", images) == {(image.subject, image.session) for image in images}
    options = ["--scheduler", "slurm", "-o", str(tmp_path / "jobs"), "--only-failed", "--by-session"]
    posepipe = ["--", "--atlas-dir", str(study.demo.atlas_dir), "--init", "center", "--refine", "none"]
    recorder = tmp_path / "venv/bin/posepipe"
    recorder.parent.mkdir(parents=True)
    recorder.touch()
    assert tools(["array", str(study.bids), str(study.out), *options, "--venv", str(tmp_path / "venv"), *posepipe]) == 0
    text = (tmp_path / "jobs/array.sh").read_text(encoding="utf-8")
    assert "participants=(02 04 05 06 07)\nsessions=(2 '' '' '' '')\n" in text
    # a run that is through, whatever came of it, leaves its session in peace
    code, output = replace(study, work=tmp_path / "other").main("--participant-label", "02", "04", "--init", "center", "--refine", "none")
    assert code == 0, output
    assert unfinished(study.out, images) == failed
