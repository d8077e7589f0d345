"""Estimated ages and the size of the brain compared with the cohorts."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe import phantom
from posepipe.age.estimator import AgeEstimator
from posepipe.atlas import CohortSeries, Template
from posepipe.imaging.volume import save_volume
from posepipe.pose.coordinate_networks import PoseNetworks


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> CohortSeries:
    """Phantom templates of 25, 29 and 33 weeks."""
    folder, templates = tmp_path_factory.mktemp("cohorts"), []
    for week in (25, 29, 33):
        labels = phantom.brain_labels(week, 2.0)
        image = save_volume(phantom.render(labels, week), folder / f"{week}.nii.gz", np.int16)
        mask = save_volume(phantom.brain_mask(labels), folder / f"{week}_mask.nii.gz")
        templates.append(Template("Phantom", str(week), float(week), "T2w", image, mask))
    return CohortSeries("fetal", tuple(templates))


@pytest.mark.slow
def test_a_brain_is_larger_than_younger_cohorts_and_smaller_than_older_ones(series, make_head):
    """Sizes are logarithms of the image's over the cohort's, those of the fit and those of the masks alike."""
    head = make_head(3, (20.0, 150.0), 29.0)
    _, curve = AgeEstimator([series], PoseNetworks()).fit_cohorts(head.image, head.mask)
    np.testing.assert_array_equal(curve.weeks, [25, 29, 33])
    for sizes in (curve.log_size, curve.log_mask):
        assert sizes[0] > 0.08 > abs(sizes[1]) and sizes[2] < -0.05
    np.testing.assert_allclose(curve.log_size, curve.log_mask, atol=0.08)
