"""One method of ``posepipe-tools bench speed`` in a process of its own: ``python -m posepipe.bench.speed_worker JOB`` (JSON).

It imports nothing that the method does not need, so that its peak memory is the method's.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PosepipeError
from ..geometry import Rigid
from .rows import PartFile
from .tools import TOOLS, Options, Registered, Tool
from .tools.base import mirrored, peak_mb, rigid_part

Result = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the scenes of the job that its file of rows does not hold yet."""
    job = json.loads((argv or sys.argv[1:])[0])
    use_processors(job["threads"], pinned=job["pinned"])
    weights = Path(job["weights"]) if job["weights"] else None
    options = Options(job["threads"], Path(job["data"]), weights, job["fireants_python"])
    part, tool = PartFile(Path(job["rows"])), TOOLS[job["method"]]
    done = {(row["name"], row["trial"], row["repeat"]) for row in part.rows}
    files = [Path(path) for path in job["scenes"]]
    scenes = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in files]
    wanted = [(p, s, k) for k in range(job["repeats"]) for p, s in scenes if (s["name"], str(s["trial"]), str(k)) not in done]
    if not wanted:
        return 0
    begun = time.perf_counter()
    own = tool.start(options)
    start = own or time.perf_counter() - begun
    try:
        if tool.warm_up:
            for template in {s["template"]: p for p, s, _ in wanted}.values():
                measure(tool, template, json.loads(template.read_text(encoding="utf-8")))
        for path, scene, repeat in wanted:
            about = {"method": job["method"], "threads": job["threads"], **{k: scene[k] for k in ("group", "name", "trial", "bin")}}
            result = measure(tool, path, scene)
            part.add({**about, "repeat": repeat, **result, "start": start})
    finally:
        tool.stop()
    return 0


def use_processors(number: int, *, pinned: bool) -> None:
    """Let torch use ``number`` threads, and if ``pinned`` keep this process and those that it starts to as many processors."""
    if pinned and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:number])
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(number)


def measure(tool: Tool, path: Path, scene: Result) -> Result:
    """Register one scene: the columns of its row that are measured."""
    empty: Result = dict.fromkeys(("degrees", "mm", "determinant", "seconds", "read"))
    image, template = path.with_suffix(".nii"), path.parent / scene["template"]
    before = processor_seconds()
    with tempfile.TemporaryDirectory(prefix="posepipe-speed-") as folder:
        try:
            found = tool.register(image, template, Path(folder))
        except PosepipeError as error:
            spent, why = processor_seconds() - before, " ".join(str(error).split())
            return {**empty, "parts": "", "processor": spent, "peak_mb": peak_mb(), "failure": why}
    why = refused(found)
    determinant = None if np.isnan(found.matrix).any() else float(np.linalg.det(found.matrix[:3, :3]))
    times: Result = {
        "determinant": determinant, "seconds": float(found.seconds), "read": None if np.isnan(found.read) else float(found.read),
        "parts": " ".join(f"{name}={seconds:.4f}" for name, seconds in found.parts.items()),
        "processor": found.processor or processor_seconds() - before, "peak_mb": float(found.peak_mb or peak_mb()),
    }  # fmt: skip
    if why:
        return {**empty, **times, "failure": why}
    center = np.array(scene["center"])
    pose, truth = rigid_part(found.matrix, center), Rigid.from_matrix(scene["truth"])
    return {**empty, **times, "degrees": pose.degrees_from(truth), "mm": pose.mm_from(truth, center), "failure": ""}


def processor_seconds() -> float:
    """Processor time of this process and of the programs that it ran to their end."""
    return sum(os.times()[:4])


def refused(found: Registered) -> str:
    """Why a transform counts as failed; empty if it does not."""
    if not np.isfinite(found.matrix).all():
        return "the transform holds no numbers"
    return mirrored(found.matrix)


if __name__ == "__main__":
    raise SystemExit(main())
