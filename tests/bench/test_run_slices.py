"""Benches of slices and stacks, run on the miniature of the data."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from miniature import Miniature

from posepipe.bench import moving_stacks, real_stacks, slice_register, tracker
from posepipe.bench.classical import Case
from posepipe.bench.rows import read_rows
from posepipe.cli.tools import main
from posepipe.errors import UsageError
from posepipe.geometry import Rigid
from posepipe.slices.tracker import SliceTracker


def cells(line: str) -> list[str]:
    return [c.strip() for c in line.strip("|").split("|")]


@pytest.mark.slow
def test_slices_are_registered_from_starts_that_are_off(
    miniature: Miniature, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slice_register, "PAIRS", (("Serag", 28, "CRL", 28),))
    monkeypatch.setattr(slice_register, "NEWBORNS", ("sub-A04",))
    monkeypatch.setattr(slice_register, "STARTS", (5.0, 10.0))
    assert [c.name for c in slice_register.development_cases(miniature.folder)] == ["sub-A04", "Serag+28"]
    monkeypatch.setattr(sys, "argv", ["slice_register", str(miniature.folder), "--slices", "4"])
    slice_register.main()
    out = capsys.readouterr().out.splitlines()
    table = [cells(line) for line in out if line.startswith(("| newborns", "| Serag"))]
    assert [line[:3] for line in table] == [[g, d, "2"] for g in ("newborns on Serag", "Serag on CRL") for d in ("5", "10")]
    for line in table:
        mean, floor, start_mm, mm = float(line[4]), float(line[10]), float(line[3]), float(line[7])
        assert mean < floor + 1 and mean < 4 and mm < start_mm / 2, line  # as near as from the truth itself
    assert "CPU time, 1 thread(s)" in out[-1]


def test_brains_of_unknown_pose_cannot_be_measured_on() -> None:
    with pytest.raises(UsageError, match="sub-X: its pose is not known"):
        slice_register.load_brain(Case("sub-X", "g", Path(), None, None, None))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_head_is_followed_by_slices_and_by_navigators(
    miniature: Miniature, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slice_register, "PAIRS", (("Serag", 28, "CRL", 28), ("CRL", 30, "CRL", 31)))
    monkeypatch.setattr(tracker, "NAVIGATORS", 5)
    command = ["tracker", str(miniature.folder), "--only", "CRL+30", "--simulated", "--levels", "small"]
    monkeypatch.setattr(sys, "argv", [*command, "--ways", "network", "registered", "navigators"])
    tracker.main()
    out = capsys.readouterr().out.splitlines()
    output = [line for line in out if line.startswith("CRL+30, small, ")]
    assert [line.split(": ")[0].rpartition(", ")[2] for line in output] == ["network", "registered", "navigators"]
    found = {cells(line)[1]: cells(line) for line in out if line.startswith("| CRL on next week, small")}
    assert int(found["navigators"][2]) == 5 and int(found["registered"][2]) > 10
    # registered, the head is nearer than by a network that is off by 8° in the median, and by both it is found
    after_16 = {way: float(line[7]) for way, line in found.items() if way != "navigators"}
    assert after_16["registered"] < 5 and after_16["network"] < 15
    assert float(found["registered"][9]) < float(found["network"][9])
    assert "| confidence | slices | head within 15° |" in out
    counted = sum(int(cells(line)[1]) for line in out[out.index("| confidence | slices | head within 15° |") + 2 :] if line)
    assert 0 < counted <= sum(int(found[way][2]) for way in ("network", "registered"))


def test_brains_kept_for_testing_are_apart(miniature: Miniature) -> None:
    (brain,) = tracker.test_brains(miniature.folder, ["sub-A13-T2w"])
    assert brain.name == "sub-A13-T2w" and brain.own.degrees_from(Rigid.identity()) < 2
    assert not list(tracker.test_brains(miniature.folder, ["sub-A04-T2w"]))


def test_a_simulated_network_is_lost_as_often_as_it_says(miniature: Miniature) -> None:
    (brain,) = tracker.test_brains(miniature.folder, ["f234"])
    rng = np.random.default_rng(0)
    (piece,) = slice_register.random_slices(brain, 1, rng)
    target = SliceTracker(target=brain.target, register=False)._slice_target
    said = tracker.SimulatedNetwork([brain.own] * 300, rng).poses([piece] * 300, target, target.plane)
    nearer = np.array([min(p.degrees_from(brain.own) for p in (s.pose, s.twin)) for s in said])
    first = np.mean([s.pose.degrees_from(brain.own) <= s.twin.degrees_from(brain.own) for s in said])
    assert np.median(nearer) == pytest.approx(9, abs=2) and (nearer > 40).mean() == pytest.approx(tracker.LOST, abs=0.05)
    assert first == pytest.approx(0.5, abs=0.15)


@pytest.mark.slow
def test_moving_stacks_are_measured_once_and_fitted_where_there_is_something_wrong(
    miniature: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(moving_stacks, "LEVELS", {"small": 2.0})
    command = ["bench", "stacks", str(miniature.folder), "-o", str(tmp_path), "--names", "CRL+27", "--trials", "1"]
    assert main([*command, "--groups", "validation"]) == 0
    output = capsys.readouterr().out
    rows = read_rows([tmp_path / "stacks.csv"])
    assert len(rows) > 10 and {(r["name"], r["group"], r["level"]) for r in rows} == {("CRL+27", "validation", "small")}
    assert np.median([float(r["degrees"]) for r in rows]) < 3
    assert all(float(rows[0][name]) < 3 for name in ("stack_slices", "stack_volume", "stack_kept"))
    line = next(cells(line) for line in output.splitlines() if line.startswith("| validation"))
    assert line[:4] == ["validation", "small (2°)", "1", str(len(rows))]
    assert "Error of the pose of 1 stacks" in output and output.strip() == (tmp_path / "stacks.md").read_text().strip()
    before = (tmp_path / "stacks.csv").read_text()
    # of one brain alone nothing is learnt; a test brain is nothing to learn from
    refused = ((["validation"], "slices of 1 brains do not make a model"), (["validation", "fetus"], "give --groups validation"))
    for groups, words in refused:
        assert main([*command, "--groups", *groups, "--fit"]) == 2
        assert words in capsys.readouterr().err
    assert (tmp_path / "stacks.csv").read_text() == before and not (tmp_path / "calibration.toml").exists()


@pytest.mark.slow
def test_real_stacks_of_one_fetus(miniature: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = miniature.part(tmp_path / "data", "ds-stacks", "ds-neonates/participants.tsv", atlases=("CRL/30", "CRL/31"))
    (data / "ds-stacks/sub-01/anat/sub-01_run-1_T2w.json").write_text('{"SliceThickness": 4.0}\n')
    assert main(["bench", "stacks", str(data), "-o", str(tmp_path / "out"), "--groups", "real"]) == 0
    lines = capsys.readouterr().out.splitlines()
    truth = [Rigid(miniature.truth.rotations[f"sub-01_run-{k}"], np.zeros(3)) for k in (1, 2)]
    apart = truth[0].degrees_from(truth[1])
    assert 5 < apart < real_stacks.JOINED  # the head did not move: one group
    stacks = [cells(line) for line in lines if line.startswith("| sub-01_run-")]
    assert [line[:2] for line in stacks] == [["sub-01_run-1_T2w", "1"], ["sub-01_run-2_T2w", "1"]]
    assert all(float(line[4]) < 3 and float(line[5]) < 3 for line in stacks)
    for name in ("by volume", "by slices", "as kept"):
        within = next(cells(line) for line in lines if line.startswith(f"| {name} |"))
        assert float(within[1].split()[0]) == pytest.approx(apart, abs=2) and within[2] == "no pair"
    assert {cells(line)[0] for line in lines if line.startswith(("| with mask", "| without"))} == {"with mask", "without"}
