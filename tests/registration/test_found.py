"""Which of the masks that may be the brain is it, by what fits the template."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from posepipe.errors import MaskError
from posepipe.geometry import Rigid
from posepipe.imaging.mask import BrainMask
from posepipe.imaging.volume import Volume
from posepipe.registration.closer import NO_FIT
from posepipe.registration.found import NO_DICE, best_found
from posepipe.registration.initial import InitialPose
from posepipe.registration.refine import Refined
from posepipe.registration.search import Hypothesis

FITS, LITTLE = (0.5, 0.9), (NO_FIT - 0.01, 0.95)


class Found(NamedTuple):
    mask: BrainMask
    initial: InitialPose
    refined: Refined


def found(mask: BrainMask, score: float, dice: float, method: str = "deep") -> Found:
    pose = Rigid.identity()
    initial = InitialPose(pose, method, (Hypothesis(pose, score, 0.0, 1.0),), 1.0, None)
    return Found(mask, initial, Refined(pose, "torch", {"Dice": {"before": 0.1, "after": dice}}, ()))


MASK = BrainMask(Volume(np.ones((10, 10, 10), bool), np.diag([3.0, 3, 3, 1]), "m.nii.gz"), "network", sure=False)


@pytest.mark.parametrize(
    ("sure", "method", "score", "dice", "is_one"),
    [
        (False, "deep", NO_FIT, NO_DICE, True),
        (False, "deep", NO_FIT - 0.01, 0.95, False),
        (False, "search", 0.5, NO_DICE - 0.01, False),
        (False, "center", 0.0, 0.2, True),  # of one orientation nothing follows
        (True, "deep", 0.0, 0.2, True),  # a pose that fails, of a brain
    ],
)
def test_what_may_be_no_brain_and_fits_nowhere_is_none(sure, method, score, dice, is_one):
    mask, source = replace(MASK, sure=sure), "sub-01_T2w.nii.gz"
    if is_one:
        assert best_found(mask, lambda m: found(m, score, dice, method), source).mask is mask
        return
    with pytest.raises(MaskError) as error:
        best_found(mask, lambda m: found(m, score, dice, method), source)
    message = str(error.value)
    assert message.startswith("sub-01_T2w.nii.gz: no brain was found") and "give its mask" in message and "27 ml" in message
    assert f"score of {score:.2f}" in message and f"Dice of {dice:.2f}" in message


@pytest.mark.parametrize(
    ("fits", "chosen", "asked"),
    [
        ([FITS, (0.4, 0.85), FITS, FITS], 0, 2),  # two outlines of the likeliest place are compared, and that will do
        ([FITS, (0.2, 0.91), FITS, FITS], 1, 2),
        ([LITTLE, (0.2, 0.6), FITS, FITS], 1, 2),
        ([FITS, LITTLE, FITS, FITS], 0, 2),
        ([LITTLE, LITTLE, FITS, (0.9, 0.95)], 2, 3),  # the next place
        ([LITTLE, LITTLE, LITTLE, FITS], 3, 4),
        ([LITTLE, LITTLE, LITTLE, (0.9, NO_DICE - 0.01)], None, 4),
    ],
)
def test_what_fits_at_the_likeliest_place_is_the_brain(fits, chosen, asked):
    others = tuple(replace(MASK, place=place, warnings=(str(place),)) for place in (0, 1, 2))
    mask, aligned = replace(MASK, others=others), []

    def align(one: BrainMask) -> Found:
        aligned.append(one)
        return found(one, *fits[[mask, *others].index(one)])

    if chosen is None:
        with pytest.raises(MaskError, match=f"score of {fits[0][0]:.2f}"):  # told of the likeliest
            best_found(mask, align, "a.nii.gz")
    else:
        assert best_found(mask, align, "a.nii.gz").mask is [mask, *others][chosen]
    assert aligned == [mask, *others][:asked]


@pytest.mark.parametrize(("sure", "method"), [(True, "deep"), (False, "axes")])
def test_no_other_is_tried_where_it_would_tell_nothing(sure, method):
    mask = replace(MASK, sure=sure, others=(replace(MASK),))
    assert best_found(mask, lambda one: found(one, 0.5, 0.9 if one is not mask else 0.6, method), "a.nii.gz").mask is mask
