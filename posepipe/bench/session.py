"""How far apart the poses of one head's images are found, and what one pose for both is worth: ``python -m posepipe.bench.session DATA -o
FOLDER``.

T1w and T2w images of newborns lie on one grid, so that the head has exactly one pose in both. Both are turned by the same random rotation
and resampled to grids of their own. Each is aligned alone, to the template of its own contrast; then both together. For raw stacks
(``ds-stacks``) only the angles between the poses are known: their truth is not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from ..atlas import AtlasLibrary
from ..files import write_text
from ..geometry import Rigid, rotations_in_bin
from ..imaging.mask import given_mask, nonzero_mask
from ..imaging.volume import Volume, load_volume
from ..matching.comparison import Comparison
from ..matching.target import Target
from ..models.calibration import load_calibration
from ..paths import absolute_path
from ..pose.coordinate_networks import PoseNetworks
from ..pose.initial import initial_pose
from ..quality.confidence import confidence
from ..refinement.refine import REFINE_METHODS, refine_pose
from ..refinement.session import shared_pose
from ..training.split import load_split
from .classical import BINS, cases
from .perturb import turned
from .rows import PartFile, read_rows, write_rows

CONTRASTS = ("T1w", "T2w")
SUBJECTS = tuple(f"sub-A{n:02d}" for n in range(1, 13))
"""The newborns that may choose: those that are not kept for testing."""


class SessionBench:
    """Measures sessions of newborns and the raw stacks of ``data``; networks and templates stay in memory."""

    def __init__(self, data: Path, refine: str) -> None:
        self._data, self._refine = data, refine
        self._networks, self._model = PoseNetworks(None), load_calibration().confidence
        self._library = AtlasLibrary([data / "atlases"])
        self._targets: dict[tuple[str, str], Target] = {}
        ages = (data / "ds-neonates/participants.tsv").read_text(encoding="utf-8").splitlines()[1:]
        self._ages = dict(line.split("\t")[:2] for line in ages)

    def newborn(self, subject: str, trials: int, seed: int, part: PartFile) -> None:
        """Add the rows of ``trials`` rotations of ``subject`` that ``part`` does not hold yet: one row for each image."""
        folder = self._data / f"ds-neonates/{subject}/anat"
        images = [load_volume(folder / f"{subject}_{contrast}.nii.gz") for contrast in CONTRASTS]
        inside = np.logical_and.reduce([nonzero_mask(image).volume.data > 0 for image in images])
        masks = [image.with_data(inside) for image in images]
        targets = [self._target(self._ages[subject], contrast) for contrast in CONTRASTS]
        for trial in range(len(part.rows) // len(CONTRASTS), trials):
            rng = np.random.default_rng([seed, trial, *subject.encode()])
            which = trial % len(BINS)
            rotation = rotations_in_bin(1, *BINS[which], rng)[0]
            moved = [turned(i, m, rotation, rng, max_shift=0.0) for i, m in zip(images, masks, strict=True)]
            self._measure(subject, trial, which, moved, targets, part)

    def _target(self, week: str, contrast: str) -> Target:
        if (week, contrast) not in self._targets:
            self._targets[week, contrast] = Target.load(self._library.template("Serag", week, contrast))
        return self._targets[week, contrast]

    def _measure(
        self, subject: str, trial: int, which: int, moved: Sequence[tuple[Volume, Volume, Rigid]], targets: Sequence[Target], part: PartFile
    ) -> None:
        parts = [Comparison.of(image, mask, target) for (image, mask, _), target in zip(moved, targets, strict=True)]
        found = [self.pose(image, mask, compare) for (image, mask, _), compare in zip(moved, parts, strict=True)]
        poses = [pose for pose, _ in found]
        center = targets[0].brain.center
        truth = moved[0][2]  # the newborns lie in the templates' pose; the motion of both images is the same
        shared = shared_pose(parts, poses, [weight for _, weight in found])
        for contrast, (pose, weight) in zip(CONTRASTS, found, strict=True):
            part.add({
                "subject": subject, "trial": trial, "bin": which, "refine": self._refine, "contrast": contrast, "confidence": weight,
                "error": pose.degrees_from(truth), "mm": pose.mm_from(truth, center),
                "spread": poses[0].degrees_from(poses[1]), "spread_mm": poses[0].mm_from(poses[1], center),
                "how": shared.how, "shared_error": shared.pose.degrees_from(truth), "shared_mm": shared.pose.mm_from(truth, center),
            })  # fmt: skip

    def pose(self, image: Volume, mask: Volume, compare: Comparison) -> tuple[Rigid, float]:
        """The pose of an image alone, and its confidence."""
        target = compare.target
        initial = initial_pose(image, mask, target, compare=compare, networks=self._networks)
        refined = refine_pose(image, mask, target, initial.pose, method=self._refine, compare=compare)
        return refined.pose, float(confidence(initial, refined, self._model) or 0.0)

    def stacks(self, part: PartFile) -> None:
        """Add one row for each pair of the raw stacks of one fetus."""
        if part.rows:
            return
        found: list[tuple[str, Rigid]] = []
        for case in cases(self._data, ("stacks",)):
            assert case.mask is not None
            image, target = load_volume(case.image), Target.load(case.template)
            mask = given_mask(load_volume(case.mask), image).volume
            found.append((case.name, self.pose(image, mask, Comparison.of(image, mask, target))[0]))
        center = target.brain.center
        for (one, a), (other, b) in combinations(found, 2):
            row = {"one": one, "other": other, "refine": self._refine, "degrees": a.degrees_from(b), "mm": a.mm_from(b, center)}
            part.add(row)


def report(rows: Sequence[dict[str, str]], stacks: Sequence[dict[str, str]]) -> str:
    """Markdown: the spread of the newborns' two poses, the errors alone and together, and the pairs of stacks."""
    out = ["Angle and distance between the poses of T1w and T2w, found alone\n"]
    out += ["| refine | brains | sessions | ° median | 95 % | largest | mm median | 95 % | largest |", "|" + "---|" * 9]
    for refine in dict.fromkeys(r["refine"] for r in rows):
        mine = [r for r in rows if r["refine"] == refine and r["contrast"] == CONTRASTS[0]]
        cells = [_spread([float(r[key]) for r in mine]) for key in ("spread", "spread_mm")]
        out.append(f"| {refine} | {len({r['subject'] for r in mine})} | {len(mine)} | {' | '.join(cells)} |")
    out.append("\nError against the known rotation: mean / largest, degrees; mean mm; worse by more than 0.5°\n")
    out += ["| refine | image | n | alone ° | together ° | alone mm | together mm | worse | better | mean kept |", "|" + "---|" * 10]
    for refine, contrast in dict.fromkeys((r["refine"], r["contrast"]) for r in rows):
        mine = [r for r in rows if (r["refine"], r["contrast"]) == (refine, contrast)]
        alone, together, mm, shared_mm = (np.array([float(r[k]) for r in mine]) for k in ("error", "shared_error", "mm", "shared_mm"))
        worse, better = (together - alone > 0.5).sum(), (alone - together > 0.5).sum()
        out.append(
            f"| {refine} | {contrast} | {len(mine)} | {alone.mean():.2f} / {alone.max():.1f} "
            f"| {together.mean():.2f} / {together.max():.1f} | {mm.mean():.2f} | {shared_mm.mean():.2f} "
            f"| {worse} | {better} | {sum(r['how'] == 'mean' for r in mine)} |"
        )
    for refine in dict.fromkeys(r["refine"] for r in stacks):
        pairs = sorted((float(r["degrees"]), float(r["mm"])) for r in stacks if r["refine"] == refine)
        out.append(f"\nPairs of raw stacks ({refine}), ° and mm: " + ", ".join(f"{d:.1f} ({mm:.1f})" for d, mm in pairs))
    return "\n".join(out) + "\n"


def _spread(values: Sequence[float]) -> str:
    return f"{np.median(values):.2f} | {np.quantile(values, 0.95):.2f} | {max(values):.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure; write ``session.csv``, ``stacks.csv`` and ``session.md``."""
    parser = argparse.ArgumentParser(prog="python -m posepipe.bench.session", description=__doc__)
    parser.add_argument("data", type=absolute_path, help="folder with atlases/, ds-neonates and ds-stacks")
    parser.add_argument("-o", "--output", type=absolute_path, required=True, help="folder; rows in it are not made again")
    parser.add_argument("--trials", type=int, default=6, help="rotations of each newborn (default: 6, one in each bin of 30°)")
    parser.add_argument("--refine", nargs="+", choices=REFINE_METHODS[:2], default=list(REFINE_METHODS[:2]))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    split = load_split()
    assert not any(split.part(subject) == "test" for subject in SUBJECTS)
    files, pairs = [], []
    for refine in args.refine:
        bench = SessionBench(args.data, refine)
        pairs.append(args.output / "parts" / f"stacks_{refine}.csv")
        bench.stacks(PartFile(pairs[-1]))
        for subject in SUBJECTS:
            files.append(args.output / "parts" / f"{subject}_{refine}.csv")
            bench.newborn(subject, args.trials, args.seed, PartFile(files[-1]))
            print(f"{subject} {refine}", flush=True)
    rows, stacks = read_rows(files), read_rows(pairs)
    write_rows(args.output / "session.csv", rows)
    write_rows(args.output / "stacks.csv", stacks)
    text = report(rows, stacks)
    write_text(args.output / "session.md", text)
    print(text)


if __name__ == "__main__":
    main()
