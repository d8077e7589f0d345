"""MRtrix's ``mrregister``, the program (Debian's package ``mrtrix3``)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from .base import Options, Registered, Tool, run_program, started


class Mrtrix(Tool):
    """Search over rotations, then rigid registration by squared differences."""

    about = "`mrregister -type rigid -rigid_init_rotation search`"

    def __init__(self) -> None:
        self._threads, self._start = 1, 0.0

    def missing(self, options: Options) -> str:
        return "" if shutil.which("mrregister") else "the program mrregister is not on the PATH (Debian: apt install mrtrix3)"

    def start(self, options: Options) -> float:
        self._threads = options.threads
        self._start = started(["mrregister", "-version"])
        return self._start

    def register(self, image: Path, template: Path, folder: Path) -> Registered:
        out = folder / "rigid.txt"
        threads = self._threads if self._threads > 1 else 0  # 0: no thread beside the program's own
        command = ["mrregister", "-quiet", "-force", "-nthreads", threads, "-type", "rigid", "-rigid_init_rotation", "search"]
        command += ["-rigid", out, image, template]
        wall, peak = run_program([str(word) for word in command], folder / "mrregister.out", self._threads)
        return Registered(np.loadtxt(out), wall - self._start, float("nan"), peak_mb=peak)
