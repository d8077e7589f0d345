"""Benchmark of age estimation on images of known age: fits the constants of the estimate and reports its errors.

Each brain is compared with the cohorts that posepipe itself would compare it with, one row a cohort. The fit and the report are computed
from these rows alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..age.curves import STAGES, AgeCurve, AgeModel, StageModel, most_likely_age
from ..age.estimator import AgeEstimator
from ..atlas import AtlasLibrary, CohortSeries, candidates
from ..brainmask.choose import brain_mask
from ..errors import UsageError
from ..geometry.so3 import Array
from ..imaging.volume import load_volume
from ..pose.coordinate_networks import PoseNetworks
from ..training.split import load_split
from .rows import PartFile

PARTS = ("calibration", "test", "stacks")
ATLAS_PAIRS = (("CHN", "CRL"), ("CRL", "CHN"), ("FidonSBA", "CRL"), ("Serag", "CRL"))
"""Atlas whose cohorts are used as subjects, and atlas whose cohorts they are compared with."""
WEEKS_BETWEEN = 2
SIMILARITIES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Values that are tried for the weight of the similarity."""
METHODS = ("size by mask", "fitted size", "similarity", "both")


@dataclass(frozen=True)
class AgeCase:
    """One image with its brain mask. ``weeks``: postmenstrual age, None if unknown; ``part`` and ``group``: where it is reported;
    ``brain``: the same for all images of one subject; ``atlas``: the atlas that it is compared with, ``auto``: chosen as for any image."""

    part: str
    group: str
    name: str
    brain: str
    weeks: float | None
    contrast: str
    image: Path
    mask: Path | None
    atlas: str = "auto"


def age_cases(data: Path, parts: tuple[str, ...] = PARTS) -> list[AgeCase]:
    """The cases of ``parts``. ``calibration``: cohorts of one atlas as subjects of another, and newborns that are not in the test part of
    the split. ``test``: newborns and the fetus of the test part. ``stacks``: six stacks of one fetus of unknown age."""
    library, split = AtlasLibrary([data / "atlases"]), load_split()
    found = []
    for atlas, other in ATLAS_PAIRS:
        last = max(t.age for t in library.templates(other, "T2w"))
        for t in library.templates(atlas, "T2w")[::WEEKS_BETWEEN]:
            if t.age <= last:
                group = f"{atlas} cohorts on {other}"
                found.append(AgeCase("calibration", group, f"{t.space}-on-{other}", t.space, t.age, "T2w", t.image, t.mask, other))
    rows = [line.split("\t")[:2] for line in (data / "ds-neonates/participants.tsv").read_text().splitlines()[1:]]
    for contrast in ("T2w", "T1w"):
        for subject, weeks in rows:
            part = "test" if split.part(subject) == "test" else "calibration"
            path = data / f"ds-neonates/{subject}/anat/{subject}_{contrast}.nii.gz"
            found.append(AgeCase(part, f"newborns, {contrast}", f"{subject}-{contrast}", subject, float(weeks), contrast, path, None))
    path = data / "ds-fetal/sub-f234/anat/sub-f234_rec-svr_T2w.nii.gz"
    found.append(AgeCase("test", "fetus", "sub-f234", "sub-f234", 29.0, "T2w", path, None))
    for path in sorted((data / "ds-stacks/sub-01/anat").glob("*_T2w.nii.gz")):
        stem = path.name[:-7]
        mask = data / f"ds-stacks/derivatives/manual_masks/sub-01/anat/{stem}_desc-brain_mask.nii.gz"
        found.append(AgeCase("stacks", "stacks", stem, "stacks", None, "T2w", path, mask))
    return [case for case in found if case.part in parts]


class AgeBench:
    """Measures one case after another; cohorts and networks stay in memory. ``data`` holds ``atlases/``."""

    def __init__(self, data: Path, weights: Path | None = None) -> None:
        self._library, self._networks = AtlasLibrary([data / "atlases"]), PoseNetworks(weights)
        self._estimators: dict[tuple[str, str], AgeEstimator] = {}

    def measure(self, case: AgeCase, part: PartFile) -> None:
        """Add the rows of ``case`` to ``part``, unless it has rows."""
        if part.rows:
            return
        key = (case.atlas, case.contrast)
        if key not in self._estimators:
            series: tuple[CohortSeries, ...] = candidates(self._library, contrast=case.contrast, atlas=case.atlas)
            self._estimators[key] = AgeEstimator(series, self._networks)
        image = load_volume(case.image)
        mask = brain_mask(image, load_volume(case.mask) if case.mask else None).volume
        begun = time.perf_counter()
        found, curve = self._estimators[key].fit_cohorts(image, mask)
        seconds = time.perf_counter() - begun
        for k, weeks in enumerate(curve.weeks):
            part.add({
                "part": case.part, "group": case.group, "name": case.name, "brain": case.brain, "age": case.weeks,
                "stage": found.stage, "by": found.name, "weeks": float(weeks), "score": float(curve.score[k]),
                "log_size": float(curve.log_size[k]), "log_mask": float(curve.log_mask[k]), "seconds": seconds,
            })  # fmt: skip


@dataclass(frozen=True, eq=False)
class AgeRecord:
    """The curve of one image over the cohorts, read from its rows."""

    part: str
    group: str
    name: str
    brain: str
    age: float | None
    stage: str
    by: str
    curve: AgeCurve

    def error(self, similarity: float, *, by_mask: bool = False) -> float:
        """Estimated minus true age, weeks, with the weight ``similarity``; ``by_mask``: the size is taken from the mask, not from the
        fit."""
        assert self.age is not None
        return round(most_likely_age(self.curve, similarity, by_mask=by_mask), 1) - self.age


def age_records(rows: list[dict[str, str]]) -> list[AgeRecord]:
    """The curves in the rows of :meth:`AgeBench.measure`, one an image."""
    by_name: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    found = []
    for name, mine in by_name.items():
        curve = AgeCurve(*(np.array([float(r[key]) for r in mine]) for key in ("weeks", "score", "log_size", "log_mask")))
        age = float(mine[0]["age"]) if mine[0]["age"] else None
        first = mine[0]
        found.append(AgeRecord(first["part"], first["group"], name, first["brain"], age, first["stage"], first["by"], curve))
    return found


def fit_ages(known: list[AgeRecord]) -> tuple[AgeModel, dict[str, float]]:
    """Fit the constants on the calibration brains. Returns the model, and for each of their images the error (weeks) by constants fitted
    without its brain.

    Raises :class:`~posepipe.errors.UsageError` if a stage has fewer than two brains.
    """
    stages, left_out = {}, {}
    for stage in STAGES:
        mine = [k for k in known if k.part == "calibration" and k.age is not None and k.stage == stage]
        brains = dict.fromkeys(k.brain for k in mine)
        if len(brains) < 2:
            msg = f"{len(brains)} {stage} brains of known age do not make a model of ages; measure the whole part `calibration`"
            raise UsageError(msg)
        errors = {k.name: np.array([k.error(s) for s in SIMILARITIES]) for k in mine}
        for brain in brains:
            best = _best([errors[k.name] for k in mine if k.brain != brain])
            left_out.update({k.name: float(errors[k.name][best]) for k in mine if k.brain == brain})
        rms = float(np.sqrt(np.mean([left_out[k.name] ** 2 for k in mine])))
        stages[stage] = StageModel(SIMILARITIES[_best(list(errors.values()))], rms)
    counts = [len({k.brain for k in known if k.part == "calibration" and k.stage == s}) for s in STAGES]
    made = (
        f"{len(left_out)} images of cohorts and newborns: {counts[0]} brains matched by fetal and {counts[1]} by neonatal atlases; "
        "errors by leaving one brain out"
    )
    return AgeModel(stages, made), left_out


def _best(errors: list[Array]) -> int:
    return int(np.mean(np.square(errors), axis=0).argmin())


def report(known: list[AgeRecord], model: AgeModel, left_out: dict[str, float]) -> str:
    """Markdown: errors by group and method; for the stacks the estimated ages."""
    lines = [f"Model: {model.made}."]
    lines += [f"{s}: similarity {m.similarity:g}, standard error {m.error:.2f} weeks." for s, m in model.stages.items()]
    lines += ["", f"| images | n | {' | '.join(METHODS)} |", "|" + "---|" * (2 + len(METHODS))]
    for part in PARTS[:2]:
        mine = [k for k in known if k.part == part]
        for group in dict.fromkeys(k.group for k in mine):
            lines.append(_row(f"{part}: {group}", [k for k in mine if k.group == group], model, left_out))
        for stage in STAGES:
            matched = [k for k in mine if k.stage == stage]
            if matched:
                lines.append(_row(f"{part}: all matched by {stage} atlases", matched, model, left_out))
    lines += ["", "Mean / median / largest absolute error, and mean error, weeks.", ""]
    for one in (k for k in known if k.part == "test"):
        found = model.of(one.stage, float(one.curve.weeks.mean()))
        lines.append(f"- {one.name}: {one.age:g} weeks, estimated {one.age + one.error(found.similarity):.1f} (by {one.by})")  # type: ignore[operator]
    stacks = [k for k in known if k.part == "stacks"]
    if stacks:
        ages = [most_likely_age(k.curve, model.of(k.stage, float(k.curve.weeks.mean())).similarity) for k in stacks]
        each = ", ".join(f"{k.name} {a:.1f} (by {k.by})" for k, a in zip(stacks, ages, strict=True))
        lines += ["", f"Stacks of one fetus: {each}; mean {np.mean(ages):.1f}, standard deviation {np.std(ages, ddof=1):.2f} weeks."]
    return "\n".join(lines) + "\n"


def _row(title: str, mine: list[AgeRecord], model: AgeModel, left_out: dict[str, float]) -> str:
    errors: list[list[float]] = [[] for _ in METHODS]
    for k in mine:
        fitted = model.of(k.stage, float(k.curve.weeks.mean())).similarity
        both = left_out[k.name] if k.name in left_out else k.error(fitted)
        for one, value in zip(errors, (k.error(0, by_mask=True), k.error(0), k.error(np.inf), both), strict=True):
            one.append(value)
    return f"| {title} | {len(mine)} | {' | '.join(map(_cell, errors))} |"


def _cell(errors: list[float]) -> str:
    size = np.abs(errors)
    return f"{size.mean():.1f} / {np.median(size):.1f} / {size.max():.1f} ({np.mean(errors):+.1f})"

