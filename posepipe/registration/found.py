"""Whether what the networks masked is the brain: that the template tells."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Protocol, TypeVar

from ..imaging.mask import BrainMask, no_brain
from .closer import NO_FIT
from .initial import InitialPose
from .refine import Refined

NO_DICE = 0.5
"""Where mask and template overlap by less, most of what was masked is not the brain: not even a mask of half of it has as little."""
WHOLE_SEARCHES = {"deep", "search"}
"""Ways to find a pose that look at every orientation, so that it means something where none fits."""


class Aligned(Protocol):
    """A pose found by a mask."""

    @property
    def initial(self) -> InitialPose: ...
    @property
    def refined(self) -> Refined: ...


A = TypeVar("A", bound=Aligned)


def best_found(mask: BrainMask, align: Callable[[BrainMask], A], source: str) -> A:
    """What ``align`` makes of ``mask``; where the networks are not sure of that, of what fits the template at the likeliest place where
    anything does, and of several outlines there by that which overlaps most with the template's mask (docs/experiments-masks.md, 16).

    Raises :class:`~posepipe.errors.MaskError` that names the image, ``source``, where nothing fits: then no brain was found.
    """
    first = align(mask)
    if mask.sure or first.initial.method not in WHOLE_SEARCHES:
        return first
    for _, masks in groupby((mask, *mask.others), key=lambda one: one.place):
        aligned = (first if one is mask else align(one) for one in masks)
        if fitting := [one for one in aligned if _score(one) >= NO_FIT and _dice(one) >= NO_DICE]:
            return max(fitting, key=_dice)
    fit = f"its inside fits the template with a score of {_score(first):.2f}, its mask with a Dice of {_dice(first):.2f}"
    raise no_brain(source, f"what is most like one holds {mask.millilitres:.0f} ml, and however it is turned, {fit}")


def _score(aligned: Aligned) -> float:
    return aligned.initial.hypotheses[0].score


def _dice(aligned: Aligned) -> float:
    return aligned.refined.similarity["Dice"]["after"]
