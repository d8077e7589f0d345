"""Capture range and time of slice-to-volume registration: ``python -m posepipe.bench.slice_register DATA [--slices 156]``.

Single slices of brains held for development only: newborns A01–A12, T2w, on Serag's templates of their age; Serag's preterm templates as
subjects of CRL's of the same week (another atlas, which keeps other fluid inside its mask); and CRL's as subjects of CRL's of the next
week (anatomy of another age, the same average). CHN and newborns A13–A16 are kept for testing. FidonSBA is left out: its volumes fit CRL
so badly (criterion 0.24–0.29; up to 6° off the stored rotation between the two) that no truth can be told to a few degrees.

Slices have any orientation, lie in the middle 66 % of the brain, and are 3 mm thick with pixels of 1.1 mm. The truth is the rigid pose
that the whole volume is registered with. Starts are off by a given angle about a random axis through the brain's centre and by mm in
proportion, in a random direction.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..atlas import AtlasLibrary
from ..geometry import Rigid, random_rotations, so3
from ..imaging.mask import given_mask, nonzero_mask
from ..imaging.moments import moments
from ..imaging.volume import Volume, load_volume
from ..registration.comparison import Comparison
from ..registration.target import Target
from ..slices.frames import Slice, SliceGrid
from ..slices.points import SliceBatch, SliceTarget
from ..slices.register import SHAPE_DEVIATION, SVROptions, register_slices
from ..slices.scanner import SliceScanner
from ..slices.stack import SCALE_DEVIATION
from .classical import canonical_pose

STARTS = (5.0, 10.0, 15.0, 20.0, 30.0)
MM_PER_DEGREE = 0.4
"""How many mm a start is off for each degree: METHODS §4's first network had 10° and 3.5 mm."""
NEWBORNS = tuple(f"sub-A{i:02d}" for i in range(1, 13))
"""May be trained on; A13–A16 and f234 are kept for testing."""
PAIRS = tuple(("Serag", w, w) for w in range(28, 39, 2)) + tuple(("CRL", w, w + 1) for w in range(23, 38, 2))
"""Templates as subjects: atlas and week, and the week of CRL's that they are held against."""


@dataclass(frozen=True, eq=False)
class Brain:
    """A ``volume`` and its brain ``mask``, the template it is held against, and its pose (atlas → volume) by the whole volume."""

    name: str
    group: str
    volume: Volume
    mask: Volume
    target: Target
    own: Rigid


def brains(data: Path, only: Sequence[str] | None = None) -> Iterator[Brain]:
    """The brains of the module's summary, one at a time, or those ``only`` of some names (``sub-A04``, ``CRL+27``, ``Serag+30``)."""
    library = AtlasLibrary([data / "atlases"])
    ages = dict(line.split("\t")[:2] for line in (data / "ds-neonates/participants.tsv").read_text().splitlines()[1:])
    for subject in NEWBORNS:
        if only and subject not in only:
            continue
        volume = load_volume(data / f"ds-neonates/{subject}/anat/{subject}_T2w.nii.gz")
        target = Target.load(library.template("Serag", ages[subject], "T2w"))
        yield _placed(subject, "newborns on Serag", volume, nonzero_mask(volume).volume, target, Rigid.identity())
    for atlas, week, other in PAIRS:
        if only and f"{atlas}+{week}" not in only:
            continue
        subject_template, template = library.template(atlas, str(week), "T2w"), library.template("CRL", str(other), "T2w")
        volume = load_volume(subject_template.image)
        mask = given_mask(load_volume(subject_template.mask or subject_template.image), volume).volume
        own = canonical_pose(template, subject_template)
        group = "CRL on next week" if atlas == "CRL" else f"{atlas} on CRL"
        yield _placed(f"{atlas}+{week}", group, volume, mask, Target.load(template), own)


def _placed(name: str, group: str, volume: Volume, mask: Volume, target: Target, own: Rigid) -> Brain:
    compare = Comparison.of(volume, mask, target)
    start = Rigid.about(own.rotation, target.brain.center, compare.brain.center)
    return Brain(name, group, volume, mask, target, compare.refined(start))


def random_slices(brain: Brain, n: int, rng: np.random.Generator, *, pixel: float = 1.1, thickness: float = 3.0) -> list[Slice]:
    """``n`` slices of any orientation through the middle 66 % of ``brain``, in its own world."""
    m = moments(brain.mask.with_data(brain.mask.data > 0))
    inside = np.argwhere(brain.mask.data > 0)[::11] @ brain.mask.affine[:3, :3].T + brain.mask.affine[:3, 3] - m.center
    scanner = SliceScanner(brain.volume, brain.mask, pixel)
    out = []
    for axes in random_rotations(n, rng):
        along = inside @ axes
        low, high = along.min(0) - 10, along.max(0) + 10
        middle = (low[2] + high[2]) / 2
        offset = middle + 0.33 * (high[2] - low[2] - 20) * rng.uniform(-1, 1)
        affine = np.eye(4)
        affine[:3, :3] = axes * [pixel, pixel, thickness]
        affine[:3, 3] = m.center + axes @ [low[0], low[1], offset]
        shape = [int((h - lo) / pixel) + 1 for lo, h in zip(low[:2], high[:2], strict=True)]
        out.append(scanner.acquire(SliceGrid((shape[0], shape[1]), affine, thickness), Rigid.identity()))
    return out


def start_off(truth: Rigid, center: np.ndarray, degrees: float, rng: np.random.Generator) -> Rigid:
    """``truth`` (atlas → image) turned by ``degrees`` about the brain and moved :data:`MM_PER_DEGREE` as far."""
    axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    at = truth.apply(center)
    return Rigid.about(so3.exp(axis * np.radians(degrees)), at, at + way * MM_PER_DEGREE * degrees) @ truth


def slice_mm(found: Rigid, truth: Rigid, piece: Slice) -> float:
    """Mean distance, mm in the atlas, between where the corners of the mask's box are and where they are said to be."""
    i, j = (np.flatnonzero(piece.mask.any(1 - a))[[0, -1]] for a in (0, 1))
    corners = piece.grid.points[np.ix_(i, j)].reshape(-1, 3)
    return float(np.linalg.norm((~found).apply(corners) - (~truth).apply(corners), axis=1).mean())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--slices", type=int, default=156)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scale", type=float, default=SCALE_DEVIATION, help="deviation of the logarithm of a brain's size")
    parser.add_argument("--shape", type=float, default=SHAPE_DEVIATION, help="the same of its length, width and height each, besides")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    svr = SVROptions(scale_deviation=options.scale, shape_deviation=options.shape)
    rows: dict[str, list[tuple[float, ...]]] = {}
    single: list[float] = []
    each = -(-options.slices // (len(NEWBORNS) + len(PAIRS)))
    for brain in brains(options.data):
        rng = np.random.default_rng([1, *brain.name.encode()])
        target = SliceTarget(brain.target)
        batch = SliceBatch(random_slices(brain, each, rng))
        truth = register_slices(batch, target, [brain.own] * each, options=svr)
        for degrees in STARTS:
            starts = [start_off(brain.own, target.center, degrees, rng) for _ in range(each)]
            found = register_slices(batch, target, starts, options=svr)
            for s, pose, start, still in zip(batch.slices, found.poses, starts, truth.poses, strict=True):
                errors = (pose.degrees_from(brain.own), slice_mm(pose, brain.own, s), slice_mm(start, brain.own, s))
                rows.setdefault(f"{brain.group}|{degrees:g}", []).append((*errors, still.degrees_from(brain.own)))
        for _ in range(2):
            begun = time.process_time()
            register_slices(SliceBatch(batch.slices[:1]), target, [brain.own], options=svr)
            took = time.process_time() - begun
        single.append(1000 * took)
        print(f"{brain.name}: {np.median([r[0] for r in rows[f'{brain.group}|10']]):.1f}° after 10°", flush=True)
    print("\n| group | start ° | n | start mm | ° mean | ° median | ° p95 | mm mean | mm median | > 10° | floor ° (from truth) |")
    print("|" + "---|" * 11)
    for name, values in rows.items():
        v = np.array(values)
        print(
            f"| {name.replace('|', ' | ')} | {len(v)} | {v[:, 2].mean():.1f} | {v[:, 0].mean():.1f} | {np.median(v[:, 0]):.1f} "
            f"| {np.quantile(v[:, 0], 0.95):.1f} | {v[:, 1].mean():.1f} | {np.median(v[:, 1]):.1f} | {100 * (v[:, 0] > 10).mean():.0f} % "
            f"| {v[:, 3].mean():.1f} |"
        )
    print(f"\none slice, warm, CPU time, {options.threads} thread(s): median {np.median(single):.0f} ms, largest {max(single):.0f} ms")


if __name__ == "__main__":
    main()
