"""The reported similarity measures: NCC, NMI and Dice."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.geometry import Rigid
from posepipe.imaging.volume import Volume
from posepipe.matching.brain import Brain
from posepipe.matching.similarity import similarity
from posepipe.matching.target import SPACING


def test_equal_images_at_identity(target):
    values = similarity(target.brain, target.brain, Rigid.identity())
    assert values["NCC"] == pytest.approx(1, abs=1e-6)
    assert values["NMI"] == pytest.approx(2, abs=1e-6)
    assert values["Dice"] == pytest.approx(1, abs=5e-3)


def test_they_decrease_with_the_pose_error(target):
    steps = [similarity(target.brain, target.brain, Rigid.from_rotvec([0, 0, np.radians(d)])) for d in (0, 3, 10, 30)]
    for name, low, high in (("NCC", -1, 1), ("NMI", 1, 2), ("Dice", 0, 1)):
        values = [s[name] for s in steps]
        assert values == sorted(values, reverse=True), name
        assert low <= min(values) < max(values) <= high + 1e-6


def test_brightness_and_contrast_of_the_scanner_do_not_matter(average, target):
    image, mask = average
    other = Brain.prepare(image.with_data(37 + 0.2 * image.data), mask, SPACING)
    values = similarity(other, target.brain, Rigid.identity())
    assert values["NCC"] > 0.9999
    assert values["NMI"] > 1.95


def test_inverted_contrast_turns_ncc_but_not_nmi(average, target):
    image, mask = average
    negative = Brain.prepare(image.with_data(1500 - image.data), mask, SPACING)
    values = similarity(negative, target.brain, Rigid.identity())
    assert values["NCC"] < -0.9
    assert values["NMI"] > 1.5


def test_noise_shares_nothing(average, target):
    image, mask = average
    noise = np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    values = similarity(Brain.prepare(Volume(noise, image.affine), mask, SPACING), target.brain, Rigid.identity())
    assert abs(values["NCC"]) < 0.05
    assert values["NMI"] < 1.03
    assert values["Dice"] > 0.99


def test_masks_that_do_not_meet(target):
    away = Rigid(np.eye(3), np.array([500.0, 0, 0]))
    assert similarity(target.brain, target.brain, away) == {"NCC": 0.0, "NMI": 1.0, "Dice": 0.0}


def test_dice_of_shifted_boxes():
    """Two cubes of 40 mm, 10 mm apart: Dice 3/4."""
    rng = np.random.default_rng(1)
    inside = np.zeros((60, 60, 60), bool)
    inside[10:50, 10:50, 10:50] = True
    data = np.where(inside, rng.uniform(1, 2, inside.shape), 0).astype(np.float32)
    cube = Brain.prepare(Volume(data, np.eye(4)), Volume(inside, np.eye(4)), 1.0)
    values = similarity(cube, cube, Rigid(np.eye(3), np.array([10.0, 0, 0])))
    assert values["Dice"] == pytest.approx(0.75, abs=0.01)
