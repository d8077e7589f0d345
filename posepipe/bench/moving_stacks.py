"""Stacks with motion, aligned slice by slice and as volumes: ``posepipe-tools bench stacks``.

Stacks are simulated (:mod:`posepipe.slices.motion`) from volumes without motion, of development brains or of test brains. Each is aligned
as a volume (``auto``, torch) and slice by slice (:func:`posepipe.slices.align.align_stack`), with the simulated masks of the slices. The
confidence model of single slices is fitted to the rows of the development brains.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..atlas import AtlasLibrary
from ..errors import UsageError
from ..geometry.so3 import Array
from ..models.calibration import ConfidenceModel
from ..pose.coordinate_networks import PoseNetworks
from ..pose.initial import initial_pose
from ..refinement.refine import refine_pose
from ..slices.align import WITHIN_DEGREES, align_stack
from ..slices.motion import LEVELS, MovingStack, simulate_stack
from ..slices.network import SliceNetwork
from ..training.split import load_split
from .classical import Case, cases
from .logistic import auroc, fit_logistic, out_of_fold, threshold
from .methods import networks_key
from .rows import PartFile
from .slice_register import Brain, load_brain, slice_mm, template_case

LOST_DEGREES = 15.0
LIMITS = (0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0)
"""Limits of motion, degrees RMS, that are compared; 0: always use the poses of the slices."""
FEATURES = ("ncc", "below", "apart", "network", "stray", "expected_error")
"""Columns that the confidence of a slice is estimated from (:func:`posepipe.slices.align.slice_features`)."""
FLAGGED, ALARMS = 0.9, 0.05
"""Target share of wrong slices below the outlier threshold, and largest share of right slices below it."""
SLICE_COLUMNS = ("slice", "degrees", "mm", "still", "outlier", "confidence")
"""Columns of a slice besides its features: index, errors of its pose (degrees, mm), degrees from the stack's true mean pose, outlier or
not, confidence."""
STACK_COLUMNS = ("stack_slices", "stack_volume", "stack_kept", "kept", "motion", "ncc_slices", "ncc_volume", "seconds")
"""Columns of the stack: errors (degrees) of its pose by slices, by volume and as kept; which was kept; estimated motion, degrees RMS;
mean NCC at both poses; seconds."""


PAIRS = (("CRL", 27, "CRL", 28), ("FidonSBA", 28, "FidonSBA", 29), ("Serag", 36, "CRL", 36), ("Serag", 41, "Serag", 40))
"""Cohorts as subjects of a template of another week or atlas. CHN is kept for testing single slices. The true pose of FidonSBA on another
atlas is not known well enough (:mod:`posepipe.bench.slice_register`)."""


def validation_cases(data: Path) -> list[Case]:
    """The brains of the validation part: newborns and cohorts. Everything that depends on the weights of the networks, as the confidence
    of slices, is fitted on these."""
    split, library = load_split(), AtlasLibrary([data / "atlases"])
    cohorts = [template_case(*pair, "validation", library) for pair in PAIRS]
    newborns = [replace(c, name=c.name.partition("-T2w")[0], group="validation") for c in cases(data, ("newborn-T2w",))]
    return [c for c in (*newborns, *cohorts) if split.part(c.name) == "validation"]


def measure(brain: Brain, network: SliceNetwork, volumes: PoseNetworks, part: PartFile, *, trials: int, seed: int = 0) -> None:
    """Add to ``part`` a row for each slice of ``trials`` stacks at each level of motion that it does not hold yet."""
    done = {(r["level"], r["trial"]) for r in part.rows}
    for level, degrees in LEVELS.items():
        for trial in range(trials):
            if (level, str(trial)) not in done:
                rng = np.random.default_rng([seed, trial, int(degrees), *brain.name.encode()])
                stack = simulate_stack(brain.volume, brain.mask, rng, degrees=degrees)
                for row in _rows(brain, stack, network, volumes):
                    part.add({"name": brain.name, "group": brain.group, "level": level, "trial": trial} | row)


def _rows(brain: Brain, stack: MovingStack, network: SliceNetwork, volumes: PoseNetworks) -> list[dict[str, Any]]:
    truth, mean = stack.poses(brain.own), stack.mean @ brain.own
    about = (stack.image, stack.mask, brain.target)
    by_volume = refine_pose(*about, initial_pose(*about, networks=volumes).pose, method="torch").pose
    begun = time.perf_counter()
    found = align_stack(*about, by_volume, network, sidecar={"SliceTiming": stack.acquisition.times.tolist()}, model=None)
    seconds = time.perf_counter() - begun
    of_stack = (
        found.by_slices.degrees_from(mean), by_volume.degrees_from(mean), found.pose.degrees_from(mean), found.kept.kept,
        found.kept.motion, *(found.kept.scores[name] for name in ("slices", "volume")), seconds,
    )  # fmt: skip
    rows = []
    for piece in stack.slices:
        row = found.rows[piece.index]
        if row.pose is None:
            continue
        true = truth[piece.index]
        errors = (row.pose.degrees_from(true), slice_mm(row.pose, true, piece), mean.degrees_from(true))
        values = (piece.index, *errors, int(bool(row.outlier)), None)
        features = {name: found.features[piece.index][name] for name in FEATURES}
        rows.append(dict(zip(SLICE_COLUMNS, values, strict=True)) | features | dict(zip(STACK_COLUMNS, of_stack, strict=True)))
    return rows


@dataclass(frozen=True, eq=False)
class SliceFit:
    """The ``model`` of a slice's confidence; ``made``: description of the fit; ``held`` (N,): confidence of each row by models fitted
    without its brain."""

    model: ConfidenceModel
    made: str
    held: Array


def fit_slices(rows: Sequence[dict[str, str]]) -> SliceFit:
    """Fit the confidence that a slice's pose is within 10° of the true pose to rows of development brains. The outlier threshold comes
    from cross-validation over brains. Raises :class:`~posepipe.errors.UsageError` if no slice is wrong, or if all are of one brain."""
    x = np.array([[float(r[name]) for name in FEATURES] for r in rows])
    y = np.array([float(r["degrees"]) <= WITHIN_DEGREES for r in rows], dtype=float)
    names = np.array([r["name"] for r in rows])
    try:
        fit, held = fit_logistic(x, y), out_of_fold(x, y, names, folds=len(np.unique(names)))
        limit = threshold(held, y, flagged=FLAGGED, alarms=ALARMS)
    except ValueError as error:
        msg = f"{len(y)} slices of {len(np.unique(names))} brains do not make a model: {error}; run with more --trials or brains"
        raise UsageError(msg) from error
    terms = {n: (float(c), float(m), float(s)) for n, c, m, s in zip(FEATURES, fit.coefficients, fit.mean, fit.scale, strict=True)}
    made = (
        f"{len(y)} slices of {len(np.unique(names))} brains in simulated moving stacks, {int((1 - y).sum())} of them more than "
        f"{WITHIN_DEGREES:g} degrees off; left out brain by brain: AUROC {auroc(held, y):.3f}"
    )
    return SliceFit(ConfidenceModel(terms, fit.intercept, limit, limit), made, held)


def report(rows: Sequence[dict[str, str]], model: ConfidenceModel | None) -> str:
    """Markdown: a line for each group and level of motion; outliers by ``model``, or without it as the fusion of the slices marked them."""
    heads = (
        "group", "motion", "stacks", "slices", "slices °", "mm", "> 15°", "at the true mean °", "outliers: precision", "recall",
        "stack by slices °", "by volume °", "as kept °", "slices kept", "s",
    )  # fmt: skip
    out = ["Medians; motion: degrees RMS.\n", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for group in dict.fromkeys(r["group"] for r in rows):
        for level, degrees in LEVELS.items():
            mine = [r for r in rows if r["group"] == group and r["level"] == level]
            if mine:
                out.append(_line(group, f"{level} ({degrees:g}°)", mine, model))
    return "\n".join(out)


def limits(rows: Sequence[dict[str, str]]) -> str:
    """Markdown: mean error of the stacks' poses for other values of :data:`posepipe.slices.align.MOVED_DEGREES`, over all stacks."""
    stacks = list({(r["name"], r["level"], r["trial"]): r for r in rows}.values())
    slices, volume, motion = (np.array([float(r[k]) for r in stacks]) for k in ("stack_slices", "stack_volume", "motion"))
    fits = np.array([float(r["ncc_slices"]) > float(r["ncc_volume"]) for r in stacks])
    cells = []
    for limit in LIMITS:
        error = np.where((motion > limit) | fits, slices, volume)
        cells.append(f"{limit:g}: {error.mean():.2f} ({error.max():.1f})")
    ends = f"slices alone {slices.mean():.2f} ({slices.max():.1f}), volume alone {volume.mean():.2f} ({volume.max():.1f})"
    return f"Error of the pose of {len(stacks)} stacks by the limit of motion, degrees, mean (largest): {', '.join(cells)}; {ends}."


def _line(group: str, level: str, rows: list[dict[str, str]], model: ConfidenceModel | None) -> str:
    degrees, mm, still = (np.array([float(r[k]) for r in rows]) for k in ("degrees", "mm", "still"))
    if model is None:
        called = np.array([r["outlier"] == "1" for r in rows])
    else:
        called = np.array([model.probability({n: float(r[n]) for n in FEATURES}) < model.fail for r in rows])
    wrong = degrees > WITHIN_DEGREES
    stacks = list({(r["name"], r["trial"]): r for r in rows}.values())
    of_stack = {k: np.array([float(r[k]) for r in stacks]) for k in ("stack_slices", "stack_volume", "stack_kept", "seconds")}
    kept = sum(r["kept"] == "slices" for r in stacks)
    return (
        f"| {group} | {level} | {len(stacks)} | {len(rows)} | {np.median(degrees):.1f} | {np.median(mm):.1f} "
        f"| {100 * (degrees > LOST_DEGREES).mean():.1f} % | {np.median(still):.1f} | {_share(wrong[called])} | {_share(called[wrong])} "
        + "".join(f"| {np.median(of_stack[k]):.1f} ({of_stack[k].max():.1f}) " for k in ("stack_slices", "stack_volume", "stack_kept"))
        + f"| {kept} of {len(stacks)} | {np.median(of_stack['seconds']):.1f} |"
    )


def _share(hits: Array) -> str:
    return f"{int(hits.sum())} of {len(hits)}" if len(hits) else "–"


def run_task(task: tuple[Case, Path, int, int, Path | None]) -> None:
    """Measure one brain in a process of its own. ``task``: case, folder, trials, seed, weights."""
    case, folder, trials, seed, weights = task
    torch.set_num_threads(1)
    network = SliceNetwork(weights)
    part = PartFile(part_path(folder, case, network.sha256))
    measure(load_brain(case), network, PoseNetworks(weights), part, trials=trials, seed=seed)


def part_path(folder: Path, case: Case, weights: Mapping[str, str]) -> Path:
    """Path of the rows of one brain; it depends on the weights of the networks."""
    return folder / "parts" / f"{case.name}_{networks_key(weights)}.csv"
