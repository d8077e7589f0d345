"""The brain score: features of the scan network for brains and for other places, and the logistic model that separates them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch

from ..brainmask.finder import BrainFinder
from ..errors import UsageError
from ..geometry.so3 import Array
from ..imaging.mask import nonzero_mask
from ..imaging.moments import moments
from ..imaging.volume import Volume, load_volume
from ..models.calibration import BRAIN_SIGNS as SIGNS
from ..models.calibration import ConfidenceModel
from .logistic import auroc, fit_logistic, out_of_fold
from .rows import PartFile
from .scans import BACKGROUNDS, negative_controls, scan_cases, with_synthetic_background

VALIDATION_NEWBORNS, TRIALS = ("sub-A11-T2w", "sub-A11-T1w", "sub-A12-T2w", "sub-A12-T1w"), 2
"""Newborns of the validation part, used with synthetic surroundings, and the number of trials with each kind of surroundings."""
NOISES, NOISE_SHAPE, NOISE_MM = 16, (64, 64, 48), 3.0
NEAR_MM, FAR_MM = 15.0, 60.0
"""A candidate is a brain if its centre is within the first distance (mm) of the true centre, and another place from the second on.
Candidates in between show a part of the brain and are left out."""
DOUBTED = 0.05
"""Share of the brains that may fall below the threshold ``review``."""


@dataclass(frozen=True, eq=False)
class BrainImage:
    """An image that is not used in any test. ``center`` (3,): of its brain in RAS mm, None without a brain; ``fold``: of a real scan in
    cross-validation."""

    name: str
    image: Volume
    center: Array | None
    fold: str = ""


def brain_images(data: Path, names: tuple[str, ...] | None = None) -> Iterator[BrainImage]:
    """Real raw scans; negative controls (parts of whole-uterus scans beside the brain); validation newborns with synthetic surroundings;
    and noise. Only those of ``names`` (patterns), if given."""
    return (one for one in _brain_images(data, names) if chosen(one.name, names))


def _brain_images(data: Path, names: tuple[str, ...] | None) -> Iterator[BrainImage]:
    """As :func:`brain_images`, but images that cost little are returned whatever their name."""
    for case in scan_cases(data, ("epi", "scans", "stacks")):
        image = load_volume(case.image)
        center = moments(load_volume(case.mask)).center if case.mask else case.center
        yield BrainImage(case.name, image, center, case.fold)
        if case.part == "epi":
            assert case.center is not None
            for kind, piece in negative_controls(image, case.center):
                yield BrainImage(f"{case.name} {kind}", piece, None, case.fold)
    for name, (k, kind), trial in itertools.product(VALIDATION_NEWBORNS, enumerate(BACKGROUNDS), range(TRIALS)):
        if not chosen(f"{name} {kind} {trial}", names):
            continue
        subject, _, contrast = name.rpartition("-")
        image = load_volume(data / f"ds-neonates/{subject}/anat/{subject}_{contrast}.nii.gz")
        whole, truth = with_synthetic_background(image, nonzero_mask(image).volume, kind, seed=[100 + trial, k])
        yield BrainImage(f"{name} {kind} {trial}", whole, moments(truth).center)
    for seed in range(NOISES):
        yield BrainImage(f"noise {seed}", smooth_noise(seed), None)


def chosen(name: str, patterns: tuple[str, ...] | None) -> bool:
    """Whether ``name`` matches one of ``patterns``; without patterns always.

    >>> chosen("sub-E01", ("sub-E0?",)), chosen("sub-E01 axis 0", ("sub-E0?",)), chosen("noise 1", None)
    (True, False, True)
    """
    return not patterns or any(fnmatch(name, pattern) for pattern in patterns)


def smooth_noise(seed: int) -> Volume:
    """Rayleigh noise; smoothing grows with ``seed`` modulo 4."""
    from scipy import ndimage

    rng = np.random.default_rng([seed, 7])
    data = rng.rayleigh(100, NOISE_SHAPE)
    data = ndimage.gaussian_filter(data, (seed % 4) * 1.5) if seed % 4 else data
    data = (data - data.min()) / (data.max() - data.min()) * 1000
    return Volume(data.astype(np.float32), np.diag([NOISE_MM, NOISE_MM, NOISE_MM, 1]), f"noise-{seed}")


def measure_brains(data: Path, part: PartFile, weights: Path | None = None, folds: Mapping[str, Path] | None = None) -> None:
    """Add to ``part`` a row for each candidate of the finder: its features, and its distance (mm) from the true brain centre. Real scans
    are processed with the networks of ``folds`` that were not trained on their fold."""
    torch.set_num_threads(1)  # on a busy machine two threads are much slower than one
    done, finders = {r["name"] for r in part.rows}, {}
    for one in brain_images(data):
        if one.name in done:
            continue
        folder = (folds or {}).get(one.fold, weights)
        if folder not in finders:
            finders[folder] = BrainFinder(folder)
        places = finders[folder].features(one.image)
        for features, at in places:
            mm = "" if one.center is None else float(np.linalg.norm(at - one.center))
            part.add({"name": one.name, "mm": mm, **features})
        if not places:
            part.add({"name": one.name, "mm": "", **dict.fromkeys(SIGNS, "")})


def fit_brain(rows: list[dict[str, str]]) -> tuple[ConfidenceModel, str]:
    """Fit the brain score, with equal total weights of brains and other places; returns the model and a description of the fit.

    Thresholds come from cross-validation over images: ``review`` is the probability that all but :data:`DOUBTED` of the brains exceed,
    with the odds halved; ``fail`` is the lowest probability of any brain, with the odds halved. Raises
    :class:`~posepipe.errors.UsageError` if all rows are of one kind.
    """
    mine = [r for r in rows if r["share"] and (not r["mm"] or not NEAR_MM < float(r["mm"]) < FAR_MM)]
    x = np.array([[float(r[name]) for name in SIGNS] for r in mine])
    y = np.array([bool(r["mm"]) and float(r["mm"]) <= NEAR_MM for r in mine], dtype=float)
    if len(set(y)) < 2:
        msg = f"{len(mine)} places, all of one kind: brains and other places are needed to tell them apart"
        raise UsageError(msg)
    images = np.array([r["name"].partition(" ")[0] for r in mine])
    weights = np.where(y == 1, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    signs = np.array(list(SIGNS.values()))
    held = out_of_fold(x, y, images, weights=weights, folds=10, signs=signs)
    fitted = fit_logistic(x, y, weights=weights, signs=signs)
    least, usual = (float(np.quantile(held[y == 1], q, method="lower")) for q in (0.0, DOUBTED))
    fail, review = (p / (2 - p) for p in (least, usual))
    terms = {k: (float(c), float(m), float(s)) for k, c, m, s in zip(SIGNS, fitted.coefficients, fitted.mean, fitted.scale, strict=True)}
    made = (
        f"{int(y.sum())} brains, {int((1 - y).sum())} other places of {len(set(images))} images; left out image by image: AUROC "
        f"{auroc(held, y):.4f}; doubtful are {int((held[y == 1] < review).sum())} brains and {int((held[y == 0] < review).sum())} other "
        f"places, {int((held[y == 0] < fail).sum())} of these refused"
    )
    return ConfidenceModel(terms, fitted.intercept, review, fail), made
