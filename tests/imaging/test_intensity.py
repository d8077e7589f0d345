"""Intensities with any offset and scale: the measured values, empty background, and its level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from posepipe.geometry import Rigid
from posepipe.imaging.apply import resample_to_template
from posepipe.imaging.intensity import empty_value, from_zero, offset
from posepipe.imaging.mask import has_empty_background, is_extracted, nonzero_mask
from posepipe.imaging.volume import Volume
from posepipe.phantom import brain_labels, render


@pytest.fixture(scope="module")
def extracted() -> Volume:
    labels = brain_labels(29, spacing=3.0)
    image = render(labels, 29, "T2w")
    return image.with_data(np.where(labels.data > 0, image.data.astype(np.float64) + 1, 0))


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-1e4, 1e4))
def test_an_extracted_brain_is_one_whatever_the_scale(extracted, scale, shift):
    other = extracted.with_data(scale * extracted.data + shift)
    assert has_empty_background(other) and is_extracted(other)
    assert np.array_equal(nonzero_mask(other).volume.data, nonzero_mask(extracted).volume.data)
    if shift >= 0:
        assert np.allclose(from_zero(other.data), scale * extracted.data, atol=1e-9 * (scale + shift))


def test_standard_scores_begin_at_their_background(extracted):
    inside = extracted.data > 0
    whole = (extracted.data - extracted.data.mean()) / extracted.data.std()
    brain = np.where(inside, (extracted.data - extracted.data[inside].mean()) / extracted.data[inside].std(), 0)
    for scores in (whole, brain):
        again = from_zero(scores)
        assert np.corrcoef(again[inside], extracted.data[inside])[0, 1] > 0.999 and (again[inside] > 0).mean() > 0.99
        assert again[~inside].max() == 0


def test_a_background_far_below_the_brain_is_empty(extracted):
    far = np.where(extracted.data == 0, -1024, extracted.data)
    assert empty_value(far) == -1024
    assert np.array_equal(from_zero(far), extracted.data) and is_extracted(extracted.with_data(far))


def test_scans_begin_at_their_noise():
    rng = np.random.default_rng(0)
    scan = rng.rayleigh(10, (40, 40, 40)) + 500 * (ndimage.gaussian_filter(rng.normal(size=(40, 40, 40)), 5) > 0)
    assert empty_value(scan) is None and offset(scan) < 3
    for a, b in ((1, 20000), (1e-3, -1), (5, 7)):
        assert np.allclose(from_zero(a * scan + b), a * from_zero(scan), atol=1e-4 * a)
    spiky = scan.copy()
    spiky[3, 4, 5] = -30000
    assert abs(offset(spiky) - offset(scan)) < 1


def test_ordinary_images_keep_their_intensities(extracted):
    assert offset(extracted.data) == 0 and np.array_equal(from_zero(extracted.data), extracted.data)
    few = extracted.data.copy()
    few[few == 0] = np.random.default_rng(1).random(int((few == 0).sum()))  # air with noise: no value of its own
    assert not has_empty_background(extracted.with_data(few))


@pytest.mark.parametrize(("empty", "shown"), [(0, 0), (-1.5, -1.5), (20000, 20000)])
def test_what_lies_beyond_the_image_is_empty_when_it_is_resampled(extracted, empty, shown):
    image = extracted.with_data(extracted.data + empty)
    moved = resample_to_template(image, image, Rigid(np.eye(3), np.array([60.0, 0, 0])))
    assert moved.data[-2:].min() == moved.data[-2:].max() == pytest.approx(shown)
