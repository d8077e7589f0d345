"""How many threads a run has, and how much memory."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
from posepipe.workflows.memory import memory_gb

from posepipe.bids import read_json
from posepipe.cli.parser import cores, parse_settings
from posepipe.cli.run import LEAST_GB, left_for_nodes
from posepipe.cli.threads import VARIABLES, library_threads, within_cores
from posepipe.interfaces.resources import resident_mb
from posepipe.refinement.ants import THREADS_VARIABLE

FAST = ("--participant-label", "01", "--init", "search", "--refine", "torch")
APP = """
import json, sys
from posepipe.cli.app import main
code = main(sys.argv[1:])
import torch
from threadpoolctl import threadpool_info
pools = {one["filepath"]: one["num_threads"] for one in threadpool_info()}
print("\\n" + json.dumps({"code": code, "pools": pools, "torch": torch.get_num_threads()}))
"""


def environment() -> dict[str, str]:
    """That of a user who has not set any number of threads."""
    return {name: value for name, value in os.environ.items() if name not in {*VARIABLES, THREADS_VARIABLE}}


@pytest.mark.slow
@pytest.mark.parametrize(("nprocs", "asked", "threads"), [(1, 1, 1), (2, 2, 2), (1, 2, 1)])
def test_every_library_has_the_threads_requested(raw_study: Any, tmp_path: Path, nprocs: int, asked: int, threads: int) -> None:
    if cores() < 2:
        pytest.skip("one core only: every library has one thread anyway")
    study = raw_study.copy(tmp_path)
    options = [*FAST, "--init", "center", "--refine", "none", "--nipype-plugin", "Linear"]
    options += ["--nprocs", str(nprocs), "--omp-nthreads", str(asked)]
    done = subprocess.run(
        [sys.executable, "-c", APP, *study.command(*options)], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] == 0, done.stdout
    assert any("blas" in path.lower() for path in found["pools"]) and any("gomp" in path for path in found["pools"])
    assert {*found["pools"].values(), found["torch"]} == {threads}, found["pools"]
    assert ("an image gets 1 thread" in done.stdout) is (asked > nprocs)


def processes_of(session: int) -> dict[str, int]:
    """Threads of each process of a session now, by its number and command."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rsplit(")", 1)[1].split()[3]) == session:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if not command:  # it has ended and is waited for
                    continue
                found[f"{process.name} {command}"] = len(list((process / "task").iterdir()))
        except (OSError, IndexError):  # it has ended meanwhile
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("plugin", "nprocs"), [("Linear", 1), ("MultiProc", 2)])
def test_there_are_no_threads_besides(raw_study: Any, tmp_path: Path, plugin: str, nprocs: int) -> None:
    """One that works and one that looks at the memory; in a worker also one that waits for the end of the main process."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("threads are counted in /proc (Linux), which is not here")
    if cores() < 2:
        pytest.skip("one core only: every library has one thread anyway")
    study = raw_study.copy(tmp_path)
    command = study.command(*FAST, "--nprocs", str(nprocs), "--nipype-plugin", plugin)
    before, start = sum(os.times()[2:4]), time.perf_counter()
    run = subprocess.Popen(
        [sys.executable, "-c", "import sys; from posepipe.cli.app import main; sys.exit(main())", *command],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    most: dict[str, int] = {}
    while run.poll() is None:
        for name, threads in processes_of(run.pid).items():
            most[name] = max(most.get(name, 0), threads)
        time.sleep(0.02)
    assert run.returncode == 0
    busy = (sum(os.times()[2:4]) - before) / (time.perf_counter() - start)
    workers = [threads for name, threads in most.items() if "spawn_main" in name]
    if plugin == "Linear":
        ours = {name: threads for name, threads in most.items() if "python" in name}  # Nipype asks `mount` for file systems
        assert list(ours.values()) == [2], most
        assert busy <= 1.1  # cores
    else:
        assert workers and max(workers) == 3, most
        (sidecar,) = study.out.glob("sub-01/anat/*_from-T2w_to-*_xfm.json")
        (image,) = study.bids.glob("sub-01/anat/*_T2w.nii.gz")
        nodes = {"InitialPose": "initial_pose"}
        for stage, peak in read_json(sidecar)["PeakMemoryMB"].items():
            needed = memory_gb(nodes.get(stage, stage.lower()), math.prod(nib.load(image).shape))
            assert peak / 1000 <= needed, stage


def test_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with library_threads(2):
        assert {os.environ[name] for name in VARIABLES} == {"2"}
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_no_more_threads_than_cores(raw_study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def got(*options: str) -> int | None:
        return within_cores(parse_settings(raw_study.command(*options))).omp_nthreads

    assert (got("--nprocs", "4", "--omp-nthreads", "3"), got("--nprocs", "1")) == (3, None)
    assert capsys.readouterr().out == ""
    assert got("--nprocs", "2", "--omp-nthreads", "3") == 2
    assert "--omp-nthreads 3: 2 cores to use, so an image gets 2 threads" in capsys.readouterr().out


def test_memory_of_the_main_process_is_taken_off() -> None:
    own = (resident_mb() or 0) / 1000
    assert left_for_nodes(own + 3) == pytest.approx(3, abs=0.02)
    if own:
        assert own > 0.1 and left_for_nodes(own / 2) == LEAST_GB
