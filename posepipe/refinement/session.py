"""The images of one session: how far their poses are apart, which of them show the head in one place, and the pose of these.

Images of one examination share the scanner's frame. As long as the head lies still, the pose atlas → world is therefore the same for all of
them, whatever their contrast, resolution and field of view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from ..geometry import Rigid, mean_pose
from ..matching.comparison import Comparison
from ..matching.joint import JointComparison

AGREE_DEGREES = 5.0
"""Largest angle between two images' poses, degrees, for the head to count as having lain still between them. T1w and T2w of newborns
A01–A12, whose heads have exactly one pose, were found at most 3.3° apart (96 pairs); a fetus that turned between raw stacks, 17–23°
(docs/decisions/042)."""
AGREE_MM = 3.0
"""Largest distance between the places of the brain's centre, mm, for the same. Those newborns: at most 1.9 mm (docs/decisions/042)."""
JOINT, MEAN = "joint", "mean"
"""How a shared pose was made: refined on all images, or their mean, where the refinement did not improve on it or left the tolerance."""


def agrees(a: Rigid, b: Rigid, center: npt.ArrayLike) -> bool:
    """Whether two poses (template → world) agree within :data:`AGREE_DEGREES` and :data:`AGREE_MM` at the brain's ``center`` (3,), RAS mm
    of the template."""
    return a.degrees_from(b) <= AGREE_DEGREES and a.mm_from(b, center) <= AGREE_MM


def still_groups(poses: Sequence[Rigid], center: npt.ArrayLike) -> list[int]:
    """Group of each of ``poses`` (template → world), from 0 in their order: in a group each agrees with each other (:func:`agrees`).

    Groups are joined nearest first (complete linkage), so that a head that turns slowly from image to image is not chained together.

    >>> still_groups([Rigid.from_rotvec([0, 0, np.radians(d)]) for d in (0, 3, 20, 7)], np.zeros(3))
    [0, 0, 1, 2]
    """
    if len(poses) < 2:
        return [0] * len(poses)
    apart = np.zeros((len(poses), len(poses)))
    for i, a in enumerate(poses):
        for j, b in enumerate(poses[:i]):
            apart[i, j] = apart[j, i] = max(a.degrees_from(b) / AGREE_DEGREES, a.mm_from(b, center) / AGREE_MM)
    labels = fcluster(linkage(squareform(apart), "complete"), 1.0, criterion="distance").tolist()
    order = list(dict.fromkeys(labels))
    return [order.index(label) for label in labels]


@dataclass(frozen=True, eq=False)
class SharedPose:
    """One ``pose`` (template → world, RAS mm) of several images. ``how`` is :data:`JOINT` or :data:`MEAN`; ``before`` and ``after`` are the
    images' mean criterion at the mean of their poses and at ``pose``."""

    pose: Rigid
    how: str
    before: float
    after: float


def shared_pose(parts: Sequence[Comparison], poses: Sequence[Rigid], weights: Sequence[float]) -> SharedPose:
    """The pose that images with agreeing ``poses`` share: their mean, weighted by ``weights``, refined on the sum of all images' criteria.

    The mean is kept if the refined pose increases neither the mean criterion nor the mean mutual information, or if it no longer agrees
    with each of ``poses``.
    """
    center = parts[0].target.brain.center
    start = mean_pose(poses, center, weights)
    joint = JointComparison(parts)
    pose = joint.refined(start)
    before, after = joint.score(start), joint.score(pose)
    better = after >= before or joint.mutual_score(pose) > joint.mutual_score(start)
    if better and all(agrees(pose, own, center) for own in poses):
        return SharedPose(pose, JOINT, before, after)
    return SharedPose(start, MEAN, before, before)
