"""Several images of one head, on one scanner frame, against their templates: one pose for all of them.

The terms of all images are put side by side, so that the optimiser (:mod:`posepipe.matching.gauss_newton`) maximises the sum of their
criteria. Points are counted from one common centre; the pose and the size of the head are then the same unknowns in every term.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import numpy as np
import torch

from ..geometry import Rigid
from .channels import Points
from .comparison import LAST_STEPS, MUTUAL_STEPS, Comparison
from .gauss_newton import Poses, Term, fit


class JointComparison:
    """``parts``: one comparison for each image. Their templates have one frame: they are contrasts of one cohort of an atlas.

    Raises ValueError without an image.
    """

    def __init__(self, parts: Sequence[Comparison]) -> None:
        if not parts:
            msg = "a joint comparison needs at least one image"
            raise ValueError(msg)
        self.parts = tuple(parts)
        self._image_center, self._template_center = parts[0].brain.center, parts[0].target.brain.center

    def score(self, pose: Rigid) -> float:
        """Mean criterion of the images at ``pose`` (template → world of the images)."""
        return float(np.mean([part.score(pose) for part in self.parts]))

    def mutual_score(self, pose: Rigid) -> float:
        """Mean mutual information (nats) of the images at ``pose``."""
        return float(np.mean([part.mutual_score(pose) for part in self.parts]))

    def refined(self, start: Rigid) -> Rigid:
        """``start`` refined on the sum of all images' terms, in the three stages of
        :meth:`~posepipe.matching.comparison.Comparison.refined`."""
        size = float(np.mean([part.target.log_scale(part.brain) for part in self.parts]))
        device = self.parts[0].brain.image.device
        poses = Poses.from_rigid(start, self._image_center, self._template_center, size, device)
        for name, steps in (("coarse_terms", 10), ("fine_terms", LAST_STEPS), ("mutual_terms", MUTUAL_STEPS)):
            poses = fit([term for part in self.parts for term in self._terms(part, name)], poses, steps).poses
        return poses.rigid(0, self._image_center, self._template_center)

    def _terms(self, part: Comparison, name: str) -> list[Term]:
        """The terms of one image with its points and its template counted from the common centres."""
        moved = torch.as_tensor(part.brain.center - self._image_center, dtype=torch.float32, device=part.brain.image.device)
        center = torch.as_tensor(np.array(self._template_center), dtype=torch.float32, device=moved.device)
        terms = []
        for term in getattr(part, name):
            shifted = copy(term)
            shifted.points = Points(term.points.where + moved, term.points.value, term.points.weight)
            if not torch.equal(term.level.center, center):
                shifted.level = replace(term.level, center=center)
            terms.append(shifted)
        return terms
