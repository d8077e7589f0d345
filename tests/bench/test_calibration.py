"""What the model of confidence is fitted to: which poses are right, what each counts, and held-out fits by the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.bench.confidence import ABOUT, fit_confidence
from posepipe.bench.logistic import fit_logistic, out_of_fold


def rows(n: int = 240) -> list[dict[str, str]]:
    """Poses of eight brains, every fifth made wrong on purpose; errors of 14.9° and 15.1°, and a feature that tells them apart a little."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        degrees = 15.1 if i % 3 == 0 else 14.9
        about = (f"b{i % 8}", i, "none", "turned" if i % 5 == 0 else "auto", "torch", degrees, degrees)
        found.append({k: str(v) for k, v in zip((*ABOUT, "told"), (*about, (degrees > 15) + rng.normal()), strict=True)})
    return found


def test_a_pose_is_right_within_15_degrees():
    made = rows()
    found = fit_confidence(made)
    assert found.right.tolist() == [float(r["degrees"] == "14.9") for r in made]
    assert found.model.terms["told"][0] < -0.2


def test_poses_made_wrong_on_purpose_count_a_tenth_of_the_others_together():
    found = fit_confidence(rows())
    assert found.natural.sum() == 192
    assert set(found.weights[found.natural]) == {1.0}
    assert found.weights[~found.natural].sum() == pytest.approx(19.2)


def test_held_out_fits_count_rows_by_their_weights():
    """A weight of three is a row that is there three times."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(6), 30)
    x = rng.normal(size=(180, 2))
    y = (rng.random(180) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)
    weights = np.where(y == 1, 3.0, 1.0)
    often = np.repeat(np.arange(180), weights.astype(int))
    weighted = out_of_fold(x, y, groups, weights=weights, folds=6)
    repeated = out_of_fold(x[often], y[often], groups[often], folds=6)
    np.testing.assert_allclose(weighted[often], repeated, atol=1e-5)
    held = groups == 0
    alone = fit_logistic(x[~held], y[~held], weights=weights[~held]).probability(x[held])
    np.testing.assert_allclose(weighted[held], alone, atol=1e-9)
