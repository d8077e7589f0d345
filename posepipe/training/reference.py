"""Reference poses as in Salehi et al. 2018, §3.1.

The scan's grid is assumed to be roughly aligned with the head. The grid's axes are mapped to the head's axes in each of the 24 ways; each
is registered over several scales, and the best result is kept. As a check, the search over all rotations (``--init search``) must give
the same pose, and the brain must fit the template there. Otherwise the pose is in doubt, and is used for training only after a visual
check.
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
    """``pose`` (template → image, RAS mm), registered from the rotation ``candidate``, 0 to 23, of
    :func:`~posepipe.geometry.sampling.axis_rotations`; None: the pose is that of the search, which fits better.

    ``criterion`` and ``coarse`` texture: values at the pose (:mod:`posepipe.pose.hypothesis`). ``margin``: difference of the criterion
    between the best candidate and the best one with another pose, more than :data:`~posepipe.pose.hypothesis.RIVAL_DEGREES` (30°)
    away; None if all candidates lead to one pose. ``search_degrees``: angle between the best candidate's pose and that of the search.
    """

    pose: Rigid
    candidate: int | None
    criterion: float
    coarse: float
    margin: float | None
    search_degrees: float

    @property
    def doubt(self) -> str:
        """Why the pose must not be used for training without a visual check; empty if it may be.

        The two methods must agree within 15° (:data:`~posepipe.quality.confidence.WITHIN_DEGREES`, the limit within which a pose counts
        as right), and the brain must fit the template (:func:`~posepipe.pose.hypothesis.fits`): a brain that fits nowhere can get the
        same wrong pose by both methods.
        """
        found = []
        if self.search_degrees > WITHIN_DEGREES:
            found.append(f"the two methods for its reference pose differ by {self.search_degrees:.0f}°")
        if not fits(self.criterion, self.coarse):
            found.append(f"it fits the template poorly (criterion {self.criterion:.2f}, coarse texture {self.coarse:.2f})")
        return "; ".join(found)

    @property
    def agree(self) -> bool:
        """Whether the pose is not in doubt."""
        return not self.doubt

    def checked(self, source: str) -> ReferencePose:
        """This pose; raises :class:`~posepipe.errors.ImageError`, which names ``source``, if the pose is in doubt."""
        if self.doubt:
            msg = f"{source}: {self.doubt}; check it with posepipe-tools reference, and accept its pose there if it is right"
            raise ImageError(msg)
        return self


def reference_pose(image: Volume, mask: Volume, target: Target) -> ReferencePose:
    """The reference pose of ``image`` with brain ``mask`` on the same grid.

    The 24 rotations find the pose of heads up to 30° from their grid's axes (docs/tutorials/training.md). If the search gives a pose more
    than 15° away with a higher criterion, that pose is returned; it is then in doubt. Raises :class:`~posepipe.errors.MaskError` for an
    empty mask.
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
    """The best pose registered from ``rotations`` (n, 3, 3) about the brains' centres, the index of its rotation, and the margin."""
    centers = compare.target.brain.center, compare.brain.center
    starts = reduce(Poses.concat, [compare.poses(Rigid.about(rotation, *centers)) for rotation in rotations])
    poses = compare.multi_scale(compare.screened(starts).poses)
    judged = fit(compare.criterion_terms, poses, 0)
    found = [
        Hypothesis(compare.rigid(poses, i), float(poses.log_scale[i]), float(judged.overlap[i]), criterion=float(judged.criterion[i]))
        for i in range(len(poses))
    ]
    ranked = Ranked.of(found, "criterion")
    best = found.index(ranked.best)
    return compare.fit_mutual_information(poses.pick(torch.tensor([best], device=poses.log_scale.device))), best, ranked.lead()


def candidates(affine: Array, to_canonical: Array | None = None) -> Array:
    """Rotations (24, 3, 3), template → image, that map the axes of the head to the axes of the grid with this ``affine`` (4, 4).

    The direction cosines of the header are used for the directions of the grid's axes only, not for their anatomical meaning. The first
    axis of a left-handed grid is reversed, so that all are proper rotations. ``to_canonical`` (3, 3): rotation of the template's RAS
    world to the canonical frame; None: its axes are those of the head.
    """
    axes = np.asarray(affine, dtype=float)[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    if np.linalg.det(axes) < 0:
        axes = axes * [-1.0, 1.0, 1.0]
    upright = np.eye(3) if to_canonical is None else to_canonical
    found: Array = so3.project(axes) @ axis_rotations() @ upright
    return found
