"""The comparison on volumes and the calibration: specs, rows that resume, tables, and the chain from a turned phantom to a verdict."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posepipe.bench import confidence as calibration
from posepipe.bench.classical import Case
from posepipe.bench.confidence import ABOUT, fit_confidence, plot_reliability, without_truth
from posepipe.bench.methods import METHODS, BenchmarkRunner, missing_networks
from posepipe.bench.rows import PartFile, read_rows
from posepipe.bench.trials import LAST_BINS, TrialGenerator, parse_corruption
from posepipe.bench.volume import CLEAN_METHODS, CORRUPTED_METHODS, CORRUPTIONS, measure, volume_cases
from posepipe.bench.volume_plots import plot_all
from posepipe.bench.volume_tables import Row, by_subject, note_on_vvr, table_by_age, table_by_bin, table_by_corruption, table_of_flags
from posepipe.cli import bench_command
from posepipe.errors import UsageError
from posepipe.geometry import Rigid
from posepipe.models.calibration import SIGNS
from posepipe.phantom.demo_data import write_demo
from posepipe.pose.hypothesis import Hypothesis, Ranked
from posepipe.pose.initial import InitialPose

ROW = Row("fetus", "f1", 29.0, "none", 0, 0, "deep", 2.0, 0.5, 0.05, "pass", 0.99)


def turn(degrees: float) -> Rigid:
    return Rigid.from_rotvec([0, np.radians(degrees), 0])


def test_every_corruption_of_the_tables_is_one():
    for spec in (*CORRUPTIONS, *calibration.CORRUPTIONS):
        corruption = parse_corruption(spec)
        assert corruption.spec == spec
        assert bool(corruption.parts) == (spec != "none")
    assert parse_corruption("age:0.34+cut").weeks_off == pytest.approx(1.02)
    assert set(METHODS) >= {*CLEAN_METHODS, *CORRUPTED_METHODS}


@pytest.mark.parametrize("spec", ["fire", "cut:much", "cut+", "cut:-1", ""])
def test_an_unknown_corruption_is_refused(spec):
    with pytest.raises(UsageError, match="join several with"):
        parse_corruption(spec)


def test_a_run_that_was_stopped_continues(tmp_path: Path):
    path = tmp_path / "parts/a.csv"
    part = PartFile(path)
    part.add({"trial": 0, "degrees": 1 / 3, "confidence": None})
    part.add({"trial": 1, "degrees": 2.0, "confidence": 0.5})
    with path.open("a") as stream:
        stream.write("2,4.0")  # cut short
    again = PartFile(path)
    assert [r["trial"] for r in again.rows] == ["0", "1"]
    again.add({"confidence": 0.1, "degrees": 3.0, "trial": 2})
    assert read_rows([path, tmp_path / "none.csv"]) == [
        {"trial": "0", "degrees": "0.33333", "confidence": ""},
        {"trial": "1", "degrees": "2.00000", "confidence": "0.50000"},
        {"trial": "2", "degrees": "3.00000", "confidence": "0.10000"},
    ]


def cells(table: str, method: str) -> list[str]:
    (line,) = [x for x in table.splitlines() if x.startswith(f"| {method} |")]
    return [c.strip() for c in line.strip("|").split("|")]


def test_table_by_bin_counts_the_extra_trials_of_the_last_bin_once():
    rows = [replace(ROW, trial=i, bin=i % 7, degrees=float(i % 7)) for i in range(14)]
    rows += [replace(r, name="f2", degrees=r.degrees + 20) for r in rows]
    table = table_by_bin(rows, {"posenet": "pose-net"})
    line = cells(table, "deep")
    assert line[1:8] == [f"{b + 10}.0 ± 10.0" for b in range(7)]
    assert line[8].startswith("12.5 ± ")  # bins 0 to 5 alone
    assert line[12] == "50.0 %"
    assert len(line) == len(cells(table, "method")) == 16
    missing = cells(table, "posenet")
    assert missing[-1] == "not run: no pose-net in these weights"
    assert len(missing) == 16


def test_the_table_says_by_what_the_papers_registrations_were_made():
    assert "Mattes mutual information (ANTs has no normalised one)" in note_on_vvr([ROW, replace(ROW, method="vvr-deep-correction")])
    assert note_on_vvr([ROW]) == ""


def test_the_bootstrap_resamples_subjects():
    rows = [replace(ROW, name=f"s{s}", trial=t, degrees=float(s)) for s in range(8) for t in range(50)]
    low, high = by_subject(rows)
    assert low < 2.5 < 3.5 < 4.5 < high  # eight values, not four hundred
    assert np.isnan(by_subject(rows[:50])).all()


def test_tables_of_corruption_flags_and_age():
    lost = replace(ROW, degrees=90.0, qc="fail", damage="cut")
    rows = [ROW, lost, replace(lost, trial=1, qc="pass", confidence=None), replace(ROW, trial=2, damage="cut", qc="review", weeks=30.0)]
    table = table_by_corruption(rows)
    assert cells(table, "cut") == ["cut", "3", "33.3 % (90.0)"]
    assert cells(table, "all together") == ["all together", "4", "50.0 % (46.0)"]
    flags = [line for line in table_of_flags(rows).splitlines() if line.startswith("| deep")]
    assert flags == [
        "| deep | none | 0 | – | 1 | 0 (0.0 %) | 1 of 1 |",
        "| deep | some | 2 | 1 (50.0 %) | 1 | 1 (100.0 %) | 2 of 3 |",
    ]
    assert "| fetus | 30 | 2.0 ± 0.0 |" in table_by_age(rows)


def test_rows_come_back_from_text():
    text = {"group": "fetus", "name": "f1", "weeks": "29.0", "damage": "none", "trial": "0", "bin": "0", "method": "deep"}
    text |= {"degrees": "2.0", "mm": "0.5", "seconds": "0.05", "qc": "pass", "confidence": "0.99"}
    assert Row.of(text) == ROW
    assert Row.of(text | {"confidence": ""}).confidence is None


def test_plots_are_written(tmp_path: Path):
    rows = [replace(ROW, trial=i, bin=i % 7, method=m, degrees=1.0 + i) for i in range(7) for m in ("deep", "search")]
    for path in plot_all(rows, tmp_path):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_methods_without_their_network_are_reported():
    missing = missing_networks(("deep", "posenet", "correction-t2"))
    assert set(missing.values()) <= {"pose-net", "pose-net-t2"}
    assert "deep" not in missing
    assert missing["correction-t2"] == "pose-net-t2"  # which is not shipped


def test_the_search_as_if_it_had_missed_the_truth():
    scores = ((2.0, 0.9), (20.0, 0.8), (90.0, 0.7), (150.0, 0.4), (95.0, 0.35))
    found = tuple(Hypothesis(turn(d), 0.0, 1.0, criterion=s, coarse=s / 2) for d, s in scores)
    left = without_truth(InitialPose(found[0].pose, "search", Ranked(found, "criterion"), 1.0), Rigid.identity(), None)
    assert left is not None
    assert left.pose.degrees_from(turn(90)) < 1e-6
    assert left.found.lead() == pytest.approx(0.3)
    assert without_truth(left, turn(90), None) is not None
    assert without_truth(InitialPose(turn(1), "search", Ranked(found[:2], "criterion"), 1.0), Rigid.identity(), None) is None


def pretended(n: int = 400) -> list[dict[str, str]]:
    """Rows of eight brains in which one feature tells right from wrong, with some noise."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        degrees = float(rng.choice([2.0, 3.0, 90.0], p=[0.6, 0.3, 0.1]))
        about = (f"b{i % 8}", i, "cut" if i % 2 else "none", "turned" if i % 5 == 0 else "auto", "torch", degrees, degrees)
        features = dict.fromkeys(SIGNS, 1.0) | {"apart": np.log1p(degrees) + 0.3 * rng.normal(), "NMI": rng.normal()}
        rows.append({k: str(v) for k, v in (dict(zip(ABOUT, about, strict=True)) | features).items()})
    return rows


def test_calibration_finds_the_informative_feature(tmp_path: Path):
    found = fit_confidence(pretended())
    terms = found.model.terms
    assert terms["apart"][0] < -1 and set(terms) <= {"apart", "NMI"}
    assert found.model.probability({"apart": 1.2, "NMI": 0.0}) > 0.95
    assert found.model.probability({"apart": 4.5, "NMI": 0.0}) < 0.1
    assert found.weights[~found.natural].sum() == pytest.approx(calibration.PERTURBED_WEIGHT * found.natural.sum())
    wrong, right = found.p[found.right == 0], found.p[found.natural & (found.right == 1)]
    assert (wrong < found.model.review).mean() >= 0.9
    assert (right < found.model.review).mean() <= 0.05
    assert found.model.fail <= found.model.review / 2
    report = found.report()
    assert "| natural | " in report and "| natural, cut |" in report
    assert plot_reliability(found, tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_too_few_poses_are_refused():
    with pytest.raises(UsageError, match="more --trials"):
        fit_confidence([])
    with pytest.raises(UsageError, match="do not make a model"):
        fit_confidence([r for r in pretended(40) if float(r["degrees"]) < 15])


@pytest.fixture(scope="module")
def runner() -> BenchmarkRunner:
    torch.set_num_threads(1)
    return BenchmarkRunner()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A phantom's template as a subject of itself."""
    from posepipe.atlas import AtlasLibrary

    demo = write_demo(tmp_path_factory.mktemp("demo"), n_subjects=1, weeks=(27, 30), spacing=2.0, seed=3)
    template = AtlasLibrary([demo.atlas_dir]).template("Phantom", "30", "T2w")
    template = replace(template, to_canonical=np.eye(3))
    return Case("Phantom+30", "templates", template.image, template.mask, template, Rigid.identity())


@pytest.mark.slow
def test_from_a_turned_phantom_to_rows(case: Case, runner: BenchmarkRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    generator = TrialGenerator(case)
    for number in (0, 6):
        trial, which = generator.trial(number, parse_corruption("cut"), 0)
        low, high = LAST_BINS[which]
        assert low <= trial.truth.angle_degrees <= high
    part = PartFile(tmp_path / "rows.csv")
    monkeypatch.setattr("posepipe.bench.volume.LAST_BINS", LAST_BINS[:1])
    measure(case, parse_corruption("none"), runner, part, methods=("search+torch", "vvr-paa"), trials=1)
    (searched, paa) = (Row.of(r) for r in part.rows)
    assert searched.degrees < 3 and searched.bin == 0 and searched.weeks == 30
    assert paa.method == "vvr-paa" and paa.seconds > 0
    before = list(part.rows)
    measure(case, parse_corruption("none"), runner, part, methods=("search+torch",), trials=1)
    assert part.rows == before


def test_the_commands_know_their_tables():
    parser = argparse.ArgumentParser()
    bench_command.add_arguments(parser.add_subparsers())
    args = parser.parse_args(["bench", "volume", "data", "-o", "out", "--damage"])
    assert (args.table, args.damage, args.trials) == ("volume", [], 10)
    assert parser.parse_args(["bench", "calibration", "data", "-o", "out"]).groups == ["validation"]
    assert parser.parse_args(["bench", "classical", "data", "-o", "out", "--jobs", "1"]).init == ["center", "axes", "search"]


def test_an_atlas_left_out_is_tested_in_all_its_weeks(data_dir: Path):
    cases = volume_cases(data_dir, ("templates",), left_out="FidonSBA")
    assert [c.name for c in cases] == [f"FidonSBA+{week}" for week in range(21, 35)]
    assert all(c.template.space == c.name.replace("FidonSBA", "CRL") and c.own is not None for c in cases)
    names = [c.name for c in volume_cases(data_dir, ("fetus", "templates"), left_out="FidonSBA")]
    assert names[-1] == "f234" and len(names) == 15
    assert {c.name.partition("+")[0] for c in volume_cases(data_dir, ("templates",))} == {"FidonSBA", "CHN"}
