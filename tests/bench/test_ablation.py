"""Ablations: constants are changed temporarily in every place of use, and each line of the table counts its rows correctly."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import posepipe
from posepipe.bench import ablation
from posepipe.bench.ablation import PACKAGED, SETTINGS, line
from posepipe.bench.constants import constants_set, numeric_constants
from posepipe.brainmask import detection, finder
from posepipe.pose import coordinate_networks, hypothesis, initial, multistart, search
from posepipe.slices import network


def test_constants_are_set_for_a_while_in_every_module_that_uses_them() -> None:
    before = finder.OUTLINED, detection.PEAK, hypothesis.LOW_CRITERION
    values = {"brainmask.finder.OUTLINED": 1.4, "brainmask.detection.PEAK": 7, "pose.hypothesis.LOW_CRITERION": 0.1}
    with pytest.raises(ValueError, match="stopped"), constants_set(values):
        assert (finder.OUTLINED, detection.PEAK) == (1.4, 7)
        assert hypothesis.LOW_CRITERION == initial.LOW_CRITERION == search.LOW_CRITERION == 0.1
        raise ValueError("stopped")
    assert before == (finder.OUTLINED, detection.PEAK, hypothesis.LOW_CRITERION)
    assert initial.LOW_CRITERION == search.LOW_CRITERION == before[-1]
    with pytest.raises(AttributeError, match="NOSE"), constants_set({"brainmask.finder.OUTLINED": 1.4, "brainmask.finder.NOSE": 1}):
        pass
    assert before[0] == finder.OUTLINED


def test_a_constant_of_the_same_name_elsewhere_is_another() -> None:
    assert coordinate_networks.COPIES == network.COPIES == 4
    with constants_set({"pose.coordinate_networks.COPIES": 1}):
        assert coordinate_networks.COPIES == 1 and network.COPIES == 4
    with constants_set({"pose.multistart.ATTEMPTS": 2}):
        assert multistart.ATTEMPTS == initial.ATTEMPTS == 2


def test_constants_of_stages_say_what_they_are() -> None:
    """What a number is and where it comes from stands under it; the list, which a page shows, has each once."""
    found = numeric_constants()
    assert not [one for one in found if len(one.doc) < 15]
    assert len({(one.module, one.name) for one in found}) == len(found) > 100
    known = {(one.module, one.name): (one.value, one.doc) for one in found}
    value, doc = known["pose.hypothesis", "LOW_CRITERION"]
    assert float(value) == hypothesis.LOW_CRITERION and "docs/decisions/" in doc
    assert known["brainmask.finder", "OUTLINED, ROUNDS"][0] == f"{finder.OUTLINED}, {finder.ROUNDS}"


def test_every_setting_is_another_than_that_in_use() -> None:
    assert SETTINGS[PACKAGED] == {}
    for title, values in list(SETTINGS.items())[1:]:
        assert values, title
        for path, value in values.items():
            home, _, name = path.rpartition(".")
            assert getattr(import_module(f"posepipe.{home}"), name) != value, title


def test_a_line_compares_with_the_packaged_setting() -> None:
    def row(setting: str, trial: int, degrees: float, qc: str) -> dict[str, str]:
        return {"setting": setting, "name": "a", "trial": str(trial), "degrees": str(degrees), "qc": qc, "seconds": "0.5"}

    rows = [row(PACKAGED, i, d, "pass") for i, d in enumerate((1.0, 20.0, 3.0, 4.0))]
    rows += [row("x", i, d, qc) for i, (d, qc) in enumerate(((1.0, "review"), (3.0, "pass"), (90.0, "fail"), (30.0, "pass")))]
    assert line(PACKAGED, rows) == f"| {PACKAGED} | 4 | 3 | 0, 0 | 2.67° | 0 of 1 | 0 of 3 | 0.50 |"
    assert line("x", rows) == "| x | 4 | 2 | 1, 2 | 2.00° | 1 of 2 | 1 of 2 | 0.50 |"


@pytest.mark.slow
def test_an_ablation_runs_and_continues(miniature: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    whole = ablation.confidence_cases(miniature.folder, ("validation",))
    monkeypatch.setattr(ablation, "confidence_cases", lambda data, groups: whole[:1])
    command = [str(miniature.folder), str(tmp_path / "rows.csv"), "--trials", "2", "--only", "one attempt"]
    ablation.main(command)
    output = capsys.readouterr().out
    assert f"| {PACKAGED} | 2 |" in output and "| multi-start: one attempt | 2 |" in output and "three attempts" not in output
    before = (tmp_path / "rows.csv").read_bytes()
    monkeypatch.setattr(ablation.BenchmarkRunner, "run", lambda *_: pytest.fail("made again"))
    ablation.main(command)
    assert (tmp_path / "rows.csv").read_bytes() == before and capsys.readouterr().out == output


@pytest.mark.slow
def test_other_networks_are_one_more_setting(miniature: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    whole = ablation.confidence_cases(miniature.folder, ("validation",))
    monkeypatch.setattr(ablation, "confidence_cases", lambda data, groups: whole[:1])
    used: list[Any] = []
    made = ablation.BenchmarkRunner
    monkeypatch.setattr(ablation, "BenchmarkRunner", lambda *weights: used.append(weights) or made(*weights))
    others = tmp_path / "others"
    shutil.copytree(Path(posepipe.__file__).parent / "models" / "data", others)
    ablation.main([str(miniature.folder), str(tmp_path / "rows.csv"), "--trials", "1", "--only", "nothing", "--weights", str(others)])
    table = capsys.readouterr().out
    assert f"| {PACKAGED} | 1 |" in table and "| networks of others | 1 |" in table and used == [(), (others,)]
