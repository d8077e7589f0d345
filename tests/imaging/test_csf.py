"""The brain's own surface, distinguished from the fluid around it."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe import phantom
from posepipe.imaging.csf import without_extra_axial_csf
from posepipe.imaging.volume import Volume

FLUID = next(k for k, v in phantom.LABELS.items() if v == "extra-axial CSF")
VENTRICLES = next(k for k, v in phantom.LABELS.items() if v == "ventricles")


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.mark.parametrize("age", [23, 29, 36])
def test_outer_fluid_goes_and_the_ventricles_stay(age):
    labels = phantom.brain_labels(age, 1.5)
    mask = phantom.brain_mask(labels)
    brain = without_extra_axial_csf(phantom.render(labels, age), mask).data
    truth = (labels.data > 0) & (labels.data != FLUID)
    assert brain.dtype == bool and not (brain & ~(mask.data > 0)).any()
    assert dice(brain, truth) > 0.9
    assert dice(brain, truth) > dice(mask.data > 0, truth) + 0.05
    assert brain[labels.data == VENTRICLES].mean() > 0.9


def test_the_scale_of_the_intensities_does_not_matter():
    labels = phantom.brain_labels(29, 2.0)
    image, mask = phantom.render(labels, 29), phantom.brain_mask(labels)
    one, other = (without_extra_axial_csf(image.with_data(image.data * s), mask).data for s in (1.0, 713.0))
    assert dice(one, other) > 0.999


def test_a_mask_that_is_all_rim_has_no_brain():
    inside = np.zeros((24, 24, 24), dtype=bool)
    inside[2:22, 10:13, 2:22] = True
    data = np.where(inside, np.random.default_rng(0).uniform(50, 100, inside.shape), 0).astype(np.float32)
    assert not without_extra_axial_csf(Volume(data, np.eye(4)), Volume(inside, np.eye(4))).data.any()
    assert not without_extra_axial_csf(Volume(data, np.eye(4)), Volume(np.zeros_like(inside), np.eye(4))).data.any()
