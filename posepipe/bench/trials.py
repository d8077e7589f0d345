"""Trials: images with known pose, made from the cases of the classical benchmark by motion, corruption, or a template of a wrong age."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..atlas import AtlasLibrary, Template
from ..errors import UsageError
from ..geometry import Rigid, rotations_in_bin
from ..matching.target import Target
from .classical import BINS, Case, Runner, canonical_pose
from .methods import Trial
from .perturb import CORRUPTIONS, corrupted, turned

LAST_BINS = (*BINS, (175, 180))
"""The six bins of the paper, and once more the end of the last bin, where rotation vectors are discontinuous."""
WEEKS_OFF = 3.0
"""Error of the age in weeks at strength 1."""


@dataclass(frozen=True)
class Corruption:
    """Kinds of corruption and their strengths, in the order in which they are applied; ``spec``: its text form, as ``cut:1.5+invert``."""

    spec: str
    parts: tuple[tuple[str, float], ...]

    @property
    def weeks_off(self) -> float:
        """Error of the age in weeks; older or younger at random."""
        return WEEKS_OFF * sum(s for kind, s in self.parts if kind == "age")


def parse_corruption(spec: str) -> Corruption:
    """``none``, or kinds of :data:`~posepipe.bench.perturb.CORRUPTIONS` or ``age``, each with ``:STRENGTH`` unless 1, joined by ``+``.

    >>> parse_corruption("cut:1.5+age").parts
    (('cut', 1.5), ('age', 1.0))

    Raises :class:`~posepipe.errors.UsageError` for anything else.
    """
    parts = []
    for part in spec.split("+") if spec != "none" else ():
        kind, _, strength = part.partition(":")
        try:
            value = float(strength or 1)
        except ValueError:
            value = -1.0
        if kind not in (*CORRUPTIONS, "age") or value < 0:
            known = ", ".join((*CORRUPTIONS, "age"))
            msg = f"corruption {spec!r}: {part!r} is none of {known}, with a strength such as :0.5; join several with +"
            raise UsageError(msg)
        parts.append((kind, value))
    return Corruption(spec, tuple(parts))


class TrialGenerator:
    """Makes the trials of one case; the image, and the templates of wrong ages, are loaded once."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._runner = Runner(case)
        folder = case.template.image.parents[2]
        self._cohorts = AtlasLibrary([folder]).templates(case.template.atlas, case.template.contrast)
        self._targets: dict[str, Target] = {case.template.cohort: self._runner.target}

    def trial(self, number: int, corruption: Corruption, seed: int) -> tuple[Trial, int]:
        """Trial ``number`` and its bin in :data:`LAST_BINS`; the trials cycle through the bins. The motion depends on ``number``,
        ``seed`` and case alone, not on the ``corruption``."""
        rng = np.random.default_rng([seed, number, *self.case.name.encode()])
        which = number % len(LAST_BINS)
        # the rotation is sampled so that the angle of the pose is in the bin
        rotation = rotations_in_bin(1, *LAST_BINS[which], rng)[0] @ self._runner.own.rotation.T
        image, mask, motion = turned(self._runner.image, self._runner.mask, rotation, rng)
        truth, template = motion @ self._runner.own, self.case.template
        for kind, strength in corruption.parts:
            if kind != "age":
                image, mask = corrupted(image, mask, kind, strength, rng)
        if corruption.weeks_off:
            template = self._other(template, corruption.weeks_off, rng)
            truth = truth @ self._to_own(template)
        return Trial(image, mask, self._target(template), truth, template.age), which

    def _other(self, template: Template, weeks: float, rng: np.random.Generator) -> Template:
        """The cohort ``weeks`` older or younger, at random; in the other direction where the atlas ends."""
        wanted = template.age + weeks * rng.choice([-1.0, 1.0])
        low, high = self._cohorts[0].age, self._cohorts[-1].age
        if not low <= wanted <= high:
            wanted = 2 * template.age - wanted
        return min(self._cohorts, key=lambda t: abs(t.age - wanted))

    def _target(self, template: Template) -> Target:
        if template.cohort not in self._targets:
            self._targets[template.cohort] = Target.load(template)
        return self._targets[template.cohort]

    def _to_own(self, other: Template) -> Rigid:
        """Pose ``other`` → the case's own template: rotation between their canonical frames, brain centre to brain centre."""
        own = self.case.template
        turn = canonical_pose(other, own).rotation
        return Rigid.about(turn, self._target(other).brain.center, self._target(own).brain.center)
