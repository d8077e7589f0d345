"""What each rule of the initial pose, the refinement and the verdict does: corrupted brains with one constant set otherwise at a time.

``python -m posepipe.bench.ablation DATA OUT.csv [--trials N] [--only WORD …] [--weights DIR]``. ``--only``: settings whose title contains a
word. ``--weights``: one more setting, the packaged constants with the networks of this folder. The brains are those kept for validation
(:func:`~posepipe.bench.confidence.confidence_cases`), with one trial of each kind of corruption by default, ``auto`` with torch. Prints for
each setting how many poses are right (within 15°), how many became right or wrong against the packaged setting, the mean error of the right
ones, how many wrong and right ones are for ``review`` or ``fail``, and seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..quality.confidence import WITHIN_DEGREES
from .confidence import CORRUPTIONS, confidence_cases
from .constants import constants_set
from .methods import BenchmarkRunner
from .rows import PartFile
from .trials import Trial, TrialGenerator, parse_corruption

PACKAGED = "as packaged"
NEVER = -1.0
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    PACKAGED: {},
    "pose: no multi-start search": {"pose.hypothesis.LOW_CRITERION": NEVER},
    "pose: low criterion 0.25": {"pose.hypothesis.LOW_CRITERION": 0.25},
    "pose: low criterion 0.40": {"pose.hypothesis.LOW_CRITERION": 0.40},
    "pose: no limit of coarse texture": {"pose.hypothesis.LOW_COARSE_RATIO": NEVER},
    "pose: limit of coarse texture 0.15": {"pose.hypothesis.LOW_COARSE_RATIO": 0.15},
    "pose: poses are the same within 10°": {"pose.hypothesis.SAME_DEGREES": 10.0},
    "pose: poses are the same within 20°": {"pose.hypothesis.SAME_DEGREES": 20.0},
    "multi-start: one attempt": {"pose.multistart.ATTEMPTS": 1},
    "multi-start: three attempts": {"pose.multistart.ATTEMPTS": 3},
    "networks: votes agree within 30°": {"pose.coordinate_networks.VOTE_DEGREES": 30.0},
    "networks: one copy": {"pose.coordinate_networks.COPIES": 1},
    "search: correlation ratio alone": {"pose.search.BY_CONTRAST": 0, "pose.search.BY_RATIO": 20},
    "search: correlation alone": {"pose.search.BY_CONTRAST": 20, "pose.search.BY_RATIO": 0},
    "search: as many by either measure": {"pose.search.BY_CONTRAST": 10, "pose.search.BY_RATIO": 10},
    "search: three finalists": {"pose.search.FINALISTS": 3},
    "search: centre of the mask alone": {"pose.search.CENTER_SHIFT": 0.0},
    "refinement: whole template alone": {"refinement.refine.CSF_CRITERION": NEVER},
    "refinement: template without CSF below 0.32": {"refinement.refine.CSF_CRITERION": 0.32},
    "refinement: template without CSF if it fits better": {"refinement.refine.CSF_RATIO": 1.0},
    "refinement: no mutual information": {"matching.comparison.MUTUAL_STEPS": 0},
    "verdict: no fail by overlap": {"quality.verdict.BAD_DICE": NEVER},
    "matching: outline counts 0.2": {"matching.comparison.OUTLINE_SHARE": 0.2},
    "matching: outline counts 0.45": {"matching.comparison.OUTLINE_SHARE": 0.45},
    "matching: one erosion, 2.5 mm": {"matching.channels.FINE_EROSION_MM": 2.5},
    "matching: 16 classes in the bank": {"matching.rotation_bank.CLASSES": 16},
    "matching: strict fit as the others": {"matching.gauss_newton.STRICT_OUTLIER": 3.0},
}


def main(arguments: list[str] | None = None) -> None:
    """Add a row for each setting, brain and trial to the CSV, and print the table; existing rows are not made again. On one thread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--trials", type=int, default=len(CORRUPTIONS))
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD")
    parser.add_argument("--weights", type=Path, metavar="DIR")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    part = PartFile(args.output)
    runner, trials = BenchmarkRunner(), trials_of(args.data, args.trials)
    print("| set otherwise | poses | right | newly right, newly wrong | error | wrong flagged | right flagged | s |\n" + "|---" * 8 + "|")
    for title, values in SETTINGS.items():
        if title == PACKAGED or not args.only or any(word in title for word in args.only):
            with constants_set(values):
                measure(title, trials, runner, part)
            print(line(title, part.rows), flush=True)
    if args.weights:
        title = f"networks of {args.weights.name}"
        measure(title, trials, BenchmarkRunner(args.weights), part)
        print(line(title, part.rows), flush=True)


def trials_of(data: Path, count: int) -> dict[tuple[str, str], Trial]:
    """``(brain, number)`` → trial, of ``count`` trials of each brain that validates; corruptions take turns."""
    out = {}
    for case in confidence_cases(data, ("validation",)):
        generator = TrialGenerator(case)
        for number in range(count):
            out[case.name, str(number)] = generator.trial(number, parse_corruption(CORRUPTIONS[number % len(CORRUPTIONS)]), 0)[0]
    return out


def measure(title: str, trials: Mapping[tuple[str, str], Trial], runner: BenchmarkRunner, part: PartFile) -> None:
    """Add the rows of the setting ``title`` that are not there."""
    done = {(r["name"], r["trial"]) for r in part.rows if r["setting"] == title}
    for (name, number), trial in trials.items():
        if (name, number) not in done:
            (outcome,) = runner.run(trial, ("auto+torch",))
            degrees = float(outcome.refined.pose.degrees_from(trial.truth))
            about = {"setting": title, "name": name, "trial": number}
            part.add(about | {"degrees": degrees, "qc": outcome.quality.qc, "seconds": outcome.seconds})


def line(title: str, rows: list[dict[str, str]]) -> str:
    """The line of the table for the setting ``title``, compared with the rows of :data:`PACKAGED`."""
    mine, packaged = ({(r["name"], r["trial"]): r for r in rows if r["setting"] == setting} for setting in (title, PACKAGED))
    degrees = np.array([float(r["degrees"]) for r in mine.values()])
    right, flagged = degrees <= WITHIN_DEGREES, np.array([r["qc"] != "pass" for r in mine.values()])
    before = np.array([float(packaged.get(key, r)["degrees"]) <= WITHIN_DEGREES for key, r in mine.items()])
    cells = (
        title, len(mine), int(right.sum()), f"{int((right & ~before).sum())}, {int((before & ~right).sum())}",
        f"{degrees[right].mean():.2f}°",
        f"{int(flagged[~right].sum())} of {int((~right).sum())}", f"{int(flagged[right].sum())} of {int(right.sum())}",
        f"{np.mean([float(r['seconds']) for r in mine.values()]):.2f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
