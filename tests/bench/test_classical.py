"""The classical benchmark: rows on disk, tables, and the averaging of rotations."""

from __future__ import annotations

import csv
from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from posepipe.bench.canonical import Edge, average
from posepipe.bench.classical import BINS, Row, tables, write_rows
from posepipe.geometry import random_rotations, so3

ROW = Row("fetus", "f1", "none", 1.0, 0, 0, "search", "torch", 2.0, 0.5, 0.8)


def cells(table: str, row: int = 0) -> list[str]:
    """The cells of a table's ``row``-th line of figures."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [c.strip() for c in lines[2 + row].strip("|").split("|")]


def test_rows_go_to_csv_and_come_back(tmp_path):
    rows = [replace(ROW, trial=i, degrees=i / 3, seconds=1e-6) for i in range(3)]
    write_rows(tmp_path / "rows.csv", rows)
    with (tmp_path / "rows.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert list(read[0]) == [f.name for f in fields(Row)]
    assert [float(r["degrees"]) for r in read] == pytest.approx([0, 1 / 3, 2 / 3], abs=1e-4)
    assert [int(r["trial"]) for r in read] == [0, 1, 2]
    kept = {k: str(v) for k, v in asdict(ROW).items() if isinstance(v, str)}
    assert {k: read[0][k] for k in kept} == kept


def test_table_has_a_column_a_bin_and_says_how_many_are_lost():
    rows = [replace(ROW, trial=i, bin=i % 6, degrees=float(i), mm=float(i), seconds=2.0) for i in range(24)]
    rows += [replace(r, refine="ants", degrees=1.0, name="f2") for r in rows[:6]]
    table = tables(rows)
    assert "**fetus, 2 image(s)** (mean / p95 / max, degrees)" in table
    first = cells(table)
    assert first[:2] == ["search", "torch"]
    assert len(first) == 2 + len(BINS) + 4
    assert first[2] == "9.0 / 17.1 / 18.0"  # 0, 6, 12 and 18
    assert first[7] == "14.0 / 22.1 / 23.0"
    assert first[8] == f"11.5 / {np.quantile(np.arange(24), 0.95):.1f} / 23.0"
    assert first[9:] == ["8 of 24", "11.5", "2.00"]
    assert cells(table, 1)[9] == "0 of 6"


def test_bin_without_trials_is_a_dash():
    assert cells(tables([ROW]))[2:8] == ["2.0 / 2.0 / 2.0", "–", "–", "–", "–", "–"]


def test_groups_and_corruptions_have_tables_of_their_own():
    rows = [ROW, replace(ROW, damage="cut", strength=0.5), replace(ROW, damage="cut"), replace(ROW, group="stacks")]
    titles = [line for line in tables(rows).splitlines() if line.startswith("**")]
    assert [t.split("**")[1] for t in titles] == [
        "fetus, 1 image(s)",
        "fetus, 1 image(s), damage: cut 0.5",
        "fetus, 1 image(s), damage: cut 1",
        "stacks, 1 image(s)",
    ]


def graph(n: int, truth: np.ndarray, rng: np.random.Generator, noise: float, outliers: float) -> list[Edge]:
    """Measurements x_j = P x_i between neighbours up to three apart: small errors, and some altogether wrong."""
    edges = []
    for i in range(n):
        for j in range(i + 1, min(i + 4, n)):
            for kind in ("intensities", "tissues"):
                error = so3.exp(rng.normal(size=3) * np.radians(noise))
                if rng.random() < outliers:
                    error = random_rotations(1, rng)[0]
                edges.append(Edge(i, j, error @ truth[j].T @ truth[i], kind))
    return edges


def off(found: np.ndarray, truth: np.ndarray, fixed: list[int]) -> np.ndarray:
    """Degrees between rotations, both turned so that ``fixed`` are at the identity on average."""
    frame = so3.project(truth[fixed].mean(0))
    return np.degrees([so3.geodesic_distance(f, frame.T @ t) for f, t in zip(found, truth, strict=True)])


@pytest.fixture
def truth() -> np.ndarray:
    """Poses of twelve cohorts, within some 20° of each other."""
    return so3.exp(np.random.default_rng(0).normal(size=(12, 3)) * 0.15)


def test_exact_measurements_give_exact_rotations(truth):
    fixed = [2, 3, 4]
    found, residual = average(12, graph(12, truth, np.random.default_rng(1), 0, 0), fixed, rounds=200)
    assert off(found, truth, fixed).max() < 0.05
    assert residual.max() < 0.05
    np.testing.assert_allclose(so3.project(found[fixed].mean(0)), np.eye(3), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(found), 1)


def test_outliers_hardly_count(truth):
    fixed = [0, 1]
    edges = graph(12, truth, np.random.default_rng(2), 0.3, 0.15)
    wrong = [e for e in edges if np.degrees(so3.geodesic_distance(e.rotation, truth[e.j].T @ truth[e.i])) > 20]
    assert len(wrong) >= 5
    found, residual = average(12, edges, fixed, rounds=200)
    assert off(found, truth, fixed).max() < 1.5
    assert np.median(residual) < 1


def test_a_node_nobody_measured_is_reported(truth):
    found, residual = average(13, graph(12, truth, np.random.default_rng(3), 0, 0), [0])
    assert np.isnan(residual[12])
    assert not np.isnan(residual[:12]).any()
    assert np.linalg.det(found[12]) == pytest.approx(1)
