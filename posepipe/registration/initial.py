"""Initial pose against a template: by networks (ours or the paper's pair), by search over all rotations, by axes, by the centre."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import torch

from ..geometry import Rigid
from ..imaging.sampling import tensor
from ..imaging.volume import Volume
from .closer import ATTEMPTS, NO_FIT, SURE
from .comparison import Comparison
from .deep import Glance, PoseNetworks, Seen
from .fit import Poses, fit
from .search import DOUBT, Hypothesis, distinct_hypotheses, search
from .target import Target

INIT_METHODS = ("auto", "deep", "posenet", "search", "axes", "center")
AGREE_DEGREES = 10.0
"""``auto`` searches unless all votes of the networks are one, polishing moved their pose by less than this, and the fit is not in doubt."""
SURE_VOTES, SURE_ERROR = 0.75, 0.02
"""Networks of whose votes so many are one, and which expect no larger an error (brain radii), are hardly ever wrong, whatever the fit
(docs/experiments-deep.md, 8)."""


@dataclass(frozen=True, eq=False)
class Witness:
    """What the networks say of an image, whichever method finds its pose: ``pose`` (template → image), ``features`` that tell how sure
    they are, and the SHA-256 of their ``weights`` by name."""

    pose: Rigid
    features: dict[str, float]
    weights: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class InitialPose:
    """``pose`` by ``method``; ``hypotheses`` best first (one for ``center`` and ``posenet``, four for ``axes``).

    ``scale`` is the fitted size of the image over the template's; ``margin`` the lead in score over the best hypothesis more than 30°
    away (None if there is none); ``witness`` what the networks say (None if they were not asked).
    """

    pose: Rigid
    method: str
    hypotheses: tuple[Hypothesis, ...]
    scale: float
    margin: float | None
    witness: Witness | None = None


def initial_pose(
    image: Volume,
    mask: Volume,
    target: Target,
    *,
    method: str = "auto",
    age_known: bool = True,
    device: torch.device | str = "cpu",
    compare: Comparison | None = None,
    networks: PoseNetworks | None = None,
) -> InitialPose:
    """Pose (template → image, RAS mm) of ``image`` with brain ``mask`` on the same grid.

    ``deep`` is the networks' pose, untouched by any comparison of intensities; ``posenet`` that of the paper's Pose-Net, then
    Correction-Net. ``search`` tries all rotations. ``auto`` polishes the
    networks' hypotheses and, where they are not of one mind, polishing leads away or the fit is poor, searches too, their
    hypotheses among the bank's; the best by similarity wins, and ``method`` of the result says whose it was. Where that fits
    poorly as well, search and ``auto`` take a :func:`~posepipe.registration.closer.closer_look`. Where nothing comes of that, ``auto``
    keeps to the networks, the sooner the surer they are: the image has next to no contrast to compare. ``axes`` aligns the
    principal axes of the masks, by the best of the four proper sign choices; ``center`` keeps the header's orientation and brings the
    centres together.

    With ``age_known`` the template is of the subject's age, so that its size tells the subject's. ``compare`` is the image and the target
    made ready, if at hand already. ``networks`` are the networks loaded: without them ``auto`` is ``search``, and ``deep`` and ``posenet``
    load those of the package; the other methods ask them as a witness only.

    Raises :class:`ValueError` for an unknown method, :class:`~posepipe.errors.MaskError` for an empty mask,
    :class:`~posepipe.errors.WeightsError` for networks that cannot be loaded.
    """
    if method not in INIT_METHODS:
        msg = f"unknown initial pose {method!r}: choose from {', '.join(INIT_METHODS)}"
        raise ValueError(msg)
    if networks is None and method in {"deep", "posenet"}:
        networks = PoseNetworks(device=str(device))
    if compare is None and method not in {"center", "deep"}:
        compare = Comparison.of(image, mask, target, device)
    brain = compare.brain if compare else Glance.of(image, mask, device)
    seen = network_hypotheses(brain, target, networks) if networks else ()
    witness = Witness(seen[0][0].pose, seen[0][1], networks.sha256) if networks else None
    if method == "deep":
        return _result(tuple(h for h, _ in seen), "deep", witness)
    if compare is None or method == "center":
        return _single(Rigid.about(np.eye(3), target.brain.center, brain.center), "center", witness)
    if method == "posenet" and networks and witness:
        pose = networks.paper.pose(compare, networks.canonical(target))
        both = Witness(witness.pose, witness.features, {**witness.weights, **networks.paper.sha256})
        return _single(pose, "posenet", both)
    if method == "axes":
        return _result(axes(compare), "axes", witness)
    if method == "search" or witness is None or networks is None:
        return _result(search(compare, age_known=age_known), "search", witness)
    return _auto(compare, tuple(h for h, _ in seen), witness, networks, age_known=age_known)


def network_hypotheses(brain: Seen, target: Target, networks: PoseNetworks) -> tuple[tuple[Hypothesis, dict[str, float]], ...]:
    """The networks' hypotheses, most votes first, with what tells how sure they are. ``score`` is the share of votes."""
    to_canonical, template = networks.canonical(target), target.brain
    return tuple(
        (Hypothesis(p.pose(to_canonical, template), p.features["votes"], p.log_scale(template), p.features["brain_share"]), p.features)
        for p in networks.place(brain)
    )


def axes(compare: Comparison) -> tuple[Hypothesis, ...]:
    """The four proper ways to lay the masks' principal axes on each other, best similarity first."""
    image, target = compare.brain, compare.target
    mine, theirs = image.moments.axes, target.brain.moments.axes
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
    rotation = np.stack([theirs @ np.diag(s) @ mine.T for s in signs])
    scale = target.log_scale(image)
    device = image.image.device
    poses = Poses(tensor(rotation, device), torch.zeros(4, 3, device=device), torch.full((4,), scale, device=device))
    scored = fit(compare.outlines, poses, 0)
    return tuple(
        Hypothesis(compare.rigid(poses, int(i)), float(scored.criterion[i]), scale, float(scored.overlap[i]))
        for i in scored.criterion.argsort(descending=True)
    )


def _auto(
    compare: Comparison, seen: tuple[Hypothesis, ...], witness: Witness, networks: PoseNetworks, *, age_known: bool
) -> InitialPose:
    rough = reduce(Poses.beside, [compare.poses(h.pose, h.log_scale) for h in seen])
    polished = distinct_hypotheses(compare, compare.judged(rough))
    best = polished[0]
    agreed = witness.features["votes"] == 1.0 and best.pose.degrees_from(witness.pose) < AGREE_DEGREES
    if agreed and best.score >= DOUBT:
        return _result(polished, "deep", witness)
    sure = witness.features["votes"] >= SURE_VOTES and witness.features["expected_error"] <= SURE_ERROR
    attempts = 1 if sure else ATTEMPTS
    found = search(compare, age_known=age_known, also=rough, more=lambda: _surveyed(compare, networks), attempts=attempts)
    if found[0].score < DOUBT and compare.coarse_score(found[0].pose) < (SURE if sure else NO_FIT):
        best, *others = _kept(compare, seen[0], polished, found)
        # if nobody is sure, the score says so too
        known = best if sure else replace(best, score=compare.coarse_score(best.pose))
        return _result((known, *others), "deep", witness)
    method = "deep" if min(found[0].pose.degrees_from(h.pose) for h in polished) < AGREE_DEGREES else "search"
    return _result(found, method, witness)


def _kept(
    compare: Comparison, first: Hypothesis, polished: tuple[Hypothesis, ...], found: tuple[Hypothesis, ...]
) -> tuple[Hypothesis, ...]:
    """The networks' ``first`` hypothesis, polished where that stayed with it, and what else was ``found``."""
    near = [h for h in polished if h.pose.degrees_from(first.pose) < AGREE_DEGREES]
    best = near[0] if near else replace(first, score=compare.score(first.pose))
    return (best, *(h for h in found if h.pose.degrees_from(best.pose) >= AGREE_DEGREES))


def _surveyed(compare: Comparison, networks: PoseNetworks) -> Poses:
    """What the networks say when they look from everywhere."""
    to_canonical, template = networks.canonical(compare.target), compare.target.brain
    found = networks.survey(compare.brain)
    return reduce(Poses.beside, [compare.poses(p.pose(to_canonical, template), p.log_scale(template)) for p in found])


def _single(pose: Rigid, method: str, witness: Witness | None) -> InitialPose:
    return InitialPose(pose, method, (Hypothesis(pose, 0.0, 0.0, 0.0),), 1.0, None, witness)


def _result(found: tuple[Hypothesis, ...], method: str, witness: Witness | None) -> InitialPose:
    best = found[0]
    away = [best.score - h.score for h in found[1:] if h.pose.degrees_from(best.pose) > 30]
    return InitialPose(best.pose, method, found, float(np.exp(-best.log_scale)), min(away) if away else None, witness)
