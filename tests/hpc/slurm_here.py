"""A Slurm of one node, started in a folder of its own: munge, slurmctld and slurmd, by whoever runs the tests."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
_CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/ended.txt
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A running Slurm; ``environment`` is what its commands need."""

    folder: Path
    environment: dict[str, str]

    def call(self, *command: str) -> str:
        """What a command prints; an error fails the test with what it said."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """State of each job that is waiting or running, by its number (of a task: ``ARRAY_TASK``)."""
        lines = self.call("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def ended(self) -> dict[str, tuple[str, str]]:
        """State and exit code of each job that has ended, tasks as ``ARRAY_TASK``."""
        path = self.folder / "ended.txt"
        found = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            known = dict(re.findall(r"(\w+)=(\S*)", line))
            number = f"{known['ArrayJobId']}_{known['ArrayTaskId']}" if known.get("ArrayTaskId") else known["JobId"]
            found[number] = known["JobState"], known["ExitCode"]
        return found

    def wait(self, seconds: float = 300) -> None:
        """Until no job is waiting or running."""
        until(lambda: not self.jobs(), seconds, lambda: f"still there: {self.jobs()}\n{self.logs()}")

    def logs(self) -> str:
        """The last of what the daemons wrote."""
        paths = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in paths)


def until(true: Callable[[], object], seconds: float, state: Callable[[], str]) -> None:
    """Wait until ``true``; the test fails with ``state`` if that takes longer."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds:g} s in vain; {state()}")
        time.sleep(0.1)


@contextmanager
def running(folder: Path, cpus: int = 2) -> Iterator[Slurm]:
    """A Slurm with one node of so many ``cpus`` (it takes no heed of how many there are); tests are skipped where it is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    lacking = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if lacking:
        pytest.skip(f"no Slurm here ({', '.join(lacking)} not found; Debian: apt-get install slurm-wlm munge)")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(_CONF.format(host=host, user=getpass.getuser(), folder=folder, ports=_free_ports(), cpus=cpus), encoding="utf-8")
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(conf)}
    slurm = Slurm(folder, environment)
    slurm.call("mungekey", "--create", f"--keyfile={folder}/munge.key")
    munge = [f"--{what}={folder}/munge.{end}" for what, end in
             (("key-file", "key"), ("socket", "sock"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"))]  # fmt: skip
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in (["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            with (folder / f"{command[0]}.out.log").open("wb") as out:
                daemons.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL))
            if command[0] == "munged":
                until((folder / "munge.sock").exists, 20, slurm.logs)
        until(lambda: _is_idle(slurm), 60, slurm.logs)
        yield slurm
    finally:
        with_jobs = [daemon.poll() is None for daemon in daemons] == [True] * 3
        if with_jobs:
            subprocess.run(["scancel", "--full", "--user", getpass.getuser()], env=environment, capture_output=True, check=False)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _is_idle(slurm: Slurm) -> bool:
    asked = subprocess.run(["sinfo", "--noheader", "--format=%T"], env=slurm.environment, capture_output=True, text=True, check=False)
    return asked.returncode == 0 and asked.stdout.strip() == "idle"


def _free_ports() -> list[int]:
    sockets = [socket.socket() for _ in range(2)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
