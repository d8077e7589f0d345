"""Age estimation: one pose estimate by the networks, then a short fit to every second cohort near the age that the brain's size
suggests."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..atlas.volumes import GrowthCurve
from ..errors import AtlasError
from ..geometry.so3 import Array
from ..imaging.volume import Volume
from ..matching.brain import Brain
from ..matching.channels import Level, Points, outline, texture
from ..matching.comparison import OUTLINE_SHARE, TEXTURE_SHARE
from ..matching.gauss_newton import Poses, Term, fit
from ..matching.target import SPACING, Target
from ..pose.coordinate_networks import Placement, PoseNetworks
from .curves import AgeCurve, AgeEstimate, AgeModel, load_age_model, most_likely_age

if TYPE_CHECKING:
    from ..atlas import CohortSeries, Template

APART_WEEKS = 1.9
"""Minimum distance in age between cohorts that are fitted."""
REACH_WEEKS = 4.5
"""Range of fitted cohorts about the age that the size suggests; extended while the criterion or the size still improves at an end."""
CACHED_COHORTS = 24
"""Number of prepared cohorts cached in memory, about 40 MB each."""
CLOSE = 0.15
"""Series whose first cohort has a criterion within this of the best series are fitted in full."""
START_SCALE = 0.2
"""The fit starts from the masks' log size ratio, clipped to ± this value."""
POOR_FIT = 0.25
"""Criterion of the best cohort below which the estimate has a warning."""


@dataclass(frozen=True, eq=False)
class _Cohort:
    """A prepared template: the channels for a fit, without the images."""

    weeks: float
    outline: Level
    coarse: Level
    fine: Level
    brain: Brain
    to_canonical: Array


@dataclass(frozen=True, eq=False)
class _Moving:
    """The prepared image, shared by all cohorts."""

    brain: Brain
    outline: Points
    coarse: Points
    fine: Points
    placements: tuple[Placement, ...]


@dataclass(frozen=True)
class _CohortFit:
    """The fit of one cohort: one point of :class:`~posepipe.age.curves.AgeCurve`."""

    weeks: float
    score: float
    log_size: float
    log_mask: float


class AgeEstimator:
    """Estimates ages with one or several ``series`` of cohorts (:func:`~posepipe.atlas.candidates`).

    ``networks`` estimate the pose; ``model`` defaults to the package's. Raises :class:`~posepipe.errors.AtlasError` without any cohort.
    """

    def __init__(
        self,
        series: Sequence[CohortSeries],
        networks: PoseNetworks,
        *,
        model: AgeModel | None = None,
        device: torch.device | str = "cpu",
        cache_dir: Path | None = None,
    ) -> None:
        if not any(s.templates for s in series):
            msg = "no atlas is here to estimate an age by; name its folder with --atlas-dir, or see `posepipe-tools atlas list`"
            raise AtlasError(msg)
        self._series, self._networks, self._device, self._cache_dir = tuple(series), networks, device, cache_dir
        self._model = model or load_age_model()
        self._cohort = lru_cache(maxsize=CACHED_COHORTS)(self._load)
        self._radius = lru_cache(maxsize=None)(self._read_radius)

    def estimate(self, image: Volume, mask: Volume) -> AgeEstimate:
        """Estimate the age of the brain in ``image`` inside ``mask`` (same grid), and check the mask's volume at that age.

        Raises :class:`~posepipe.errors.MaskError` for an empty mask.
        """
        series, curve = self.fit_cohorts(image, mask)
        constants = self._model.of(series.stage, float(curve.weeks.mean()))
        weeks = round(most_likely_age(curve, constants.similarity), 1)
        growth, millilitres = GrowthCurve(series.templates), mask.data.sum() * mask.voxel_volume / 1000
        doubt, error = growth.doubt(millilitres, weeks), constants.error
        if doubt:
            error = max(error, round(abs(growth.weeks_of(millilitres) - weeks), 1))
        warnings = [
            f"the age was estimated from the image: {weeks:g} weeks, standard error {error:.1f}, by the cohorts of "
            f"{series.name}; where it is known, give --age WEEKS or write it in a table"
        ]
        if doubt:
            warnings.append(doubt)
        known = [t.age for t in series.templates]
        for end, word in ((known[0], "younger"), (known[-1], "older")):
            if abs(weeks - end) < 0.25:
                warnings.append(f"that is the end of what {series.name} covers here: the brain may be {word}")
        if len(curve.weeks) < 3:
            warnings.append(f"only {len(curve.weeks)} cohorts of {series.name} could be compared: the age is a rough guess")
        if curve.score.max() < POOR_FIT:
            warnings.append(f"no cohort fits well (criterion {curve.score.max():.2f}): the estimated age may be far off")
        return AgeEstimate(weeks, error, tuple(warnings), doubt)

    def fit_cohorts(self, image: Volume, mask: Volume) -> tuple[CohortSeries, AgeCurve]:
        """The series with the highest criterion, and the fits of its cohorts."""
        brain = Brain.prepare(image, mask, SPACING, self._device)
        moving = _Moving(
            brain,
            outline(brain, 2).points(4000),
            texture(brain, 2).points(4000),
            texture(brain, 1).points(6000),
            self._networks.place(brain),
        )
        first = []
        for series in self._series:
            if not series.templates:
                continue
            nearest = self._of_size(series.templates, brain.radius)
            tried = [(self._compare(moving, p, nearest), k) for k, p in enumerate(moving.placements)]
            fitted, k = max(tried, key=lambda pair: pair[0].score)
            first.append((fitted, moving.placements[k], nearest, series))
        least = max(fitted.score for fitted, *_ in first) - CLOSE
        curves = [(s, self._curve(moving, p, s, nearest, fitted)) for fitted, p, nearest, s in first if fitted.score >= least]
        return max(curves, key=lambda one: float(one[1].score.max()))

    def _of_size(self, templates: Sequence[Template], radius: float) -> Template:
        """The cohort with the nearest mask radius, by bisection, so that few masks are read (the radius increases with age)."""
        k = bisect_left(templates, radius, key=self._radius)
        return min(templates[max(k - 1, 0) : k + 1], key=lambda t: abs(self._radius(t) - radius))

    def _curve(self, moving: _Moving, placement: Placement, series: CohortSeries, nearest: Template, fitted: _CohortFit) -> AgeCurve:
        chosen = _spread(series.templates, nearest)
        seen = {nearest.age: fitted}
        for template in chosen:
            if template.age not in seen and abs(template.age - nearest.age) <= REACH_WEEKS:
                seen[template.age] = self._compare(moving, placement, template)
        while (more := _further(chosen, [seen[w] for w in sorted(seen)])) is not None:
            seen[more.age] = self._compare(moving, placement, more)
        points = [seen[w] for w in sorted(seen)]
        return AgeCurve(*(np.array([getattr(p, name) for p in points]) for name in ("weeks", "score", "log_size", "log_mask")))

    def _compare(self, moving: _Moving, placement: Placement, template: Template) -> _CohortFit:
        """Fit one cohort, starting from the pose of ``placement``."""
        cohort, brain = self._cohort(template), moving.brain
        log_mask = float(np.log(brain.radius / cohort.brain.radius))
        pose = placement.pose(cohort.to_canonical, cohort.brain)
        scale = float(np.clip(-log_mask, -START_SCALE, START_SCALE))
        start = Poses.from_rigid(pose, brain.center, cohort.brain.center, scale, brain.image.device)
        edges = Term(cohort.outline, moving.outline)
        near = fit((edges, Term(cohort.coarse, moving.coarse, TEXTURE_SHARE)), start, 5).poses
        found = fit((Term(cohort.fine, moving.fine), Term(edges.level, edges.points, OUTLINE_SHARE)), near, 5)
        return _CohortFit(cohort.weeks, float(found.criterion[0]), -float(found.poses.log_scale[0]), log_mask)

    def _load(self, template: Template) -> _Cohort:
        target = Target.load(template, cache_dir=self._cache_dir, device=self._device)
        levels = target.coarse_outline, target.coarse_texture, target.fine_texture
        return _Cohort(template.age, *levels, target.brain, self._networks.canonical(target))

    def _read_radius(self, template: Template) -> float:
        """Radius of a cohort's mask, mm, without preparing the cohort."""
        from ..imaging.inside import load_mask
        from ..imaging.mask import nonzero_mask
        from ..imaging.moments import moments
        from ..imaging.volume import load_volume

        mask = nonzero_mask(load_volume(template.image)).volume if template.mask is None else load_mask(template.mask)
        return moments(mask).radius


def _spread(templates: Sequence[Template], center: Template) -> list[Template]:
    """``center`` and the cohorts on both sides of it, none nearer than :data:`APART_WEEKS` to the one before, by age."""
    older, younger = [center], []
    for template in sorted(templates, key=lambda t: t.age):
        if template.age - older[-1].age >= APART_WEEKS:
            older.append(template)
    last = center
    for template in sorted(templates, key=lambda t: -t.age):
        if last.age - template.age >= APART_WEEKS:
            younger.append(template)
            last = template
    return [*reversed(younger), *older]


def _further(chosen: Sequence[Template], seen: Sequence[_CohortFit]) -> Template | None:
    """The next cohort to fit, or None: beyond an end at which the criterion is highest, or beyond which the sizes would agree."""
    below = [t for t in chosen if t.age < seen[0].weeks]
    above = [t for t in chosen if t.age > seen[-1].weeks]
    best = max(seen, key=lambda p: p.score)
    if below and (best is seen[0] or seen[0].log_size < 0):
        return below[-1]
    if above and (best is seen[-1] or seen[-1].log_size > 0):
        return above[0]
    return None
