"""Whether what the networks masked is the brain: that the template tells, in the same way however the pose is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeVar

from ..imaging.mask import BrainMask, no_brain
from .comparison import Comparison
from .deep import PoseNetworks
from .hypothesis import fits
from .initial import InitialPose, initial_pose
from .refine import refine_pose

NO_DICE = 0.5
"""Dice of mask and template, aligned, below which most of what was masked is not the brain: not even a mask of half of it has as little
(0.66; docs/experiments-masks.md, 13)."""


class Judged(Protocol):
    """A mask and how it fits the template."""

    @property
    def fit(self) -> BrainFit: ...


J = TypeVar("J", bound=Judged)


@dataclass(frozen=True, eq=False)
class BrainFit:
    """How what a mask holds fits the template, all rotations tried: the pose found by ``auto``, ``initial``, and the ``dice`` of the
    masks after refinement by torch."""

    initial: InitialPose
    dice: float

    @classmethod
    def of(cls, compare: Comparison, mask: BrainMask, networks: PoseNetworks, *, age_known: bool = True) -> BrainFit:
        """The fit of what is compared."""
        seen, target = mask.volume, compare.target
        initial = initial_pose(seen, seen, target, age_known=age_known, compare=compare, networks=networks)
        refined = refine_pose(seen, seen, target, initial.pose, method="torch", compare=compare)
        return cls(initial, refined.similarity["Dice"]["after"])

    @property
    def is_brain(self) -> bool:
        """Whether the masks overlap, and the inside fits or the networks vouch for the pose."""
        best, witness = self.initial.best, self.initial.witness
        vouched = witness is not None and witness.vouches_for(best.pose)
        return self.dice >= NO_DICE and (vouched or fits(best.score("criterion"), best.score("coarse")))


def best_found(mask: BrainMask, judge: Callable[[BrainMask], J], source: str) -> J:
    """What ``judge`` says of the mask that is the brain, where the networks are not sure of ``mask``: of what fits the template at the
    likeliest place where anything does, and of several outlines there of that which overlaps most with the template's mask
    (docs/experiments-masks.md, 16).

    Raises :class:`~posepipe.errors.MaskError` that names the image, ``source``, where nothing fits: then no brain was found.
    """
    first: J | None = None
    for _, masks in groupby((mask, *mask.others), key=lambda one: one.place):
        judged = [judge(one) for one in masks]
        first = first or judged[0]
        if fitting := [one for one in judged if one.fit.is_brain]:
            return max(fitting, key=lambda one: one.fit.dice)
    assert first is not None
    best = first.fit.initial.best
    scores = f"criterion {best.score('criterion'):.2f}, coarse texture {best.score('coarse'):.2f}"
    why = f"its inside does not fit the template ({scores}), or its mask does not (Dice {first.fit.dice:.2f})"
    raise no_brain(source, f"what is most like one holds {mask.millilitres:.0f} ml, and however it is turned, {why}")
