"""Classical initial poses and refinements on real images with known pose, with and without corruption.

Each image is rotated by random rotations that are spread over six 30° bins, translated, and resampled to another voxel grid
(:func:`posepipe.bench.perturb.turned`). All methods get the same images. The true pose is the image's own pose against its template,
composed with the motion. The own pose is the identity for subjects in atlas space, and follows from the stored canonical rotations for
templates of other atlases.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch

from ..atlas import AtlasLibrary, Template
from ..brainmask.choose import brain_mask
from ..errors import PosepipeError
from ..files import replacing
from ..geometry import Rigid, rotations_in_bin
from ..imaging.mask import given_mask
from ..imaging.volume import Volume, load_volume
from ..matching.comparison import Comparison
from ..matching.target import Target
from ..pose.initial import initial_pose
from ..refinement.refine import refine_pose
from .perturb import corrupted, turned

BINS = [(low, low + 30) for low in range(0, 180, 30)]
TEMPLATE_WEEKS = (22, 26, 30, 34)


@dataclass(frozen=True)
class Case:
    """A real image, its template, and the group it is reported in. ``own``: pose template → image before any motion, None if unknown."""

    name: str
    group: str
    image: Path
    mask: Path | None
    template: Template
    own: Rigid | None


@dataclass(frozen=True)
class Row:
    """One pose by one method: rotation error (degrees) and displacement of the template's centre (mm) relative to the true pose. The
    fields are the columns of the CSV; ``damage`` is the kind of corruption."""

    group: str
    name: str
    damage: str
    strength: float
    trial: int
    bin: int
    init: str
    refine: str
    degrees: float
    mm: float
    seconds: float


def cases(data: Path, groups: tuple[str, ...]) -> list[Case]:
    """The cases of ``groups``: ``fetus``, ``templates``, ``newborn-T2w``, ``newborn-T1w``, ``stacks``."""
    library = AtlasLibrary([data / "atlases"])
    out: list[Case] = []
    if "fetus" in groups:
        path = data / "ds-fetal/sub-f234/anat/sub-f234_rec-svr_T2w.nii.gz"
        out.append(Case("f234", "fetus", path, None, library.template("CRL", "29", "T2w"), Rigid.identity()))
    if "templates" in groups:
        for atlas in ("FidonSBA", "CHN"):
            for week in TEMPLATE_WEEKS:
                week = max(week, min(round(t.age) for t in library.templates(atlas, "T2w")))
                out.append(_of_cohort(library.template(atlas, f"{week}", "T2w"), library))
    ages = dict(line.split("\t")[:2] for line in (data / "ds-neonates/participants.tsv").read_text().splitlines()[1:])
    for contrast in ("T2w", "T1w"):
        if f"newborn-{contrast}" in groups:
            for subject_id, age in ages.items():
                path = data / f"ds-neonates/{subject_id}/anat/{subject_id}_{contrast}.nii.gz"
                template = library.template("Serag", age, "T2w")
                out.append(Case(f"{subject_id}-{contrast}", f"newborn-{contrast}", path, None, template, Rigid.identity()))
    if "stacks" in groups:
        out += _stacks(data, library)
    return out


def atlas_cases(data: Path, atlas: str) -> list[Case]:
    """Every cohort of ``atlas`` as a subject of CRL's template of the same week, where CRL has one."""
    library = AtlasLibrary([data / "atlases"])
    weeks = {t.cohort for t in library.templates("CRL", "T2w")}
    return [_of_cohort(t, library) for t in library.templates(atlas, "T2w") if t.cohort in weeks]


def _of_cohort(subject: Template, library: AtlasLibrary) -> Case:
    template = library.template("CRL", subject.cohort, "T2w")
    return Case(subject.space, "templates", subject.image, subject.mask, template, canonical_pose(template, subject))


def canonical_pose(template: Template, subject: Template) -> Rigid:
    """Pose ``template`` → ``subject`` from their rotations to the canonical frame, without translation. Raises PosepipeError if one of
    these is unknown."""
    if template.to_canonical is None or subject.to_canonical is None:
        msg = f"{template.space}, {subject.space}: no canonical rotation; run python -m posepipe.bench.canonical"
        raise PosepipeError(msg)
    return Rigid(subject.to_canonical.T @ template.to_canonical, np.zeros(3))


def _stacks(data: Path, library: AtlasLibrary) -> list[Case]:
    """The six raw stacks. Their gestational age is unknown; the template is that of the CRL week whose mask volume is nearest the median
    of theirs."""
    folder = data / "ds-stacks"
    images = sorted((folder / "sub-01/anat").glob("*_T2w.nii.gz"))
    masks = [folder / f"derivatives/manual_masks/sub-01/anat/{p.name[:-7]}_desc-brain_mask.nii.gz" for p in images]
    volumes = [given_mask(load_volume(m), load_volume(i)).millilitres for i, m in zip(images, masks, strict=True)]
    median = float(np.median(volumes))
    sizes = {t.cohort: Target.load(t).brain.moments.millilitres for t in library.templates("CRL", "T2w")}
    week = min(sizes, key=lambda w: abs(sizes[w] - median))
    template = library.template("CRL", week, "T2w")
    print(f"stacks: masks hold {median:.0f} ml (median); nearest CRL week by size: {week} ({sizes[week]:.0f} ml)", flush=True)
    return [Case(i.name[:-7], "stacks", i, m, template, None) for i, m in zip(images, masks, strict=True)]


class Runner:
    """Runs the methods on one case. It loads the image once, determines its own pose, and applies one motion after another."""

    def __init__(self, case: Case, *, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self.case = case
        self.image = load_volume(case.image)
        given = load_volume(case.mask) if case.mask else None
        self.mask = brain_mask(self.image, given).volume
        self.target = Target.load(case.template)
        _ = self.target.bank, self.target.coarse_outline, self.target.coarse_texture, self.target.fine_texture
        self.own = self._own_pose()

    def _own_pose(self) -> Rigid:
        """The pose template → image before any motion. Its rotation is the known one and its translation comes from registration; without
        a known rotation both come from the search."""
        compare = Comparison.of(self.image, self.mask, self.target)
        if self.case.own is None:
            return initial_pose(self.image, self.mask, self.target, method="search", compare=compare).pose
        known = self.case.own.rotation
        start = Rigid.about(known, self.target.brain.center, compare.brain.center)
        found = compare.refined(start)
        return Rigid.about(known, self.target.brain.center, found.apply(self.target.brain.center))

    def rows(
        self, trials: int, inits: tuple[str, ...], refines: tuple[str, ...], corruption: str, strength: float, seed: int
    ) -> Iterator[Row]:
        """Rows of ``trials`` motions, cycling through the bins, for every ``init`` with every ``refine``."""
        for trial in range(trials):
            rng = np.random.default_rng([seed, trial, *self.case.name.encode()])
            low, high = BINS[trial % len(BINS)]
            # the rotation is sampled so that the angle of the pose is in the bin
            rotation = rotations_in_bin(1, low, high, rng)[0] @ self.own.rotation.T
            image, mask, motion = turned(self.image, self.mask, rotation, rng)
            truth = motion @ self.own
            if corruption != "none":
                image, mask = corrupted(image, mask, corruption, strength, rng)
            for init in inits:
                yield from self._methods(image, mask, truth, init, refines, (corruption, strength, trial, low // 30))

    def _methods(
        self, image: Volume, mask: Volume, truth: Rigid, init: str, refines: tuple[str, ...], what: tuple[str, float, int, int]
    ) -> Iterator[Row]:
        corruption, strength, trial, which = what
        begun = time.perf_counter()
        compare = Comparison.of(image, mask, self.target)
        start = initial_pose(image, mask, self.target, method=init, compare=compare)
        first = time.perf_counter() - begun
        for refine in refines:
            begun = time.perf_counter()
            pose = start.pose
            if refine != "none":
                try:
                    pose = refine_pose(
                        image, mask, self.target, start.pose, method=refine, compare=compare
                    ).pose
                except PosepipeError as error:
                    print(f"{self.case.name} trial {trial} {init} {refine}: {error}", flush=True)
            seconds = first + time.perf_counter() - begun
            center = self.target.brain.center
            error_mm = pose.mm_from(truth, center)
            yield Row(
                self.case.group, self.case.name, corruption, strength, trial, which, init, refine,
                pose.degrees_from(truth), error_mm, seconds,
            )  # fmt: skip


def stack_disagreement(found: list[Case], *, threads: int = 1) -> str:
    """Median and largest angle between the poses of each pair of stacks, by ``search`` and ``torch`` refinement."""
    poses = []
    for case in found:
        runner = Runner(case, threads=threads)
        start = initial_pose(runner.image, runner.mask, runner.target, method="search")
        poses.append(refine_pose(runner.image, runner.mask, runner.target, start.pose, method="torch").pose)
    pairs = [(i, j, a.degrees_from(b)) for i, a in enumerate(poses) for j, b in enumerate(poses) if i < j]
    values = [p[2] for p in pairs]
    each = ", ".join(f"{i + 1}-{j + 1}: {d:.1f}" for i, j, d in pairs)
    return f"stacks: pairwise disagreement median {np.median(values):.1f}°, largest {max(values):.1f}° ({each})"


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write all rows as CSV."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Row)])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(row).items()})


def tables(rows: list[Row]) -> str:
    """Markdown by group, corruption and method: ``mean / p95 / max`` of the error in each bin and in all bins, number of lost poses, and
    seconds."""
    out = []
    for group, damage in dict.fromkeys((r.group, f"{r.damage} {r.strength:g}") for r in rows):
        mine = [r for r in rows if (r.group, f"{r.damage} {r.strength:g}") == (group, damage)]
        images = len({r.name for r in mine})
        title = f"{group}, {images} image(s)" + ("" if damage.startswith("none") else f", damage: {damage}")
        heads = " | ".join(f"{low}–{high}°" for low, high in BINS)
        out += [f"\n**{title}** (mean / p95 / max, degrees)\n", f"| init | refine | {heads} | all | > 15° | mm | s |", "|" + "---|" * 12]
        for init, refine in dict.fromkeys((r.init, r.refine) for r in mine):
            these = [r for r in mine if (r.init, r.refine) == (init, refine)]
            cells = [_cell([r.degrees for r in these if r.bin == b]) for b in range(6)]
            lost = sum(r.degrees > 15 for r in these)
            mm = np.median([r.mm for r in these])
            seconds = np.median([r.seconds for r in these])
            out.append(
                f"| {init} | {refine} | {' | '.join(cells)} | {_cell([r.degrees for r in these])} "
                f"| {lost} of {len(these)} | {mm:.1f} | {seconds:.2f} |"
            )
    return "\n".join(out)


def _cell(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{np.mean(values):.1f} / {np.quantile(values, 0.95):.1f} / {max(values):.1f}"
