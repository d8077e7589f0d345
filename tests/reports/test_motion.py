"""The plot of the motion of the slices of a stack."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from posepipe.bids.slice_table import SliceRow, table_text
from posepipe.errors import BidsError
from posepipe.geometry import Rigid
from posepipe.reports.motion import motion_plot

ROWS = [
    SliceRow(0, None, 0.0),
    SliceRow(1, Rigid.identity(), 1.0, 0.9, outlier=False, motion_deg=2.0, motion_mm=1.0),
    SliceRow(2, Rigid.identity(), 2.0, 0.9, outlier=False, motion_deg=4.0, motion_mm=1.5),
    SliceRow(3, Rigid.identity(), 3.0, 0.1, outlier=True, motion_deg=90.0, motion_mm=30.0),
    SliceRow(4, Rigid.identity(), 4.0, None, outlier=False, motion_deg=3.0, motion_mm=2.0),
]


def parts(rows: list[SliceRow], kind: str) -> list[ElementTree.Element]:
    svg = ElementTree.fromstring(motion_plot(table_text(rows)))
    return [e for e in svg.iter() if e.get("class") == kind]


def test_slices_are_dots_and_outliers_crosses_in_both_panels():
    dots, crosses = parts(ROWS, "dot"), parts(ROWS, "outlier")
    assert len(dots) == 6 and len(crosses) == 2
    assert [e[0].text for e in dots[:2]] == ["slice 1: 2.0 degrees, confidence 0.90", "slice 2: 4.0 degrees, confidence 0.90"]
    assert [e[0].text for e in crosses] == ["slice 3: 90.0 degrees, confidence 0.10, outlier", "slice 3: 30.0 mm, confidence 0.10, outlier"]
    assert dots[2][0].text == "slice 4: 3.0 degrees" and dots[3][0].text == "slice 1: 1.0 mm, confidence 0.90"


def test_more_motion_is_higher_and_later_slices_are_farther_right():
    x, y = ([float(e.get(k)) for e in parts(ROWS, "dot")[:3]] for k in ("cx", "cy"))
    assert x[0] < x[1] < x[2] and y[1] < y[2] < y[0]
    assert y[0] - y[1] == pytest.approx(2 * (y[0] - y[2]), abs=0.2)


def test_the_line_breaks_at_outliers_and_at_slices_without_brain():
    first = parts(ROWS, "trace")[0].get("d")
    assert first.count("M") == 2 and first.count("L") == 1
    gap = [r for r in ROWS if r.slice != 2]
    assert parts(gap, "trace")[0].get("d").count("L") == 0


def test_an_outlier_does_not_stretch_the_axis_and_stays_in_the_panel():
    heights = [float(re.match(r"M[\d.]+ ([\d.]+)", e.get("d"))[1]) for e in parts(ROWS, "outlier")]
    assert heights[0] > 0 and parts(ROWS[:3], "dot")[0].get("cy") == parts(ROWS, "dot")[0].get("cy")


def test_the_motion_is_described_in_words_too():
    assert "Motion of 4 of 5 slices; outliers: 3" in motion_plot(table_text(ROWS))
    calm = [replace(r, outlier=None if r.pose is None else False) for r in ROWS]
    assert "Motion of 4 of 5 slices; no outliers" in motion_plot(table_text(calm))


def test_no_slice_at_all_and_no_table():
    assert not parts(ROWS[:1], "dot")
    with pytest.raises(BidsError):
        motion_plot("no table")
