"""Limits that depend on weights, from rows whose limits are known."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.bench import negative, precision
from posepipe.bench.precision import Answer
from posepipe.bench.sureness import least_likeness, smooth_noise, sureness
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
    found, made = sureness(rows + others)
    assert found.votes == 0.75 and found.error == pytest.approx(0.025, abs=0.0011)
    assert made.startswith("400 poses of 3 brains in which 0.75 of the votes agree: ")
    with pytest.raises(UsageError, match="train them further"):
        sureness(poses(errors, np.full(400, 16.0)))


def test_the_limit_between_brains_and_other_places():
    rng = np.random.default_rng(0)
    kinds = {"5.0": 22.5, "": 19.0, "70.0": 19.5, "30.0": 21.9}  # a brain, none in the image, elsewhere, a part
    rows = [
        {"name": "a", "network": network, "likeness": str(mean + shift + 0.3 * rng.normal()), "mm": mm}
        for network, shift in (("mask-fine", 0.0), ("mask-edge", 0.5)) for mm, mean in kinds.items() for _ in range(100)
    ]  # fmt: skip
    least, made = least_likeness([*rows, {"name": "b", "network": "mask-fine", "likeness": "-inf", "mm": ""}])
    assert 20.4 < least["mask-fine"] < 21.9 and 20.9 < least["mask-edge"] < 22.4
    assert made.startswith("where a brain is as probable as another place; mask-fine: ") and " of 200 other places above" in made
    kept, made = least_likeness(rows, {"mask-fine": 19.0, "mask-edge": 30.0})
    assert kept == {"mask-fine": 19.0, "mask-edge": 30.0} and made.startswith("kept") and "100 of 100 brains below, 0 of 200" in made


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
    same, differs, _, told = precision.report({"float32": base, "bfloat16": other}).split("\n")[2:]
    assert same == "| float32 | 2 | 0 | 1.0000 | 0.000° | 0.000° | 1.00 | 2.00 |"
    assert differs == "| bfloat16 | 2 | 1 | 0.9796 | 0.300° | 0.300° | 1.00 | 2.00 |"
    assert told == "- bfloat16, b: refused → review"


def test_negatives_whose_outcome_depends_on_the_initial_pose_are_told():
    rows = [
        {"kind": "noise", "name": name, "init": init, "outcome": outcome}
        for name, init, outcome in (("a", "auto", "refused"), ("a", "deep", "pass"), ("b", "auto", "refused"), ("b", "deep", "refused"))
    ]
    text = negative.report(rows)
    assert "| noise | 2 | auto | 2 | 0 | 0 | 0 |" in text and "| noise | 2 | deep | 1 | 0 | 0 | 1 |" in text
    assert text.endswith("- a: {'auto': 'refused', 'deep': 'pass'}")
