"""The columns and bins of the tables on slices match their definitions."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from posepipe.bench.slice_plots import plot_all
from posepipe.bench.slice_tables import BINS, SliceRow, bin_edges, bin_heads, summary, table_by_bin, with_bins

ROW = SliceRow("paper", "fetus", "f1", 29.0, 0, 1, 3.0, 14.0, 90.0, 120.0, "ours", 8.0, 4.0, 2.0, 1.0, 1, 0.25, 0)


def cells(table: str, *first: str) -> list[str]:
    """The cells of the one line that begins with ``first``."""
    (line,) = [x for x in table.splitlines() if x.startswith(f"| {' | '.join(first)} |")]
    return [c.strip() for c in line.strip("|").split("|")]


def slices(n: int, **values: object) -> list[SliceRow]:
    """Slices of angles 0 to 180° in a shuffled order."""
    angles = np.random.default_rng(0).permutation(np.linspace(0, 180, n))
    return [replace(ROW, trial=i, angle=float(a), **values) for i, a in enumerate(angles)]  # type: ignore[arg-type]


def binned(rows: list[SliceRow]) -> list[SliceRow]:
    text = [{k: str(v) for k, v in asdict(r).items() if k != "bin"} for r in rows]
    return [SliceRow.of(r) for r in with_bins(text)]


def test_bins_hold_equal_counts_of_slices_by_angle():
    rows = binned(slices(60))
    assert Counter(r.bin for r in rows) == dict.fromkeys(range(BINS), 10)
    by_angle = sorted(rows, key=lambda r: r.angle)
    assert [r.bin for r in by_angle] == sorted(r.bin for r in rows)
    np.testing.assert_allclose(bin_edges([r.angle for r in rows]), np.arange(0, 181, 30))
    assert bin_heads(rows) == ["0–30°", "30–60°", "60–90°", "90–120°", "120–150°", "150–180°"]


def test_methods_and_samplings_do_not_shift_the_bins():
    """A method that was run on some slices alone must not count those twice; samplings have bins of their own."""
    rows = slices(60)
    some = [replace(r, method="svr-gc") for r in rows if r.angle < 90]
    others = [replace(r, sampling="all", angle=90 + r.angle / 2) for r in rows]
    found = binned([*rows, *some, *others])
    assert Counter(r.bin for r in found if (r.sampling, r.method) == ("paper", "ours")) == dict.fromkeys(range(BINS), 10)
    assert {r.bin for r in found if r.method == "svr-gc"} == {0, 1, 2}
    assert Counter(r.bin for r in found if r.sampling == "all") == dict.fromkeys(range(BINS), 10)


def test_the_table_by_bin_gives_mean_and_deviation_to_truth_and_twin():
    rows = [replace(r, degrees=10.0 * r.bin + (-1) ** i, nearer_degrees=float(r.bin)) for i, r in enumerate(binned(slices(60)))]
    by_truth, by_twin = table_by_bin(rows, {"slice-pose": "slice-pose"}).split("nearer twin")
    line = cells(by_truth, "ours")
    for b in range(BINS):
        values = [r.degrees for r in rows if r.bin == b]
        assert line[1 + b] == f"{np.mean(values):.1f} ± {np.std(values):.1f}"
    assert cells(by_twin, "ours")[1:] == [*(f"{b}.0 ± 0.0" for b in range(BINS)), "2.5 ± 1.7"]
    missing = cells(by_truth, "slice-pose")
    assert missing[-1] == "not run: no slice-pose in these weights" and len(missing) == len(line) == len(cells(by_truth, "method"))


def test_every_column_of_the_summary():
    degrees = [1.0] * 60 + [12.0] * 20 + [20.0] * 10 + [100.0] * 10
    rows = [
        replace(r, degrees=d, mm=d / 2, nearer_degrees=d / 4, nearer_mm=d / 8, right_twin=int(i % 4 > 0), seconds=0.1 + 0.01 * i)
        for i, (r, d) in enumerate(zip(slices(100), degrees, strict=True))
    ]
    table = summary(rows)
    heads = cells(table, "method")
    line = dict(zip(heads, cells(table, "ours", "truth"), strict=True))
    assert line["mean"] == f"{np.mean(degrees):.1f}" and line["median"] == "1.0" and line["p95"] == "100.0"
    assert (line["> 10°"], line["> 15°"], line["> 30°"]) == ("40.0 %", "20.0 %", "10.0 %")
    assert (line["mm, mean"], line["mm, median"]) == (f"{np.mean(degrees) / 2:.1f}", "0.5")
    assert line["right twin"] == "75 %" and line["s"] == "0.595"
    nearer = dict(zip(heads, cells(table, "ours", "nearer twin"), strict=True))
    assert nearer["mean"] == f"{np.mean(degrees) / 4:.1f}" and nearer["> 15°"] == "10.0 %" and nearer["right twin"] == ""
    assert nearer["mm, mean"] == f"{np.mean(degrees) / 8:.1f}"


def test_intervals_are_by_brain_and_groups_stand_alone_too():
    rows = [replace(ROW, name=f"b{b}", trial=t, degrees=float(b), right_twin=b % 2) for b in range(8) for t in range(50)]
    rows += [replace(r, group="CHN", name=f"c{r.name}", degrees=r.degrees + 20) for r in rows]
    every, fetus, chn = summary(rows).split("\n\n**")
    assert ", all groups: 800 slices of 16 brain(s)" in every and ", fetus: 400 slices of 8" in fetus
    mean = cells(fetus, "ours", "truth")[2]
    low, high = (float(x) for x in mean[mean.index("(") + 1 : -1].split("–"))
    assert mean.startswith("3.5 (") and low < 2.6 and high > 4.4  # eight values, not four hundred
    assert cells(chn, "ours", "truth")[2].startswith("23.5 (") and cells(every, "ours", "truth")[2].startswith("13.5 (")
    assert cells(fetus, "ours", "truth")[-2].startswith("50 % (")


def test_slabs_have_no_errors_up_to_a_twin_and_are_in_no_table_by_bin():
    rows = [replace(ROW, sampling="slab-3", trial=i, slices=3) for i in range(6)]
    table = summary(rows)
    assert "6 slabs of 1 brain(s)" in table and "nearer twin" not in table
    assert table_by_bin(rows) == ""


def test_pictures_are_of_single_slices(tmp_path: Path):
    rows = binned([*slices(12), *(replace(r, method="svr-gc", sampling="all") for r in slices(12))])
    assert [p.name for p in plot_all(rows, tmp_path)] == ["figure2.png", "figure3.png"]
    assert plot_all([replace(ROW, sampling="slab-3")], tmp_path) == []
