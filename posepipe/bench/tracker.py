"""Head tracking slice by slice and by navigators: ``python -m posepipe.bench.tracker DATA [--weights DIR] [--only NAME …]``.

Stacks are simulated (:mod:`posepipe.slices.motion`) from the development brains of :mod:`posepipe.bench.slice_register`, and passed to a
:class:`~posepipe.slices.tracker.SliceTracker` in order of acquisition, with their masks. Images show the brain alone, without
surroundings. ``--simulated`` uses no network: the error of a slice's pose is then the absolute value of a normal number with a standard
deviation of 12° (and mm in proportion), one in ten is off by 40–150°, and half of all are the twin. Navigators are the same brains at 6
mm, 54 × 54 × 20 voxels, one every 1.5 s, without masks. ``--test`` uses the test brains instead (f234 and A13–A16): once, when all
settings are final.

Errors are those of the head's pose relative to its true pose at that slice, over all slices and over those without hold. The confidence
is compared with the share of poses within 15°. Times are CPU time for a single image, after a warm-up: with one thread (``--threads``)
that is the time on an idle machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..geometry import Rigid, random_rotations
from ..imaging.sampling import sample, smooth, tensor
from ..imaging.volume import Volume
from ..slices.frames import MidsagittalPlane, Slice, twin_pose
from ..slices.motion import LEVELS, random_motion, simulate_stack
from ..slices.network import SliceNetwork, SlicePose
from ..slices.points import FWHM, SliceTarget
from ..slices.tracker import SlicePoser, SliceTracker
from .slice_register import Brain, brains, load_brain, slice_mm, start_off
from .slices import slice_cases

AFTER = (1, 2, 4, 8, 16)
"""Numbers of slices after which errors are reported."""
NAVIGATOR, NAVIGATOR_MM, NAVIGATORS = (54, 54, 20), 6.0, 12
"""Shape of a navigator in voxels, their spacing in mm, and number of navigators in a series."""
SECONDS = 1.5
RIGHT = 15.0
"""A pose within this angle, degrees, counts as right (the meaning of confidence)."""
LOST = 0.1
"""Share of the simulated network's poses that are off by 40–150°."""
DEVIATION = 12.0
"""Standard deviation of the errors of the others, degrees: a median of 8°, as of a first slice network."""
Row = tuple[float, ...]


class SimulatedNetwork:
    """Returns for each slice its true pose with simulated errors (see the module's docstring), or the twin; ``truth``: the true poses of
    the slices to come."""

    def __init__(self, truth: Sequence[Rigid], rng: np.random.Generator) -> None:
        self._truth, self._rng = list(truth), rng

    def poses(
        self, slices: Sequence[Slice], target: SliceTarget, plane: MidsagittalPlane, *,
        centers: npt.ArrayLike | None = None, masked: bool = True,
    ) -> list[SlicePose]:  # fmt: skip
        rng, out = self._rng, []
        for piece in slices:
            lost = rng.random() < LOST
            degrees = rng.uniform(40, 150) if lost else abs(rng.normal(0, DEVIATION))
            pose = start_off(self._truth.pop(0), target.center, degrees, rng)
            both = [pose, twin_pose(pose, piece.grid, plane)]
            first, second = both if rng.random() < 0.5 else both[::-1]
            out.append(SlicePose(first, second, 5.0, 5.0, piece.area, np.zeros(2)))
        return out


def test_brains(data: Path, only: Sequence[str] | None = None) -> Iterator[Brain]:
    """The test brains, one at a time; with ``only`` those with these names (``sub-A13-T2w``)."""
    for case in slice_cases(data, ("fetus", "newborn-T2w")):
        if not only or case.name in only:
            yield load_brain(case)


def followed(brain: Brain, degrees: float, register: bool, network: SlicePoser | None, simulated: bool) -> list[Row]:
    """Track one stack of ``brain`` with motion of ``degrees`` RMS. Rows, one a slice: number, degrees and mm of the head, degrees and mm
    of the slice, confidence, held, ms."""
    rng = np.random.default_rng([5, int(degrees), *brain.name.encode()])
    stack = simulate_stack(brain.volume, brain.mask, rng, degrees=degrees)
    order = np.argsort([stack.acquisition.times[s.index] for s in stack.slices], kind="stable")
    truth = [stack.poses(brain.own)[stack.slices[k].index] for k in order]
    # the warm-up of the tracker consumes one pose
    poser = SimulatedNetwork([truth[0], *truth], rng) if simulated else network
    tracker = SliceTracker(target=brain.target, network=poser, register=register)
    tracker.warm()
    center = tracker.target.brain.center
    rows: list[Row] = []
    for n, (k, true) in enumerate(zip(order, truth, strict=True), 1):
        piece = stack.slices[k]
        begun = time.process_time()
        got = tracker.add(piece.image, piece.grid.affine, piece.grid.thickness, piece.mask, float(stack.acquisition.times[piece.index]))
        took = 1000 * (time.process_time() - begun)
        if got.head is None:
            continue
        at = float(np.linalg.norm(got.head.apply(center) - true.apply(center)))
        own = (np.nan, np.nan) if got.pose is None else (got.pose.degrees_from(true), slice_mm(got.pose, true, piece))
        rows.append((n, got.head.degrees_from(true), at, *own, got.confidence, float(got.hold), took))
    return rows


def navigator(brain: Brain, moved: Rigid, rng: np.random.Generator) -> Volume:
    """A navigator of ``brain`` with its head ``moved``, about the centre of the field of view, with noise of 3 % of its brightness."""
    inside = np.asarray(brain.mask.data) > 0
    sigma = [max(NAVIGATOR_MM / FWHM / v, 0.0) for v in brain.volume.spacing]
    blurred = smooth(tensor(np.where(inside, brain.volume.data, 0))[None], (sigma[0], sigma[1], sigma[2]))
    affine = np.diag([NAVIGATOR_MM] * 3 + [1.0])
    affine[:3, 3] = brain.own.apply(brain.target.brain.center) - NAVIGATOR_MM * (np.array(NAVIGATOR) - 1) / 2
    index = np.stack(np.meshgrid(*[np.arange(n, dtype=float) for n in NAVIGATOR], indexing="ij"), -1)
    points = (~moved).apply(index @ affine[:3, :3].T + affine[:3, 3])
    signal = sample(blurred, tensor(np.linalg.inv(brain.volume.affine)), tensor(points))[0].numpy()
    noise = 0.03 * float(np.quantile(signal[signal > 0], 0.99)) * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    return Volume(np.hypot(signal + noise[0], noise[1]).astype(np.float32), affine, "simulated navigator")


def navigated(brain: Brain, degrees: float, weights: Path | None) -> list[Row]:
    """Track :data:`NAVIGATORS` navigators of ``brain``; rows as of :func:`followed`, with the volume's pose in place of the slice's."""
    rng = np.random.default_rng([6, int(degrees), *brain.name.encode()])
    center = brain.target.brain.center
    at = brain.own.apply(center)
    lying = Rigid.about(random_rotations(1, rng)[0], at, at + rng.uniform(-15, 15, 3))
    tracker = SliceTracker(target=brain.target, weights=weights)
    rows: list[Row] = []
    tracker.warm(volumes=True)
    for n, moved in enumerate(random_motion(SECONDS * np.arange(NAVIGATORS), degrees, lying.apply(at), rng), 1):
        true = moved @ lying @ brain.own
        volume, begun = navigator(brain, moved @ lying, rng), time.process_time()
        got = tracker.add_volume(volume, time=SECONDS * n)
        took = 1000 * (time.process_time() - begun)
        if got.head is None:
            continue
        off = [float(np.linalg.norm(p.apply(center) - true.apply(center))) for p in (got.head, got.pose or got.head)]
        own = got.pose.degrees_from(true) if got.pose else np.nan
        rows.append((n, got.head.degrees_from(true), off[0], own, off[1], got.confidence, float(got.hold), took))
    return rows


def table(rows: dict[tuple[str, str], list[Row]]) -> list[str]:
    """Markdown: one line for each group, motion level and way."""
    heads = [f"head ° after {n}" for n in AFTER]
    names = ["brains, motion", "way", "images", *heads, "head mm", "image °", "image mm", "held", "head ° not held", "of those > 15°", "ms"]
    out = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for (group, way), values in rows.items():
        v = np.array(values)
        go = v[v[:, 6] == 0]
        after = [f"{np.median(v[v[:, 0] == n, 1]):.1f}" if (v[:, 0] == n).any() else "–" for n in AFTER]
        late = v[v[:, 0] >= 4]
        kept = f"{np.median(go[:, 1]):.1f} | {100 * (go[:, 1] > RIGHT).mean():.1f} %" if len(go) else "– | –"
        out.append(
            f"| {group} | {way} | {len(v)} | {' | '.join(after)} | {np.median(late[:, 2]):.1f} | {np.nanmedian(late[:, 3]):.1f} "
            f"| {np.nanmedian(late[:, 4]):.1f} | {100 * late[:, 6].mean():.0f} % | {kept} | {np.median(v[:, 7]):.0f} |"
        )
    return out


def confidences(rows: dict[tuple[str, str], list[Row]]) -> list[str]:
    """Markdown: share of right head poses by confidence, over all rows of slices."""
    v = np.array([r for (_, way), values in rows.items() if not way.startswith("navigator") for r in values])
    out = ["| confidence | slices | head within 15° |", "|---|---|---|"]
    if len(v):
        for low, high in ((0, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.01)):
            some = v[(v[:, 5] >= low) & (v[:, 5] < high) & (v[:, 6] == 0 if low >= 0.5 else True)]
            if len(some):
                out.append(f"| {low:g}–{min(high, 1):g} | {len(some)} | {100 * (some[:, 1] <= RIGHT).mean():.0f} % |")
    return out


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--only", nargs="*", default=None, help="brains by name: sub-A04, CRL+27")
    parser.add_argument("--simulated", action="store_true", help="poses with made errors in place of the slice network's")
    parser.add_argument("--levels", nargs="*", default=list(LEVELS), choices=list(LEVELS))
    parser.add_argument("--ways", nargs="*", default=["network", "registered", "navigators"])
    parser.add_argument("--test", action="store_true", help="the brains kept for testing")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    slices = {"network", "registered"} & set(options.ways)
    network = SliceNetwork(options.weights, copies=1) if slices and not options.simulated else None
    rows: dict[tuple[str, str], list[Row]] = {}
    for brain in (test_brains if options.test else brains)(options.data, options.only):
        for level in options.levels:
            for way in options.ways:
                if way == "navigators":
                    got = navigated(brain, LEVELS[level], options.weights)
                else:
                    got = followed(brain, LEVELS[level], way == "registered", network, options.simulated)
                rows.setdefault((f"{brain.group}, {level}", way), []).extend(got)
                v = np.array(got)
                print(
                    f"{brain.name}, {level}, {way}: head {np.median(v[3:, 1]):.1f}° median, held {100 * v[3:, 6].mean():.0f} %", flush=True
                )
    print("\n" + "\n".join(table(rows)) + "\n\n" + "\n".join(confidences(rows)))


if __name__ == "__main__":
    main()
