"""The bench of ages: cases, curves from rows, constants fitted without the tested brain, and tables."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from posepipe.bench.age import SIMILARITIES, AgeBench, age_cases, age_records, fit_ages, report
from posepipe.bench.rows import PartFile
from posepipe.cli import bench_command
from posepipe.errors import UsageError


def rows_of(name: str, age: float | None, *, by_score: float, by_size: float, part: str = "calibration", stage: str = "fetal"):
    """Rows of a brain whose best criterion and whose size lie at these ages."""
    return [
        {
            "part": part, "group": f"{stage} group", "name": name, "brain": name.partition("-")[0], "age": "" if age is None else str(age),
            "stage": stage, "by": "CRL", "weeks": str(w), "score": str(0.5 - 0.004 * (w - by_score) ** 2),
            "log_size": str(0.03 * (by_size - w)), "log_mask": str(0.03 * (by_size + 1 - w)), "seconds": "0.5",
        }
        for w in np.arange(24.0, 35.0, 2.0)
    ]  # fmt: skip


@pytest.fixture
def rows():
    """Fetal brains whose similarity is right, neonatal ones whose size is."""
    found = []
    for k, age in enumerate((26.0, 28.0, 30.0, 32.0)):
        found += rows_of(f"f{k}", age, by_score=age, by_size=age - 2)
        found += rows_of(f"n{k}", age, by_score=age + 2, by_size=age, stage="neonatal")
    return found


def test_constants_follow_what_is_right(rows):
    model, left_out = fit_ages(age_records(rows))
    assert model.stages["fetal"].similarity == max(SIMILARITIES) and model.stages["neonatal"].similarity == 0
    assert len(left_out) == 8 and all(abs(left_out[f"n{k}"]) < 0.1 for k in range(4))
    assert model.stages["neonatal"].error < 0.1 < model.stages["fetal"].error
    assert "4 brains matched by fetal and 4 by neonatal atlases" in model.made


def test_the_error_of_a_brain_is_by_a_fit_without_it(rows):
    odd = rows_of("x", 28.0, by_score=33.0, by_size=28.0)
    _, left_out = fit_ages(age_records([*rows, *odd]))
    assert left_out["x"] > 3  # by the others' constant, which trusts similarity


def test_images_of_one_brain_are_left_out_together(rows):
    pair = [r for c in ("T1w", "T2w") for r in rows_of(f"x-{c}", 28.0, by_score=33.0, by_size=28.0)]
    few = [r for r in rows if r["name"] in ("f0", "f1") or r["stage"] == "neonatal"]
    _, left_out = fit_ages(age_records([*few, *pair]))
    assert left_out["x-T1w"] > 3 and left_out["x-T2w"] > 3


def test_too_few_brains(rows):
    with pytest.raises(UsageError, match="measure the whole part"):
        fit_ages(age_records([r for r in rows if r["stage"] == "fetal"]))


def test_report_has_groups_tests_and_stacks(rows):
    extra = rows_of("t", 29.0, by_score=29.4, by_size=29.4, part="test")
    stacks = [r for k in range(2) for r in rows_of(f"s{k}", None, by_score=25.0 + k, by_size=25.0 + k, part="stacks")]
    model, left_out = fit_ages(age_records([*rows, *extra, *stacks]))
    text = report(age_records([*rows, *extra, *stacks]), model, left_out)
    assert "| calibration: fetal group | 4 | 1.0 / 1.0 / 1.0 (-1.0) | 2.0 / 2.0 / 2.0 (-2.0) | 0.0 / 0.0 / 0.0 (+0.0) |" in text
    assert "t: 29 weeks, estimated 29.4 (by CRL)" in text
    assert "mean 25.5, standard deviation 0.71 weeks" in text


def test_cases_keep_parts_apart(data_dir: Path):
    cases = age_cases(data_dir)
    brains = {part: {c.brain for c in cases if c.part == part} for part in ("calibration", "test")}
    assert brains["test"] == {"sub-f234", "sub-A13", "sub-A14", "sub-A15", "sub-A16"}
    assert not brains["calibration"] & brains["test"]
    assert len([c for c in cases if c.part == "stacks"]) == 6
    assert all(not c.brain.startswith(f"{c.atlas}+") for c in cases)


@pytest.mark.slow
def test_one_real_case_is_measured_once(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (case,) = (c for c in age_cases(data_dir, ("test",)) if c.name == "sub-f234")
    part = PartFile(tmp_path / "f.csv")
    bench = AgeBench(data_dir)
    bench.measure(case, part)
    before = list(part.rows)
    bench.measure(case, part)
    assert len(before) >= 4 and part.rows == before
    (known,) = age_records(part.rows)
    assert known.stage == "fetal" and abs(known.error(0.8)) < 3
    parser = argparse.ArgumentParser()
    bench_command.add_arguments(parser.add_subparsers())
    args = parser.parse_args(["bench", "age", str(data_dir), "-o", str(tmp_path), "--parts", "test", "--names", "nobody"])
    with pytest.raises(UsageError, match="none of test is named nobody"):
        bench_command.run(args)
