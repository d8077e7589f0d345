"""The columns of the tables of the comparison on volumes match their definitions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from posepipe.bench.volume_tables import Row, table_by_age, table_by_bin, table_by_corruption

ROW = Row("fetus", "f1", 29.0, "none", 0, 0, "deep", 2.0, 0.5, 0.05, "pass", 0.99)


def cells(table: str, first: str) -> list[str]:
    """The cells of the line that begins with ``first``."""
    (line,) = [x for x in table.splitlines() if x.startswith(f"| {first} |")]
    return [c.strip() for c in line.strip("|").split("|")]


def test_shifts_are_means_and_times_are_medians():
    values = ((1.0, 1.0), (2.0, 1.0), (9.0, 7.0))
    rows = [replace(ROW, trial=i, mm=mm, seconds=seconds) for i, (mm, seconds) in enumerate(values)]
    assert cells(table_by_bin(rows), "deep")[-2:] == ["4.00", "1.00"]


def test_errors_are_reported_by_median_and_95th_percentile():
    rows = [replace(ROW, trial=i, degrees=float(d)) for i, d in enumerate([1] * 60 + [4] * 34 + [100] * 6)]
    line = cells(table_by_bin(rows), "deep")
    assert line[9:11] == ["1.00", "100.00"]
    assert line[11:14] == ["6.0 %", "6.0 %", "6.0 %"]


def test_the_extra_trials_of_the_last_bin_do_not_count_in_the_table_by_age():
    rows = [replace(ROW, degrees=2.0), replace(ROW, trial=1, degrees=4.0, bin=5), replace(ROW, trial=6, degrees=90.0, bin=6)]
    assert "| fetus | 29 | 3.0 ± 1.0 |" in table_by_age(rows)


@pytest.mark.parametrize(("degrees", "share"), [(14.9, "100.0 %"), (15.1, "0.0 %")])
def test_a_pose_is_lost_from_15_degrees_on(degrees: float, share: str):
    row = replace(ROW, degrees=degrees)
    assert row.lost is (share == "0.0 %")
    assert cells(table_by_corruption([row]), "none") == ["none", "1", f"{share} ({degrees:.1f})"]
