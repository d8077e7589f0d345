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
from posepipe.registration.comparison import Comparison
from posepipe.registration.deep import PoseNetworks
from posepipe.registration.found import BrainFit, best_found
from posepipe.registration.hypothesis import Hypothesis, Ranked
from posepipe.registration.initial import InitialPose, Witness

pytestmark = pytest.mark.decisions
FITS, LITTLE = (0.5, 0.9), (0.09, 0.95)


class Judged(NamedTuple):
    mask: BrainMask
    fit: BrainFit


def judged(mask: BrainMask, coarse: float, dice: float, criterion: float = 0.2, witness: Witness | None = None) -> Judged:
    best = Hypothesis(Rigid.identity(), 0.0, 1.0, criterion, coarse)
    return Judged(mask, BrainFit(InitialPose(best.pose, "search", Ranked((best,), "criterion"), 1.0, witness), dice))


MASK = BrainMask(Volume(np.ones((10, 10, 10), bool), np.diag([3.0, 3, 3, 1]), "m.nii.gz"), "network", sure=False)
SURE, UNSURE, ELSEWHERE = (Witness(Rigid.from_rotvec([x, 0, 0]), {}, {}, sure) for x, sure in ((0.0, True), (0.0, False), (1.0, True)))


@pytest.mark.parametrize(
    ("criterion", "coarse", "dice", "witness", "is_one"),
    [
        (0.20, 0.10, 0.50, None, True),
        (0.20, 0.09, 0.95, None, False),
        (0.31, 0.09, 0.95, None, False),
        (0.32, 0.00, 0.95, None, True),
        (0.90, 0.90, 0.49, None, False),
        (0.01, 0.01, 0.95, SURE, True),  # a brain without contrast
        (0.01, 0.01, 0.49, SURE, False),
        (0.01, 0.01, 0.95, UNSURE, False),
        (0.01, 0.01, 0.95, ELSEWHERE, False),
    ],
)
def test_what_fits_nowhere_is_no_brain(criterion, coarse, dice, witness, is_one):
    source = "sub-01_T2w.nii.gz"
    if is_one:
        assert best_found(MASK, lambda m: judged(m, coarse, dice, criterion, witness), source).mask is MASK
        return
    with pytest.raises(MaskError) as error:
        best_found(MASK, lambda m: judged(m, coarse, dice, criterion, witness), source)
    message = str(error.value)
    assert message.startswith("sub-01_T2w.nii.gz: no brain was found") and "give its mask" in message and "27 ml" in message
    assert f"criterion {criterion:.2f}, coarse texture {coarse:.2f}" in message and f"Dice {dice:.2f}" in message


@pytest.mark.parametrize(
    ("fits", "chosen", "asked"),
    [
        ([FITS, (0.4, 0.85), FITS, FITS], 0, 2),  # two outlines of the likeliest place are compared, and that will do
        ([FITS, (0.2, 0.91), FITS, FITS], 1, 2),
        ([LITTLE, (0.2, 0.6), FITS, FITS], 1, 2),
        ([FITS, LITTLE, FITS, FITS], 0, 2),
        ([LITTLE, LITTLE, FITS, (0.9, 0.95)], 2, 3),  # the next place
        ([LITTLE, LITTLE, LITTLE, FITS], 3, 4),
        ([LITTLE, LITTLE, LITTLE, (0.9, 0.49)], None, 4),
    ],
)
def test_what_fits_at_the_likeliest_place_is_the_brain(fits, chosen, asked):
    others = tuple(replace(MASK, place=place, warnings=(str(place),)) for place in (0, 1, 2))
    mask, seen = replace(MASK, others=others), []

    def judge(one: BrainMask) -> Judged:
        seen.append(one)
        return judged(one, *fits[[mask, *others].index(one)])

    if chosen is None:
        with pytest.raises(MaskError, match=f"coarse texture {fits[0][0]:.2f}"):  # told of the likeliest
            best_found(mask, judge, "a.nii.gz")
    else:
        assert best_found(mask, judge, "a.nii.gz").mask is [mask, *others][chosen]
    assert seen == [mask, *others][:asked]


@pytest.fixture(scope="module")
def networks() -> PoseNetworks:
    return PoseNetworks()


def test_a_brain_fits_and_a_ball_of_noise_does_not(head, target, networks, monkeypatch):
    monkeypatch.setattr("posepipe.registration.initial.ATTEMPTS", 2)
    brain = BrainMask(head.mask.with_data(head.mask.data > 0), "network", sure=False)
    fit = BrainFit.of(Comparison(head.brain, target), brain, networks)
    assert fit.is_brain and fit.dice > 0.9 and fit.initial.pose.degrees_from(head.pose) < 4
    noise = np.random.default_rng(0).rayleigh(100, head.image.shape).astype(np.float32)
    center = np.argwhere(brain.volume.data).mean(0)
    near = np.linalg.norm((np.moveaxis(np.indices(noise.shape), 0, -1) - center) * head.image.spacing, axis=-1) < 38  # mm
    ball = replace(brain, volume=brain.volume.with_data(near))
    fit = BrainFit.of(Comparison.of(head.image.with_data(noise * near), ball.volume, target), ball, networks)
    assert not fit.is_brain and fit.initial.best.coarse < 0.1
