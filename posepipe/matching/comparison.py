"""One image against one template: the terms that poses are fitted with and judged by, made once."""

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
"""How much the outline counts beside the texture when poses are judged (docs/experiments.md, 3)."""
TEXTURE_SHARE = 0.5
"""How much the texture counts beside the outline while poses are still rough."""


LAST_POINTS, LAST_STEPS = 16_000, 8
"""Points and steps of the end of a refinement (docs/experiments.md, 9, 11 and 12)."""
JUDGED_POINTS = 12_000
"""Points at which mutual information is measured to judge a refinement."""
MUTUAL_POINTS, MUTUAL_STEPS = 40_000, 3
"""The same of the very last steps, on mutual information (docs/experiments.md, 12 and 14)."""


class Comparison:
    """The image ``brain`` against ``target``: one object serves the initial pose and its refinement, so nothing is made twice."""

    def __init__(self, brain: Brain, target: Target) -> None:
        self.brain, self.target = brain, target

    @classmethod
    def of(cls, image: Volume, mask: Volume, target: Target, device: torch.device | str = "cpu") -> Comparison:
        """From an image and its brain mask on the same grid."""
        return cls(Brain.prepare(image, mask, SPACING, device), target)

    @cached_property
    def without_fluid(self) -> Comparison | None:
        """The same brain against the template without its outer fluid, where that can be told."""
        target = self.target.without_fluid
        return Comparison(self.brain, target) if target else None

    @cached_property
    def _outline(self) -> Level:
        return outline(self.brain, 2)

    @cached_property
    def _edges(self) -> Term:
        return Term(self.target.coarse_outline, self._outline.points(4000))

    @cached_property
    def sketch(self) -> tuple[Term, ...]:
        """Outline at few points: for many hypotheses."""
        return (Term(self.target.coarse_outline, self._outline.points(2000)),)

    @cached_property
    def rough(self) -> tuple[Term, ...]:
        """Outline and coarse texture: wide reach."""
        points = texture(self.brain, 2).points(4000)
        return (self._edges, Term(self.target.coarse_texture, points, TEXTURE_SHARE))

    @cached_property
    def outlines(self) -> tuple[Term, ...]:
        """Outline alone, which holds on where texture would shrink a damaged brain into the template."""
        return (self._edges,)

    @cached_property
    def judging(self) -> tuple[Term, ...]:
        """Fine texture and a share of the outline: the criterion by which hypotheses are judged."""
        return self._criterion(self.target.fine_texture, texture(self.brain, 1).points(6000))

    @cached_property
    def fine(self) -> tuple[Term, ...]:
        """The same at more points and nearer to the masks' rims, for the last steps."""
        return self._criterion(self.target.last_texture, texture(self.brain, 1, FINE_EROSION_MM).points(LAST_POINTS))

    @cached_property
    def mutual(self) -> tuple[Term, ...]:
        """Mutual information of the cut-out brains, their rims included: for the very last steps."""
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
        """``pose`` (template → image) as one candidate; ``log_scale`` (template's size over the image's) None: from the masks' radii."""
        scale = self.target.log_scale(self.brain) if log_scale is None else log_scale
        return Poses.from_rigid(pose, self.brain.center, self.target.brain.center, scale, self.brain.image.device)

    def rigid(self, poses: Poses, i: int = 0) -> Rigid:
        """Candidate ``i`` as a rigid map template → image."""
        return poses.rigid(i, self.brain.center, self.target.brain.center)

    def score(self, pose: Rigid) -> float:
        """The criterion at ``pose``, at the best of a few sizes, so that poses are compared and not sizes."""
        return float(fit(self.judging, self._sizes(pose), 0).criterion.max())

    def coarse_score(self, pose: Rigid) -> float:
        """Correlation ratio of coarse texture at ``pose``, at the best of a few sizes: next to nothing at wrong poses, even where the mask
        is damaged and its outline speaks for them."""
        inside = self.rough[1]
        return float(fit((inside,), self._sizes(pose), 0).criterion.max()) / inside.share

    def mutual_score(self, pose: Rigid) -> float:
        """Mutual information of the cut-out brains at ``pose``, nats, at the best of a few sizes: what the last steps raise."""
        return float(self._information.information(self._sizes(pose)).max())

    def _sizes(self, pose: Rigid) -> Poses:
        start = self.poses(pose)
        steps = torch.linspace(-0.15, 0.15, 7, device=start.log_scale.device)
        return Poses(start.rotation.expand(7, 3, 3), start.shift * steps.exp()[:, None], (start.log_scale + steps).contiguous())

    def refined(self, start: Rigid) -> Rigid:
        """``start`` improved: outline and coarse texture first, which reach further, then the criterion itself, then mutual information."""
        return self.finished(self.multi_scale(self.poses(start)))

    def sketched(self, poses: Poses) -> Fitted:
        """``poses``, as many as there may be, brought near by the outline at few points."""
        return fit(self.sketch, poses, 8)

    def multi_scale(self, poses: Poses) -> Poses:
        """``poses`` improved side by side: on outline and coarse texture, which reach further, then on the criterion at many points."""
        return fit(self.fine, fit(self.rough, poses, 10).poses, LAST_STEPS).poses

    def finished(self, poses: Poses) -> Rigid:
        """The first of ``poses`` after the very last steps, on mutual information."""
        return self.rigid(fit(self.mutual, poses, MUTUAL_STEPS).poses)

    def judged(self, poses: Poses) -> Fitted:
        """Rough poses brought to the criterion."""
        return fit(self.judging, fit(self.outlines, poses, 4).poses, 4)
