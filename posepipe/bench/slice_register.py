"""Capture range and time of slice-to-volume registration: ``python -m posepipe.bench.slice_register DATA [--slices 156]``.

Single slices of development brains only: newborns A01–A12, T2w, on Serag's templates of their age; Serag's preterm templates as subjects
of CRL's of the same week (another atlas, whose masks include other CSF); and CRL's as subjects of CRL's of the next week (anatomy of
another age, the same averaging). CHN and newborns A13–A16 are kept for testing. FidonSBA is left out: its volumes fit CRL so poorly
(criterion 0.24–0.29; up to 6° off the stored rotation between the two) that the true pose is not known to a few degrees.

Slices have random orientations, are in the middle 66 % of the brain, and are 3 mm thick with pixels of 1.1 mm. The true pose is that of
the registered whole volume. Starts are off by a given angle about a random axis through the brain's centre, and by a proportional
distance in a random direction.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..atlas import AtlasLibrary
from ..atlas.volumes import SIZE_DEVIATION
from ..errors import UsageError
from ..geometry import Rigid, random_rotations, so3
from ..imaging.mask import given_mask, nonzero_mask
from ..imaging.moments import moments
from ..imaging.volume import Volume, load_volume
from ..matching.comparison import Comparison
from ..matching.target import Target
from ..models.slices import MIDDLE
from ..slices.frames import Slice, SliceGrid
from ..slices.points import SliceBatch, SliceTarget
from ..slices.register import SHAPE_DEVIATION, SVROptions, register_slices
from ..slices.scanner import SliceScanner
from .classical import Case, canonical_pose, cases

STARTS = (5.0, 10.0, 15.0, 20.0, 30.0)
MM_PER_DEGREE = 0.4
"""Translation error of a start, mm for each degree: a first slice network had 10° and 3.5 mm."""
NEWBORNS = tuple(f"sub-A{i:02d}" for i in range(1, 13))
"""Newborns that may be used for development; A13–A16 and f234 are kept for testing."""
PAIRS = tuple(("Serag", w, "CRL", w) for w in range(28, 39, 2)) + tuple(("CRL", w, "CRL", w + 1) for w in range(23, 38, 2))
"""Templates as subjects: their atlas and week, and atlas and week of the template that they are aligned to."""
PIXEL = 1.1
"""Pixel spacing, mm: the middle of the 1.0–1.2 mm of clinical stacks."""
ROOM_MM = 10.0
"""Margin between the brain and the border of a slice, mm: more than the registration uses beyond a mask
(:data:`posepipe.slices.points.MARGIN_MM`)."""


@dataclass(frozen=True, eq=False)
class Brain:
    """A ``volume`` with its brain ``mask``, its template ``target``, and its pose ``own`` (atlas → volume) by registration of the whole
    volume."""

    name: str
    group: str
    volume: Volume
    mask: Volume
    target: Target
    own: Rigid


def development_cases(data: Path) -> list[Case]:
    """The development brains (see the module's docstring)."""
    library = AtlasLibrary([data / "atlases"])
    out = []
    for case in cases(data, ("newborn-T2w",)):
        name = case.name.rpartition("-")[0]
        if name in NEWBORNS:
            out.append(replace(case, name=name, group="newborns on Serag"))
    return out + [template_case(*pair, "CRL on next week" if pair[0] == "CRL" else "Serag on CRL", library) for pair in PAIRS]


def template_case(atlas: str, week: int, other: str, its_week: int, group: str, library: AtlasLibrary) -> Case:
    """The template of ``atlas`` at ``week`` as a subject of the template of the ``other`` atlas at ``its_week``."""
    subject, template = library.template(atlas, f"{week}", "T2w"), library.template(other, f"{its_week}", "T2w")
    return Case(subject.space, group, subject.image, subject.mask or subject.image, template, canonical_pose(template, subject))


def brains(data: Path, only: Sequence[str] | None = None) -> Iterator[Brain]:
    """The brains of :func:`development_cases`, one at a time; with ``only`` those with these names (``sub-A04``, ``CRL+27``)."""
    for case in development_cases(data):
        if not only or case.name in only:
            yield load_brain(case)


def load_brain(case: Case) -> Brain:
    """The brain of ``case``; its pose is that of the whole volume registered from the case's own rotation.

    Raises :class:`~posepipe.errors.UsageError` for a case without a known rotation.
    """
    if case.own is None:
        msg = f"{case.name}: its pose is not known, so nothing can be measured on it"
        raise UsageError(msg)
    volume = load_volume(case.image)
    mask = (nonzero_mask(volume) if case.mask is None else given_mask(load_volume(case.mask), volume)).volume
    target = Target.load(case.template)
    compare = Comparison.of(volume, mask, target)
    start = Rigid.about(case.own.rotation, target.brain.center, compare.brain.center)
    return Brain(case.name, case.group, volume, mask, target, compare.refined(start))


class Cutter:
    """Samples slices of ``brain`` in its own world, without motion, with pixels of ``pixel`` mm."""

    def __init__(self, brain: Brain, pixel: float = PIXEL) -> None:
        inside = brain.mask.data > 0
        self.center = moments(brain.mask.with_data(inside)).center
        self._inside = np.argwhere(inside)[::11] @ brain.mask.affine[:3, :3].T + brain.mask.affine[:3, 3] - self.center
        self._scanner, self._pixel = SliceScanner(brain.volume, brain.mask, pixel), pixel

    def extent(self, normal: np.ndarray) -> tuple[float, float]:
        """Smallest and largest coordinate of the brain along the unit vector ``normal`` (3,), mm from its centre."""
        along = self._inside @ normal
        return float(along.min()), float(along.max())

    def cut(self, axes: np.ndarray, offset: float, thickness: float, *, index: int = 0, step: float | None = None) -> Slice:
        """The slice whose frame has the columns of ``axes`` (3, 3, proper), ``offset`` mm from the brain's centre along the third.

        ``thickness`` in mm; ``index``: number of the slice in a stack with a spacing of ``step`` mm (default: the thickness).
        """
        along = self._inside @ axes[:, :2]
        low, high = along.min(0) - ROOM_MM, along.max(0) + ROOM_MM
        affine = np.eye(4)
        affine[:3, :3] = axes * [self._pixel, self._pixel, step or thickness]
        affine[:3, 3] = self.center + axes @ [low[0], low[1], offset]
        shape = [int((h - lo) / self._pixel) + 1 for lo, h in zip(low, high, strict=True)]
        return self._scanner.acquire(SliceGrid((shape[0], shape[1]), affine, thickness), Rigid.identity(), index)


def random_slices(brain: Brain, n: int, rng: np.random.Generator, *, pixel: float = PIXEL, thickness: float = 3.0) -> list[Slice]:
    """``n`` slices with random orientations through the middle 66 % of ``brain``, in its own world."""
    cutter, out = Cutter(brain, pixel), []
    for axes in random_rotations(n, rng):
        low, high = cutter.extent(axes[:, 2])
        out.append(cutter.cut(axes, (low + high) / 2 + MIDDLE / 2 * (high - low) * rng.uniform(-1, 1), thickness))
    return out


def start_off(truth: Rigid, center: np.ndarray, degrees: float, rng: np.random.Generator) -> Rigid:
    """``truth`` (atlas → image) rotated by ``degrees`` about a random axis through the brain's centre, and translated by
    :data:`MM_PER_DEGREE` · ``degrees`` mm in a random direction."""
    axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    at = truth.apply(center)
    return Rigid.about(so3.exp(axis * np.radians(degrees)), at, at + way * MM_PER_DEGREE * degrees) @ truth


def slice_mm(found: Rigid, truth: Rigid, piece: Slice) -> float:
    """Mean distance, mm in the atlas, between the true and the estimated positions of the corners of the mask's bounding box."""
    i, j = (np.flatnonzero(piece.mask.any(1 - a))[[0, -1]] for a in (0, 1))
    corners = piece.grid.points[np.ix_(i, j)].reshape(-1, 3)
    return float(np.linalg.norm((~found).apply(corners) - (~truth).apply(corners), axis=1).mean())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--slices", type=int, default=156)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scale", type=float, default=SIZE_DEVIATION, help="deviation of the logarithm of a brain's size")
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
