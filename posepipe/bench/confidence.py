"""Calibration of the confidence: features of right and wrong poses of brains that no network was trained on, and the fitted model.

Images: reconstructed brains with random motion and corruption; raw scans with the masks by the networks that were not trained on their
fold. Poses: *natural* ones, as posepipe computes them (``auto``, ``search``, ``deep``), and *perturbed* ones, so that failures are not
rare: the best wrong hypothesis of the search, one choice of signs of the principal axes, and the true pose rotated by 20–90°. Each pose
is refined and then counts as right within 15° of the true pose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..atlas import AtlasLibrary
from ..errors import UsageError
from ..files import replacing
from ..geometry import Rigid, rotations_in_bin
from ..geometry.so3 import Array
from ..matching.comparison import Comparison
from ..models.calibration import SIGNS, ConfidenceModel
from ..pose.hypothesis import Ranked, measured
from ..pose.initial import InitialPose, single_hypothesis
from ..quality.confidence import WITHIN_DEGREES, confidence_features
from ..training.split import load_folds, load_split
from .classical import Case, canonical_pose, cases
from .logistic import auroc, brier, fit_logistic, held_out, out_of_fold, reliability, threshold
from .methods import BenchmarkRunner, Trial, networks_key
from .rows import PartFile
from .scans import ScanBench, scan_cases
from .trials import TrialGenerator, parse_corruption

SCANS = ("epi", "scans", "stacks")
NATURAL = ("auto", "search", "deep")
PERTURBED = ("rival", "one-axes", "turned")
PERTURBED_WEIGHT = 0.1
"""Total weight of the perturbed poses, as a share of that of the natural poses: failures are rare in use, and the confidence should
reflect that."""
CORRUPTIONS = (
    "none", "cut:0.67", "cut", "leak", "all:0.5", "cut:1.33", "bias:2", "all", "age", "invert", "noise:2", "cut:2", "leak:2",
    "slices", "all:1.5", "cut+invert", "age+cut",
)  # fmt: skip
"""Corruption of each trial, in turn. Their number, 17, and that of the bins, 7, have no common divisor, so that all combinations occur."""
PAIRS = (("CRL", "CHN", 27), ("FidonSBA", "CRL", 28), ("CHN", "CRL", 25), ("CHN", "CRL", 33), ("Serag", "CRL", 36))
"""Validation cohorts as subjects of another atlas: (subject's atlas, template's atlas, week)."""
FOLDS = 10
"""Number of folds of cross-validation over brains."""
FLAGGED, ALARMS, FAIL_ALARMS = 0.95, 0.04, 0.005
"""Target share of failures below ``review``; largest share of right poses below ``review``; largest share of right poses below ``fail``."""
SCAN = "raw scan"
"""Value of the column ``damage`` for a raw scan."""
MARKED_DEGREES = 30.0
"""Landmarks are accurate to about 10°. For a scan whose true pose comes from landmarks, a pose counts as wrong beyond this angle, and
poses between 15° and this angle are left out."""
ABOUT = ("name", "trial", "damage", "source", "refine", "degrees", "networks")
"""Columns besides the features. ``degrees``: error of the final pose; ``networks``: error of the networks' pose."""


def confidence_cases(data: Path, groups: tuple[str, ...]) -> list[Case]:
    """The cases of ``groups``. ``validation``: brains of the validation part of the split; ``train``: newborns of the training part. No
    test brains."""
    split, library = load_split(), AtlasLibrary([data / "atlases"])
    found = []
    if "validation" in groups:
        for atlas, other, week in PAIRS:
            subject, template = library.template(atlas, f"{week}", "T2w"), library.template(other, f"{week}", "T2w")
            if split.part(subject.space) != "validation":
                msg = f"{subject.space} is not kept for validation by the split; choose another cohort to calibrate with"
                raise UsageError(msg)
            own = canonical_pose(template, subject)
            found.append(Case(subject.space, "validation", subject.image, subject.mask, template, own))
    newborns = cases(data, ("newborn-T2w",))
    return found + [c for c in newborns if split.part(c.name.partition("-T2w")[0]) in groups]


def measure(case: Case, runner: BenchmarkRunner, part: PartFile, *, trials: int, seed: int = 0) -> None:
    """Add to ``part`` the rows of ``trials`` trials of one case that it does not hold yet."""
    done = {(r["trial"], r["source"]) for r in part.rows}
    generator: TrialGenerator | None = None
    for number in range(trials):
        wanted = [s for s in (*NATURAL, *PERTURBED) if (str(number), s) not in done]
        if not wanted:
            continue
        generator = generator or TrialGenerator(case)
        spec = CORRUPTIONS[number % len(CORRUPTIONS)]
        trial, _ = generator.trial(number, parse_corruption(spec), seed)
        _add(trial, runner, part, (case.name, number, spec), wanted, np.random.default_rng([seed, number, 1]))


def measure_scans(bench: ScanBench, runner: BenchmarkRunner, part: PartFile) -> None:
    """Add to ``part`` the rows of all raw scans with a known pose that it does not hold yet, each by the networks of its fold. A scan in
    which no brain is found, or another place is segmented, has no rows: there the mask is wrong, not the pose."""
    done = {(r["name"], r["source"]) for r in part.rows}
    for case in scan_cases(bench.data, SCANS):
        wanted = [s for s in (*NATURAL, *PERTURBED) if (case.name, s) not in done]
        if case.rotation is not None and wanted:
            trial = bench.trial(case)
            if trial is not None:
                _add(trial, runner, part, (case.name, 0, SCAN), wanted, np.random.default_rng([1, *case.name.encode()]))


def _add(
    trial: Trial, runner: BenchmarkRunner, part: PartFile, about: tuple[str, int, str], wanted: list[str], rng: np.random.Generator
) -> None:
    """Add the rows of one trial. ``about``: name, number and corruption of the trial."""
    number = about[1]
    compare = Comparison.of(trial.image, trial.mask, trial.target)
    searched: InitialPose | None = None
    for source in wanted:
        if source in ("search", "rival"):
            searched = searched or runner.start(trial, compare, "search")
        initial = _initial(runner, trial, compare, source, searched, rng)
        if initial is None:
            continue
        # the app refines by ANTs, so every other pose by auto is refined by ANTs; the others by torch, which is faster
        refine = "ants" if source == "auto" and number % 2 else "torch"
        refined = runner.finish(trial, compare, initial, refine)
        features = confidence_features(initial, refined)
        assert features is not None and initial.prediction is not None  # the runner runs the pose networks in every method
        degrees = (float(pose.degrees_from(trial.truth)) for pose in (refined.pose, initial.prediction.pose))
        part.add(dict(zip(ABOUT, (*about, source, refine, *degrees), strict=True)) | features)


def part_path(folder: Path, case: Case, weights: dict[str, str]) -> Path:
    """Path of the rows of one case; it depends on the weights of the networks."""
    return folder / "parts" / f"{case.name}_{networks_key(weights)}.csv"


def run_task(task: tuple[Case, Path, int, int, Path | None]) -> None:
    """Measure one case in a process of its own. ``task``: case, folder, trials, seed, weights."""
    case, folder, trials, seed, weights = task
    runner = BenchmarkRunner(weights)
    measure(case, runner, PartFile(part_path(folder, case, runner.networks.sha256)), trials=trials, seed=seed)


def _initial(
    runner: BenchmarkRunner, trial: Trial, compare: Comparison, source: str, searched: InitialPose | None, rng: np.random.Generator
) -> InitialPose | None:
    """The initial pose by ``source``; None if the search has no wrong hypothesis."""
    if source == "rival" and searched is not None:
        return without_truth(searched, trial.truth, compare)
    if source == "turned":
        truth = trial.truth
        turn = rotations_in_bin(1, 20, 90, rng)[0]
        center = truth.apply(trial.target.brain.center)
        start = runner.start(trial, compare, "center")
        pose = Rigid.about(turn, center, center) @ truth
        return replace(start, pose=pose, found=single_hypothesis(compare, pose))
    if source == "search" and searched is not None:
        return searched
    if source == "one-axes":
        here, there = compare.brain.moments, trial.target.brain.moments
        return runner.from_pose(trial, compare, Rigid.about(here.axes @ there.axes.T, there.center, here.center), source)
    return runner.start(trial, compare, source)


def without_truth(found: InitialPose, truth: Rigid, compare: Comparison) -> InitialPose | None:
    """``found`` without the hypotheses within 30° of the true pose; None if no other is left."""
    left = tuple(h for h in found.hypotheses if h.pose.degrees_from(truth) > 30)
    if not left:
        return None
    return replace(found, pose=left[0].pose, found=Ranked((measured(compare, left[0]), *left[1:]), found.found.by))


@dataclass(frozen=True, eq=False)
class ConfidenceFit:
    """The fitted ``model``, a description of the fit, ``made``, and the probabilities ``p`` (N,) of models that were fitted without the
    row's brain.

    ``limits`` (N,): thresholds ``review`` from nested cross-validation, where neither the model nor the threshold depends on the row's
    brain. They estimate the performance on a new brain; the threshold of ``model`` was chosen on these poses themselves.
    """

    model: ConfidenceModel
    made: str
    p: Array
    right: Array
    weights: Array
    natural: Array
    corruptions: Array
    limits: Array

    def report(self) -> str:
        """Markdown: cross-validated performance, coefficients and reliability."""
        lines = [f"Model: {self.made}.", ""]
        lines += ["| poses | right | wrong | AUROC | Brier | wrong ones flagged | false alarms |", "|" + "---|" * 7]
        for title, mine in (("all", np.ones(len(self.p), bool)), ("natural", self.natural), ("made wrong", np.logical_not(self.natural))):
            lines.append(_line(title, self.p[mine], self.right[mine], self.model.review))
        for corruption in dict.fromkeys(self.corruptions):
            mine = self.natural & (self.corruptions == corruption)
            lines.append(_line(f"natural, {corruption}", self.p[mine], self.right[mine], self.model.review))
        lines += ["", f"Review below {self.model.review:.3f}, fail below {self.model.fail:.3f}.", ""]
        lines.append(f"Natural poses with thresholds from nested cross-validation: {self.nested()}.")
        lines.append("")
        lines += ["| mean confidence | share right | weight | poses |", "|" + "---|" * 4]
        lines += [f"| {m:.3f} | {s:.3f} | {w:.1f} | {n} |" for m, s, w, n in reliability(self.p, self.right, self.weights)]
        lines += ["", "| feature | coefficient (per standard deviation) | mean | deviation |", "|" + "---|" * 4]
        lines += [f"| {k} | {c:+.2f} | {m:.3g} | {s:.3g} |" for k, (c, m, s) in self.model.terms.items()]
        return "\n".join(lines) + "\n"


    def nested(self) -> str:
        """Shares of wrong and of right natural poses below ``limits``, and the range of the limits, in words."""
        flagged = (self.p < self.limits)[self.natural]
        wrong = self.right[self.natural] == 0
        return (
            f"{flagged[wrong].sum()} of {wrong.sum()} wrong ones flagged, {flagged[~wrong].sum()} of {(~wrong).sum()} right ones; "
            f"limits {self.limits.min():.3f} to {self.limits.max():.3f}"
        )


def _line(title: str, p: Array, right: Array, review: float) -> str:
    wrong, good = p[right == 0], p[right == 1]
    flagged = f"{100 * np.mean(wrong < review):.1f} %" if len(wrong) else "–"
    alarms = f"{100 * np.mean(good < review):.1f} %" if len(good) else "–"
    area = f"{auroc(p, right):.4f}" if len(wrong) and len(good) else "–"
    score = f"{brier(p, right):.4f}" if len(p) else "–"
    return f"| {title} | {len(good)} | {len(wrong)} | {area} | {score} | {flagged} | {alarms} |"


def fit_confidence(rows: list[dict[str, str]], *, ridge: float = 1.0) -> ConfidenceFit:
    """Fit the model to rows of :func:`measure`; ``ridge``: see :func:`~posepipe.bench.logistic.fit_logistic`.

    Raises :class:`~posepipe.errors.UsageError` for too few rows to fit and cross-validate.
    """
    if not rows:
        msg = "no poses to calibrate with; run with more --trials"
        raise UsageError(msg)
    rows = [r for r in rows if r["damage"] != SCAN or not WITHIN_DEGREES < float(r["degrees"]) <= MARKED_DEGREES]
    x = np.array([[float(r[k]) for k in SIGNS] for r in rows])
    signs = np.array(list(SIGNS.values()))
    right = np.array([float(r["degrees"]) <= WITHIN_DEGREES for r in rows], dtype=float)
    natural = np.array([r["source"] in NATURAL for r in rows])
    folds = {name: f"fold {k}" for k, names in load_folds().items() for name in names}
    # the scans of a fold show one fetus or a few, so a fold is a group
    brains = np.array([folds.get(r["name"]) or folds.get(r["name"].partition("_")[0]) or r["name"] for r in rows])
    counts = np.where(natural, 1.0, PERTURBED_WEIGHT * natural.sum() / max((~natural).sum(), 1))
    try:
        p = out_of_fold(x, right, brains, weights=counts, folds=FOLDS, ridge=ridge, signs=signs)
        fitted = fit_logistic(x, right, weights=counts, ridge=ridge, signs=signs)
        review = _threshold(p, right, natural, FLAGGED, ALARMS)
        fail = min(_threshold(p, right, natural, FLAGGED, FAIL_ALARMS), review / 2)
        limits = np.full(len(p), np.nan)
        for held in held_out(brains, FOLDS):
            rest = ~held
            inner = out_of_fold(x[rest], right[rest], brains[rest], weights=counts[rest], folds=FOLDS, ridge=ridge, signs=signs)
            limits[held] = _threshold(inner, right[rest], natural[rest], FLAGGED, ALARMS)
    except ValueError as error:
        msg = f"{len(rows)} poses of {len(set(brains))} brains do not make a model: {error}; run with more --trials or brains"
        raise UsageError(msg) from error
    found = zip(SIGNS, fitted.coefficients, fitted.mean, fitted.scale, strict=True)
    terms = {k: (float(c), float(m), float(s)) for k, c, m, s in found if abs(c) > 1e-6}
    wrong = int((natural & (right == 0)).sum())
    made = (
        f"{len(rows)} poses of {len(set(brains))} brains, {int(natural.sum())} of them natural ({wrong} wrong), the others made wrong on "
        f"purpose with {100 * PERTURBED_WEIGHT:.0f} % of the weight; ridge {ridge:g}; thresholds by cross-validation over brains"
    )
    model = ConfidenceModel(terms, fitted.intercept, review, fail)
    return ConfidenceFit(model, made, p, right, counts, natural, np.array([r["damage"] for r in rows]), limits)


def _threshold(p: Array, right: Array, natural: Array, flagged: float, alarms: float) -> float:
    """Threshold from natural poses alone if at least 20 of them are wrong, else from perturbed failures too. The share of right poses is
    always that of natural ones."""
    enough = (natural & (right == 0)).sum() >= 20
    mine = natural if enough else natural | (right == 0)
    return threshold(p[mine], right[mine], flagged=flagged, alarms=alarms)


def plot_reliability(found: ConfidenceFit, output: Path) -> Path:
    """Plot the confidence against the share of right poses, and the distribution of the confidence of right and of wrong poses (PNG)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, axes = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="grey", lw=0.8, ls="--")
    raw = found.corruptions == SCAN
    kinds = (
        ("all, weighted", np.ones(len(found.p), bool), "tab:blue"), ("reconstructions, natural", found.natural & ~raw, "tab:orange"),
        ("raw scans, natural", found.natural & raw, "tab:green"),
    )  # fmt: skip
    for title, mine, colour in kinds:
        points = reliability(found.p[mine], found.right[mine], found.weights[mine])
        left.plot([a for a, *_ in points], [b for _, b, *_ in points], "o-", color=colour, ms=4, label=title)
    left.set_xlabel("confidence (mean of class)")
    left.set_ylabel("share of poses within 15°")
    left.legend(frameon=False)
    edges = np.linspace(0, 1, 21)
    for title, value, colour in (("within 15°", 1, "tab:green"), ("wrong", 0, "tab:red")):
        axes.hist(found.p[found.right == value], edges, alpha=0.6, color=colour, label=title)
    for limit, style in ((found.model.review, "--"), (found.model.fail, ":")):
        axes.axvline(limit, color="black", lw=0.9, ls=style)
    axes.set_yscale("log")
    axes.set_xlabel("confidence (dashed: review below; dotted: fail below)")
    axes.set_ylabel("poses")
    axes.legend(frameon=False)
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return output
