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
"""Sampling interval of the memory. A sample takes about 0.1 ms for each process. Of the first process the kernel keeps the peak, and
only growth in the last interval is missed; of the sum of several, a peak between two samples."""


class GrowthError(PosepipeError):
    """A command that was to be measured failed or did less than it should."""


@dataclass(frozen=True)
class Used:
    """What a command used: wall ``seconds``; ``processor`` seconds, with those of the processes that it started and waited for;
    ``peak_mb``: largest sum of the resident memory (10⁶ bytes) of it and of all that it started. Memory that several processes share counts
    in each."""

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
    """Resident memory (10⁶ bytes) of the process ``pid`` and of all below it, now; 0 where the system does not tell."""
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text(encoding="ascii").split()[1])
        below = [int(one) for task in (folder / "task").iterdir() for one in (task / "children").read_text(encoding="ascii").split()]
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6 + sum(map(tree_mb, below))
