"""The tables of the group level."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from group_outputs import Output, rating, write_failure, write_output, write_ratings

from posepipe.reports.group_order import reading_order
from posepipe.reports.group_outliers import similarity_z
from posepipe.reports.group_ratings import Ratings, gather
from posepipe.reports.group_rows import collect
from posepipe.reports.group_tables import write_order_table, write_pose_table, write_ratings_tables


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def check_dictionary(table: Path) -> dict[str, dict]:
    """The JSON file describes exactly the columns, and every line has them all."""
    lines = table.read_text(encoding="utf-8").splitlines()
    described = json.loads(table.with_suffix(".json").read_text())
    assert list(described) == lines[0].split("\t")
    assert {len(line.split("\t")) for line in lines} == {len(described)}
    assert all(entry["Description"] for entry in described.values())
    assert all(cell for line in lines for cell in line.split("\t"))
    return described


def write_poses(out: Path, ratings: Ratings | None = None) -> Path:
    rows = collect(out).rows
    return write_pose_table(out, rows, similarity_z(rows), [0], ratings or Ratings())


def test_pose_table_has_one_described_row_an_image(tmp_path: Path):
    reasons = ("low\toverlap", "odd\nmask")
    write_output(tmp_path, Output("01", "1", confidence=0.123456789, qc="review", reasons=reasons))
    write_failure(tmp_path, "sub-02/anat/sub-02_T2w.nii.gz", "MaskError: a\n\tb")
    table = write_poses(tmp_path)
    described = check_dictionary(table)
    assert (described["age"]["Units"], described["rotation_angle"]["Units"]) == ("weeks", "deg")
    assert (described["translation_x"]["Units"], described["rotation_z"]["Units"], described["seconds"]["Units"]) == ("mm", "rad", "s")
    done, failed = rows_of(table)
    assert (done["participant_id"], done["session_id"], done["qc_reasons"]) == ("sub-01", "ses-1", "low overlap; odd mask")
    assert (done["confidence"], done["queue"], done["rotation_angle"]) == ("0.123457", "1", "40")
    assert (done["translation_x"], done["translation_y"], done["translation_z"]) == ("1", "2", "3")
    assert float(done["rotation_x"]) == pytest.approx(0.698132) and done["seconds"] == "2"
    assert (done["ncc_before"], done["ncc_after"], done["ncc_z"]) == ("0.8", "0.9", "n/a")
    assert done["page"] == "sub-01_ses-1.html" and done["transform"].endswith("_xfm.txt")
    assert (failed["qc"], failed["qc_reasons"], failed["session_id"]) == ("failed", "MaskError: a b", "n/a")
    assert failed["age"] == failed["ncc_after"] == failed["transform"] == "n/a"


def test_the_spread_of_a_session_is_in_the_table(tmp_path: Path):
    told = {"SessionSpread": 2.5, "SessionSpreadMM": 0.75, "SessionSpreadImages": ["bids:raw:x"]}
    write_output(tmp_path, Output("01", more=told | {"SessionPose": {"SharedBy": ["bids:raw:x", "bids:raw:y"]}}))
    write_output(tmp_path, Output("02", more=told))
    write_output(tmp_path, Output("03"))
    table = write_poses(tmp_path)
    described = check_dictionary(table)
    assert (described["session_spread"]["Units"], described["session_spread_mm"]["Units"]) == ("deg", "mm")
    cells = [tuple(row[f"session_{key}"] for key in ("spread", "spread_mm", "shared_by")) for row in rows_of(table)]
    assert cells == [("2.5", "0.75", "2"), ("2.5", "0.75", "n/a"), ("n/a", "n/a", "n/a")]


def test_outliers_ratings_and_strange_measures_are_in_the_table(tmp_path: Path):
    for n in range(12):
        more = {"Similarity": {"NCC": {"after": 0.2 if n == 3 else 0.9 + 0.002 * (n % 3)}, "My score": 1.5}}
        write_output(tmp_path, Output(f"{n:02d}", age=24 + n, more=more))
    write_ratings(tmp_path / "r" / "a.json", "AB", [rating("sub-03_T2w")])
    table = write_poses(tmp_path, gather(tmp_path / "r"))
    check_dictionary(table)
    found = rows_of(table)
    assert [row["outlier"] for row in found] == ["n/a"] * 3 + ["NCC"] + ["n/a"] * 8
    assert float(found[3]["ncc_z"]) < -3.5 and found[3]["ratings"] == "1" and found[4]["ratings"] == "0"
    assert found[0]["my_score_after"] == "1.5" and found[0]["my_score_before"] == "n/a"


def test_ratings_tables(tmp_path: Path):
    more = {"artefacts": ["mask", "motion"], "comment": "tab\there <script>\ud800"}
    write_ratings(tmp_path / "a.json", "A B", [rating("sub-01_ses-1_T2w", "adjust", None, **more)])
    write_ratings(tmp_path / "b.json", "C", [rating("sub-01_ses-1_T2w", "reject", 1)])
    ratings = gather(tmp_path)
    rated, agreement = write_ratings_tables(tmp_path / "out", ratings, ratings.agreement())
    check_dictionary(rated)
    check_dictionary(agreement)
    first, second = rows_of(rated)
    assert first["rater"] == "A B" and first["quality"] == "n/a" and first["artefacts"] == "mask,motion"
    assert first["comment"] == "tab here <script>\\ud800" and second["artefacts"] == second["comment"] == "n/a"
    (pair,) = rows_of(agreement)
    assert (pair["rater_1"], pair["rater_2"], pair["images"], pair["same_decision"]) == ("A B", "C", "1", "0")
    assert (pair["qualities"], pair["quality_kappa"]) == ("0", "n/a")


def test_reading_orders_are_each_rater_s_own_and_stand_still(tmp_path: Path):
    for n in range(30):
        write_output(tmp_path, Output(f"{n:02d}"))
    write_output(tmp_path, Output("05", contrast="T1w"))
    write_failure(tmp_path, "sub-90/anat/sub-90_T2w.nii.gz")
    rows = collect(tmp_path).rows
    turns = reading_order(rows, ["AB", "CD"], seed=1)
    ab = [turn.page for turn in turns if turn.rater == "AB"]
    cd = [turn.page for turn in turns if turn.rater == "CD"]
    assert sorted(ab) == sorted(cd) == sorted({row.page for row in rows if row.has_pose}) and ab != cd != sorted(cd)
    assert [turn.page for turn in reading_order(rows, ["AB"], seed=1)] == ab != [t.page for t in reading_order(rows, ["AB"], seed=2)]
    fewer = [turn.page for turn in reading_order([row for row in rows if row.subject < "20"], ["AB"], seed=1)]
    assert fewer == [page for page in ab if page in fewer]
    table = write_order_table(tmp_path, turns)
    check_dictionary(table)
    lines = rows_of(table)
    assert [line["position"] for line in lines] == [str(n) for n in (*range(1, 31), *range(1, 31))]
    assert {line["page"] for line in lines} == {f"{page}#blind" for page in ab}
    assert next(line for line in lines if line["page"].startswith("sub-05"))["images"] == "sub-05_T1w,sub-05_T2w"
