"""One command in a fresh process: its duration, its processor time, and the peak memory of all its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PosepipeError
from ..files import replacing
from .speed import THREAD_VARIABLES
from .tools.base import peak_mb

_SAMPLE_SECONDS = 0.02
"""Sampling interval of the memory. A sample takes about 0.1 ms, with several processes some ms for each. Of the first
process the kernel keeps the peak, and only growth in the last interval is missed; of the sum of several, a peak between two samples."""


class GrowthError(PosepipeError):
    """A command that was to be measured failed or did less than it should."""


@dataclass(frozen=True)
class Used:
    """What a command used: wall ``seconds``; ``processor`` seconds, with those of the processes that it started and waited for;
    ``peak_mb``: largest sum of the resident memory (10⁶ bytes) of it and of all that it started; memory that they share counts once."""

    seconds: float
    processor: float
    peak_mb: float


def run_command(command: Sequence[str], log: Path) -> Used:
    """Run ``command``, with one thread, to its end; its messages go to ``log``.

    Raises :class:`~posepipe.bench.growth_run.GrowthError` if its exit status is not 0.
    """
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
    with replacing(log) as temporary:
        with temporary.open("w", encoding="utf-8") as stream:
            begun = time.perf_counter()
            process = subprocess.Popen(list(command), stdout=stream, stderr=subprocess.STDOUT, env=environment)
            with _TreeWatch(process.pid) as watch:
                _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        msg = f"{' '.join(command[2:])} ended with {process.returncode} ({' '.join(last)}); see {log}"
        raise GrowthError(msg)
    # only where there is nothing better: on Linux it includes the memory that this process had when it started the command
    peak = used.ru_maxrss / 1e6 if sys.platform == "darwin" else watch.peak_mb
    return Used(seconds, used.ru_utime + used.ru_stime, peak)


class _TreeWatch(threading.Thread):
    """Samples the memory of a process and of all below it; ``peak_mb`` is the largest sum, 0 where the system does not tell."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak_mb, self._pid, self._over = 0.0, pid, threading.Event()

    def __enter__(self) -> _TreeWatch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self.peak_mb = max(self.peak_mb, tree_mb(self._pid), peak_mb(self._pid))


def tree_mb(pid: int) -> float:
    """Memory (10⁶ bytes) of the process ``pid`` and of all below it, now; 0 where the system does not tell. Pages that several processes
    share are divided among these, so that a process that has just been forked does not count twice."""
    states = _states(pid, None)
    if len(states) < 2:
        return sum(_pages(state) for state in states.values()) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return sum(_shared_mb(one, state) for one, state in states.items())


def _states(pid: int, parent: str | None) -> dict[int, str]:
    """Process → the kernel's line about its memory, of ``pid`` and all below it; without those that still work in the memory of their
    parent, as between vfork and exec."""
    folder = Path(f"/proc/{pid}")
    try:
        state = (folder / "statm").read_text(encoding="ascii")
        below = [int(one) for task in (folder / "task").iterdir() for one in (task / "children").read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return {}
    found = {} if state == parent else {pid: state}
    for one in below:
        found |= _states(one, state)
    return found


def _pages(state: str) -> int:
    fields = state.split()
    return int(fields[1]) if len(fields) > 1 else 0


def _shared_mb(pid: int, state: str) -> float:
    """The process's share of its resident memory (10⁶ bytes); all of it where the system does not tell the share."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    share = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)
    return (_pages(state) * os.sysconf("SC_PAGE_SIZE") if share is None else share) / 1e6
