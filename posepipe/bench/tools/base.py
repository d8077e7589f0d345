"""What a registration tool is to the bench: checked, started, and asked for one transform after another."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import PosepipeError
from ...files import replacing
from ...geometry import Rigid, so3
from ...geometry.so3 import Array

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAMPLE_SECONDS = 0.01
"""Sampling interval of the peak memory of another program. The kernel keeps the peak; only growth in the last interval is missed."""


class ToolError(PosepipeError):
    """A tool ended without a transform."""


@dataclass(frozen=True)
class Options:
    """What tools are started with. ``threads``: as many as the tool may use; ``data``: folder with ``atlases/``; ``weights``: folder of
    network weights of one's own; ``fireants_python``: interpreter of an environment that has FireANTs."""

    threads: int = 1
    data: Path = Path()
    weights: Path | None = None
    fireants_python: str = ""


@dataclass(frozen=True, eq=False)
class Registered:
    """``matrix`` (4, 4): the linear map template → image, RAS mm, as the tool found it: it may scale or mirror. ``seconds``: from images in
    memory to the transform; ``read``: seconds for reading both images, NaN where they cannot be told apart; ``parts``: stage → seconds;
    ``peak_mb``, ``processor``: peak memory (10⁶ bytes) and processor seconds of the tool's own process, None if they are this one's."""

    matrix: Array
    seconds: float
    read: float
    parts: Mapping[str, float] = field(default_factory=dict)
    peak_mb: float | None = None
    processor: float | None = None


class Tool(ABC):
    """One way to register an image to a template."""

    about = ""
    """What it runs, in a line of the report."""
    warm_up = False
    """Whether the first registration of a process is slower and not counted."""

    @abstractmethod
    def missing(self, options: Options) -> str:
        """Why the tool cannot be run here; empty if it can."""

    @abstractmethod
    def start(self, options: Options) -> float:
        """Load what is needed once; returns the seconds of a program's own start, 0 if the caller's time is all of it."""

    @abstractmethod
    def register(self, image: Path, template: Path, folder: Path) -> Registered:
        """Register ``image`` to ``template``, brain-extracted NIfTI files; ``folder`` is for files in between. Raises
        :class:`~posepipe.bench.tools.base.ToolError` if there is no transform."""

    def stop(self) -> None:  # noqa: B027
        """End what :meth:`start` began."""


def from_lps(matrix: Array, translation: Array, center: Array | None = None) -> Array:
    """The RAS matrix (4, 4) of ITK's ``y = A (x - c) + c + t`` in LPS, with A ``matrix`` (3, 3) or (9,)."""
    a, c = np.asarray(matrix, dtype=float).reshape(3, 3), np.zeros(3) if center is None else np.asarray(center, dtype=float)
    m = np.eye(4)
    m[:3, :3], m[:3, 3] = a, np.asarray(translation, dtype=float) + c - a @ c
    return LPS @ m @ LPS


def rigid_part(matrix: Array, center: Array) -> Rigid:
    """The rotation nearest to the linear map ``matrix`` (4, 4), which must not mirror, and the map's image of ``center`` (3,)."""
    return Rigid.about(so3.project(matrix[:3, :3]), center, matrix[:3, :3] @ center + matrix[:3, 3])


def mirrored(matrix: Array) -> str:
    """Why a linear map (4, 4) is no pose of a brain: it mirrors; empty if it does not."""
    determinant = np.linalg.det(matrix[:3, :3])
    return "" if determinant > 0 else f"mirrored: its determinant is {determinant:.2f}"


def run_program(command: Sequence[str], log: Path, threads: int) -> tuple[float, float]:
    """Run a program to its end; wall seconds and peak memory (MB). Its messages go to ``log``. Raises
    :class:`~posepipe.bench.tools.base.ToolError` if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with replacing(log) as temporary, temporary.open("w", encoding="utf-8") as stream:
        begun = time.perf_counter()
        process = subprocess.Popen(list(command), stdout=stream, stderr=subprocess.STDOUT, env=environment)
        watch = _Watch(process.pid)
        watch.start()
        code = process.wait()
        seconds = time.perf_counter() - begun
    watch.over.set()
    watch.join()
    if code:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        msg = f"{command[0]} ended with {code}: {' '.join(last)}"
        raise ToolError(msg)
    return seconds, watch.peak_mb


class _Watch(threading.Thread):
    """Reads the peak memory of another process until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.over, self.peak_mb, self._pid = threading.Event(), 0.0, pid

    def run(self) -> None:
        while not self.over.wait(_SAMPLE_SECONDS):
            self.peak_mb = max(self.peak_mb, peak_mb(self._pid))


def peak_mb(pid: int | str = "self") -> float:
    """Peak resident memory (10⁶ bytes) of a process; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


def started(command: Sequence[str], times: int = 3) -> float:
    """The least seconds that a program takes to start and end, as with ``--version``."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run(list(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        seconds.append(time.perf_counter() - begun)
    return min(seconds)
