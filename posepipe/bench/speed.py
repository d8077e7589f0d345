"""Seconds for an image in memory, with template and networks loaded: ``python -m posepipe.bench.speed DATA [REPEATS]``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..brainmask.choose import brain_mask
from ..imaging.volume import Volume, load_volume
from ..matching.comparison import Comparison
from ..matching.target import Target
from ..pose.coordinate_networks import DownsampledBrain, PoseNetworks
from ..pose.initial import initial_pose, network_hypotheses
from ..refinement.refine import refine_pose
from .classical import cases

THREADS = (1, 2)

def main(argv: list[str] | None = None) -> int:
    """Print median seconds for the fetus and two newborns, on one thread and on two.

    ``deep``: the networks alone, from arrays to pose. ``search`` and ``auto``: preparation, pose, refinement by torch, and their sum.
    Template, rotation bank and networks are loaded before.
    """
    args = argv or sys.argv[1:]
    repeats = int(args[1]) if len(args) > 1 else 5
    chosen = [c for c in cases(Path(args[0]), ("fetus", "newborn-T2w")) if c.name.startswith(("f234", "sub-A13", "sub-A14"))]
    networks = PoseNetworks()
    for threads in THREADS:
        torch.set_num_threads(threads)
        for case in chosen:
            image = load_volume(case.image)
            target = Target.load(case.template)
            _ = target.bank, target.coarse_outline, target.coarse_texture, target.fine_texture
            mask = brain_mask(image).volume
            deep = [_seconds(partial(_networks_alone, image, mask, target, networks)) for _ in range(3 * repeats)]
            print(f"{case.name}, {threads} thread(s): deep {np.median(deep[1:]):.3f} s", flush=True)
            for method in ("search", "auto"):
                chosen_networks = networks if method == "auto" else None
                stages = np.array([_once(image, mask, target, method, chosen_networks) for _ in range(repeats + 1)])[1:]
                median = np.median(stages, axis=0)
                parts = ", ".join(f"{n} {s:.3f}" for n, s in zip(("prepare", method, "torch"), median, strict=True))
                print(f"{case.name}, {threads} thread(s): {parts}, together {np.median(stages.sum(1)):.3f} s", flush=True)
    return 0


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _networks_alone(image: Volume, mask: Volume, target: Target, networks: PoseNetworks) -> None:
    network_hypotheses(DownsampledBrain.of(image, mask), target, networks)


def _once(
    image: Volume, mask: Volume, target: Target, method: str, networks: PoseNetworks | None
) -> tuple[float, float, float]:
    marks = [time.perf_counter()]
    compare = Comparison.of(image, mask, target)
    marks.append(time.perf_counter())
    start = initial_pose(image, mask, target, method=method, compare=compare, networks=networks)
    marks.append(time.perf_counter())
    refine_pose(image, mask, target, start.pose, method="torch", compare=compare)
    marks.append(time.perf_counter())
    a, b, c = np.diff(marks)
    return float(a), float(b), float(c)


if __name__ == "__main__":
    raise SystemExit(main())
