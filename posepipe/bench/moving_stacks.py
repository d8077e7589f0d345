"""Moving stacks slice by slice, from starts like a network's: ``python -m posepipe.bench.moving_stacks DATA [--only NAME …]``.

Stacks are simulated (:mod:`posepipe.slices.motion`) from the brains of :mod:`posepipe.bench.slice_register`, which are held for
development. No network is asked: a slice's start is off by the size of a normal number of deviation 12° (and mm in proportion), one in
ten by 40–150°, and half of all are the twin. Printed for each level of motion: errors of the starts after the twins were chosen, of the
registered slices, of each slice at the true mean pose of the stack, and of the stack's pose.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from ..geometry import Rigid
from ..slices.frames import MidsagittalPlane, twin_pose
from ..slices.motion import LEVELS, simulate_stack
from ..slices.points import SliceTarget
from ..slices.stack import register_stack
from .slice_register import Brain, brains, slice_mm, start_off

LOST = 0.1
"""Share of the slices whose start is anywhere."""
DEVIATION = 12.0
"""Standard deviation of how far the other starts are off, degrees: a median of 8°, as METHODS §4's first network."""
LEAST_MM2 = 100.0
"""Slices with less brain are left out, mm²: a disc 11 mm wide."""

Row = dict[str, list[float]]


def measured(brain: Brain, degrees: float, rng: np.random.Generator) -> Row:
    """Errors on one stack of ``brain`` that moves by ``degrees`` RMS, by name; degrees and mm."""
    target = SliceTarget(brain.target)
    center = target.center
    plane = MidsagittalPlane.of(np.eye(3) if brain.target.to_canonical is None else brain.target.to_canonical, center)
    stack = simulate_stack(brain.volume, brain.mask, rng, degrees=degrees)
    pieces = [s for s in stack.slices if s.area > LEAST_MM2]
    truth = [stack.poses(brain.own)[s.index] for s in pieces]
    lost = rng.random(len(truth)) < LOST
    off = np.where(lost, rng.uniform(40, 150, len(truth)), np.abs(rng.normal(0, DEVIATION, len(truth))))
    near = [start_off(p, center, d, rng) for p, d in zip(truth, off, strict=True)]
    twins = [twin_pose(p, s.grid, plane) for p, s in zip(near, pieces, strict=True)]
    starts = [t if flip else p for p, t, flip in zip(near, twins, rng.random(len(truth)) < 0.5, strict=True)]
    found = register_stack(pieces, target, starts, plane, stack.acquisition)
    mean = stack.mean @ brain.own

    def errors(poses: list[Rigid]) -> list[float]:
        return [p.degrees_from(q) for p, q in zip(poses, truth, strict=True)]

    chosen = zip(found.first.poses, near, lost, strict=True)
    return {
        "twins": [float(p.degrees_from(q) < 1) for p, q, gone in chosen if not gone],
        "starts": errors(found.first.poses),
        "slices": errors(found.poses),
        "mm": [slice_mm(p, q, s) for p, q, s in zip(found.poses, truth, pieces, strict=True)],
        "mean": errors([mean] * len(truth)),
        "outlier": found.fused.outlier.astype(float).tolist(),
        "stack": [found.fused.mean.degrees_from(mean)],
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="*", default=None, help="brains by name: sub-A04, CRL+27, Serag+30")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: dict[tuple[str, str], Row] = {}
    for brain in brains(options.data, options.only):
        for level, degrees in LEVELS.items():
            row = measured(brain, degrees, np.random.default_rng([3, int(degrees), *brain.name.encode()]))
            pool = rows.setdefault((brain.group, level), {})
            for name, values in row.items():
                pool.setdefault(name, []).extend(values)
            slices, stack = float(np.median(row["slices"])), row["stack"][0]
            print(f"{brain.name}, {level} motion: slices {slices:.1f}° median, stack {stack:.1f}°", flush=True)
    heads = "group | motion | stacks | slices | right twins | starts ° | slices ° | > 15° | mm | at the mean ° | called outliers | stack °"
    print(f"\n| {heads} |\n|" + "---|" * 12)
    for (group, level), row in rows.items():
        a = {name: np.array(values) for name, values in row.items()}
        far = 100 * (a["slices"] > 15).mean()
        print(
            f"| {group} | {level} | {len(a['stack'])} | {len(a['slices'])} | {100 * a['twins'].mean():.1f} % "
            f"| {np.median(a['starts']):.1f} | {np.median(a['slices']):.1f} | {far:.1f} % | {np.median(a['mm']):.1f} "
            f"| {np.median(a['mean']):.1f} | {100 * a['outlier'].mean():.0f} % | {np.median(a['stack']):.1f} |"
        )


if __name__ == "__main__":
    main()
