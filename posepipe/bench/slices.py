"""The paper's Table 1 for single slices, and the same for slabs of neighbouring slices: comparison of methods (docs/results/bench.md).

Slices are sampled from brains kept for testing, whose pose by registration of the whole volume is the truth. All methods get the same
slices, one trial at a time, with their masks. The rotation of a slice is R of ``u = s R x + t``, canonical brain → slice frame
(:mod:`posepipe.slices.frames`); its third row is the slice's normal in the brain. The world of a slice is its own slice frame, so its
header carries no information about the brain: a method that starts from the header's orientation starts off by the whole rotation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..errors import MaskError
from ..geometry import Rigid, random_rotations, so3
from ..geometry.so3 import Array
from ..models.slices import NUMBERS, slice_offset
from ..models.twin import twin
from ..slices.align import LEAST_MM2
from ..slices.frames import Slice, twin_degrees, twin_pose
from ..slices.points import SliceTarget
from ..training.slices import SliceRecipe
from .classical import Case, atlas_cases
from .rows import PartFile, read_rows
from .slice_methods import OWN, Family, SliceBenchmarkRunner, families, family_key, missing_networks
from .slice_register import Brain, Cutter, development_cases, load_brain, slice_mm
from .volume import volume_cases

STEP_MM = 4.0
"""Distance between the slices of a slab, mm: as in a first trial of neighbouring slices."""
THICKNESS = SliceRecipe.thickness
"""Range of the full width at half maximum of slices, mm, sampled uniformly: that of the networks' training."""
TRIES = 100
"""Maximum number of slices sampled until one has at least :data:`~posepipe.slices.align.LEAST_MM2` of brain; nearly always the first one
has."""


@dataclass(frozen=True)
class Sampling:
    """``slices`` parallel slices in a trial, :data:`STEP_MM` apart, with orientations from all of SO(3); with ``half`` from the half with
    R₃₃ ≥ 0, and with integer slice numbers (Salehi et al. 2018, §3.1)."""

    name: str
    slices: int = 1
    half: bool = False


SAMPLINGS = {s.name: s for s in (Sampling("paper", half=True), Sampling("all"), Sampling("slab-3", 3), Sampling("slab-5", 5))}


@dataclass(frozen=True, eq=False)
class SliceTrial:
    """``pieces``: slices of a head without motion at ``truth`` (atlas → image, RAS mm), in order; ``middle``: the slice whose errors are
    measured.

    The image's world is the slice frame of ``middle``. ``rotation`` (3, 3): canonical → slice frame; ``number`` (0 to 29): slice number
    of ``middle``.
    """

    pieces: tuple[Slice, ...]
    middle: Slice
    truth: Rigid
    rotation: Array
    number: float

    @property
    def angle(self) -> float:
        """Rotation angle of the slice, degrees."""
        return float(np.degrees(so3.geodesic_distance(self.rotation, np.eye(3))))


@dataclass(frozen=True)
class SliceErrors:
    """Errors of the pose of a slice: ``degrees`` and ``mm`` (mean over the corners of the mask's bounding box) to the true pose;
    ``nearer_degrees`` and ``nearer_mm``: the smaller of those to the true pose and to its twin; ``right_twin``: whether the corners are
    nearer to those by the true pose."""

    degrees: float
    mm: float
    nearer_degrees: float
    nearer_mm: float
    right_twin: int


def slice_cases(data: Path, groups: Sequence[str]) -> list[Case]:
    """Test brains: the fetus and the newborns of the test part of the split, and CHN's cohorts on CRL's of the same week.

    ``development`` gives those of :mod:`posepipe.bench.slice_register` instead.
    """
    out = volume_cases(data, tuple(g for g in groups if g in {"fetus", "newborn-T2w"}))
    if "CHN" in groups:
        out += [replace(c, group="CHN") for c in atlas_cases(data, "CHN")]
    if "development" in groups:
        out += development_cases(data)
    return out


def trials(cases: Sequence[Case], wanted: int) -> dict[str, int]:
    """Number of trials of each brain, by name, for ``wanted`` trials in all: equal shares of the groups, and of the brains in a group."""
    groups = [c.group for c in cases]
    share = -(-wanted // max(len(set(groups)), 1))
    return {c.name: -(-share // groups.count(c.group)) for c in cases}


def sample_trial(brain: Brain, cutter: Cutter, to_canonical: Array, sampling: Sampling, index: int, seed: int = 0) -> SliceTrial:
    """Trial number ``index``; it depends on ``seed``, ``sampling`` and brain alone. ``to_canonical`` (3, 3) is the template's.

    Raises :class:`~posepipe.errors.MaskError` for a brain without slices that contain enough brain.
    """
    rng = np.random.default_rng([seed, index, *sampling.name.encode(), *brain.name.encode()])
    for _ in range(TRIES):
        rotation = random_rotations(1, rng)[0]
        if sampling.half and rotation[2, 2] < 0:
            rotation = twin(torch.from_numpy(rotation), torch.zeros(3))[0].numpy()
        number = float(rng.integers(NUMBERS)) if sampling.half else rng.uniform(0, NUMBERS - 1)
        thickness = float(rng.uniform(*THICKNESS))
        axes = brain.own.rotation @ to_canonical.T @ rotation.T
        offset = float(slice_offset(*torch.tensor([number, *cutter.extent(axes[:, 2])], dtype=torch.float64)))
        half = sampling.slices // 2
        step = STEP_MM if sampling.slices > 1 else thickness
        pieces = [cutter.cut(axes, offset + step * (k - half), thickness, index=k, step=step) for k in range(sampling.slices)]
        if pieces[half].area >= LEAST_MM2:
            away = ~pieces[half].grid.to_world
            moved = [p.moved(away) for p in pieces]
            some = tuple(p for p in moved if p.area >= LEAST_MM2)
            return SliceTrial(some, moved[half], away @ brain.own, rotation, number)
    msg = f"{brain.name}: no slice of {TRIES} holds {LEAST_MM2:g} mm² of brain; check its mask"
    raise MaskError(msg)


def slice_errors(pose: Rigid, trial: SliceTrial, target: SliceTarget) -> SliceErrors:
    """Errors of ``pose`` (atlas → image)."""
    piece, truth = trial.middle, trial.truth
    other = twin_pose(truth, piece.grid, target.plane)
    degrees = [float(pose.degrees_from(t)) for t in (truth, other)]
    mm = [slice_mm(pose, t, piece) for t in (truth, other)]
    return SliceErrors(degrees[0], mm[0], min(degrees), min(mm), int(mm[0] <= mm[1]))


def measure(
    case: Case, runner: SliceBenchmarkRunner, parts: Mapping[Family, PartFile], counts: Mapping[str, int], *, seed: int = 0
) -> None:  # fmt: skip
    """Add to the ``parts`` of each family the rows of one brain that they do not hold yet; ``counts``: sampling → number of trials."""
    done = {f: {(r["sampling"], r["trial"], r["method"]) for r in p.rows} for f, p in parts.items()}
    ready: tuple[Brain, Cutter, SliceTarget] | None = None
    for name, count in counts.items():
        sampling = SAMPLINGS[name]
        able = [f for f in parts if sampling.slices == 1 or f.methods == OWN]
        for index in range(count):
            wanted = [f for f in able if any((name, str(index), m) not in done[f] for m in f.methods)]
            if not wanted:
                continue
            brain, cutter, target = ready = ready or _loaded(case)
            trial = sample_trial(brain, cutter, target.to_canonical, sampling, index, seed)
            about = {
                "sampling": name, "group": case.group, "name": case.name, "weeks": float(case.template.age), "trial": index,
                "slices": len(trial.pieces), "thickness": trial.middle.grid.thickness, "number": trial.number,
                "angle": trial.angle, "apart": twin_degrees(trial.truth, trial.middle.grid, target.plane),
            }  # fmt: skip
            for family in wanted:
                for method, found in runner.run(family, trial.pieces, target, half=sampling.half):
                    if (name, str(index), method) not in done[family]:
                        errors = vars(slice_errors(found.pose, trial, target))
                        parts[family].add({**about, "method": method, **errors, "seconds": found.seconds})


def _loaded(case: Case) -> tuple[Brain, Cutter, SliceTarget]:
    brain = load_brain(case)
    target = SliceTarget(brain.target)
    _ = target.levels(), target.levels(0.0), target.cells  # computed before the measurement, since they are computed once for each template
    return brain, Cutter(brain), target


def part_path(folder: Path, case: Case, family: Family, weights: Path | None = None) -> Path:
    """Path of the rows of one brain by one family; it depends on the weights of its networks."""
    return folder / "parts" / f"{case.name}_{family.name}_{family_key(family, weights)}.csv"


def read_parts(folder: Path, cases: Sequence[Case], some: Sequence[Family], weights: Path | None = None) -> list[dict[str, str]]:
    """All rows of ``cases`` by the methods of the families ``some``, in the order of :data:`SAMPLINGS`, methods and cases."""
    rows = []
    for family in some:
        found = read_rows(part_path(folder, case, family, weights) for case in cases)
        rows += [r for m in family.methods for r in found if r["method"] == m]
    return sorted(rows, key=lambda r: list(SAMPLINGS).index(r["sampling"]))


def runnable(pose_networks: Sequence[str], weights: Path | None = None) -> tuple[tuple[Family, ...], dict[str, str]]:
    """The families whose networks are available; and the methods left out → the missing network."""
    every = families(pose_networks)
    missing = missing_networks(every, weights)
    return tuple(f for f in every if f.methods[0] not in missing), missing


def run_task(task: tuple[Case, Path, tuple[Family, ...], dict[str, int], int, Path | None]) -> None:
    """Measure one brain in a process of its own. ``task``: case, folder, families, number of trials by sampling, seed, weights."""
    case, folder, some, counts, seed, weights = task
    torch.set_num_threads(1)
    parts = {f: PartFile(part_path(folder, case, f, weights)) for f in some}
    measure(case, SliceBenchmarkRunner(weights), parts, counts, seed=seed)
