"""What else may be the brain, where the finder is not sure of what it masked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posepipe.bench.masks import overlap
from posepipe.errors import MaskError
from posepipe.imaging.volume import Volume
from posepipe.registration.calibration import load_calibration
from posepipe.registration.masking import DARK, LESS_NARROW, NARROW, TIGHT, BrainFinder, _outline

DOUBT, DOUBTFUL = load_calibration().likeness.doubt, load_calibration().likeness.doubtful

RADII = {"large": 14, "middle": 11, "small": 9}
"""Voxels of 2 mm: balls of 92, 45 and 24 ml."""


def balls(*names: str) -> np.ndarray:
    """Bool (40, 42, 132): a place for each ball, and those of ``names`` there."""
    offset = np.moveaxis(np.indices((40, 42, 44)), 0, -1) - np.array([20, 21, 22])
    away = np.linalg.norm(offset, axis=-1)
    return np.concatenate([away < RADII[name] if name in names else np.zeros(away.shape, bool) for name in RADII], axis=2)


IMAGE = Volume(np.where(balls(*RADII), 100, 10).astype(np.float32), np.diag([2.0, 2, 2, 1]), "sub-01_T2w.nii.gz")


@pytest.fixture
def finder(mask_weights, monkeypatch):
    """A function that makes a finder to which the balls are more like a brain than the least, by so much."""
    made = BrainFinder(mask_weights(0.5))
    for network in (made._fine, made._edge):
        monkeypatch.setattr(network, "least", 20.0)

    def make(**margins: float) -> BrainFinder:
        by_size = sorted(zip(margins.values(), (60, 30, 0), strict=True), key=lambda one: -one[1])

        def likeness(image, scan, look, least):
            return least + next(margin for margin, ml in by_size if look.about.millilitres > ml)

        monkeypatch.setattr(made, "_likeness", likeness)
        return made

    return make


def test_the_next_places_in_order_and_a_tighter_outline_of_the_first(finder):
    mask = finder(large=-0.5, middle=-1.0, small=-0.1).find(IMAGE)
    assert overlap(mask.volume.data, balls("small")) > 0.85 and (mask.place, mask.sure) == (0, False)
    assert [one.place for one in mask.others] == [0, 1, 2]
    tight, *elsewhere = mask.others
    assert overlap(tight.volume.data, balls("small")) > 0.8 and tight.voxels < mask.voxels
    assert "tighter" in tight.warnings[0] and all("is the next" in one.warnings[0] for one in elsewhere)
    for one, name in zip(elsewhere, ("large", "middle"), strict=True):
        assert overlap(one.volume.data, balls(name)) > 0.9
    for one in mask.others:
        assert (one.source, one.sure, one.weights) == ("network", False, mask.weights) and one.others == ()


def test_what_is_hardly_like_a_brain_is_no_other(finder):
    mask = finder(large=-2 * DOUBTFUL, middle=-2 * DOUBTFUL - 0.01, small=-0.1).find(IMAGE)
    assert [one.place for one in mask.others] == [0, 1] and overlap(mask.others[1].volume.data, balls("large")) > 0.9
    with pytest.raises(MaskError, match="no brain was found"):  # nothing is enough like one
        finder(large=-DOUBTFUL - 0.01, middle=-2, small=-2).find(IMAGE)


def test_what_is_sure_has_no_others(finder):
    assert finder(large=DOUBT, middle=0, small=0).find(IMAGE).others == ()
    assert finder(large=DOUBT - 0.01, middle=0, small=0).find(IMAGE).others


@pytest.mark.parametrize(("voxel", "power"), [(2.0, 1.0), (3.0, 1.7), (3.7, DARK)])
def test_brightness_is_raised_in_narrow_looks_at_what_is_large_and_in_all_of_a_tight_outline(finder, monkeypatch, voxel, power):
    """Balls of 92 ml, of some 320 ml, and of 580 ml."""
    image = Volume(np.where(balls("large"), 100, 10).astype(np.float32)[..., :44], np.diag([voxel, voxel, voxel, 1]), "a.nii.gz")
    seen = []

    def outline(network, scan, about, width, *axes):
        seen.append((width, np.log(float(scan.data.min()) / 100) / np.log(0.1)))
        return _outline(network, scan, about, width, *axes)

    monkeypatch.setattr("posepipe.registration.masking._outline", outline)
    mask = finder(large=0, middle=0, small=0).find(image)
    assert len(mask.others) == 1
    half = len(seen) // 2
    for part, narrow, wide in ((seen[:half], power, 1.0), (seen[half:], DARK, DARK)):
        assert [width for width, _ in part] == [NARROW] * (half - 1) + [LESS_NARROW]
        assert [found for _, found in part] == pytest.approx([narrow] * (half - 1) + [wide], abs=0.1)


@pytest.mark.parametrize(("likely", "tight"), [(TIGHT - 0.01, False), (TIGHT + 0.01, True)])
def test_a_tight_outline_holds_what_is_very_likely(finder, monkeypatch, likely, tight):
    made = finder(large=0, middle=-5, small=-5)
    monkeypatch.setattr(made._edge, "all_round", lambda cube: torch.where(cube[0] > 50, likely, 0.0).expand(4, -1, -1, -1))
    assert bool(made.find(IMAGE).others) is tight  # of what is less likely nothing is left


def test_a_darker_picture_shows_less_of_what_is_about_the_brain(finder):
    """A shell three fifths as bright as the brain: brain by its brightness, but not by the square of that."""
    offset = np.moveaxis(np.indices((60, 60, 60)), 0, -1) - 30
    away = np.linalg.norm(offset, axis=-1)
    image = Volume(np.select([away < 14, away < 19], [100, 60], 10).astype(np.float32), np.diag([2.0, 2, 2, 1]), "a.nii.gz")
    mask = finder(large=0, middle=0, small=0).find(image)
    assert overlap(mask.volume.data, away < 19) > 0.9 and overlap(mask.others[0].volume.data, away < 14) > 0.9
