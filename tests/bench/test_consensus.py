"""Limits that depend on the weights, computed from rows with known limits."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.bench import brains, negative, precision
from posepipe.bench.brains import SIGNS, fit_brain, smooth_noise
from posepipe.bench.consensus import fit_consensus
from posepipe.bench.precision import Answer
from posepipe.errors import UsageError


def poses(errors: np.ndarray, degrees: np.ndarray, votes: float = 0.75, source: str = "auto") -> list[dict[str, str]]:
    return [
        {"name": f"b{i % 3}", "source": source, "votes": str(votes), "expected_error": str(np.log(e)), "networks": str(d)}
        for i, (e, d) in enumerate(zip(errors, degrees, strict=True))
    ]


def test_the_largest_error_up_to_which_hardly_a_pose_is_wrong():
    errors = np.linspace(0.001, 0.04, 400)
    rows = poses(errors, np.where(errors > 0.025, 90.0, 3.0))
    others = poses(errors, np.full(400, 90.0), votes=0.5) + poses(errors, np.full(400, 90.0), source="search")
    found, made = fit_consensus(rows + others)
    assert found.votes == 0.75 and found.error == pytest.approx(0.025, abs=0.0011)
    assert made.startswith("400 poses of 3 brains in which 0.75 of the votes agree: ")
    with pytest.raises(UsageError, match="train them further"):
        fit_consensus(poses(errors, np.full(400, 16.0)))


def places(kind: float, mm: str, n: int, rng: np.random.Generator) -> list[dict[str, str]]:
    """Rows of brains or other places, apart by ``kind`` in each feature."""
    noise = rng.normal(size=(n, len(SIGNS)))
    return [
        {"name": f"{mm}-{i}", "mm": mm, **{name: str(sign * kind + x) for (name, sign), x in zip(SIGNS.items(), row, strict=True)}}
        for i, row in enumerate(noise)
    ]


def test_features_of_the_brain_score_keep_their_signs():
    rng = np.random.default_rng(0)
    rows = [*places(2.0, "5.0", 80, rng), *places(-2.0, "", 60, rng), *places(-2.0, "70.0", 40, rng)]
    rows += [*places(9.0, "30.0", 20, rng), {"name": "none", "mm": "", **dict.fromkeys(SIGNS, "")}]  # parts, and nothing seen
    model, made = fit_brain(rows)
    assert made.startswith("80 brains, 100 other places of 180 images; left out image by image: AUROC ")
    assert all(model.terms[name][0] * sign >= 0 for name, sign in SIGNS.items())
    brain, other = ({name: sign * kind for name, sign in SIGNS.items()} for kind in (2.0, -2.0))
    assert model.probability(brain) > 0.95 and model.probability(other) < 0.05 and 0 < model.fail < model.review
    turned = [{**r, "size": str(-float(r["size"]))} if r["size"] else r for r in rows]  # a feature that counts the wrong way
    assert fit_brain(turned)[0].terms["size"][0] == 0
    with pytest.raises(UsageError, match="all of one kind"):
        fit_brain(rows[:80])


def test_limits_are_below_the_cross_validated_scores_of_brains(monkeypatch):
    """Of 40 brains one has 0.1 and one 0.4, the others 0.8."""
    rows = [*places(2.0, "5.0", 40, np.random.default_rng(0)), *places(-2.0, "", 40, np.random.default_rng(1))]
    held = np.array([0.1, 0.4, *38 * [0.8], *40 * [0.05]])
    monkeypatch.setattr(brains, "out_of_fold", lambda *_, **__: held)
    model, made = fit_brain(rows)
    assert model.fail == pytest.approx(0.1 / 1.9) and model.review == pytest.approx(0.4 / 1.6)  # half the odds of 0.1, and of 0.4
    assert made.endswith("doubtful are 1 brains and 40 other places, 40 of these refused")


def test_noise_is_the_smoother_the_higher_its_number():
    rough = [np.abs(np.diff(smooth_noise(k).data, axis=0)).mean() for k in range(4)]
    assert rough == sorted(rough, reverse=True) and rough[0] > 3 * rough[3]


def answer(verdict: str, voxels: int, turn: float) -> Answer:
    mask = np.zeros((10, 10), bool)
    mask.flat[:voxels] = True
    return Answer(verdict, mask, (np.array([0, 0, turn]),) * 2, (1.0, 2.0))


def test_precisions_are_compared_image_by_image():
    base = {"a": answer("pass", 50, 0.0), "b": answer("refused", 0, np.nan)}
    other = {"a": answer("pass", 48, np.radians(0.3)), "b": answer("review", 20, 0.0)}
    same, differs, _, output = precision.report({"float32": base, "bfloat16": other}).split("\n")[2:]
    assert same == "| float32 | 2 | 0 | 1.0000 | 0.000° | 0.000° | 1.00 | 2.00 |"
    assert differs == "| bfloat16 | 2 | 1 | 0.9796 | 0.300° | 0.300° | 1.00 | 2.00 |"
    assert output == "- bfloat16, b: refused → review"


def test_negatives_whose_outcome_depends_on_the_initial_pose_are_reported():
    rows = [
        {"kind": "noise", "name": name, "init": init, "outcome": outcome}
        for name, init, outcome in (("a", "auto", "refused"), ("a", "deep", "pass"), ("b", "auto", "refused"), ("b", "deep", "refused"))
    ]
    text = negative.report(rows)
    assert "| noise | 2 | auto | 2 | 0 | 0 | 0 |" in text and "| noise | 2 | deep | 1 | 0 | 0 | 1 |" in text
    assert text.endswith("- a: {'auto': 'refused', 'deep': 'pass'}")
