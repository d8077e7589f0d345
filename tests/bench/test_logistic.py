"""Logistic regression: it recovers the model of the data, stays finite, and its measures match their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.bench.logistic import auroc, brier, fit_logistic, out_of_fold, reliability, threshold


@pytest.fixture(scope="module")
def sampled() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, outcomes, and the probabilities that the outcomes were sampled with."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 3)) * [1.0, 5.0, 0.1] + [0, 20, 1]
    p = 1 / (1 + np.exp(-(1.0 + 1.5 * x[:, 0] - 0.2 * (x[:, 1] - 20))))
    return x, (rng.random(len(p)) < p).astype(float), p


def test_finds_the_coefficients_the_data_were_made_with(sampled):
    x, y, p = sampled
    model = fit_logistic(x, y)
    assert (np.abs(model.coefficients / model.scale - [1.5, -0.2, 0]) < [0.08, 0.02, 0.5]).all()
    assert np.abs(model.probability(x) - p).mean() < 0.01
    assert model.probability(x).mean() == pytest.approx(y.mean(), abs=1e-6)  # the intercept is not held by the ridge


def test_parted_classes_and_constant_features_give_a_finite_model():
    x = np.c_[np.r_[np.linspace(-9, -1, 20), np.linspace(1, 9, 20)], np.full(40, 3.0)]
    y = np.r_[np.zeros(20), np.ones(20)]
    model = fit_logistic(x, y, ridge=0.1)
    assert np.isfinite(model.coefficients).all()
    assert model.coefficients[1] == pytest.approx(0)
    assert ((model.probability(x) > 0.5) == y).all()
    assert np.abs(model.coefficients[0]) > np.abs(fit_logistic(x, y, ridge=10).coefficients[0])


def test_weights_are_repeated_rows(sampled):
    x, y, _ = sampled
    x, y = x[:200], y[:200]
    twice = np.r_[np.arange(200), np.arange(50)]
    weights = np.r_[np.full(50, 2.0), np.ones(150)]
    one, other = fit_logistic(x[twice], y[twice]), fit_logistic(x, y, weights=weights)
    np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-5)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="both right and wrong"):
        fit_logistic(np.zeros((5, 1)), np.ones(5))


def test_cross_validation_holds_out_whole_groups():
    """A feature that names the brain predicts nothing of a brain that was not seen."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(10), 40)
    y = np.repeat(rng.permutation([0.0, 1.0] * 5), 40)
    x = np.eye(10)[groups]
    assert auroc(fit_logistic(x, y).probability(x), y) == 1
    assert auroc(out_of_fold(x, y, groups, folds=10), y) < 0.6
    with pytest.raises(ValueError, match="two brains"):
        out_of_fold(x, y, np.zeros(400))


def test_auroc_and_brier_by_their_definitions():
    p, y = np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1])
    assert auroc(p, y) == 3.5 / 4
    assert np.isnan(auroc(p, np.ones(4)))
    assert brier(p, y) == pytest.approx((0.01 + 0.16 + 0.36 + 0.04) / 4)


def test_reliability_of_calibrated_probabilities(sampled):
    _, y, p = sampled
    rows = reliability(p, y)
    assert sum(r[3] for r in rows) == len(y)
    for mean, share, _, n in rows:
        assert share == pytest.approx(mean, abs=4 * np.sqrt(mean * (1 - mean) / n))


def test_threshold_flags_what_was_requested_unless_alarms_forbid():
    y = np.r_[np.zeros(10), np.ones(100)]
    p = np.r_[np.linspace(0.0, 0.45, 10), np.linspace(0.5, 0.99, 100)]
    t = threshold(p, y, flagged=0.9, alarms=0.05)
    assert (p[y == 0] < t).mean() == 0.9
    assert 0.4 < t < 0.45
    overlapping = np.r_[np.linspace(0.0, 0.9, 10), np.linspace(0.5, 0.99, 100)]
    t = threshold(overlapping, y, flagged=0.9, alarms=0.05)
    assert (overlapping[y == 1] < t).mean() == pytest.approx(0.05)
    assert (overlapping[y == 0] < t).mean() < 0.9
