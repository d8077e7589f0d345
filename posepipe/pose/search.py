"""Search over all rotations: candidates from a rotation bank, refined by Gauss–Newton, ranked by the criterion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..geometry.so3 import Array
from ..imaging.sampling import tensor
from ..matching.brain import Brain
from ..matching.comparison import Comparison
from ..matching.gauss_newton import Fitted, Poses
from ..matching.rotation_bank import RotationBank, Scores
from ..matching.target import Target
from .hypothesis import LOW_CRITERION, Hypothesis, Ranked
from .multistart import ATTEMPTS, multistart_search

DISTINCT_DEGREES = 20.0
"""Minimum distance of the rotations that are taken from the bank, degrees. How it was chosen is not recorded. With 15 as many poses are
right, but there are fewer rivals: the confidence of low-contrast scans is then 0.1 above the calibrated one (docs/decisions/044)."""
BY_CONTRAST, BY_RATIO = 12, 8
"""Number of hypotheses from the bank: by overlap plus NCC, and by Dice plus correlation ratio (valid for any contrast)."""
FINALISTS = 6
"""Hypotheses that are fitted to the end. How it was chosen is not recorded."""
CENTER_SHIFT = 0.15
"""Shift of the trial centres from the mask's centre, in radii, for masks that are cut or leak."""


def search(
    compare: Comparison,
    *,
    age_known: bool = True,
    also: Poses | None = None,
    more: Callable[[], Poses] | None = None,
    attempts: int = ATTEMPTS,
) -> Ranked:
    """Distinct hypotheses for the pose of an image against its target; ``also`` are candidates in addition to those of the bank.

    With ``age_known`` the template has the subject's size (the paper's GA ratio is 1 for an age-matched cohort), and candidates are scored
    at the template's radius and at the mask's; else at the mask's radius alone.

    If the best criterion is below :data:`~posepipe.pose.hypothesis.LOW_CRITERION`, as in heavily corrupted images, a
    :func:`~posepipe.pose.multistart.multistart_search` starts from all candidates and from those of ``more``, which is called only then,
    with up to ``attempts`` attempts. Its hypotheses replace the others, ranked by coarse texture, if their criterion is at least that of
    the best so far. This condition matters for brains unlike their template, whose scores are low at all poses.
    """
    proposed = propose(compare.brain, compare.target, age_known=age_known)
    if also is not None:
        proposed = proposed.concat(also)
    tried = compare.screened(proposed)
    found = distinct_hypotheses(compare, compare.fit_criterion(tried.poses.pick(tried.best(FINALISTS))))
    if found.best.score("criterion") >= LOW_CRITERION:
        return found
    starts = proposed if more is None else proposed.concat(more())
    floor = compare.score(found.best.pose)
    closer = distinct_hypotheses(compare, multistart_search(compare, starts, FINALISTS, attempts), "coarse")
    known = (replace(h, criterion=compare.score(h.pose)) for h in closer.hypotheses)
    better = tuple(h for h in known if h.score("criterion") >= floor)
    return Ranked(better, "coarse") if better else found


def distinct_hypotheses(
    compare: Comparison, judged: Fitted, by: Literal["criterion", "coarse"] = "criterion"
) -> Ranked:
    """Hypotheses more than 5° apart from fitted poses, whose criterion is the score named ``by``."""
    found = []
    for i in judged.best(FINALISTS):
        about = compare.rigid(judged.poses, int(i)), float(judged.poses.log_scale[i]), float(judged.overlap[i])
        score = float(judged.criterion[i])
        found.append(Hypothesis(*about, criterion=score) if by == "criterion" else Hypothesis(*about, coarse=score))
    return Ranked(tuple(found), by)


def propose(image: Brain, target: Target, *, age_known: bool) -> Poses:
    """The bank's best distinct rotations, each with its centre and size."""
    coarse = image.coarser(2)
    trials: list[tuple[Scores, float, Array]] = []
    sizes = [image.radius, target.brain.radius] if age_known else [image.radius]
    for size in sizes:
        centers = _centers() if size == sizes[-1] else np.zeros((1, 3))
        trials.append((target.bank.score(coarse, size, centers), size, centers))
    plain = [s.overlap + 0.3 * s.ncc for s, _, _ in trials]
    mixed = [s.dice + 0.3 * s.ratio for s, _, _ in trials]
    chosen = _distinct(plain, target.bank, BY_CONTRAST) + _distinct(mixed, target.bank, BY_RATIO)
    flat = [(size, center) for _, size, centers in trials for center in centers]
    rotation = target.bank.rotations[[j for j, _ in chosen]].transpose(0, 2, 1)
    scale = np.array([target.brain.radius / flat[h][0] for _, h in chosen])
    center = np.stack([flat[h][1] * flat[h][0] for _, h in chosen])
    shift = -scale[:, None] * np.einsum("nij,nj->ni", rotation, center)
    device = image.image.device
    return Poses(tensor(rotation, device), tensor(shift, device), tensor(np.log(scale), device))


def _centers() -> Array:
    """Trial centres (H, 3) in radii: the mask's centre and 14 around it, in the directions of the faces and corners of a cube."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / np.sqrt(3)
    return CENTER_SHIFT * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3), corners])


def _distinct(scores: list[Tensor], bank: RotationBank, n: int) -> list[tuple[int, int]]:
    """The ``n`` best rotations at least :data:`DISTINCT_DEGREES` apart, as (rotation, centre) indices."""
    best, which = torch.cat(scores, 1).max(1)
    best = best.clone()
    flat = tensor(bank.rotations, best.device).flatten(1)
    limit = 1 + 2 * np.cos(np.radians(DISTINCT_DEGREES))
    out = []
    for _ in range(n):
        j = int(best.argmax())
        out.append((j, int(which[j])))
        best[flat @ flat[j] > limit] = -torch.inf
    return out
