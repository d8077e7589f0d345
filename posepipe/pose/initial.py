"""Initial pose against a template: by networks (posepipe's or the paper's), search over all rotations, principal axes, or the centre."""

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
from .coordinate_networks import NetworkInput, PoseNetworks
from .hypothesis import LOW_CRITERION, SAME_DEGREES, Hypothesis, Ranked, fits, measured
from .multistart import ATTEMPTS
from .search import distinct_hypotheses, search

INIT_METHODS = ("auto", "deep", "posenet", "search", "axes", "center")


@dataclass(frozen=True, eq=False)
class NetworkPrediction:
    """The networks' prediction for an image, independent of the method that finds the final pose: ``pose`` (template → image), ``features``
    (indicators of reliability), ``weights`` (name → SHA-256), and ``reliable`` (:meth:`PoseNetworks.reliable`)."""

    pose: Rigid
    features: dict[str, float]
    weights: dict[str, str] = field(default_factory=dict)
    reliable: bool = False

    @classmethod
    def of(cls, pose: Rigid, features: dict[str, float], networks: PoseNetworks) -> NetworkPrediction:
        """The prediction ``pose`` with ``features`` of these ``networks``."""
        return cls(pose, features, networks.sha256, networks.reliable(features))


@dataclass(frozen=True, eq=False)
class InitialPose:
    """``pose`` by ``method``: the best of the ranked hypotheses ``found`` (one for ``center`` and ``posenet``, four for ``axes``).

    Criterion and coarse texture of the best hypothesis are always computed; ``votes`` of all hypotheses if networks were given.
    ``scale`` is the fitted size of the image over the template's; ``prediction`` is None without networks.
    """

    pose: Rigid
    method: str
    found: Ranked
    scale: float
    prediction: NetworkPrediction | None = None

    @property
    def best(self) -> Hypothesis:
        """The hypothesis with this pose."""
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

    - ``deep``: the networks' pose, without any comparison of intensities.
    - ``posenet``: the paper's Pose-Net, then Correction-Net.
    - ``search``: search over all rotations.
    - ``auto``: refine the networks' hypotheses. If their votes disagree, refinement moves the pose, or the criterion is low, search over
      all rotations with the networks' hypotheses as additional starts. The best-ranked hypothesis is used; ``method`` of the
      result is ``deep`` or ``search``, its origin. If both scores stay low (:func:`~posepipe.pose.hypothesis.fits`), the networks'
      first hypothesis is used.
    - ``axes``: align the principal axes of the masks, with the best of the four proper sign choices.
    - ``center``: keep the header's orientation and align the centres of the masks.

    ``search`` and ``auto`` add a :func:`~posepipe.pose.multistart.multistart_search` if the criterion is low.

    ``age_known``: the template is of the subject's age, so that its size is used as the subject's. ``compare`` is the comparison, if
    already computed. ``networks`` are loaded networks: without them ``auto`` is ``search``, and ``deep`` and ``posenet`` load those of the
    package; for the other methods they only provide the ``prediction``. ``found`` is the pose of the masking network.

    Raises :class:`ValueError` for an unknown method, :class:`~posepipe.errors.MaskError` for an empty mask,
    :class:`~posepipe.errors.WeightsError` for networks that cannot be loaded.
    """
    if method not in INIT_METHODS:
        msg = f"unknown initial pose {method!r}: choose from {', '.join(INIT_METHODS)}"
        raise ValueError(msg)
    if networks is None and method in {"deep", "posenet"}:
        networks = PoseNetworks(device=str(device))
    compare = compare or Comparison.of(image, mask, target, device)
    proposed = network_hypotheses(compare.brain, target, networks, found) if networks else ()
    votes = tuple(h for h, _ in proposed)
    prediction = NetworkPrediction.of(proposed[0][0].pose, proposed[0][1], networks) if networks else None
    if networks and prediction and method == "posenet":
        pose = networks.paper.pose(compare, networks.canonical(target))
        prediction = replace(prediction, weights={**prediction.weights, **networks.paper.sha256})
        return _result(compare, single_hypothesis(compare, pose), method, prediction, votes)
    if networks and prediction and method == "auto":
        ranked, method = _auto(compare, votes, prediction, networks, age_known=age_known)
    elif method == "deep":
        ranked = Ranked(tuple(measured(compare, h) for h in votes), "votes")
    elif method == "center":
        ranked = single_hypothesis(compare, Rigid.about(np.eye(3), target.brain.center, compare.brain.center))
    elif method == "axes":
        ranked = axes(compare)
    else:
        ranked, method = search(compare, age_known=age_known), "search"
    return _result(compare, ranked, method, prediction, votes)


def network_hypotheses(
    brain: NetworkInput, target: Target, networks: PoseNetworks, found: FoundPose | None = None
) -> tuple[tuple[Hypothesis, dict[str, float]], ...]:
    """The networks' hypotheses, most votes first, each with its features."""
    to_canonical, template = networks.canonical(target), target.brain
    hypotheses = []
    for p in networks.place(brain, found):
        pose, share, votes = p.pose(to_canonical, template), p.features["brain_share"], p.features["votes"]
        hypotheses.append((Hypothesis(pose, p.log_scale(template), share, votes=votes), p.features))
    return tuple(hypotheses)


def axes(compare: Comparison) -> Ranked:
    """The four proper rotations that align the masks' principal axes."""
    image, target = compare.brain, compare.target
    mine, theirs = image.moments.axes, target.brain.moments.axes
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
    rotation = np.stack([theirs @ np.diag(s) @ mine.T for s in signs])
    scale = target.log_scale(image)
    device = image.image.device
    poses = Poses(tensor(rotation, device), torch.zeros(4, 3, device=device), torch.full((4,), scale, device=device))
    overlap = fit(compare.outline_terms, poses, 0).overlap
    found = (Hypothesis(compare.rigid(poses, i), scale, float(overlap[i])) for i in range(4))
    return Ranked.of((measured(compare, h) for h in found), "criterion")


def single_hypothesis(compare: Comparison, pose: Rigid) -> Ranked:
    """A single hypothesis ``pose``, as from ``center`` and ``posenet``; the scale is 1."""
    return Ranked((measured(compare, Hypothesis(pose, 0.0, 1.0)),), "criterion")


def _auto(
    compare: Comparison, proposed: tuple[Hypothesis, ...], prediction: NetworkPrediction, networks: PoseNetworks, *, age_known: bool
) -> tuple[Ranked, str]:
    """Hypotheses by the method ``auto``, and the origin of the best one: ``deep`` or ``search``."""
    rough = reduce(Poses.concat, [compare.poses(h.pose, h.log_scale) for h in proposed])
    refined = distinct_hypotheses(compare, compare.fit_criterion(rough))
    agreed = prediction.features["votes"] == 1.0 and refined.best.pose.degrees_from(prediction.pose) < SAME_DEGREES
    if agreed and refined.best.score("criterion") >= LOW_CRITERION:
        return refined, "deep"
    attempts = 1 if prediction.reliable else ATTEMPTS
    found = search(compare, age_known=age_known, also=rough, more=lambda: _multistart_poses(compare, networks), attempts=attempts)
    best = measured(compare, found.best)
    if not fits(best.score("criterion"), best.score("coarse")):
        return _networks_first(proposed[0], refined, found), "deep"
    own = min(best.pose.degrees_from(h.pose) for h in refined.hypotheses) < SAME_DEGREES
    return found, "deep" if own else "search"


def _networks_first(first: Hypothesis, refined: Ranked, found: Ranked) -> Ranked:
    """The networks' ``first`` hypothesis, refined if the refined pose agrees with it, then the other hypotheses in ``found``."""
    near = [h for h in refined.hypotheses if h.pose.degrees_from(first.pose) < SAME_DEGREES]
    best = replace(near[0], votes=first.votes) if near else first
    others = (h for h in found.hypotheses if h.pose.degrees_from(best.pose) >= SAME_DEGREES)
    return Ranked((best, *others), "votes")


def _multistart_poses(compare: Comparison, networks: PoseNetworks) -> Poses:
    """Poses of :meth:`PoseNetworks.place_multistart`."""
    to_canonical, template = networks.canonical(compare.target), compare.target.brain
    found = networks.place_multistart(compare.brain)
    return reduce(Poses.concat, [compare.poses(p.pose(to_canonical, template), p.log_scale(template)) for p in found])


def _result(
    compare: Comparison, found: Ranked, method: str, prediction: NetworkPrediction | None, proposed: tuple[Hypothesis, ...]
) -> InitialPose:
    best, *others = found.hypotheses
    known = (measured(compare, best), *others)
    if prediction is not None:
        known = tuple(replace(h, votes=_votes(h, proposed)) for h in known)
    return InitialPose(best.pose, method, Ranked.of(known, found.by), float(np.exp(-best.log_scale)), prediction)


def _votes(hypothesis: Hypothesis, proposed: tuple[Hypothesis, ...]) -> float:
    """Fraction of the networks' votes for the pose of ``hypothesis``."""
    if hypothesis.votes is not None:
        return hypothesis.votes
    return max((h.score("votes") for h in proposed if h.pose.degrees_from(hypothesis.pose) < SAME_DEGREES), default=0.0)
