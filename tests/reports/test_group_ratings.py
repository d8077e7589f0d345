"""Merged ratings, and measures of agreement compared with published values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from group_outputs import rating, write_ratings
from hypothesis import given
from hypothesis import strategies as st

from posepipe.errors import UsageError
from posepipe.reports.group_agreement import kappa
from posepipe.reports.group_ratings import gather, mean_kappa


def spread(table: list[list[int]]) -> tuple[list[int], list[int]]:
    """The two raters' lists behind a table of counts."""
    pairs = [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [i for i, _ in pairs], [j for _, j in pairs]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[20, 5], [10, 15]], 0.4),
        ([[45, 15], [25, 15]], 0.1304),
        ([[25, 35], [5, 35]], 0.2593),
        ([[106, 10, 4], [22, 28, 10], [2, 12, 6]], 0.429),  # Fleiss, Cohen and Everitt 1969
    ],
)
def test_kappa_of_published_tables(table: list[list[int]], expected: float):
    assert kappa(*spread(table), range(len(table))) == pytest.approx(expected, abs=5e-4)


def test_weighted_kappa_of_known_lists():
    a, b = [0] * 46 + [1] * 44 + [2] * 10, [0] * 50 + [1] * 40 + [2] * 10
    assert kappa(a, b, range(3)) == pytest.approx(0.9315, abs=5e-5)
    assert kappa(a, b, range(3), weights="quadratic") == pytest.approx(0.9541, abs=5e-5)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=40))
def test_quadratic_kappa_is_the_concordance_of_the_numbers(pairs: list[tuple[int, int]]):
    """With quadratic weights it equals Lin's concordance with population moments (Krippendorff 1970)."""
    a, b = np.array(pairs, float).T
    bottom = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    found = kappa([x for x, _ in pairs], [y for _, y in pairs], (1, 2, 3, 4), weights="quadratic")
    if bottom == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(2 * ((a - a.mean()) * (b - b.mean())).mean() / bottom, abs=1e-9)


def test_kappa_is_not_defined_without_variety_and_refuses_nonsense():
    assert math.isnan(kappa([], [], (1, 2)))
    assert math.isnan(kappa([1, 1], [1, 1], (1, 2)))
    assert kappa([1, 1], [2, 2], (1, 2)) == 0
    for a, b, weights in (([1], [1, 2], "none"), ([1], [3], "none"), ([1], [1], "cubic")):
        with pytest.raises(ValueError, match=r"same items|none of|weights are"):
            kappa(a, b, (1, 2), weights=weights)


def test_ratings_of_several_raters_are_merged(tmp_path: Path):
    write_ratings(tmp_path / "ab.json", "AB", [rating("sub-01_T2w"), rating("sub-02_ses-1_T2w", "reject", 1)])
    write_ratings(tmp_path / "cd.json", "CD", [rating("sub-01_T2w", "adjust", 3), rating("sub-03_T2w")])
    found = gather(tmp_path)
    assert [(f.rating.rater, f.rating.image, f.file) for f in found.filed] == [
        ("AB", "sub-01_T2w", "ab.json"), ("CD", "sub-01_T2w", "cd.json"),
        ("AB", "sub-02_ses-1_T2w", "ab.json"), ("CD", "sub-03_T2w", "cd.json"),
    ]  # fmt: skip
    assert found.raters == ["AB", "CD"] and not found.problems and not found.notes
    (pair,) = found.agreement()
    assert (pair.raters, pair.images, pair.same_decisions, pair.qualities) == (("AB", "CD"), 1, 0.0, 1)


def test_the_latest_rating_of_an_image_counts(tmp_path: Path):
    write_ratings(tmp_path / "a.json", "AB", [rating("sub-01_T2w", "reject", rated="2026-11-01T12:00:00+02:00")])
    write_ratings(tmp_path / "b.json", "AB", [rating("sub-01_T2w", "accept", rated="2026-11-01T11:00:00Z")])
    write_ratings(tmp_path / "c.json", "AB", [rating("sub-01_T2w", "adjust", rated="2026-11-01T10:30:00Z")])
    found = gather(tmp_path)
    assert [f.rating.decision for f in found.filed] == ["accept"]
    assert found.notes == ("2 ratings are older than another of the same image by the same rater, and do not count",)


def test_a_damaged_file_is_named_and_the_others_count(tmp_path: Path):
    write_ratings(tmp_path / "ab.json", "AB", [rating("sub-01_T2w")])
    (tmp_path / "broken.json").write_text("{")
    write_ratings(tmp_path / "wrong.json", "CD", [rating("sub-01_T2w", "perhaps")])
    found = gather(tmp_path)
    assert [f.rating.rater for f in found.filed] == ["AB"]
    assert len(found.problems) == 2 and "broken.json" in found.problems[0] and "'perhaps'" in found.problems[1]


@pytest.mark.parametrize("make", [True, False])
def test_a_folder_without_ratings_is_a_usage_error(tmp_path: Path, make: bool):
    folder = tmp_path / "ratings"
    if make:
        folder.mkdir()
    with pytest.raises(UsageError, match=r"holds no|no such folder"):
        gather(folder)


def test_agreement_of_three_raters_has_three_pairs_and_a_mean(tmp_path: Path):
    names = [f"sub-{n:02d}_T2w" for n in range(8)]
    said = {"A": [4, 4, 3, 3, 2, 2, 1, 1], "B": [4, 3, 3, 3, 2, 1, 1, 1], "C": [1, 1, 2, 2, 3, 3, 4, 4]}
    for rater, qualities in said.items():
        decisions = ["accept" if q > 2 else "reject" for q in qualities]
        content = [rating(n, d, q) for n, d, q in zip(names, decisions, qualities, strict=True)]
        write_ratings(tmp_path / f"{rater}.json", rater, content)
    pairs = {pair.raters: pair for pair in gather(tmp_path).agreement()}
    assert pairs["A", "B"].decision_kappa == 1 and pairs["A", "C"].decision_kappa == -1
    assert pairs["A", "C"].quality_kappa == pytest.approx(-1) and pairs["A", "B"].quality_kappa > 0.8
    assert len(pairs) == 3 and mean_kappa([p.decision_kappa for p in pairs.values()]) == pytest.approx(-1 / 3)
