"""The paper's comparison on volumes: errors of all methods for brains with random motion, with and without corruption.

Test brains are rotated so that their pose is in each of six 30° bins, and once more at 175–180° (docs/results/bench.md). All methods get
the same images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..training.split import load_split
from .classical import Case, atlas_cases, cases
from .methods import BenchmarkRunner, networks_key
from .rows import PartFile
from .trials import LAST_BINS, Corruption, TrialGenerator, parse_corruption

GROUPS = ("fetus", "newborn-T2w", "newborn-T1w", "templates")
CLEAN_METHODS = (
    "vvr-gc", "vvr-paa", "posenet-mse", "posenet", "correction", "vvr-deep", "vvr-deep-correction", "vvr-deep-ours", "search", "deep",
    "deep+correction", "deep+torch", "auto+torch", "auto+ants",
)  # fmt: skip
CORRUPTED_METHODS = ("axes+torch", "search+torch", "deep", "deep+torch", "auto+torch")
CORRUPTIONS = (
    "cut:0.67", "cut:1.33", "cut:2",
    "leak:0.5", "leak", "leak:2",
    "bias:0.5", "bias", "bias:2",
    "noise:0.5", "noise", "noise:2",
    "slices:0.75", "slices", "slices:1.5",
    "age:0.34", "age:0.67", "age",
    "invert:0.5", "invert", "invert:2",
    "all:0.5", "all", "all:1.5", "cut+invert", "cut+age", "cut+leak+invert+slices",
)  # fmt: skip
"""Each kind at three strengths (cut: 10, 20 and 30 %; slices: 3, 4 and 6 mm; age: 1, 2 and 3 weeks), then several at once."""
COLUMNS = ("group", "name", "weeks", "damage", "trial", "bin", "method", "degrees", "mm", "seconds", "qc", "confidence")


def volume_cases(data: Path, groups: tuple[str, ...], *, left_out: str | None = None) -> list[Case]:
    """Test brains: those of the test part of the split, and with ``templates`` the cohorts of one atlas as subjects of another.

    The default networks were trained on the cohorts. So ``templates`` test generalisation only with networks that were trained without
    the atlas ``left_out``; the cases are then all cohorts of that atlas alone.
    """
    split = load_split()
    found: list[Case] = []
    if left_out and "templates" in groups:
        found, groups = atlas_cases(data, left_out), tuple(g for g in groups if g != "templates")
    for case in cases(data, groups):
        if case.group in {"fetus", "templates"} or split.part(case.name.rpartition("-")[0]) == "test":
            found.append(case)
    return found


def measure(
    case: Case, corruption: Corruption, runner: BenchmarkRunner, part: PartFile, *, methods: tuple[str, ...], trials: int, seed: int = 0
) -> None:
    """Add to ``part`` the rows of one case under one corruption, ``trials`` in each bin, that it does not hold yet."""
    done = {(r["trial"], r["method"]) for r in part.rows}
    generator: TrialGenerator | None = None
    for number in range(trials * len(LAST_BINS)):
        wanted = tuple(m for m in methods if (str(number), m) not in done)
        if not wanted:
            continue
        generator = generator or TrialGenerator(case)
        trial, which = generator.trial(number, corruption, seed)
        center = trial.target.brain.center
        for outcome in runner.run(trial, wanted):
            pose, quality = outcome.refined.pose, outcome.quality
            values = (
                case.group, case.name, float(case.template.age), corruption.spec, number, which, outcome.method,
                float(pose.degrees_from(trial.truth)), float(pose.mm_from(trial.truth, center)), float(outcome.seconds),
                quality.qc, quality.confidence,
            )  # fmt: skip
            part.add(dict(zip(COLUMNS, values, strict=True)))


def part_path(folder: Path, case: Case, corruption: str, weights: Mapping[str, str]) -> Path:
    """Path of the rows of one case under one corruption; it depends on the weights (SHA-256) of the default networks."""
    return folder / "parts" / f"{case.group}_{case.name}_{corruption.replace(':', '-')}_{networks_key(weights)}.csv"


def run_task(task: tuple[Case, str, Path, tuple[str, ...], int, int, Path | None]) -> None:
    """Measure one case under one corruption in a process of its own. ``task``: case, corruption, folder, methods, trials, seed, weights."""
    case, corruption, folder, methods, trials, seed, weights = task
    runner = BenchmarkRunner(weights)
    part = PartFile(part_path(folder, case, corruption, runner.networks.sha256))
    measure(case, parse_corruption(corruption), runner, part, methods=methods, trials=trials, seed=seed)
