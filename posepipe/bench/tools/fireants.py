"""FireANTs, in an environment of its own (its dependencies are pinned to old versions)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np

from .base import Options, Registered, Tool, ToolError

WORKER = Path(__file__).with_name("fireants_worker.py")


class FireAnts(Tool):
    """Moments of second order with the best proper sign, then rigid registration, on the processor."""

    about = "FireANTs: `MomentsRegistration(moments=2)`, then `RigidRegistration`, on the CPU"
    warm_up = True

    def __init__(self) -> None:
        self._worker: subprocess.Popen[str] | None = None

    def missing(self, options: Options) -> str:
        python = options.fireants_python
        if not python:
            return "give the Python of an environment that has FireANTs with --fireants-python"
        try:
            done = subprocess.run([python, "-c", "import fireants.registration.rigid"], capture_output=True, text=True, check=False)
        except OSError as error:
            return f"--fireants-python {python}: {error.strerror}"
        return f"--fireants-python {python}: {done.stderr.strip().splitlines()[-1]}" if done.returncode else ""

    def start(self, options: Options) -> float:
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        self._worker = subprocess.Popen(  # -I: without this folder on the path, whose fireants.py is not the library
            [options.fireants_python, "-I", str(WORKER), str(options.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        self._answer()
        return 0.0

    def register(self, image: Path, template: Path, folder: Path) -> Registered:
        assert self._worker and self._worker.stdin
        self._worker.stdin.write(json.dumps([str(template), str(image)]) + "\n")
        self._worker.stdin.flush()
        told = self._answer()
        if "error" in told:
            msg = f"FireANTs: {told['error']}"
            raise ToolError(msg)
        lps = np.diag([-1.0, -1.0, 1.0, 1.0])
        matrix, own = lps @ np.array(told["matrix"]) @ lps, {name: told[name] for name in ("peak_mb", "processor")}
        return Registered(matrix, told["seconds"], told["read"], **own)

    def stop(self) -> None:
        if self._worker and self._worker.stdin:
            self._worker.stdin.close()
            self._worker.wait()
            self._worker = None

    def _answer(self) -> dict:
        """The next answer of the worker; other lines are the library's own."""
        assert self._worker and self._worker.stdout
        for line in self._worker.stdout:
            if line.startswith("ANSWER "):
                return dict(json.loads(line.removeprefix("ANSWER ")))
        msg = "the process of FireANTs ended"
        raise ToolError(msg)
