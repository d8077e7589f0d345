"""Refinement of a pose: ANTs, torch, or none. What is worse than the start by every measure is not taken."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from ..geometry import Rigid
from ..imaging.volume import Volume
from ..matching.comparison import Comparison
from ..matching.similarity import similarity
from ..matching.target import Target
from ..settings import WHOLE, WITHOUT_FLUID

LOGGER = logging.getLogger(__name__)
ASTRAY_DEGREES = 5.0
"""A discarded refinement this far from its start is worth a reader's look; less is the noise of the method."""
REFINE_METHODS = ("ants", "torch", "none")
POOR = 0.35
"""Criterion below which a refined brain may have hardly any fluid around it, so that the outline of the template's fluid pulls it askew: a
number without unit, at most 1.3, the higher of those before and after. Spina bifida has 0.24–0.34, normal fetuses on another atlas 0.4–1.1,
newborns 0.38–0.54 (docs/experiments.md, 15)."""
CLEARLY = 1.2
"""How many times as high the criterion must be against the template without its outer fluid for that one to be believed: a ratio of two
criteria. Set on FidonSBA (spina bifida) and checked on CHN, Serag and newborns (docs/experiments.md, 15)."""


@dataclass(frozen=True, eq=False)
class Refined:
    """``pose`` after refinement by ``method``; ``similarity`` holds, by name, the value ``before`` and ``after``, always against the whole
    template; ``template`` says against what of it the pose was refined, :data:`~posepipe.settings.WHOLE` or
    :data:`~posepipe.settings.WITHOUT_FLUID`."""

    pose: Rigid
    method: str
    similarity: dict[str, dict[str, float]]
    warnings: tuple[str, ...] = ()
    template: str = WHOLE


def refine_pose(
    image: Volume,
    mask: Volume,
    target: Target,
    start: Rigid,
    *,
    method: str = "ants",
    seed: int = 0,
    device: torch.device | str = "cpu",
    compare: Comparison | None = None,
) -> Refined:
    """Refine ``start`` (template → image, RAS mm) of ``image`` with brain ``mask`` on the same grid.

    ``ants``: multi-resolution rigid registration of the prepared brains, Mattes mutual information; ``torch``: Gauss–Newton on
    the correlation ratio of outline and texture (:mod:`posepipe.matching.gauss_newton`), at the end on mutual information; ``none`` only
    measures. A brain that fits poorly is refined against the template without its outer fluid as well; where it fits that one clearly
    better, it has no fluid around it itself, and that pose is taken. If afterwards neither the criterion that judges hypotheses (texture
    and outline) is higher nor the mutual information, inside both masks or of the cut-out brains at the best size, the start is kept; a
    warning says so if the two poses differ by more than 5°.
    ``compare`` as in :func:`~posepipe.pose.initial.initial_pose`.
    """
    if method not in REFINE_METHODS:
        msg = f"unknown refinement {method!r}: choose from {', '.join(REFINE_METHODS)}"
        raise ValueError(msg)
    compare = compare or Comparison.of(image, mask, target, device)
    before = _measured(compare, start)
    if method == "none":
        return Refined(start, method, _both(before, before))

    def by(this: Comparison) -> Rigid:
        if method == "torch":
            return this.refined(start)
        from .ants import ants_rigid  # antspyx takes seconds to import

        return ants_rigid(this.brain, this.target.brain, start, seed=seed, source=image.source)

    pose = by(compare)
    after = _measured(compare, pose)
    bare = _bare(compare, start, max(before["CR"], after["CR"]))
    if bare is None:
        better, against = _better(compare, pose, start, after, before), WHOLE
    else:
        LOGGER.info("%s: fits %s clearly better without the fluid around it", image.source, target.name)
        other, pose = bare
        against = WITHOUT_FLUID
        if method != "torch":
            pose = by(other)
        after = _measured(compare, pose)
        better = _better(other, pose, start, _measured(other, pose), _measured(other, start))
    warnings: tuple[str, ...] = ()
    if not better:
        astray = pose.degrees_from(start)
        LOGGER.info("%s: %s found nothing better than its start (it ended %.1f° away)", image.source, method, astray)
        if astray > ASTRAY_DEGREES:
            warnings = (f"refinement by {method} went astray by {astray:.0f}°; its start was kept",)
        pose, after = start, before
    return Refined(pose, method, _both(before, after), warnings, against)


def _bare(compare: Comparison, start: Rigid, score: float) -> tuple[Comparison, Rigid] | None:
    """The comparison with the template without its outer fluid, and ``start`` refined by it (torch), if a brain of this ``score`` against
    the whole template then fits clearly better."""
    bare = compare.without_fluid if score < POOR else None
    if bare is None:
        return None
    pose = bare.refined(start)
    return (bare, pose) if bare.score(pose) >= CLEARLY * score else None


def _better(compare: Comparison, pose: Rigid, start: Rigid, after: dict[str, float], before: dict[str, float]) -> bool:
    """Whether ``pose``, measured as ``after``, is better than ``start`` by any measure. The information that the cut-out brains share is
    measured only where the others are against it."""
    if after["CR"] >= before["CR"] or after["NMI"] > before["NMI"]:
        return True
    return compare.mutual_score(pose) > compare.mutual_score(start)


def _both(before: dict[str, float], after: dict[str, float]) -> dict[str, dict[str, float]]:
    return {k: {"before": v, "after": after[k]} for k, v in before.items()}


def _measured(compare: Comparison, pose: Rigid) -> dict[str, float]:
    """The similarities at ``pose``; ``CR``: the criterion by which hypotheses are judged; ``CoarseCR``: of coarse texture alone."""
    scores = {"CR": compare.score(pose), "CoarseCR": compare.coarse_score(pose)}
    return {**similarity(compare.brain, compare.target.brain, pose), **scores}
