"""Reference poses as Salehi et al. 2018 made them (§3.1 of the paper): a scan prescribed to the head, the axes of its grid laid on those of
the head in each of the 24 ways, each registered over several scales, and the best kept.

A second way, the search over all rotations that ``--init search`` is, must come to the same pose and the brain must fit there: else the
pose is not to be learned from before somebody has looked at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch

from ..errors import ImageError
from ..geometry import Rigid, axis_rotations, so3
from ..geometry.so3 import Array
from ..imaging.volume import Volume
from ..matching.comparison import Comparison
from ..matching.gauss_newton import Poses, fit
from ..matching.target import Target
from ..pose.hypothesis import Hypothesis, Ranked, fits
from ..pose.initial import initial_pose
from ..quality.confidence import WITHIN_DEGREES


@dataclass(frozen=True, eq=False)
class ReferencePose:
    """``pose`` (template → image, RAS mm) that came of the rotation ``candidate`` of
    :func:`~posepipe.geometry.sampling.axis_rotations`, 0 to 23; None: it is that of the search, which fits better.

    ``criterion`` and ``coarse`` texture are those at the pose (:mod:`posepipe.pose.hypothesis`). ``margin`` is the criterion by
    which the best candidate leads the best that came to another pose, more than
    :data:`~posepipe.pose.hypothesis.RIVAL_DEGREES` (30°) away; None where all came to one. ``search_degrees`` is the angle between
    the best candidate's pose and that of the search.
    """

    pose: Rigid
    candidate: int | None
    criterion: float
    coarse: float
    margin: float | None
    search_degrees: float

    @property
    def doubt(self) -> str:
        """Why the pose is not to be learned from unseen; empty where nothing speaks against it.

        The two ways must come within 15° of each other (:data:`~posepipe.quality.confidence.WITHIN_DEGREES`, within which a pose
        counts as right everywhere), and the brain must fit (:func:`~posepipe.pose.hypothesis.fits`): what fits nowhere can have
        one and the same wrong pose both ways.
        """
        found = []
        if self.search_degrees > WITHIN_DEGREES:
            found.append(f"the two ways to find its pose are {self.search_degrees:.0f}° apart")
        if not fits(self.criterion, self.coarse):
            found.append(f"it fits the template poorly (criterion {self.criterion:.2f}, coarse texture {self.coarse:.2f})")
        return "; ".join(found)

    @property
    def agree(self) -> bool:
        """Whether nothing speaks against the pose."""
        return not self.doubt

    def told(self, source: str) -> ReferencePose:
        """This pose; raises :class:`~posepipe.errors.ImageError` where something speaks against it."""
        if self.doubt:
            msg = f"{source}: {self.doubt}; look at it with posepipe-tools reference, and accept its pose there if it is right"
            raise ImageError(msg)
        return self


def reference_pose(image: Volume, mask: Volume, target: Target) -> ReferencePose:
    """The reference pose of ``image`` with brain ``mask`` on the same grid.

    Heads up to 30° from their grid's axes are within reach of the 24 rotations (docs/training.md). Of one that lies farther, or is
    corrupted, the pose of the search is returned if that has the higher criterion; being apart, the two are in doubt all the same.
    Raises :class:`~posepipe.errors.MaskError` for an empty mask.
    """
    compare = Comparison.of(image, mask, target)
    pose, candidate, margin = _best_candidate(compare, candidates(image.affine, target.to_canonical))
    criterion = compare.score(pose)
    found = initial_pose(image, mask, target, method="search", compare=compare).pose
    apart = pose.degrees_from(found)
    if apart > WITHIN_DEGREES and (other := compare.score(refined := compare.refined(found))) > criterion:
        return ReferencePose(refined, None, other, compare.coarse_score(refined), margin, apart)
    return ReferencePose(pose, candidate, criterion, compare.coarse_score(pose), margin, apart)


def _best_candidate(compare: Comparison, rotations: Array) -> tuple[Rigid, int, float | None]:
    """The best pose that comes of ``rotations`` (n, 3, 3) about the brains' centres, which of them it was, and its lead."""
    centers = compare.target.brain.center, compare.brain.center
    starts = reduce(Poses.beside, [compare.poses(Rigid.about(rotation, *centers)) for rotation in rotations])
    poses = compare.multi_scale(compare.sketched(starts).poses)
    judged = fit(compare.judging, poses, 0)
    found = [
        Hypothesis(compare.rigid(poses, i), float(poses.log_scale[i]), float(judged.overlap[i]), criterion=float(judged.criterion[i]))
        for i in range(len(poses))
    ]
    ranked = Ranked.of(found, "criterion")
    best = found.index(ranked.best)
    return compare.finished(poses.pick(torch.tensor([best], device=poses.log_scale.device))), best, ranked.lead()


def candidates(affine: Array, to_canonical: Array | None = None) -> Array:
    """Rotations (24, 3, 3), template → image, that lay the axes of the grid with this ``affine`` (4, 4) on those of the head.

    The direction cosines are undone, so that the grid's axes are the world's, whatever the header says of them. Those of a left-handed
    grid mirror, which no pose may: its first axis is taken the other way round. ``to_canonical`` (3, 3) turns the template's RAS world
    upright; None: its axes are those of the head.
    """
    axes = np.asarray(affine, dtype=float)[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    if np.linalg.det(axes) < 0:
        axes = axes * [-1.0, 1.0, 1.0]
    upright = np.eye(3) if to_canonical is None else to_canonical
    found: Array = so3.project(axes) @ axis_rotations() @ upright
    return found
