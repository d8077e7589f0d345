"""Benches of raw scans, run on the miniature of the data with hand-set networks that segment bright voxels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from miniature import Miniature

from posepipe.bench import brains, confidence, finding, negative, precision, scans
from posepipe.bench.methods import BenchmarkRunner
from posepipe.bench.rows import PartFile, read_rows
from posepipe.cli.tools import main
from posepipe.geometry import so3
from posepipe.imaging.moments import moments
from posepipe.training.scenes import Scenes

STILL = ("ds-epi", "ds-scans", "ds-stacks", "ds-neonates", "ds-fetal", "ds-negative")


@pytest.fixture(scope="module")
def few(miniature: Miniature, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cohorts, so that an age is soon estimated."""
    return miniature.part(tmp_path_factory.mktemp("few"), *STILL, atlases=("CRL/30", "CRL/31", "BCP/00"))


@pytest.fixture(scope="module")
def weights(scan_weights: Callable[[float], Path]) -> Path:
    return scan_weights(0.3)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little of what is made up, and coarse."""
    monkeypatch.setattr(brains, "VALIDATION_NEWBORNS", ("sub-A12-T2w",))
    monkeypatch.setattr(brains, "TRIALS", 1)
    monkeypatch.setattr(brains, "NOISES", 2)
    monkeypatch.setattr(scans, "BACKGROUND_SPACING_MM", 4.0)


@pytest.mark.slow
def test_brains_are_found_without_a_mask(
    few: Path, weights: Path, miniature: Miniature, tmp_path: Path, made_up: None, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(scans, "BACKGROUNDS", {"rim": scans.BACKGROUNDS["rim"]})
    command = ["bench", "scans", str(few), "-o", str(tmp_path), "--trials", "1", "--threads", "1", "--weights", str(weights)]
    assert main([*command, "--names", "sub-E01", "sub-T", "sub-01", "sub-f234"]) == 0
    output = capsys.readouterr().out
    rows = read_rows([tmp_path / "scans.csv"])
    of = {part: [r for r in rows if r["part"] == part] for part in scans.PARTS}
    assert {part: len(found) for part, found in of.items()} == {"epi": 1, "scans": 1, "stacks": 2, "heads": 1, "cut": 1, "twins": 1}
    for row in of["epi"] + of["scans"] + of["stacks"]:
        assert float(row["mm"]) < 2 and float(row["degrees"]) < 3, row
        # the network by hand says upright, whatever it sees
        expected = np.degrees(so3.geodesic_distance(so3.exp(np.zeros(3)), miniature.truth.rotations[row["name"]]))
        assert expected > 10 and float(row["network"]) > 5
    for row in of["scans"] + of["stacks"]:
        mask = miniature.truth.masks[row["name"]]
        assert float(row["dice"]) > 0.9 and float(row["true_ml"]) == pytest.approx(moments(mask).millilitres, rel=1e-4)
    # no piece without a brain passes, and of two heads one is masked and the other reported
    assert all(r["qc"] in {"refused", "failed", "fail", "review"} for r in of["cut"])
    (twins,) = of["twins"]
    assert twins["kind"] == "beside sub-E02" and float(twins["mm"]) < 3 and "another brain" in twins["reasons"]
    assert "Two heads in 1 scans: the mask is one of them (≤ 10 mm) in 1, the other is reported in 1, 0 pass" in output
    assert {r["kind"] for r in of["heads"]} == set(scans.BACKGROUNDS) and all(r["fold"] == "test" for r in of["heads"])
    poses = [so3.exp(np.array([float(x) for x in r["rotvec"].split()])) for r in of["stacks"]]
    truth = [miniature.truth.rotations[r["name"]] for r in of["stacks"]]
    assert np.degrees(so3.geodesic_distance(*poses)) == pytest.approx(np.degrees(so3.geodesic_distance(*truth)), abs=1.5)
    before = (tmp_path / "scans.csv").read_text()
    assert main([*command, "--names", "sub-E01", "sub-T", "sub-01", "sub-f234"]) == 0
    assert (tmp_path / "scans.csv").read_text() == before  # seconds too: nothing is measured again
    assert main([*command, "--names", "nobody"]) == 2
    assert "--parts and --names leave none" in capsys.readouterr().err


@pytest.mark.slow
def test_scans_give_rows_for_the_confidence(few: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those of which the pose is known, with the mask that is found."""
    monkeypatch.setattr(confidence, "SCANS", ("scans",))
    runner, part = BenchmarkRunner(None), PartFile(tmp_path / "rows.csv")
    bench = scans.ScanBench(few, weights, threads=1)
    confidence.measure_scans(bench, runner, part)
    rows = {r["source"]: r for r in part.rows}
    assert {(r["name"], r["damage"]) for r in part.rows} == {("sub-T1", confidence.SCAN)}
    assert all(float(rows[source]["degrees"]) < 3 for source in confidence.NATURAL)
    assert float(rows["turned"]["degrees"]) > 20
    count = len(part.rows)
    confidence.measure_scans(bench, runner, part)
    assert len(part.rows) == count
    # another place is no trial to solve
    (case,) = scans.scan_cases(few, ("scans",))
    monkeypatch.setattr(scans, "MANY_MM", 0.0)
    assert bench.trial(case) is None


@pytest.mark.slow
def test_features_of_brains_and_of_other_places(few: Path, weights: Path, miniature: Miniature, tmp_path: Path, made_up: None) -> None:
    part = PartFile(tmp_path / "brains.csv")
    brains.measure_brains(few, part, weights)
    names = {r["name"] for r in part.rows}
    assert {"sub-E01", "sub-E02", "sub-T1", "sub-01_run-1", "sub-01_run-2", "noise 0", "noise 1"} <= names
    assert {f"sub-A12-T2w {kind} 0" for kind in scans.BACKGROUNDS} <= names and sum("axis" in name for name in names) == 2
    for row in part.rows:
        if row["name"] in miniature.truth.masks:
            assert float(row["mm"]) < 2 and set(brains.SIGNS) <= row.keys()
        if row["name"].startswith("noise") or "axis" in row["name"]:
            assert not row["mm"]
    count = len(part.rows)
    brains.measure_brains(few, part, weights)
    assert len(part.rows) == count


@pytest.mark.slow
def test_only_images_that_are_requested_are_made(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brains with synthetic background take seconds each; newborn A11, of which most are made, is not even here."""
    monkeypatch.setattr(scans, "BACKGROUND_SPACING_MM", 4.0)
    names = [one.name for one in brains.brain_images(few, ("sub-E01*", "sub-A12-T2w rim 1", "noise 3"))]
    assert names == ["sub-E01", next(n for n in names if "axis 0" in n), "sub-A12-T2w rim 1", "noise 3"]


@pytest.mark.slow
def test_constants_of_the_finder_are_compared(
    few: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finding, "SETTINGS", {title: finding.SETTINGS[title] for title in ("as it is", "one copy")})
    finding.main(few, tmp_path / "rows.csv", {"a": weights})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1:5] for line in lines[2:]] == [[f" {title} ", " 3 ", " 3 ", " 0 "] for title in ("as it is", "one copy")]
    rows = read_rows([tmp_path / "rows.csv"])
    assert [r["name"] for r in rows] == ["sub-E01", "sub-E02", "sub-T1"] * 2  # of that fold
    assert all(float(r["mm"]) < 2 for r in rows) and [bool(r["dice"]) for r in rows] == [False, False, True] * 2
    finding.main(few, tmp_path / "rows.csv", {"a": weights})
    assert capsys.readouterr().out.splitlines() == lines


def test_a_scan_in_which_nothing_is_found_counts_as_such(few: Path, scan_weights: Callable[[float], Path]) -> None:
    nothing = finding.finder.BrainFinder(scan_weights(2.0))  # no voxel is bright enough
    epi, drawn = (scans.scan_cases(few, (part,))[0] for part in ("epi", "scans"))
    for case, dice in ((epi, None), (drawn, 0.0)):
        found = finding.measured(case, nothing)
        assert (found["mm"], found["dice"], found["degrees"]) == (None, dice, 180.0)


@pytest.mark.slow
def test_what_holds_no_brain_does_not_pass(few: Path, tmp_path: Path, made_up: None, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "negative", str(few), "-o", str(tmp_path), "--init", "center"]
    assert main([*command, "--names", "ball 0", "noise 1"]) == 0
    rows = read_rows([tmp_path / "negative.csv"])
    assert [(r["name"], r["init"]) for r in rows] == [("noise 1", "center"), ("ball 0", "center")]
    assert not any(r["outcome"] == "pass" for r in rows) and all(r["why"] for r in rows)
    assert (tmp_path / "negative.md").read_text().strip() == capsys.readouterr().out.strip()
    before = (tmp_path / "negative.csv").read_text()
    assert main([*command, "--names", "ball 0", "noise 1"]) == 0
    assert (tmp_path / "negative.csv").read_text() == before


def test_images_without_a_fetal_brain_are_listed(few: Path, made_up: None) -> None:
    found = [(kind, name) for kind, name, _ in negative.images(few)]
    assert [kind for kind, _ in found].count("ball") == negative.BALLS and ("noise", "noise 0") in found
    assert {("older", "sub-child_T1w.nii.gz"), ("older, age estimated", "tpl-BCP_cohort-00_T2w.nii.gz, age estimated")} <= set(found)
    pieces = [name for kind, name in found if kind == "piece"]
    assert len(pieces) == 2 and all(" axis 0 from " in name for name in pieces)


@pytest.mark.slow
def test_every_precision_runs_in_a_process_of_its_own(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some = {name: precision.SETTINGS[name] for name in ("float32", "bfloat16")}
    monkeypatch.setattr(precision, "SETTINGS", some)
    command = ["bench", "precision", str(few), "-o", str(tmp_path), "--names", "noise 1"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:3] for line in lines[2:4]] == [[f"| {setting}", "1", "0"] for setting in some]
    rows = read_rows([tmp_path / "precision.csv"])
    assert [(r["image"], r["setting"], r["verdict"], r["voxels"]) for r in rows] == [
        ("noise 1", setting, "refused", "0") for setting in some
    ]


@pytest.mark.slow
def test_answers_are_kept_by_the_image_s_name(few: Path, tmp_path: Path, made_up: None) -> None:
    """So that those asked for another time are not taken for these."""
    precision.answers(few, tmp_path, ("noise 0",))
    first = (tmp_path / "noise_0.npz").stat()
    precision.answers(few, tmp_path, ("noise ?",))
    assert (tmp_path / "noise_0.npz").stat() == first
    found = precision.read_answers(tmp_path)
    assert list(found) == ["noise 0", "noise 1"]
    for answer in found.values():
        assert answer.verdict == "refused" and not answer.mask.any() and len(answer.poses) == len(precision.INITS)
        assert np.isnan(np.stack(answer.poses)).all() and answer.mask.shape == brains.NOISE_SHAPE


@pytest.mark.slow
def test_scenes_of_scans_are_gathered(few: Path, miniature: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By delineated masks, and by landmarks with the mask of an atlas placed by them."""
    path, split = tmp_path / "scenes.npz", tmp_path / "split.toml"
    split.write_text('[validation]\nsubjects = []\n[test]\nsubjects = ["sub-E02"]\n')
    command = ["train", "scenes", str(few / "ds-epi"), str(few / "ds-stacks"), "-d", str(few / "ds-stacks/derivatives/manual_masks")]
    command += ["-o", str(path), "--atlas-dir", str(few / "atlases"), "--split", str(split)]
    assert main([*command, "--reference", "CRL"]) == 0
    output = capsys.readouterr().out
    assert "sub-E02_acq-epi: left out, kept for test by the split" in output and f"{path}: 3 scenes" in output
    assert "terms of ds-epi: CC0" in output and "terms of ds-stacks: CC0" in output
    scenes = Scenes.load(path)
    assert scenes.terms == {"ds-epi": "CC0", "ds-stacks": "CC0"}
    assert [s.name for s in scenes.scenes] == ["sub-E01_acq-epi", "sub-01_run-1", "sub-01_run-2"]
    for scene, name in zip(scenes.scenes, ("sub-E01", "sub-01_run-1", "sub-01_run-2"), strict=True):
        millilitres = (scene.mask > 127).sum() * scene.spacing**3 / 1000
        assert millilitres == pytest.approx(moments(miniature.truth.masks[name]).millilitres, rel=0.15)
        assert scene.rotation is not None and scene.delineated == (name != "sub-E01")
        # landmarks are written to a thousandth of a mm
        assert np.degrees(so3.geodesic_distance(scene.rotation, miniature.truth.rotations[name])) < 0.1
    # without an atlas landmarks do not do; what has a mask does
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "no landmarks by which the mask of a --reference atlas could be placed" in output and f"{path}: 2 scenes" in output
