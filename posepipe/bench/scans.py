"""Benchmark of masks and poses without a given mask, against delineated masks, landmarks, and brains with synthetic surroundings.

``epi``: whole-uterus stacks with landmarks (brain centre and eyes); ``scans``: raw scans of several kinds with delineated masks;
``stacks``: raw stacks of one fetus with delineated masks; ``heads``: brain-extracted images with random motion and synthetic
surroundings, of the distribution that the network was trained on; ``cut``: negative controls, parts of the whole-uterus stacks without
the brain, each of which should fail; ``twins``: two whole-uterus stacks of a fold side by side, where the larger head should be segmented
and the other one reported.

Real scans are training data, so their results are cross-validated: each is processed by a network that was trained without the scans of
its fold (``posepipe/training/scans.toml``).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from ..aligner import Aligner
from ..brainmask.choose import brain_mask
from ..errors import MaskError, PosepipeError
from ..geometry import Rigid, random_rotations, so3
from ..geometry.so3 import Array
from ..imaging.mask import BrainMask, given_mask, nonzero_mask
from ..imaging.moments import moments
from ..imaging.volume import Volume, load_volume
from ..models.calibration import ConfidenceModel
from ..training.scene_files import read_landmarks
from ..training.split import load_folds, load_scan_poses, load_split
from ..training.surroundings import Surroundings, add_surroundings, simulate_acquisition
from .methods import Trial
from .rows import PartFile

PARTS = ("epi", "scans", "stacks", "heads", "cut", "twins")
CLEAR_MM = 60.0
"""Least distance (mm) of a negative control from the brain's centre, and its least width."""
BACKGROUNDS = {"rim": (1.0, 0.0), "air": (0.0, 1.0), "body": (0.0, 0.0)}
"""Kind of synthetic background → ``stripped`` and ``air`` of :class:`~posepipe.training.surroundings.Surroundings`."""
BACKGROUND_SPACING_MM = 1.25
"""Spacing of images with synthetic background."""
BACKGROUND_REACH_RADII = 2.3
"""Half the side of images with synthetic background, in brain radii."""
NO_POSE: dict[str, object] = {
    "degrees": None, "seconds_all": None, "qc": "", "confidence": None, "reasons": "", "rotvec": "", "init": "",
}  # fmt: skip
FEATURES = ("agree", "spread", "sure", "expected_error", "residual")
RIGHT_DEGREES = 30.0
"""Landmarks are accurate to about 10°, so a pose farther off than this from them is wrong."""
MANY_MM = 30.0
"""If the mask's centre is farther from the brain's than this, another place was segmented."""


@dataclass(frozen=True)
class ScanCase:
    """An image of ``part``. ``fold``: of cross-validation, or part of the split; ``mask``: delineated; ``rotation`` (3, 3): canonical
    frame → RAS world, and ``center`` (3,) of the brain in mm, if known; ``weeks``: age, None if unknown; ``twin``: the scan that is
    placed beside it."""

    part: str
    name: str
    fold: str
    image: Path
    mask: Path | None = None
    rotation: Array | None = None
    center: Array | None = None
    weeks: float | None = None
    twin: ScanCase | None = None


def scan_cases(data: Path, parts: tuple[str, ...] = PARTS) -> list[ScanCase]:
    """The cases of ``parts`` in the folder ``data``."""
    split, folds, poses, found = load_split(), load_folds(), load_scan_poses(), []

    def fold(name: str) -> str:
        return next((k for k, names in folds.items() if {name, name.partition("_")[0]} & names), split.part(name))

    marks = read_landmarks(data / "ds-epi")
    lines = (data / "ds-epi/participants.tsv").read_text().splitlines()[1:]
    for part, (subject, weeks) in itertools.product(("epi", "cut"), (line.split("\t")[:2] for line in lines)):
        path, of = data / f"ds-epi/{subject}/anat/{subject}_acq-epi_T2w.nii.gz", marks[subject]
        found.append(ScanCase(part, subject, fold(subject), path, None, of.canonical(), of.brain, float(weeks)))
    whole = [case for case in found if case.part == "epi"]
    found += [
        replace(one, part="twins", twin=other) for one, other in zip(whole[::2], whole[1::2], strict=False) if one.fold == other.fold
    ]
    for part in ("scans", "stacks"):
        for path in sorted((data / f"ds-{part}").glob("sub-*/anat/*_T2w.nii.gz")):
            name = path.name.partition("_T2w")[0]
            (manual_mask,) = (data / f"ds-{part}/derivatives/manual_masks").glob(f"{path.parts[-3]}/anat/{name}*_desc-brain_mask.nii.gz")
            found.append(ScanCase(part, name, fold(name), path, manual_mask, poses.get(name)))
    fetus = data / "ds-fetal/sub-f234/anat/sub-f234_rec-svr_T2w.nii.gz"
    found.append(ScanCase("heads", "sub-f234", split.part("sub-f234"), fetus, weeks=29.0))
    for subject, kind in itertools.product((f"sub-A{k}" for k in range(11, 17)), ("T2w", "T1w")):
        path = data / f"ds-neonates/{subject}/anat/{subject}_{kind}.nii.gz"
        found.append(ScanCase("heads", f"{subject}-{kind}", split.part(subject), path))
    return [case for case in found if case.part in parts]


class ScanBench:
    """Measures one case after another; networks and templates stay in memory. ``data`` holds ``atlases/``. ``folds``: fold → weights
    folder of networks trained without it; ``weights``: weights folder for all other images; ``brain``: brain score to use in place of the
    calibration's."""

    def __init__(
        self, data: Path, weights: Path | None = None, folds: Mapping[str, Path] | None = None, *, threads: int = 2,
        brain: ConfidenceModel | None = None,
    ) -> None:  # fmt: skip
        self.data, self._weights, self._folds, self._threads, self._brain = data, weights, dict(folds or {}), threads, brain
        self._ready: dict[Path | None, Aligner] = {}

    def weights_of(self, case: ScanCase) -> Path | None:
        """The weights folder whose networks process ``case``."""
        return self._folds.get(case.fold, self._weights)

    def measure(self, case: ScanCase, part: PartFile, *, trials: int) -> None:
        """Add the rows of ``case`` to ``part`` that it does not hold yet."""
        done = {(r["kind"], r["trial"]) for r in part.rows}
        image = load_volume(case.image)
        if case.part == "cut":
            assert case.center is not None
            for kind, piece in negative_controls(image, case.center):
                if (kind, "0") not in done:
                    part.add(self._row(replace(case, rotation=None, center=None), kind, 0, piece))
        elif case.twin is not None:
            assert case.twin.center is not None
            if not done:
                both, center = side_by_side(image, load_volume(case.twin.image), case.twin.center)
                part.add(self._row(replace(case, rotation=None), f"beside {case.twin.name}", 0, both, other=center))
        elif case.part != "heads":
            if not done:
                part.add(self._row(case, "as it is", 0, image))
        else:
            brain = nonzero_mask(image).volume
            for (k, kind), trial in itertools.product(enumerate(BACKGROUNDS), range(trials)):
                if (kind, str(trial)) not in done:
                    whole, truth = with_synthetic_background(image, brain, kind, seed=[trial, k])
                    part.add(self._row(case, kind, trial, whole, truth))

    def trial(self, case: ScanCase) -> Trial | None:
        """``case``, with known rotation, as a trial with the mask by the networks and a template of its age (estimated if unknown); None
        if no brain was found, or another place was segmented."""
        image, aligner = load_volume(case.image), self._aligner(case)
        try:
            mask = brain_mask(image, mode="network", finder=lambda: aligner.finder)
            target = aligner.align_masked(image, mask, "estimate" if case.weeks is None else case.weeks, contrast="T2w").target
        except PosepipeError as error:
            print(f"{case.name}: {error}", flush=True)
            return None
        center = moments(load_volume(case.mask)).center if case.mask else case.center
        assert center is not None and case.rotation is not None
        if np.linalg.norm(moments(mask.volume).center - center) > MANY_MM:
            print(f"{case.name}: another place was masked", flush=True)
            return None
        assert target.to_canonical is not None
        truth = Rigid.about(case.rotation @ target.to_canonical, target.brain.center, center)
        return Trial(image, mask.volume, target, truth, case.weeks, mask.found)

    def _row(
        self, case: ScanCase, kind: str, trial: int, image: Volume, truth: Volume | None = None, other: Array | None = None
    ) -> dict[str, object]:
        """Errors of mask and pose of ``image`` relative to the mask ``truth``, the case's delineated mask, or its landmarks. With the
        centre of an ``other`` brain the distance is to the nearer of both."""
        row: dict[str, object] = {"part": case.part, "name": case.name, "fold": case.fold, "kind": kind, "trial": trial}
        aligner = self._aligner(case)
        begun = time.perf_counter()
        try:
            mask = brain_mask(image, mode="network", finder=lambda: aligner.finder)
        except MaskError as error:
            seconds = time.perf_counter() - begun
            none = None if case.mask is None and truth is None else 0.0
            row |= {"seconds": seconds, "dice": none, "ml": 0.0, "true_ml": None, "mm": None, "network": None}
            return row | dict.fromkeys(FEATURES) | NO_POSE | {"qc": "refused", "reasons": str(error).replace("\n", " ")}
        row["seconds"] = time.perf_counter() - begun
        if case.mask is not None:
            truth = given_mask(load_volume(case.mask), image).volume
        center, meant = case.center, None if truth is None else moments(truth)
        if meant is not None:
            center = meant.center
        about, found = moments(mask.volume), mask.found
        assert found is not None
        row |= {
            "dice": None if truth is None else overlap(truth.data, mask.volume.data), "ml": about.millilitres,
            "true_ml": None if meant is None else meant.millilitres,
            "mm": None if center is None else min(float(np.linalg.norm(about.center - c)) for c in (center, other) if c is not None),
            "network": None if case.rotation is None else _degrees(found.rotation, case.rotation),
            **{name: found.features[name] for name in FEATURES},
        }  # fmt: skip
        return row | self._pose(case, image, mask, aligner)

    def _pose(self, case: ScanCase, image: Volume, mask: BrainMask, aligner: Aligner) -> dict[str, object]:
        """Errors of the final pose, if the case's is known, and its rotation relative to the canonical frame."""
        begun = time.perf_counter()
        kind = "T1w" if case.name.endswith("T1w") else "T2w"
        try:
            found = aligner.align_masked(image, mask, "estimate" if case.weeks is None else case.weeks, contrast=kind)
        except PosepipeError as error:
            return NO_POSE | {"qc": "failed", "reasons": str(error).replace("\n", " ")}
        upright = found.template.to_canonical
        assert upright is not None
        rotation = found.pose.rotation @ upright.T
        return {
            "degrees": None if case.rotation is None else _degrees(rotation, case.rotation),
            "seconds_all": time.perf_counter() - begun, "qc": found.quality.qc, "confidence": found.quality.confidence,
            "reasons": "; ".join(found.quality.reasons), "rotvec": " ".join(f"{x:.6f}" for x in so3.log(rotation)),
            "init": found.initial.method,
        }  # fmt: skip

    def _aligner(self, case: ScanCase) -> Aligner:
        folder = self.weights_of(case)
        if folder not in self._ready:
            self._ready[folder] = Aligner(
                atlas_dirs=[self.data / "atlases"], mask="network", refine="torch", weights=folder, slices="off", threads=self._threads
            )
            if self._brain:
                self._ready[folder].finder.model = self._brain
        return self._ready[folder]


def _degrees(a: Array, b: Array) -> float:
    return float(np.degrees(so3.geodesic_distance(a, b)))


def overlap(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """Dice overlap of two masks on one grid."""
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def with_synthetic_background(image: Volume, brain: Volume, kind: str, *, seed: list[int]) -> tuple[Volume, Volume]:
    """``image`` and ``brain`` mask after random motion on a new grid, with a synthetic background of ``kind``."""
    rng = np.random.default_rng(seed)
    about = moments(brain)
    side = 2 * round(BACKGROUND_REACH_RADII * about.radius / BACKGROUND_SPACING_MM)
    turn = random_rotations(1, rng)[0]
    shift = rng.normal(0, 0.2, 3) * about.radius
    affine = np.eye(4)
    affine[:3, :3] = turn * BACKGROUND_SPACING_MM
    affine[:3, 3] = about.center + shift - affine[:3, :3] @ np.full(3, (side - 1) / 2)
    top = float(np.quantile(image.data[brain.data][::7], 0.99))
    moved = _resampled(image.data.clip(0, 1.2 * top) / top, image, affine, side)
    inside = _resampled(brain.data.astype(np.float32), brain, affine, side)
    outside, within = ndimage.distance_transform_edt(inside < 0.5), ndimage.distance_transform_edt(inside >= 0.5)
    far = (outside - within) * BACKGROUND_SPACING_MM / about.radius
    index = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1)
    where = np.moveaxis((index @ affine[:3, :3].T + affine[:3, 3] - about.center) / about.radius, -1, 0)
    stripped, air = BACKGROUNDS[kind]
    how = Surroundings(stripped=stripped, air=air, alone=0.0, fluid=0.0, faded=0.0, thick=0.0, moved=0.0, slab=0.0)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    arrays = (np.ascontiguousarray(x, dtype=np.float32) for x in (moved, inside, far, where))
    moved_, mask_, far_, where_ = (torch.as_tensor(x)[None] for x in arrays)
    out, out_mask = add_surroundings(moved_[None], mask_[None], far_[None], where_, how, generator)
    out, out_mask = simulate_acquisition(out, out_mask, how, generator)
    grid = Volume(out[0, 0].numpy(), affine, image.source)
    return grid, grid.with_data(out_mask[0, 0].numpy() > 0.5)


def negative_controls(image: Volume, center: Array) -> Iterator[tuple[str, Volume]]:
    """Parts of ``image`` without the brain, whose centre is ``center`` (3,) mm: along each of the first two axes the larger part, if it
    is wide enough; with a name."""
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


def side_by_side(one: Volume, other: Volume, center: Array) -> tuple[Volume, Array]:
    """Scans ``one`` and ``other`` as one image, concatenated along the first axis on the grid of ``one`` with equal brightness; and the
    ``center`` (3,), RAS mm, of the second in it."""
    shape = np.maximum(np.round(np.array(other.shape) * other.spacing / one.spacing).astype(int), 1)
    data = ndimage.zoom(other.data, shape / np.array(other.shape), order=1, grid_mode=True, mode="nearest")
    data = data * (np.quantile(one.data, 0.98) / max(float(np.quantile(data, 0.98)), 1e-6))
    both = np.zeros((one.shape[0] + data.shape[0], *np.maximum(one.shape[1:], data.shape[1:])), dtype=np.float32)
    both[: one.shape[0], : one.shape[1], : one.shape[2]] = one.data
    both[one.shape[0] :, : data.shape[1], : data.shape[2]] = data
    index = ((np.linalg.inv(other.affine) @ np.append(center, 1.0))[:3] + 0.5) * other.spacing / one.spacing - 0.5
    at: Array = one.affine[:3, :3] @ (index + np.array([one.shape[0], 0, 0])) + one.affine[:3, 3]
    return Volume(both, one.affine, one.source), at


def _resampled(data: Array, volume: Volume, affine: Array, side: int) -> Array:
    to_voxel = np.linalg.inv(volume.affine) @ affine
    out: Array = ndimage.affine_transform(data, to_voxel[:3, :3], to_voxel[:3, 3], (side,) * 3, np.float32, order=1)
    return out


def report(rows: list[dict[str, str]]) -> str:
    """Markdown: masks and poses by part, kind and fold; outcomes of the negative controls."""
    kinds = dict.fromkeys((r["part"], r["kind"], "folds" if r["part"] in {"epi", "scans", "stacks"} else r["fold"])
                          for r in rows if r["part"] not in {"cut", "twins"})  # fmt: skip
    groups = [(key, [r for r in rows if r["part"] == key[0] and r["kind"] == key[1] and key[2] in {"folds", r["fold"]}]) for key in kinds]
    titles = [f"{part}{'' if kind == 'as it is' else f', {kind}'} | {fold}" for (part, kind, fold), _ in groups]
    cut = [r for r in rows if r["part"] == "cut"]
    parts = [
        _table(
            "images | of | n | Dice mean | Dice min | centre, median mm | ≤ 5 mm | ≤ 10 mm | elsewhere | refused | mask, s",
            [_mask_line(title, mine) for title, (_, mine) in zip(titles, groups, strict=True)],
        ),
        _table(
            "poses | of | n | network: median | ≤ 15° | ≤ 30° | final: median | ≤ 15° | ≤ 30° | right that pass | wrong that pass | all, s",
            [_pose_line(title, mine) for title, (_, mine) in zip(titles, groups, strict=True) if any(r["degrees"] for r in mine)],
        ),
        _table("no brain in them | n | refused | fail | review | pass", [_cut_line(cut)] if cut else []),
    ]
    twins = [r for r in rows if r["part"] == "twins"]
    if twins:
        both, near = (sum(test(r) for r in twins) for test in (_other_head_reported, lambda r: bool(r["mm"]) and float(r["mm"]) <= 10))
        passed = sum(r["qc"] == "pass" for r in twins)
        counts = f"the mask is one of them (≤ 10 mm) in {near}, the other is reported in {both}, {passed} pass"
        parts.append(f"Two heads in {len(twins)} scans: {counts}.\n")
    turned = [np.array([float(x) for x in r["rotvec"].split()]) for r in rows if r["part"] == "stacks" and r.get("rotvec")]
    if len(turned) > 1:
        apart = [np.degrees(so3.geodesic_distance(so3.exp(a), so3.exp(b))) for a, b in itertools.combinations(turned, 2)]
        parts.append(
            f"Stacks of one fetus, no mask given: {len(turned)} poses, {len(apart)} pairs apart by {np.median(apart):.1f}° (median), "
            f"{np.max(apart):.1f}° (most).\n"
        )
    return "\n".join(p for p in parts if p)


def _other_head_reported(row: dict[str, str]) -> bool:
    return "another brain" in row["reasons"]


def _table(head: str, lines: list[str]) -> str:
    """A Markdown table of ``lines``; empty without any."""
    return "\n".join([f"| {head} |", "|" + "---|" * (head.count("|") + 1), *lines, ""]) if lines else ""


def _cut_line(rows: list[dict[str, str]]) -> str:
    counts = (sum(r["qc"] in kinds for r in rows) for kinds in ({"refused", "failed"}, {"fail"}, {"review"}, {"pass"}))
    return f"| cut | {len(rows)} | {' | '.join(map(str, counts))} |"


def _mask_line(title: str, rows: list[dict[str, str]]) -> str:
    overlap = [float(r["dice"]) for r in rows if r["dice"]]
    # no brain seen: nowhere near
    off = np.array([float(r["mm"]) if r["mm"] else np.inf for r in rows])
    cells = [f"{np.mean(overlap):.3f}", f"{np.min(overlap):.3f}"] if overlap else ["–", "–"]
    cells += [f"{np.median(off):.1f}", *(f"{int((off <= mm).sum())}" for mm in (5, 10)), f"{int((off > MANY_MM).sum())}"]
    cells += [f"{sum(r['qc'] == 'refused' for r in rows)}", f"{np.median([float(r['seconds']) for r in rows]):.2f}"]
    return f"| {title} | {len(rows)} | {' | '.join(cells)} |"


def _pose_line(title: str, rows: list[dict[str, str]]) -> str:
    mine = [r for r in rows if r["degrees"] or r["qc"] in {"refused", "failed"}]
    cells = []
    for name in ("network", "degrees"):
        angle = np.array([float(r[name]) if r[name] else 180.0 for r in mine])
        cells += [f"{np.median(angle):.1f}°", *(f"{int((angle <= limit).sum())}" for limit in (15, 30))]
    right = [r["qc"] == "pass" for r in mine if angle_of(r) <= RIGHT_DEGREES]
    wrong = [r["qc"] == "pass" for r in mine if angle_of(r) > RIGHT_DEGREES]
    cells += [f"{sum(right)} of {len(right)}", f"{sum(wrong)} of {len(wrong)}"]
    cells.append(f"{np.median([float(r['seconds_all']) for r in mine if r['seconds_all']]):.2f}")
    return f"| {title} | {len(mine)} | {' | '.join(cells)} |"


def angle_of(row: dict[str, str]) -> float:
    """Error of the final pose of a row, degrees; 180 without a pose."""
    return float(row["degrees"]) if row["degrees"] else 180.0
