"""The table of slice poses: it is read back unchanged, and has the right values."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.bids.slice_table import COLUMNS, SliceRow, about_pose, read_table, table_text, write_table
from posepipe.errors import BidsError
from posepipe.geometry import Rigid

POSE = Rigid.from_rotvec([0.1, -0.2, 0.3], [4.0, -5.0, 6.5])


def test_columns_are_those_of_the_contract():
    assert list(COLUMNS)[:11] == ["slice", "rx", "ry", "rz", "tx", "ty", "tz", "confidence", "outlier", "motion_deg", "motion_mm"]
    assert all(entry["Description"] for entry in COLUMNS.values())
    assert [COLUMNS[c]["Units"] for c in ("rx", "tx", "motion_deg", "motion_mm", "time")] == ["rad", "mm", "degree", "mm", "s"]


def test_a_row_holds_the_map_from_atlas_to_image():
    line = table_text([SliceRow(3, POSE, 4.5, 0.9, outlier=False, motion_deg=1.25, motion_mm=0.5)]).splitlines()[1].split("\t")
    assert line == ["3", "0.1", "-0.2", "0.3", "4", "-5", "6.5", "0.9", "0", "1.25", "0.5", "4.5"]


def test_rows_come_back(tmp_path):
    rows = [SliceRow(0, None, 1.5), SliceRow(1, POSE, 0.0, 0.25, outlier=True, motion_deg=20.0, motion_mm=3.0)]
    path = write_table(rows, tmp_path / "a.tsv")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tsv"]
    back = read_table(path.read_text())
    assert back[0] == rows[0]
    assert back[1].pose is not None and np.allclose(back[1].pose.matrix, POSE.matrix, atol=1e-5)
    assert (back[1].slice, back[1].confidence, back[1].outlier, back[1].motion_deg) == (1, 0.25, True, 20.0)


def test_motion_is_about_the_pose_of_the_stack():
    center = [10.0, 20.0, 30.0]
    turned = POSE @ Rigid.about(Rigid.from_rotvec([0, 0, np.radians(3)]).rotation, center, np.add(center, [0, 2, 0]))
    rows = [SliceRow(0, None, 1.5), SliceRow(1, turned, 0.0, 0.25, outlier=True, motion_deg=20.0, motion_mm=9.0)]
    first, second = about_pose(rows, POSE, center)
    assert first is rows[0]
    assert second.motion_deg == pytest.approx(3) and second.motion_mm == pytest.approx(2)
    assert (second.pose, second.confidence, second.outlier, second.time) == (turned, 0.25, True, 0.0)


@pytest.mark.parametrize("text", ["a\tb\n1\t2\n", table_text([SliceRow(0, POSE, 0.0)]).replace("0.1", "x")])
def test_another_table_is_an_error_that_names_it(text):
    with pytest.raises(BidsError, match=r"here\.tsv: not a table of slice poses"):
        read_table(text, "here.tsv")
