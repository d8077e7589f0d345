"""The apparent contrast of an image, compared with its template."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe import phantom
from posepipe.contrast.check import MARGIN, apparent_contrast
from posepipe.geometry import Rigid
from posepipe.matching.brain import Brain
from posepipe.matching.target import SPACING, Target


@pytest.fixture(scope="module")
def in_t1w() -> Target:
    """The template in the other contrast."""
    labels = phantom.brain_labels(29.0, 1.5)
    return Target(phantom.render(labels, 29.0, "T1w"), phantom.brain_mask(labels), "Phantom+29", contrast="T1w")


@pytest.mark.parametrize("contrast", ["T1w", "T2w"])
def test_the_contrast_is_seen_against_templates_of_either(make_head, target, in_t1w, contrast):
    for seed in (3, 4):
        head = make_head(seed, contrast=contrast)
        for template in (target, in_t1w):
            seen, correlation = apparent_contrast(head.brain, template, head.pose)
            assert seen == contrast and np.sign(correlation) == (1 if contrast == template.contrast else -1)


def test_scale_and_slow_gain_do_not_matter(head, target):
    gain = np.linspace(0.4, 2.5, head.image.shape[0])[:, None, None]
    spoilt = head.image.with_data(37 * gain * head.image.data)
    _, plain = apparent_contrast(head.brain, target, head.pose)
    seen, correlation = apparent_contrast(Brain.prepare(spoilt, head.mask, SPACING), target, head.pose)
    assert seen == "T2w" and correlation == pytest.approx(plain, abs=0.1)


def test_noise_and_flat_images_tell_nothing(head, target):
    noise = head.image.with_data(np.random.default_rng(0).normal(500, 50, head.image.shape).astype(np.float32))
    seen, correlation = apparent_contrast(Brain.prepare(noise, head.mask, SPACING), target, head.pose)
    assert seen is None and abs(correlation) < MARGIN
    flat = head.image.with_data(np.full(head.image.shape, 7.0, np.float32))
    assert apparent_contrast(Brain.prepare(flat, head.mask, SPACING), target, head.pose)[0] is None


def test_brains_that_do_not_meet_tell_nothing(head, target):
    away = Rigid.from_rotvec([0, 0, 0], [400.0, 0, 0])
    assert apparent_contrast(head.brain, target, away @ head.pose) == (None, 0.0)
