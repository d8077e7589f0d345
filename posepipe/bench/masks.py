"""Brain masks by network, and poses without any mask given: against drawn masks, against landmarks, and on brains dressed in made-up heads.

``stacks``: the raw stacks of one fetus with drawn masks; ``epi``: whole-uterus stacks with the brain's centre and the eyes marked;
``dressed``: brain-extracted images, turned at random, in surroundings of the kind that the networks were trained in; ``brainless``:
pieces of the whole-uterus stacks in which the brain is not, of which each should fail.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from ..errors import MaskError
from ..geometry import random_rotations, so3
from ..geometry.so3 import Array
from ..imaging.mask import BrainMask, given_mask, nonzero_mask
from ..imaging.moments import moments
from ..imaging.volume import Volume, load_volume
from ..registration.aligner import Aligner
from ..registration.alignment import Alignment
from ..registration.masking import BrainFinder
from ..training.scene_files import Landmarks, read_landmarks
from ..training.split import load_split
from ..training.surroundings import Surroundings, scanned, surrounded
from .rows import PartFile

PARTS = ("stacks", "epi", "dressed", "brainless")
CLEAR_MM = 60.0
"""A piece without a brain begins so far from the brain's centre, and is as wide at least."""
DRESSES = {"rim": (1.0, 0.0), "air": (0.0, 1.0), "body": (0.0, 0.0)}
"""What is about a dressed brain: shares stripped to a rim, and in air."""
DRESSED_MM = 1.25
DRESSED_RADII = 2.3
NO_POSE: dict[str, object] = {"degrees": None, "seconds_all": None, "qc": "", "confidence": None, "rotvec": ""}
MANY_MM = 30.0
"""A centre farther off than this: another place was taken for the brain."""


@dataclass(frozen=True)
class MaskCase:
    """An image of ``part``; ``kept`` is its part of the split; ``mask`` a drawn one; ``weeks`` None: not known."""

    part: str
    name: str
    kept: str
    image: Path
    mask: Path | None = None
    marks: Landmarks | None = None
    weeks: float | None = None


def mask_cases(data: Path, parts: tuple[str, ...] = PARTS) -> list[MaskCase]:
    """The images of ``parts`` under ``data``, those that trained too: the report tells them apart."""
    split, found = load_split(), []
    for path in sorted((data / "ds-stacks/sub-01/anat").glob("*_T2w.nii.gz")):
        name = path.name.partition("_T2w")[0]
        drawn = data / f"ds-stacks/derivatives/manual_masks/sub-01/anat/{name}_T2w_desc-brain_mask.nii.gz"
        found.append(MaskCase("stacks", name, split.part(name), path, drawn))
    marks = read_landmarks(data / "ds-epi")
    lines = (data / "ds-epi/participants.tsv").read_text().splitlines()[1:]
    for part, (subject, weeks) in itertools.product(("epi", "brainless"), (line.split("\t")[:2] for line in lines)):
        path = data / f"ds-epi/{subject}/anat/{subject}_acq-epi_T2w.nii.gz"
        found.append(MaskCase(part, subject, split.part(subject), path, None, marks[subject], float(weeks)))
    fetus = data / "ds-fetal/sub-f234/anat/sub-f234_rec-svr_T2w.nii.gz"
    found.append(MaskCase("dressed", "sub-f234", split.part("sub-f234"), fetus, weeks=29.0))
    for subject, kind in itertools.product(("sub-A13", "sub-A14", "sub-A15", "sub-A16"), ("T2w", "T1w")):
        path = data / f"ds-neonates/{subject}/anat/{subject}_{kind}.nii.gz"
        found.append(MaskCase("dressed", f"{subject}-{kind}", split.part(subject), path))
    return [case for case in found if case.part in parts]


class MaskBench:
    """Looks at case after case; networks and templates stay ready. ``data`` holds ``atlases/``."""

    def __init__(self, data: Path, weights: Path | None = None, *, threads: int = 2) -> None:
        self._aligner = Aligner(atlas_dirs=[data / "atlases"], mask="network", refine="torch", weights=weights, threads=threads)
        self._finder = BrainFinder(weights)

    @property
    def weights(self) -> dict[str, str]:
        """Name → SHA-256 of the mask networks."""
        return dict(self._finder.weights)

    def measure(self, case: MaskCase, part: PartFile, *, trials: int) -> None:
        """Add the rows of ``case`` to ``part``, unless they are there."""
        done = {(r["kind"], r["trial"]) for r in part.rows}
        image = load_volume(case.image)
        if case.part == "brainless":
            assert case.marks is not None
            for kind, piece in brainless(image, case.marks.brain):
                if (kind, "0") not in done:
                    part.add(self._row(case, kind, 0, piece) | self._pose(case, piece))
            return
        if case.part != "dressed":
            if not done:
                part.add(self._row(case, "as it is", 0, image) | self._pose(case, image))
            return
        brain = nonzero_mask(image).volume
        for (k, kind), trial in itertools.product(enumerate(DRESSES), range(trials)):
            if (kind, str(trial)) not in done:
                whole, truth = dressed(image, brain, kind, seed=[trial, k])
                part.add(self._row(case, kind, trial, whole, truth) | NO_POSE)

    def _row(self, case: MaskCase, kind: str, trial: int, image: Volume, truth: Volume | None = None) -> dict[str, object]:
        """The mask of ``image`` against ``truth``, the case's drawn mask, or its landmark."""
        row: dict[str, object] = {"part": case.part, "name": case.name, "kept": case.kept, "kind": kind, "trial": trial}
        begun = time.perf_counter()
        found = _mask(lambda: self._finder.find(image))
        row["seconds"] = time.perf_counter() - begun
        if found is not None and truth is not None and not found.sure:  # posepipe gives the mask that fits a template, if one does
            found = _mask(lambda: self._aligned(case, image).mask)
        if found is None:
            none = None if case.mask is None and truth is None else 0.0
            return row | {"dice": none, "ml": 0.0, "true_ml": None, "mm": None, "warnings": "no brain"}
        about = moments(found.volume)
        if case.mask is not None:
            truth = given_mask(load_volume(case.mask), image).volume
        center = case.marks.brain if case.marks and case.part == "epi" else None
        shared = true_ml = None
        if truth is not None:
            meant = moments(truth)
            center, true_ml = meant.center, meant.millilitres
            shared = overlap(truth.data, found.volume.data)
        return row | {
            "dice": shared, "ml": about.millilitres, "true_ml": true_ml,
            "mm": None if center is None else float(np.linalg.norm(about.center - center)),
            "warnings": "; ".join(found.warnings),
        }  # fmt: skip

    def _aligned(self, case: MaskCase, image: Volume) -> Alignment:
        return self._aligner.align(image, "estimate" if case.weeks is None else case.weeks)

    def _pose(self, case: MaskCase, image: Volume) -> dict[str, object]:
        """The pose without a mask given: against the landmarks' where there are any; its rotation from the canonical frame."""
        begun = time.perf_counter()
        try:
            found = self._aligned(case, image)
        except MaskError:
            return NO_POSE | {"qc": "failed"}
        seconds = time.perf_counter() - begun
        upright = found.template.to_canonical
        assert upright is not None
        rotation = found.pose.rotation @ upright.T
        degrees = None
        if case.marks is not None:
            degrees = found.pose.degrees_from(case.marks.pose(np.zeros(3), upright))
        return {
            "degrees": degrees, "seconds_all": seconds, "qc": found.quality.qc, "confidence": found.quality.confidence,
            "rotvec": " ".join(f"{x:.6f}" for x in so3.log(rotation)),
        }  # fmt: skip


def _mask(found: Callable[[], BrainMask]) -> BrainMask | None:
    """A mask; None where there is no brain."""
    try:
        return found()
    except MaskError:
        return None


def overlap(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """Dice overlap of two masks on one grid."""
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def dressed(image: Volume, brain: Volume, kind: str, *, seed: list[int]) -> tuple[Volume, Volume]:
    """``image`` turned at random on a grid of its own, in surroundings of ``kind``; and its ``brain`` mask there."""
    rng = np.random.default_rng(seed)
    about = moments(brain)
    side = 2 * round(DRESSED_RADII * about.radius / DRESSED_MM)
    turn = random_rotations(1, rng)[0]
    shift = rng.normal(0, 0.2, 3) * about.radius
    affine = np.eye(4)
    affine[:3, :3] = turn * DRESSED_MM
    affine[:3, 3] = about.center + shift - affine[:3, :3] @ np.full(3, (side - 1) / 2)
    top = float(np.quantile(image.data[brain.data][::7], 0.99))
    seen = _resampled(image.data.clip(0, 1.2 * top) / top, image, affine, side)
    inside = _resampled(brain.data.astype(np.float32), brain, affine, side)
    outside, within = ndimage.distance_transform_edt(inside < 0.5), ndimage.distance_transform_edt(inside >= 0.5)
    far = (outside - within) * DRESSED_MM / about.radius
    index = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1)
    where = np.moveaxis((index @ affine[:3, :3].T + affine[:3, 3] - about.center) / about.radius, -1, 0)
    stripped, air = DRESSES[kind]
    how = Surroundings(stripped=stripped, air=air, alone=0.0, fluid=0.0, faded=0.0, thick=0.0, moved=0.0, slab=0.0)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    picture, mask, far_, where_ = (torch.as_tensor(np.ascontiguousarray(x, dtype=np.float32))[None] for x in (seen, inside, far, where))
    whole, left = surrounded(picture[None], mask[None], far_[None], where_, how, generator)
    whole, left = scanned(whole, left, how, generator)
    grid = Volume(whole[0, 0].numpy(), affine, image.source)
    return grid, grid.with_data(left[0, 0].numpy() > 0.5)


def brainless(image: Volume, center: Array) -> Iterator[tuple[str, Volume]]:
    """Of ``image``, the brain of which lies about ``center`` (3,) mm, the larger piece without it along each of the first two axes, if
    there is one; and what it is called."""
    to_voxel = np.linalg.inv(image.affine)
    at = to_voxel[:3, :3] @ center + to_voxel[:3, 3]
    for axis in (0, 1):
        step, n = image.spacing[axis], image.shape[axis]
        low, high = max(int(at[axis] - CLEAR_MM / step), 0), min(int(at[axis] + CLEAR_MM / step), n)
        first, last = (0, low) if low >= n - high else (high, n)
        if (last - first) * step < CLEAR_MM:
            continue
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, axis] * first
        data = np.ascontiguousarray(np.take(image.data, range(first, last), axis=axis))
        yield f"axis {axis} from {first}", Volume(data, affine, image.source)


def _resampled(data: Array, volume: Volume, affine: Array, side: int) -> Array:
    to_voxel = np.linalg.inv(volume.affine) @ affine
    out: Array = ndimage.affine_transform(data, to_voxel[:3, :3], to_voxel[:3, 3], (side,) * 3, np.float32, order=1)
    return out


def report(rows: list[dict[str, str]]) -> str:
    """Markdown: masks by part, kind and split; poses by part; what became of images without a brain."""
    masks = []
    for key in dict.fromkeys((r["part"], r["kind"], r["kept"]) for r in rows if r["part"] != "brainless"):
        mine = [r for r in rows if (r["part"], r["kind"], r["kept"]) == key]
        title = key[0] if key[1] == "as it is" else f"{key[0]}, {key[1]}"
        masks.append(_mask_line(title, key[2], mine))
    kinds = {part: [(k, mine) for k in ("train", "test") if (mine := _of(rows, part, k))] for part in ("epi", "brainless")}
    parts = [
        _table("images | kept to | n | Dice mean | Dice min | centre, median mm | ≤ 5 mm | ≤ 10 mm | elsewhere | seconds", masks),
        _table(
            "poses, no mask given | kept to | n | median | mean | max | ≤ 10° | ≤ 15° | ≤ 30° | review or fail | seconds",
            [_pose_line(*one) for one in kinds["epi"]],
        ),
        _table(
            "no brain in them | kept to | n | masked | failed | fail | review | pass",
            [_brainless_line(*one) for one in kinds["brainless"]],
        ),
    ]
    turned = [np.array([float(x) for x in r["rotvec"].split()]) for r in rows if r["part"] == "stacks" and r.get("rotvec")]
    if len(turned) > 1:
        apart = [np.degrees(so3.geodesic_distance(so3.exp(a), so3.exp(b))) for a, b in itertools.combinations(turned, 2)]
        parts.append(
            f"Stacks of one fetus, no mask given: {len(turned)} poses, {len(apart)} pairs apart by {np.median(apart):.1f}° (median), "
            f"{np.max(apart):.1f}° (most).\n"
        )
    return "\n".join(p for p in parts if p)


def _of(rows: list[dict[str, str]], part: str, kept: str) -> list[dict[str, str]]:
    return [r for r in rows if (r["part"], r["kept"]) == (part, kept)]


def _table(head: str, lines: list[str]) -> str:
    """A table of ``lines``, if there are any."""
    return "\n".join([f"| {head} |", "|" + "---|" * (head.count("|") + 1), *lines, ""]) if lines else ""


def _brainless_line(kept: str, rows: list[dict[str, str]]) -> str:
    """Whether a mask was made; whether the image failed, and else the verdict on its pose."""
    masked = sum(r["warnings"] != "no brain" for r in rows)
    cells = [masked, *(sum(r["qc"] == verdict for r in rows) for verdict in ("failed", "fail", "review", "pass"))]
    return f"| brainless | {kept} | {len(rows)} | {' | '.join(map(str, cells))} |"


def _mask_line(title: str, kept: str, rows: list[dict[str, str]]) -> str:
    overlap = [float(r["dice"]) for r in rows if r["dice"]]
    # no brain seen: nowhere near
    off = np.array([float(r["mm"]) if r["mm"] else np.inf for r in rows])
    cells = [f"{np.mean(overlap):.3f}", f"{np.min(overlap):.3f}"] if overlap else ["–", "–"]
    cells += [f"{np.median(off):.1f}", *(f"{100 * np.mean(off <= mm):.0f} %" for mm in (5, 10)), f"{int((off > MANY_MM).sum())}"]
    seconds = np.median([float(r["seconds"]) for r in rows])
    return f"| {title} | {kept} | {len(rows)} | {' | '.join(cells)} | {seconds:.2f} |"


def _pose_line(kept: str, rows: list[dict[str, str]]) -> str:
    angle = np.array([float(r["degrees"]) if r["degrees"] else 180.0 for r in rows])
    shares = [f"{100 * np.mean(angle <= limit):.0f} %" for limit in (10, 15, 30)]
    seconds = np.median([float(r["seconds_all"]) for r in rows if r["seconds_all"]])
    flagged = sum(r["qc"] != "pass" for r in rows)
    return (
        f"| epi | {kept} | {len(rows)} | {np.median(angle):.1f}° | {angle.mean():.1f}° | {angle.max():.1f}° | {' | '.join(shares)} | "
        f"{flagged} | {seconds:.2f} |"
    )
