"""Outliers of similarity against age."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from group_outputs import Output, write_output

from posepipe.reports.group_outliers import LIMIT, MIN_IMAGES, outlying, robust_z, similarity_z
from posepipe.reports.group_rows import collect


def test_z_is_that_of_a_normal_distribution_whatever_the_line():
    rng = np.random.default_rng(0)
    ages = rng.uniform(21, 38, 3000)  # more pairs than are all taken
    z = robust_z(0.6 + 0.01 * ages + 0.02 * rng.standard_normal(3000), ages)
    assert z.std() == pytest.approx(1, abs=0.05) and abs(np.polyfit(ages, z, 1)[0]) < 0.02
    assert (z < LIMIT).sum() <= 3


def test_a_third_of_bad_poses_does_not_hide_them():
    rng = np.random.default_rng(1)
    ages = np.linspace(21, 38, 60)
    values = 0.5 + 0.01 * ages + 0.005 * rng.standard_normal(60)
    values[::3] -= 0.3
    z = robust_z(values, ages)
    assert (z[::3] < LIMIT).all() and (np.delete(z, np.s_[::3]) > LIMIT).all()


@pytest.mark.parametrize("values", [[0.9] * 10, [0.1 * n for n in range(10)]])
def test_values_all_on_the_line_have_no_outlier(values: list[float]):
    assert robust_z(values, range(10)) == pytest.approx(0)


def test_one_value_off_a_line_of_equal_ones_is_found():
    assert robust_z([0.9] * 20 + [0.2], [29.0] * 21)[-1] < LIMIT


def test_rows_are_compared_within_contrast_and_only_where_there_are_enough(tmp_path: Path):
    ages = np.linspace(22, 36, MIN_IMAGES + 1)
    for n, age in enumerate(ages):
        write_output(tmp_path, Output(f"{n:02d}", age=float(age), ncc=0.4 if n == 5 else 0.9 + 0.001 * (n % 3)))
        if n < MIN_IMAGES - 1:
            write_output(tmp_path, Output(f"{n:02d}", contrast="T1w", age=float(age), ncc=0.3))
    rows = collect(tmp_path).rows
    scores = similarity_z(rows)
    assert [row.subject for row, z in zip(rows, scores, strict=True) if outlying(z)] == ["05"]
    assert all(not z for row, z in zip(rows, scores, strict=True) if row.contrast == "T1w")


def test_converted_images_are_compared_with_converted_ones(tmp_path: Path):
    for n in range(2 * MIN_IMAGES):
        more = {"ContrastConversion": "contrast"} if n % 2 else {}
        write_output(tmp_path, Output(f"{n:02d}", contrast="T1w", age=22.0 + n, ncc=(0.9 if n % 2 else -0.5) + 0.001 * (n % 5), more=more))
    rows = collect(tmp_path).rows
    values = [(row.similarity()["NCC"][1], z["NCC"]) for row, z in zip(rows, similarity_z(rows), strict=True)]
    # about one line each; about one for all, the lower ones would all lie below it
    for sign in (-1, 1):
        assert sum(z > 0 for value, z in values if np.sign(value) == sign) in range(2, 7)


def test_the_furthest_measure_comes_first():
    assert outlying({"NCC": -4.0, "Dice": -9.0, "NMI": 5.0}) == ["Dice", "NCC"]
