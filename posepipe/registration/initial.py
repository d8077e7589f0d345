"""Initial pose of a brain against a template: centre, principal axes, or search over all rotations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..geometry import Rigid
from ..imaging.moments import moments
from ..imaging.sampling import tensor
from ..imaging.volume import Volume
from .comparison import Comparison
from .fit import Poses, fit
from .search import Hypothesis, search
from .target import Target

INIT_METHODS = ("auto", "search", "axes", "center")


@dataclass(frozen=True, eq=False)
class InitialPose:
    """``pose`` by ``method``; ``hypotheses`` best first (one for ``center``, four for ``axes``).

    ``scale`` is the fitted size of the image over the template's; ``margin`` the lead in score over the best hypothesis more than 30°
    away (None if there is none).
    """

    pose: Rigid
    method: str
    hypotheses: tuple[Hypothesis, ...]
    scale: float
    margin: float | None


def initial_pose(
    image: Volume,
    mask: Volume,
    target: Target,
    *,
    method: str = "auto",
    age_known: bool = True,
    device: torch.device | str = "cpu",
    compare: Comparison | None = None,
) -> InitialPose:
    """Pose (template → image, RAS mm) of ``image`` with brain ``mask`` on the same grid.

    ``center`` keeps the header's orientation and brings the centres together; ``axes`` aligns the principal axes of the masks, by
    the best of the four proper sign choices; ``search`` tries all rotations; ``auto`` is ``search``. With ``age_known`` the template is
    of the subject's age, so that its size tells the subject's. ``compare`` is the image and the
    target made ready, if at hand already.
    Raises :class:`ValueError` for an unknown method, :class:`~posepipe.errors.MaskError` for an empty mask.
    """
    if method not in INIT_METHODS:
        msg = f"unknown initial pose {method!r}: choose from {', '.join(INIT_METHODS)}"
        raise ValueError(msg)
    if method == "center":
        pose = Rigid.about(np.eye(3), target.brain.center, moments(mask).center)
        return InitialPose(pose, method, (Hypothesis(pose, 0.0, 0.0, 0.0),), 1.0, None)
    compare = compare or Comparison.of(image, mask, target, device)
    found = axes(compare) if method == "axes" else search(compare, age_known=age_known)
    best = found[0]
    away = [best.score - h.score for h in found[1:] if h.pose.degrees_from(best.pose) > 30]
    name = "axes" if method == "axes" else "search"
    return InitialPose(best.pose, name, found, float(np.exp(-best.log_scale)), min(away) if away else None)


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
