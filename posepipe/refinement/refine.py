"""Refinement of a pose by ANTs, torch, or none. A result that is worse than the start by every measure is discarded."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial

import torch

from ..geometry import Rigid
from ..imaging.volume import Volume
from ..matching.comparison import Comparison
from ..matching.similarity import similarity
from ..matching.target import Target
from ..settings import WHOLE, WITHOUT_CSF

LOGGER = logging.getLogger(__name__)
DISCARDED_DEGREES = 5.0
"""A discarded refinement leads to a warning if it moved the pose by more than this, degrees; less is the method's noise."""
REFINE_METHODS = ("ants", "torch", "none")
CSF_CRITERION = 0.35
"""Criterion below which the template without extra-axial CSF is tried as well: the brain may have hardly any such CSF, and the outline of
the template's would then bias the pose. Dimensionless, at most 1.3; compared with the higher of the values before and after refinement.
Spina bifida has 0.24–0.34, normal fetuses on another atlas 0.4–1.1, newborns 0.38–0.54 (docs/decisions/014)."""
CSF_RATIO = 1.2
"""Ratio of the criteria without and with extra-axial CSF from which the template without it is used. Set on FidonSBA (spina bifida) and
checked on CHN, Serag and newborns (docs/decisions/014)."""


@dataclass(frozen=True, eq=False)
class Refined:
    """``pose`` after refinement by ``method``. ``similarity`` maps each measure to its values ``before`` and ``after``, always against the
    whole template. ``template`` is the part of the template that the pose was refined against, :data:`~posepipe.settings.WHOLE` or
    :data:`~posepipe.settings.WITHOUT_CSF`."""

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
    computes the similarity.

    If the criterion is below :data:`CSF_CRITERION`, the brain is also refined against the template without extra-axial CSF, and that pose
    is used if the criterion is at least :data:`CSF_RATIO` times as high. The start is kept if the refined pose increases neither the
    criterion, nor the mutual information inside both masks, nor that of the masked brains at the best scale; a warning says so if the two
    poses differ by more than 5°. ``compare`` as in :func:`~posepipe.pose.initial.initial_pose`.
    """
    if method not in REFINE_METHODS:
        msg = f"unknown refinement {method!r}: choose from {', '.join(REFINE_METHODS)}"
        raise ValueError(msg)
    compare = compare or Comparison.of(image, mask, target, device)
    before = _measured(compare, start)
    if method == "none":
        return Refined(start, method, _both(before, before))

    register = _torch if method == "torch" else partial(_ants, seed=seed, source=image.source)
    pose = register(compare, start)
    after = _measured(compare, pose)
    no_csf = _against_template_without_csf(compare, start, max(before["CR"], after["CR"]))
    if no_csf is None:
        better, against = _better(compare, pose, start, after, before), WHOLE
    else:
        LOGGER.info("%s: matches %s clearly better without extra-axial CSF", image.source, target.name)
        other, pose = no_csf
        against = WITHOUT_CSF
        if method != "torch":
            pose = register(other, start)
        after = _measured(compare, pose)
        better = _better(other, pose, start, _measured(other, pose), _measured(other, start))
    if better:
        return Refined(pose, method, _both(before, after), (), against)
    return Refined(start, method, _both(before, before), _discarded(pose, start, method, image.source), against)


def _torch(compare: Comparison, start: Rigid) -> Rigid:
    return compare.refined(start)


def _ants(compare: Comparison, start: Rigid, *, seed: int, source: str) -> Rigid:
    from .ants import ants_rigid  # antspyx takes seconds to import

    return ants_rigid(compare.brain, compare.target.brain, start, seed=seed, source=source)


def _discarded(pose: Rigid, start: Rigid, method: str, source: str) -> tuple[str, ...]:
    """Log that the refined ``pose`` is not used; a warning as well if it is far from the ``start``."""
    moved = pose.degrees_from(start)
    LOGGER.info("%s: %s did not improve the initial pose (it moved it by %.1f°)", source, method, moved)
    if moved <= DISCARDED_DEGREES:
        return ()
    return (f"refinement by {method} moved the pose by {moved:.0f}° without improving it; the initial pose was kept",)


def at_pose(refined: Refined, compare: Comparison, pose: Rigid) -> Refined:
    """``refined`` with another ``pose`` and the similarity after refinement there; ``compare`` is the image against the whole template."""
    after = _measured(compare, pose)
    both = {name: {"before": values["before"], "after": after[name]} for name, values in refined.similarity.items()}
    return replace(refined, pose=pose, similarity=both)


def _against_template_without_csf(compare: Comparison, start: Rigid, score: float) -> tuple[Comparison, Rigid] | None:
    """The comparison with the template without extra-axial CSF, and ``start`` refined by it (torch); None if ``score``, the criterion with
    the whole template, is high, or if the criterion without CSF is not clearly higher."""
    no_csf = compare.without_csf if score < CSF_CRITERION else None
    if no_csf is None:
        return None
    pose = no_csf.refined(start)
    return (no_csf, pose) if no_csf.score(pose) >= CSF_RATIO * score else None


def _better(compare: Comparison, pose: Rigid, start: Rigid, after: dict[str, float], before: dict[str, float]) -> bool:
    """Whether ``pose`` (measures ``after``) is better than ``start`` by any measure. The mutual information of the masked brains is
    computed only if the other measures are not better."""
    if after["CR"] >= before["CR"] or after["NMI"] > before["NMI"]:
        return True
    return compare.mutual_score(pose) > compare.mutual_score(start)


def _both(before: dict[str, float], after: dict[str, float]) -> dict[str, dict[str, float]]:
    return {k: {"before": v, "after": after[k]} for k, v in before.items()}


def _measured(compare: Comparison, pose: Rigid) -> dict[str, float]:
    """The similarity measures at ``pose``; ``CR``: the criterion that ranks hypotheses; ``CoarseCR``: correlation ratio of coarse
    texture."""
    scores = {"CR": compare.score(pose), "CoarseCR": compare.coarse_score(pose)}
    return {**similarity(compare.brain, compare.target.brain, pose), **scores}
