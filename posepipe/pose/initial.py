"""Initial pose against a template: by networks (ours or the paper's pair), by search over all rotations, by axes, by the centre."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import torch

from ..geometry import Rigid
from ..imaging.mask import FoundPose
from ..imaging.sampling import tensor
from ..imaging.volume import Volume
from ..matching.comparison import Comparison
from ..matching.gauss_newton import Poses, fit
from ..matching.target import Target
from .coordinate_networks import PoseNetworks, Seen
from .hypothesis import DOUBT, NO_FIT, Hypothesis, Ranked, measured
from .multistart import ATTEMPTS, SURE
from .search import distinct_hypotheses, search

INIT_METHODS = ("auto", "deep", "posenet", "search", "axes", "center")
AGREE_DEGREES = 10.0
"""``auto`` searches unless all votes of the networks are one, polishing moved their pose by less than this, and the fit is not in doubt."""


@dataclass(frozen=True, eq=False)
class NetworkPrediction:
    """What the networks say of an image, whichever method finds its pose: ``pose`` (template → image), ``features`` that tell how sure
    they are, the SHA-256 of their ``weights`` by name, and whether they are so ``sure`` that they are hardly ever wrong."""

    pose: Rigid
    features: dict[str, float]
    weights: dict[str, str] = field(default_factory=dict)
    sure: bool = False

    @classmethod
    def of(cls, pose: Rigid, features: dict[str, float], networks: PoseNetworks) -> NetworkPrediction:
        """What ``networks`` say."""
        return cls(pose, features, networks.sha256, networks.sure(features))

    def supports(self, pose: Rigid) -> bool:
        """Whether the networks are sure of a pose, and this is it."""
        return self.sure and pose.degrees_from(self.pose) < AGREE_DEGREES


@dataclass(frozen=True, eq=False)
class InitialPose:
    """``pose`` by ``method``, the best of what was ``found`` (one for ``center`` and ``posenet``, four for ``axes``).

    Of the best, criterion and coarse texture are known whatever the method, and of all the share of votes, if the networks were asked.
    ``scale`` is the fitted size of the image over the template's; ``prediction`` what the networks say (None if they were not asked).
    """

    pose: Rigid
    method: str
    found: Ranked
    scale: float
    prediction: NetworkPrediction | None = None

    @property
    def best(self) -> Hypothesis:
        """The hypothesis whose pose it is."""
        return self.found.best

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """Best first."""
        return self.found.hypotheses


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
    found: FoundPose | None = None,
) -> InitialPose:
    """Pose (template → image, RAS mm) of ``image`` with brain ``mask`` on the same grid.

    ``deep`` is the networks' pose, untouched by any comparison of intensities; ``posenet`` that of the paper's Pose-Net, then
    Correction-Net. ``search`` tries all rotations. ``auto`` polishes the
    networks' hypotheses and, where they are not of one mind, polishing leads away or the fit is poor, searches too, their
    hypotheses among the bank's; the best by similarity wins, and ``method`` of the result says whose it was. Where that fits
    poorly as well, search and ``auto`` take a :func:`~posepipe.pose.multistart.closer_look`. Where nothing comes of that, ``auto``
    keeps to the networks, the sooner the surer they are: the image has next to no contrast to compare. ``axes`` aligns the
    principal axes of the masks, by the best of the four proper sign choices; ``center`` keeps the header's orientation and brings the
    centres together.

    With ``age_known`` the template is of the subject's age, so that its size tells the subject's. ``compare`` is the image and the target
    made ready, if at hand already. ``networks`` are the networks loaded: without them ``auto`` is ``search``, and ``deep`` and ``posenet``
    load those of the package; the other methods ask them as a prediction only. ``found`` is the pose that was found with the mask.

    Raises :class:`ValueError` for an unknown method, :class:`~posepipe.errors.MaskError` for an empty mask,
    :class:`~posepipe.errors.WeightsError` for networks that cannot be loaded.
    """
    if method not in INIT_METHODS:
        msg = f"unknown initial pose {method!r}: choose from {', '.join(INIT_METHODS)}"
        raise ValueError(msg)
    if networks is None and method in {"deep", "posenet"}:
        networks = PoseNetworks(device=str(device))
    compare = compare or Comparison.of(image, mask, target, device)
    seen = network_hypotheses(compare.brain, target, networks, found) if networks else ()
    votes = tuple(h for h, _ in seen)
    prediction = NetworkPrediction.of(seen[0][0].pose, seen[0][1], networks) if networks else None
    if networks and prediction and method == "posenet":
        pose = networks.paper.pose(compare, networks.canonical(target))
        prediction = replace(prediction, weights={**prediction.weights, **networks.paper.sha256})
        return _result(compare, alone(compare, pose), method, prediction, votes)
    if networks and prediction and method == "auto":
        ranked, method = _auto(compare, votes, prediction, networks, age_known=age_known)
    elif method == "deep":
        ranked = Ranked(tuple(measured(compare, h) for h in votes), "votes")
    elif method == "center":
        ranked = alone(compare, Rigid.about(np.eye(3), target.brain.center, compare.brain.center))
    elif method == "axes":
        ranked = axes(compare)
    else:
        ranked, method = search(compare, age_known=age_known), "search"
    return _result(compare, ranked, method, prediction, votes)


def network_hypotheses(
    brain: Seen, target: Target, networks: PoseNetworks, found: FoundPose | None = None
) -> tuple[tuple[Hypothesis, dict[str, float]], ...]:
    """The networks' hypotheses, most votes first, with what tells how sure they are."""
    to_canonical, template = networks.canonical(target), target.brain
    hypotheses = []
    for p in networks.place(brain, found):
        pose, share, votes = p.pose(to_canonical, template), p.features["brain_share"], p.features["votes"]
        hypotheses.append((Hypothesis(pose, p.log_scale(template), share, votes=votes), p.features))
    return tuple(hypotheses)


def axes(compare: Comparison) -> Ranked:
    """The four proper ways to lay the masks' principal axes on each other."""
    image, target = compare.brain, compare.target
    mine, theirs = image.moments.axes, target.brain.moments.axes
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
    rotation = np.stack([theirs @ np.diag(s) @ mine.T for s in signs])
    scale = target.log_scale(image)
    device = image.image.device
    poses = Poses(tensor(rotation, device), torch.zeros(4, 3, device=device), torch.full((4,), scale, device=device))
    overlap = fit(compare.outlines, poses, 0).overlap
    found = (Hypothesis(compare.rigid(poses, i), scale, float(overlap[i])) for i in range(4))
    return Ranked.of((measured(compare, h) for h in found), "criterion")


def alone(compare: Comparison, pose: Rigid) -> Ranked:
    """A ``pose`` that no hypothesis vies with, as center and Pose-Net give it; sizes are taken to agree."""
    return Ranked((measured(compare, Hypothesis(pose, 0.0, 1.0)),), "criterion")


def _auto(
    compare: Comparison, seen: tuple[Hypothesis, ...], prediction: NetworkPrediction, networks: PoseNetworks, *, age_known: bool
) -> tuple[Ranked, str]:
    """What ``auto`` finds, and whose it is."""
    rough = reduce(Poses.beside, [compare.poses(h.pose, h.log_scale) for h in seen])
    polished = distinct_hypotheses(compare, compare.judged(rough))
    agreed = prediction.features["votes"] == 1.0 and polished.best.pose.degrees_from(prediction.pose) < AGREE_DEGREES
    if agreed and polished.best.score("criterion") >= DOUBT:
        return polished, "deep"
    attempts = 1 if prediction.sure else ATTEMPTS
    found = search(compare, age_known=age_known, also=rough, more=lambda: _surveyed(compare, networks), attempts=attempts)
    best = measured(compare, found.best)
    if best.score("criterion") < DOUBT and best.score("coarse") < (SURE if prediction.sure else NO_FIT):
        return _kept(seen[0], polished, found), "deep"
    own = min(best.pose.degrees_from(h.pose) for h in polished.hypotheses) < AGREE_DEGREES
    return found, "deep" if own else "search"


def _kept(first: Hypothesis, polished: Ranked, found: Ranked) -> Ranked:
    """The networks' ``first`` hypothesis, polished where that stayed with it, and what else was ``found``."""
    near = [h for h in polished.hypotheses if h.pose.degrees_from(first.pose) < AGREE_DEGREES]
    best = replace(near[0], votes=first.votes) if near else first
    others = (h for h in found.hypotheses if h.pose.degrees_from(best.pose) >= AGREE_DEGREES)
    return Ranked((best, *others), "votes")


def _surveyed(compare: Comparison, networks: PoseNetworks) -> Poses:
    """What the networks say when they look from everywhere."""
    to_canonical, template = networks.canonical(compare.target), compare.target.brain
    found = networks.survey(compare.brain)
    return reduce(Poses.beside, [compare.poses(p.pose(to_canonical, template), p.log_scale(template)) for p in found])


def _result(
    compare: Comparison, found: Ranked, method: str, prediction: NetworkPrediction | None, seen: tuple[Hypothesis, ...]
) -> InitialPose:
    best, *others = found.hypotheses
    known = (measured(compare, best), *others)
    if prediction is not None:
        known = tuple(replace(h, votes=_votes(h, seen)) for h in known)
    return InitialPose(best.pose, method, Ranked.of(known, found.by), float(np.exp(-best.log_scale)), prediction)


def _votes(hypothesis: Hypothesis, seen: tuple[Hypothesis, ...]) -> float:
    """The share of the networks' votes for the pose that ``hypothesis`` is."""
    if hypothesis.votes is not None:
        return hypothesis.votes
    return max((h.score("votes") for h in seen if h.pose.degrees_from(hypothesis.pose) < AGREE_DEGREES), default=0.0)
