"""The data that the confidence model is fitted to: correct poses, weights of the rows, and held-out fits with the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.bench.confidence import ABOUT, SCAN, fit_confidence
from posepipe.bench.logistic import fit_logistic, out_of_fold
from posepipe.models.calibration import SIGNS


def rows(n: int = 240) -> list[dict[str, str]]:
    """Poses of eight brains, every fifth made wrong on purpose; errors of 14.9° and 15.1°, and a feature that tells them apart a little."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        degrees = 15.1 if i % 3 == 0 else 14.9
        about = (f"b{i % 8}", i, "none", "turned" if i % 5 == 0 else "auto", "torch", degrees, degrees)
        features = {name: rng.normal() for name in SIGNS} | {"apart": (degrees > 15) + rng.normal()}
        found.append({k: str(v) for k, v in {**dict(zip(ABOUT, about, strict=True)), **features}.items()})
    return found


def test_a_pose_is_right_within_15_degrees():
    made = rows()
    found = fit_confidence(made)
    assert found.right.tolist() == [float(r["degrees"] == "14.9") for r in made]
    assert found.model.terms["apart"][0] < -0.2


def test_no_feature_counts_the_wrong_way():
    """Poses that are wrong overlap more, and so does the model not look at the overlap."""
    made = rows()
    for r in made:
        r["Dice"], r["CR"] = (str(sign * (float(r["degrees"]) > 15) + float(r[name])) for name, sign in (("Dice", 3), ("CR", -3)))
    terms = fit_confidence(made).model.terms
    assert "Dice" not in terms and terms["CR"][0] > 0.2
    assert all(coefficient * SIGNS[name] > 0 for name, (coefficient, *_) in terms.items())


def test_limits_of_nested_cross_validation_do_not_depend_on_the_brain():
    """What is known of a brain changes the limit of all others, and not its own."""
    made = rows()
    before = fit_confidence(made)
    for r in made:
        if r["name"] == "b3":
            r["apart"] = str(-float(r["apart"]))
    after = fit_confidence(made)
    mine = np.array([r["name"] == "b3" for r in made])
    assert len(set(before.limits[mine])) == 1 and np.isfinite(before.limits).all()
    np.testing.assert_array_equal(before.limits[mine], after.limits[mine])
    assert (before.limits[~mine] != after.limits[~mine]).any()
    assert "thresholds from nested cross-validation" in before.report() and before.nested() in before.report()


def test_raw_scans_between_right_and_wrong_count_for_neither():
    made = rows()
    for r in made[:30]:
        r["damage"] = SCAN
    made[0]["degrees"], made[1]["degrees"] = "29.0", "31.0"
    found = fit_confidence(made)
    left_out = sum(15 < float(r["degrees"]) <= 30 for r in made[:30])
    assert left_out > 5 and len(found.p) == len(made) - left_out
    assert found.model.terms and (found.corruptions == SCAN).sum() == 30 - left_out


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
