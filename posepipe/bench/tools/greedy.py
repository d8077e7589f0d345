"""Greedy (PICSL) by the package ``picsl_greedy``."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .base import Options, Registered, Tool, ToolError

RIGID = "-a -dof 6 -m NMI -n 100x50x10"
"""Rigid registration as in Greedy's own manual, by normalised mutual information."""
SEARCH = "1000 any 20"
"""Random search: attempts, any rotation, and standard deviation of the shift (mm). Results differ from run to run."""


class GreedyMoments(Tool):
    """Moments of second order without mirroring, then rigid registration."""

    about = f"`greedy -moments 2 -det 1`, then `{RIGID}`"

    def __init__(self) -> None:
        self._threads = 1

    def missing(self, options: Options) -> str:
        lacking = [name for name in ("picsl_greedy", "SimpleITK") if not find_spec(name)]
        return f"not installed (pip install {' '.join(lacking)})" if lacking else ""

    def start(self, options: Options) -> float:
        import picsl_greedy  # noqa: F401
        import SimpleITK  # noqa: F401

        self._threads = options.threads
        return 0.0

    def register(self, image: Path, template: Path, folder: Path) -> Registered:
        import SimpleITK as sitk
        from picsl_greedy import Greedy3D

        begun = time.perf_counter()
        images = {"fixed": sitk.ReadImage(str(template)), "moving": sitk.ReadImage(str(image))}
        read = time.perf_counter() - begun
        begun = time.perf_counter()
        greedy = Greedy3D()
        try:
            for command in self.commands(folder):
                greedy.execute(f"-threads {self._threads} -i fixed moving {command}", **images)
        except (RuntimeError, ValueError) as error:
            msg = f"greedy: {error}"
            raise ToolError(msg) from error
        return Registered(np.loadtxt(folder / "rigid.mat"), time.perf_counter() - begun, read)

    def commands(self, folder: Path) -> list[str]:
        """Greedy's command lines, one after the other."""
        return [f"-moments 2 -det 1 -o {folder}/first.mat", f"{RIGID} -ia {folder}/first.mat -o {folder}/rigid.mat"]


class GreedySearch(GreedyMoments):
    """From the centres of mass a random search over all rotations and 20 mm, then rigid registration."""

    about = f"`greedy -moments 1`, then `{RIGID} -search {SEARCH}`"

    def commands(self, folder: Path) -> list[str]:
        first = f"{folder}/first.mat"
        return [f"-moments 1 -o {first}", f"{RIGID} -ia {first} -search {SEARCH} -o {folder}/rigid.mat"]
