"""One image against one template: the terms of pose optimisation and of the scores, computed once."""

from __future__ import annotations

from functools import cached_property

import torch

from ..geometry import Rigid
from ..imaging.volume import Volume
from .brain import Brain
from .channels import FINE_EROSION_MM, Level, Points, outline, texture
from .gauss_newton import Fitted, Poses, Term, fit
from .mutual_information import MutualTerm
from .target import SPACING, Target

OUTLINE_SHARE = 0.3
"""Weight of the outline relative to the texture in the criterion (docs/decisions/003)."""
TEXTURE_SHARE = 0.5
"""Weight of the coarse texture relative to the outline in the first steps."""


LAST_POINTS, LAST_STEPS = 16_000, 8
"""Points and steps of the fine stage of a refinement (docs/decisions/008 and 009)."""
JUDGED_POINTS = 12_000
"""Points at which the mutual information of a refined pose is measured."""
MUTUAL_POINTS, MUTUAL_STEPS = 40_000, 3
"""Points and steps of the last stage of a refinement, on mutual information (docs/decisions/009)."""


class Comparison:
    """The image ``brain`` against ``target``. Initial pose and refinement share one object, so that every term is computed once."""

    def __init__(self, brain: Brain, target: Target) -> None:
        self.brain, self.target = brain, target

    @classmethod
    def of(cls, image: Volume, mask: Volume, target: Target, device: torch.device | str = "cpu") -> Comparison:
        """From an image and its brain mask on the same grid."""
        return cls(Brain.prepare(image, mask, SPACING, device), target)

    @cached_property
    def without_csf(self) -> Comparison | None:
        """The same brain against the template without extra-axial CSF; None if the template's CSF cannot be segmented."""
        target = self.target.without_csf
        return Comparison(self.brain, target) if target else None

    @cached_property
    def _outline(self) -> Level:
        return outline(self.brain, 2)

    @cached_property
    def _edges(self) -> Term:
        return Term(self.target.coarse_outline, self._outline.points(4000))

    @cached_property
    def screening_terms(self) -> tuple[Term, ...]:
        """Outline at 2,000 points, for many hypotheses."""
        return (Term(self.target.coarse_outline, self._outline.points(2000)),)

    @cached_property
    def coarse_terms(self) -> tuple[Term, ...]:
        """Outline and coarse texture: wide capture range."""
        points = texture(self.brain, 2).points(4000)
        return (self._edges, Term(self.target.coarse_texture, points, TEXTURE_SHARE))

    @cached_property
    def outline_terms(self) -> tuple[Term, ...]:
        """Outline alone. With texture, the scale of a corrupted brain would shrink."""
        return (self._edges,)

    @cached_property
    def criterion_terms(self) -> tuple[Term, ...]:
        """Fine texture, and the outline with weight :data:`OUTLINE_SHARE`: the criterion that ranks hypotheses."""
        return self._criterion(self.target.fine_texture, texture(self.brain, 1).points(6000))

    @cached_property
    def fine_terms(self) -> tuple[Term, ...]:
        """The same at more points and with less erosion of the masks, for the fine stage."""
        return self._criterion(self.target.last_texture, texture(self.brain, 1, FINE_EROSION_MM).points(LAST_POINTS))

    @cached_property
    def mutual_terms(self) -> tuple[Term, ...]:
        """Mutual information of the masked brains including the mask boundary, for the last stage."""
        return (MutualTerm(self.target.fine_outline, self._rims.points(MUTUAL_POINTS)),)

    @cached_property
    def _information(self) -> MutualTerm:
        return MutualTerm(self.target.fine_outline, self._rims.points(JUDGED_POINTS))

    @cached_property
    def _rims(self) -> Level:
        return outline(self.brain)

    def _criterion(self, level: Level, points: Points) -> tuple[Term, ...]:
        inside = Term(level, points)
        return (inside, Term(self._edges.level, self._edges.points, OUTLINE_SHARE))

    def poses(self, pose: Rigid, log_scale: float | None = None) -> Poses:
        """``pose`` (template → image) as one candidate; ``log_scale`` is log(template size / image size), by default from the masks'
        radii."""
        scale = self.target.log_scale(self.brain) if log_scale is None else log_scale
        return Poses.from_rigid(pose, self.brain.center, self.target.brain.center, scale, self.brain.image.device)

    def rigid(self, poses: Poses, i: int = 0) -> Rigid:
        """Candidate ``i`` as a rigid map template → image."""
        return poses.rigid(i, self.brain.center, self.target.brain.center)

    def score(self, pose: Rigid) -> float:
        """The criterion at ``pose``, maximised over seven scales within ±0.15 (logarithm), so that it does not depend on the scale."""
        return float(fit(self.criterion_terms, self._sizes(pose), 0).criterion.max())

    def coarse_score(self, pose: Rigid) -> float:
        """Correlation ratio of coarse texture at ``pose``, maximised over the same scales. It is near 0 at wrong poses, also if the mask is
        corrupted and the outline term is high."""
        inside = self.coarse_terms[1]
        return float(fit((inside,), self._sizes(pose), 0).criterion.max()) / inside.share

    def mutual_score(self, pose: Rigid) -> float:
        """Mutual information (nats) of the masked brains at ``pose``, maximised over the same scales: the objective of the last stage."""
        return float(self._information.information(self._sizes(pose)).max())

    def _sizes(self, pose: Rigid) -> Poses:
        start = self.poses(pose)
        steps = torch.linspace(-0.15, 0.15, 7, device=start.log_scale.device)
        return Poses(start.rotation.expand(7, 3, 3), start.shift * steps.exp()[:, None], (start.log_scale + steps).contiguous())

    def refined(self, start: Rigid) -> Rigid:
        """Refine ``start`` in three stages: outline and coarse texture, then the criterion, then mutual information."""
        return self.fit_mutual_information(self.multi_scale(self.poses(start)))

    def screened(self, poses: Poses) -> Fitted:
        """``poses`` after 8 steps on :attr:`screening_terms`."""
        return fit(self.screening_terms, poses, 8)

    def multi_scale(self, poses: Poses) -> Poses:
        """``poses`` refined in one batch: on outline and coarse texture (wider capture range), then on the criterion at many points."""
        return fit(self.fine_terms, fit(self.coarse_terms, poses, 10).poses, LAST_STEPS).poses

    def fit_mutual_information(self, poses: Poses) -> Rigid:
        """The first of ``poses`` after the last stage, on mutual information."""
        return self.rigid(fit(self.mutual_terms, poses, MUTUAL_STEPS).poses)

    def fit_criterion(self, poses: Poses) -> Fitted:
        """``poses`` after 4 steps on the outline and 4 steps on the criterion."""
        return fit(self.criterion_terms, fit(self.outline_terms, poses, 4).poses, 4)
