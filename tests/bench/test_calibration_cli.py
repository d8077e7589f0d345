"""``bench calibration`` with existing measurements: what it writes, and where."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from posepipe.bench import brains, confidence, consensus, scans
from posepipe.cli.tools import main as tools
from posepipe.models.calibration import ConfidenceModel, load_calibration, read_calibration
from posepipe.models.weights import SCAN_NETWORKS, hashes


def test_the_networks_of_each_fold_get_the_same_limits_under_their_own_hashes(tmp_path: Path, scan_weights, monkeypatch) -> None:
    model = ConfidenceModel({"share": (1.5, 0.5, 0.2)}, 0.5, 0.6, 0.1)
    fitted = SimpleNamespace(model=ConfidenceModel({"CR": (2.0, 0.5, 0.1)}, 1.0, 0.7, 0.2), made="fitted", report=lambda: "table")
    asked = []
    monkeypatch.setattr(confidence, "confidence_cases", lambda *_: [SimpleNamespace(name="b1")])
    monkeypatch.setattr("posepipe.cli.bench_deep.run_all", lambda *_: None)
    monkeypatch.setattr(brains, "measure_brains", lambda *_: None)
    monkeypatch.setattr(brains, "fit_brain", lambda _: (model, "brains"))
    monkeypatch.setattr(confidence, "measure_scans", lambda bench, *_: asked.append(bench))
    monkeypatch.setattr(confidence, "fit_confidence", lambda _: fitted)
    monkeypatch.setattr(confidence, "plot_reliability", lambda *_: None)
    monkeypatch.setattr(consensus, "fit_consensus", lambda _: (load_calibration().consensus, "sure"))
    a, b = scan_weights(0.3), scan_weights(0.5)
    assert tools(["bench", "calibration", str(tmp_path), "-o", str(tmp_path / "out"), "--folds", f"a={a}", f"b={b}"]) == 0
    ours, of_a, of_b = (read_calibration(folder / "calibration.toml") for folder in (tmp_path / "out", a, b))
    assert ours.brain == of_a.brain == of_b.brain == model and ours.confidence == of_a.confidence == fitted.model
    for found, folder in ((ours, None), (of_a, a), (of_b, b)):
        assert not found.others(hashes(SCAN_NETWORKS, folder))
    assert len({tuple(found.weights.items()) for found in (ours, of_a, of_b)}) == 3
    (bench,) = asked
    assert isinstance(bench, scans.ScanBench) and bench.weights_of(scans.ScanCase("epi", "sub-E01", "a", tmp_path)) == a
    assert bench._brain == model  # what has just been fitted chooses the brain in scans
