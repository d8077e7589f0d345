"""How sure of themselves pose networks must be to be hardly ever wrong, and how like a brain what is one: by brains with known truth."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch

from ..errors import UsageError
from ..geometry.so3 import Array
from ..imaging.mask import nonzero_mask
from ..imaging.moments import moments
from ..imaging.volume import Volume, load_volume
from ..registration.calibration import Sureness
from ..registration.confidence import WITHIN_DEGREES
from ..registration.masking import BrainFinder
from .logistic import fit_logistic
from .masks import DRESSES, brainless, dressed, mask_cases
from .rows import PartFile

SURE_VOTES = 0.75
"""Three of four turned copies agree: with one, networks that are right by chance would count as sure."""
WRONG, STEP = 0.005, 0.001
"""The largest expected error, in steps, up to which no more than so many poses of the networks are wrong."""
DRESSED, TRIALS = ("sub-A11-T2w", "sub-A11-T1w", "sub-A12-T2w", "sub-A12-T1w"), 2
"""Newborns kept for validation, in made-up surroundings."""
NOISES, NOISE_SHAPE, NOISE_MM = 16, (64, 64, 48), 3.0
NEAR_MM = 15.0
"""A place is the brain's if its centre is so near; from 60 mm on it is another; what lies between is a part of it, and left out."""
FAR_MM = 60.0


def sureness(rows: list[dict[str, str]]) -> tuple[Sureness, str]:
    """From rows of :mod:`posepipe.bench.confidence`; and how it was made.

    Raises :class:`~posepipe.errors.UsageError` where no expected error keeps what is wrong below :data:`WRONG`.
    """
    mine = [r for r in rows if r["source"] == "auto" and float(r["votes"]) >= SURE_VOTES]
    # the features are logarithms
    error = np.exp([float(r["expected_error"]) for r in mine])
    wrong = np.array([float(r["networks"]) > WITHIN_DEGREES for r in mine])
    limits = np.arange(1, 200) * STEP
    allowed = [limit for limit in limits if (error <= limit).any() and wrong[error <= limit].mean() <= WRONG]
    if not allowed:
        msg = f"networks that agree are wrong in more than {100 * WRONG:g} % of {len(mine)} poses, however sure; train them further"
        raise UsageError(msg)
    limit = float(max(allowed))
    below = error <= limit
    brains = len({r["name"] for r in mine})
    made = (
        f"{len(mine)} poses of {brains} brains in which {SURE_VOTES:g} of the votes agree: {wrong[below].sum()} of {below.sum()} are wrong "
        f"up to this error, {wrong[~below].sum()} of {(~below).sum()} beyond"
    )
    return Sureness(SURE_VOTES, round(limit, 3)), made


def likeness_images(data: Path) -> Iterator[tuple[str, Volume, Array | None]]:
    """Images that no test uses, by name, with the centre (3,) of their brain, None where there is none: whole-uterus scans and raw
    stacks that trained the mask networks, whole-uterus scans cut beside the brain, validation newborns in made-up heads, and noise."""
    for case in mask_cases(data, ("stacks", "epi")):
        if case.kept != "train":
            continue
        image = load_volume(case.image)
        center = case.marks.brain if case.marks else moments(load_volume(case.mask)).center if case.mask else None
        yield case.name, image, center
        if case.marks:
            yield from ((f"{case.name} {kind}", piece, None) for kind, piece in brainless(image, case.marks.brain))
    for name, (k, kind), trial in itertools.product(DRESSED, enumerate(DRESSES), range(TRIALS)):
        subject, _, contrast = name.rpartition("-")
        image = load_volume(data / f"ds-neonates/{subject}/anat/{subject}_{contrast}.nii.gz")
        whole, truth = dressed(image, nonzero_mask(image).volume, kind, seed=[100 + trial, k])
        yield f"{name} {kind} {trial}", whole, moments(truth).center
    for seed in range(NOISES):
        yield f"noise {seed}", smooth_noise(seed), None


def chosen(name: str, patterns: tuple[str, ...] | None) -> bool:
    """Whether an image is asked for by name.

    >>> chosen("sub-E01", ("sub-E0?",)), chosen("sub-E01 axis 0", ("sub-E0?",)), chosen("noise 1", None)
    (True, False, True)
    """
    return not patterns or any(fnmatch(name, pattern) for pattern in patterns)


def smooth_noise(seed: int) -> Volume:
    """Rayleigh noise, the smoother the higher ``seed`` modulo 4."""
    from scipy import ndimage

    rng = np.random.default_rng([seed, 7])
    data = rng.rayleigh(100, NOISE_SHAPE)
    data = ndimage.gaussian_filter(data, (seed % 4) * 1.5) if seed % 4 else data
    data = (data - data.min()) / (data.max() - data.min()) * 1000
    return Volume(data.astype(np.float32), np.diag([NOISE_MM, NOISE_MM, NOISE_MM, 1]), f"noise-{seed}")


def measure_likeness(data: Path, part: PartFile, weights: Path | None = None) -> None:
    """Add to ``part`` a row for each place that each network looks at: how like a brain it is, and how far (mm) from the brain."""
    torch.set_num_threads(1)  # beside other work two threads are slower by far than one
    finder, done = BrainFinder(weights), {r["name"] for r in part.rows}
    for name, image, center in likeness_images(data):
        if name in done:
            continue
        rows = [
            {"name": name, "network": network, "likeness": likeness, "mm": "" if center is None else float(np.linalg.norm(at - center))}
            for network, likeness, at in finder.likenesses(image)
        ]
        for row in rows or [{"name": name, "network": "none", "likeness": -np.inf, "mm": ""}]:
            part.add(row)


def least_likeness(rows: list[dict[str, str]], kept: Mapping[str, float] | None = None) -> tuple[dict[str, float], str]:
    """Network → how like a brain must be what is one; and how it was made, with how many brains and other places are on the wrong side.

    It is the likeness at which a brain is as probable as another place, both weighing the same (logistic regression). Limits that are
    ``kept`` are only counted: with the same weights they change no more than the weights do, and masks need not be measured anew.
    """
    least, told = {}, []
    for network in ("mask-fine", "mask-edge"):
        mine = [(float(r["likeness"]), r["mm"]) for r in rows if r["network"] == network]
        brains = np.array([v for v, mm in mine if mm and float(mm) <= NEAR_MM])
        others = np.array([v for v, mm in mine if (not mm or float(mm) >= FAR_MM) and np.isfinite(v)])
        limit = kept[network] if kept else _even(brains, others)
        least[network] = limit
        low, high = (brains < limit).sum(), (others >= limit).sum()
        told.append(f"{network}: {low} of {len(brains)} brains below, {high} of {len(others)} other places above")
    how = "kept as set in docs/experiments-masks.md, 11" if kept else "where a brain is as probable as another place"
    return least, f"{how}; {'; '.join(told)}"


def _even(brains: Array, others: Array) -> float:
    """The likeness at which either is as probable, to two digits after the point."""
    x = np.concatenate([brains, others])[:, None]
    y = np.concatenate([np.ones(len(brains)), np.zeros(len(others))])
    fitted = fit_logistic(x, y, weights=np.where(y == 1, 1 / len(brains), 1 / len(others)) * len(x) / 2, ridge=0.1)
    return round(float(fitted.mean[0] - fitted.intercept * fitted.scale[0] / fitted.coefficients[0]), 2)
