"""Refinement of a pose: ANTs, torch, or none. The result is never worse than the start."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..geometry import Rigid
from ..imaging.volume import Volume
from .brain import Brain
from .fit import Fitted, Points, Poses, fit
from .levels import outline, texture
from .search import OUTLINE_SHARE
from .similarity import similarity
from .target import SPACING, Target

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
) -> Refined:
    """Refine ``start`` (template → image, RAS mm) of ``image`` with brain ``mask`` on the same grid.

    ``ants``: multi-resolution rigid registration, Mattes mutual information inside the masks; ``torch``: Gauss–Newton on the correlation
    ratio of outline, then texture (:mod:`posepipe.registration.fit`); ``none`` only measures. If the criterion that judges hypotheses
    (texture and outline) is lower after than before, the start is kept and a warning says so.
    """
    if method not in REFINE_METHODS:
        msg = f"unknown refinement {method!r}: choose from {', '.join(REFINE_METHODS)}"
        raise ValueError(msg)
    judge = _Judge(Brain.prepare(image, mask, SPACING, device), target)
    before = similarity(judge.brain, target.brain, start)
    if method == "none":
        return Refined(start, method, {k: {"before": v, "after": v} for k, v in before.items()})
    if method == "torch":
        pose = judge.refined(start)
    else:
        from .ants_refine import ants_rigid  # antspyx takes seconds to import

        pose = ants_rigid(image, mask, target, start, threads=threads, seed=seed)
    warnings: tuple[str, ...] = ()
    if judge.score(pose) < judge.score(start) - 1e-3:
        warnings = (f"refinement by {method} ended worse than its start; the start was kept",)
        pose = start
    after = similarity(judge.brain, target.brain, pose)
    return Refined(pose, method, {k: {"before": v, "after": after[k]} for k, v in before.items()}, warnings)


class _Judge:
    """The criterion for one image and template, with its points made once."""

    def __init__(self, brain: Brain, target: Target) -> None:
        self.brain, self.target = brain, target
        self._outline: Points = outline(brain, 2).points(4000)
        self._texture: Points = texture(brain, 1).points(20_000)

    def _poses(self, pose: Rigid) -> Poses:
        return Poses.from_rigid(
            pose,
            self.brain.center,
            self.target.brain.center,
            self.target.log_scale(self.brain),
            self.brain.image.device,
        )

    def _fit(self, poses: Poses, iterations: int) -> Fitted:
        return fit(self.target.fine_texture, self._texture, poses, iterations)

    def score(self, pose: Rigid) -> float:
        """Texture's correlation ratio plus a share of the outline's, size being free (refitted from the masks' ratio)."""
        poses = self._sized(self._poses(pose))
        edges = fit(self.target.coarse_outline, self._outline, poses, 0)
        return float(self._fit(poses, 0).ratio[0]) + OUTLINE_SHARE * float(edges.ratio[0])

    def _sized(self, poses: Poses) -> Poses:
        """The same pose at the best of a few sizes, so that poses are compared, not sizes."""
        sizes = torch.linspace(-0.15, 0.15, 7, device=poses.log_scale.device)
        scale = poses.log_scale + sizes
        grown = Poses(
            poses.rotation.expand(7, 3, 3), poses.shift * (scale - poses.log_scale).exp()[:, None], scale.contiguous()
        )
        ratio = fit(self.target.coarse_outline, self._outline, grown, 0).ratio
        return grown.pick(ratio.argmax()[None])

    def refined(self, start: Rigid) -> Rigid:
        """Outline first, which reaches further, then texture."""
        poses = fit(self.target.coarse_outline, self._outline, self._poses(start), 10).poses
        poses = self._fit(poses, 8).poses
        return poses.rigid(0, self.brain.center, self.target.brain.center)
