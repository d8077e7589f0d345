"""Refinement of a pose: ANTs, torch, or none. What is worse than the start by every measure is not taken."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from ..geometry import Rigid
from ..imaging.volume import Volume
from .comparison import Comparison
from .similarity import similarity
from .target import Target

LOGGER = logging.getLogger(__name__)
ASTRAY_DEGREES = 5.0
"""A discarded refinement this far from its start is worth a reader's look; less is the noise of the method."""
REFINE_METHODS = ("ants", "torch", "none")


@dataclass(frozen=True, eq=False)
class Refined:
    """``pose`` after refinement by ``method``; ``similarity`` holds, by name, the value ``before`` and ``after``."""

    pose: Rigid
    method: str
    similarity: dict[str, dict[str, float]]
    warnings: tuple[str, ...] = ()


def refine_pose(
    image: Volume,
    mask: Volume,
    target: Target,
    start: Rigid,
    *,
    method: str = "ants",
    threads: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    compare: Comparison | None = None,
) -> Refined:
    """Refine ``start`` (template → image, RAS mm) of ``image`` with brain ``mask`` on the same grid.

    ``ants``: multi-resolution rigid registration of the prepared brains, Mattes mutual information; ``torch``: Gauss–Newton on
    the correlation ratio of outline and texture (:mod:`posepipe.registration.fit`), at the end on mutual information; ``none`` only
    measures. If afterwards neither the criterion that judges hypotheses (texture and outline) is higher nor the mutual information, inside
    both masks or of the cut-out brains at the best size, the start is kept; a warning says so if the two poses differ by more than 5°.
    ``compare`` as in :func:`~posepipe.registration.initial.initial_pose`.
    """
    if method not in REFINE_METHODS:
        msg = f"unknown refinement {method!r}: choose from {', '.join(REFINE_METHODS)}"
        raise ValueError(msg)
    compare = compare or Comparison.of(image, mask, target, device)
    before = _measured(compare, start)
    if method == "none":
        return Refined(start, method, {k: {"before": v, "after": v} for k, v in before.items()})
    if method == "torch":
        pose = compare.refined(start)
    else:
        from .ants_refine import ants_rigid  # antspyx takes seconds to import

        pose = ants_rigid(compare.brain, target.brain, start, threads=threads, seed=seed, source=image.source)
    after = _measured(compare, pose)
    warnings: tuple[str, ...] = ()
    if after["CR"] < before["CR"] and after["NMI"] <= before["NMI"] and not _more_informed(compare, pose, start):
        astray = pose.degrees_from(start)
        LOGGER.info("%s: %s found nothing better than its start (it ended %.1f° away)", image.source, method, astray)
        if astray > ASTRAY_DEGREES:
            warnings = (f"refinement by {method} went astray by {astray:.0f}°; its start was kept",)
        pose, after = start, before
    return Refined(pose, method, {k: {"before": v, "after": after[k]} for k, v in before.items()}, warnings)


def _measured(compare: Comparison, pose: Rigid) -> dict[str, float]:
    """The similarities at ``pose``; ``CR``: the criterion by which hypotheses are judged; ``CoarseCR``: of coarse texture alone."""
    scores = {"CR": compare.score(pose), "CoarseCR": compare.coarse_score(pose)}
    return {**similarity(compare.brain, compare.target.brain, pose), **scores}


def _more_informed(compare: Comparison, pose: Rigid, start: Rigid) -> bool:
    """Whether the cut-out brains share more information at ``pose``: measured only where the other similarities are against it."""
    return compare.mutual_score(pose) > compare.mutual_score(start)
