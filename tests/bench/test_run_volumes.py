"""Benches of whole volumes, run on the miniature of the data: their tables are correct for phantoms."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from miniature import Miniature, upright

from posepipe.atlas import AtlasLibrary
from posepipe.atlas.sidecars import file_sha256
from posepipe.bench import canonical, classical, confidence, contrast, extracted, volume
from posepipe.bench.methods import BenchmarkRunner
from posepipe.bench.rows import PartFile, read_rows
from posepipe.cli.tools import main
from posepipe.errors import PosepipeError
from posepipe.geometry import so3

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.mark.slow
def test_the_classical_bench_finds_what_was_turned(miniature: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "classical", str(miniature.folder), "-o", str(tmp_path), "--groups", "fetus", "templates"]
    command += ["--names", "f234", "CHN+26", "--init", "center", "search", "--refine", "none", "torch", "--trials", "2"]
    assert main([*command, "--damage", "noise:0.5", "--jobs", "1", "--threads", "1"]) == 0
    rows = read_rows([tmp_path / "classical.csv"])
    assert len(rows) == 2 * 2 * 4  # images, turns, methods
    for row in rows:
        low, high = classical.BINS[int(row["bin"])]
        degrees = float(row["degrees"])
        if row["init"] == "search":
            assert degrees < (8 if row["refine"] == "none" else 3), row
        elif row["refine"] == "none":
            assert low - 1 <= degrees <= high + 1, row  # the turn itself
    table = (tmp_path / "classical.md").read_text()
    assert table.strip() == capsys.readouterr().out.strip()
    assert [line for line in table.splitlines() if line.startswith("**")] == [
        f"**{group}, 1 image(s), damage: noise 0.5** (mean / p95 / max, degrees)" for group in ("fetus", "templates")
    ]


@pytest.mark.slow
def test_stacks_are_compared_pair_by_pair(
    miniature: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = miniature.part(tmp_path / "data", "ds-stacks", "ds-neonates/participants.tsv", atlases=("CRL/30", "CRL/31", "CRL/36"))
    threads: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    command = ["bench", "classical", str(data), "-o", str(tmp_path / "out"), "--groups", "stacks", "--init", "center", "--refine", "none"]
    assert main([*command, "--trials", "1", "--jobs", "1", "--threads", "1"]) == 0
    output = capsys.readouterr().out
    assert "nearest CRL week by size: 31" in output
    (degrees,) = re.findall(r"pairwise disagreement median ([\d.]+)°", output)
    poses = [miniature.truth.rotations[f"sub-01_run-{k}"] for k in (1, 2)]
    assert float(degrees) == pytest.approx(np.degrees(so3.geodesic_distance(*poses)), abs=1.5)
    assert set(threads) == {1}  # as asked for
    assert len(read_rows([tmp_path / "out" / "classical.csv"])) == 2


def test_what_has_no_canonical_rotation_is_reported(miniature: Miniature, tmp_path: Path) -> None:
    data = miniature.part(tmp_path, atlases=("CRL/30", "CHN/30"))
    (data / "atlases/tpl-CHN/cohort-30/fetched.json").unlink()
    with pytest.raises(PosepipeError, match=r"CHN\+30: no canonical rotation; run python -m posepipe.bench.canonical"):
        classical.atlas_cases(data, "CHN")


@pytest.mark.slow
def test_rotations_to_the_canonical_frame_are_measured(
    miniature: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the atlases that are there; BCP is not."""
    names = ("CRL/30", "CRL/31", "CHN/30", "Serag/30")
    data = miniature.part(tmp_path, atlases=names)
    assert canonical.main([str(data / "atlases")]) == 0
    text = capsys.readouterr().out
    found = tomllib.loads(text)
    assert {f"{atlas}/{cohort}" for atlas in found for cohort in found[atlas]} == set(names)
    poses = {}
    for name in names:
        atlas, cohort = name.split("/")
        entry = found[atlas][cohort]
        poses[name] = so3.exp(np.radians(entry["rotvec_degrees"])) @ upright(atlas, cohort).rotation
        assert entry["residual_degrees"] < 1
        images = sorted((data / f"atlases/tpl-{atlas}/cohort-{cohort}").glob("*_T?w.nii.gz"))
        assert entry["images"] == [file_sha256(path) for path in images]
    # the same rotation of all, up to that of the frame: the mean of both of CRL
    apart = [np.degrees(so3.geodesic_distance(poses[name], poses["CRL/30"])) for name in names]
    assert max(apart) < 0.7
    mean = so3.project(sum(so3.exp(np.radians(found["CRL"][w]["rotvec_degrees"])) for w in ("30", "31")) / 2)
    assert mean == pytest.approx(np.eye(3), abs=1e-3)


def test_cohorts_far_apart_in_age_are_not_compared(miniature: Miniature) -> None:
    library = AtlasLibrary([miniature.folder / "atlases"])
    crl, late, serag, bcp = (library.template(*t, "T2w") for t in (("CRL", 30), ("CRL", 34), ("Serag", 31), ("BCP", "00")))
    assert canonical.neighbours(crl, serag) and not canonical.neighbours(crl, late) and not canonical.neighbours(late, serag)
    assert canonical.neighbours(bcp, library.template("Serag", 42, "T2w")) and not canonical.neighbours(bcp, crl)


def test_ages_of_test_brains_are_reported_and_measured_once(
    miniature: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = miniature.part(tmp_path / "data", "ds-fetal", "ds-neonates/participants.tsv", atlases=(
        *(f"{atlas}/{week}" for atlas in ("CRL", "Serag") for week in (28, 29, 30, 31, 32)),
        *(f"{atlas}/{week}" for atlas in ("CHN", "FidonSBA") for week in (26, 30)),
    ))  # fmt: skip
    command = ["bench", "age", str(data), "-o", str(tmp_path / "out"), "--parts", "test", "--names"]
    assert main([*command, "sub-f234"]) == 0
    output = capsys.readouterr().out
    (weeks,) = re.findall(r"sub-f234: 29 weeks, estimated ([\d.]+) \(by", output)
    assert float(weeks) == pytest.approx(29, abs=1)
    rows = read_rows([tmp_path / "out" / "age.csv"])
    assert {r["name"] for r in rows} == {"sub-f234"} and 29.0 in {float(r["weeks"]) for r in rows}
    assert not (tmp_path / "out" / "age.toml").exists()  # nothing is fitted to a test
    (part,) = (tmp_path / "out" / "parts").iterdir()
    before = part.read_text()
    assert main([*command, "sub-f234"]) == 0  # by its rows: seconds are the same
    assert part.read_text() == before and capsys.readouterr().out == output
    assert main([*command, "nobody"]) == 2
    assert "no brain to measure" in capsys.readouterr().err


@pytest.mark.slow
def test_the_paper_s_comparison_is_run_once(
    miniature: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(volume, "LAST_BINS", volume.LAST_BINS[:2])
    command = ["bench", "volume", str(miniature.folder), "-o", str(tmp_path), "--groups", "fetus", "--trials", "1", "--methods"]
    assert main([*command, "search", "posenet"]) == 0
    output = capsys.readouterr().out
    rows = read_rows([tmp_path / "volume.csv"])
    assert [r["bin"] for r in rows if r["method"] == "search"] == ["0", "1"]
    assert all(float(r["degrees"]) < 5 and float(r["mm"]) < 3 for r in rows if r["method"] == "search")
    assert (len(rows) == 4) != ("posenet: not run, there is no pose-net in these weights" in output)
    assert sorted(p.suffix for p in tmp_path.iterdir() if p.is_file()).count(".png") >= 1
    (part,) = (tmp_path / "parts").iterdir()
    before = part.read_text()
    assert main([*command, "search", "posenet"]) == 0
    assert part.read_text() == before
    capsys.readouterr()
    assert main([*command, "guess"]) == 2
    assert "--methods: guess is none of" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_turns_for_all_ways_of_a_newborn(
    miniature: Miniature, tmp_path: Path, contrast_weights, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contrast, "LAST_BINS", contrast.LAST_BINS[:2])
    monkeypatch.setattr(contrast, "CONVERTERS", {"GAN": "contrast"})
    weights = contrast_weights(4.0)
    command = ["bench", "contrast", str(miniature.folder), "-o", str(tmp_path), "--trials", "1", "--threads", "1"]
    command += ["--weights", str(weights), "--methods"]
    assert main([*command, "search", "--ways", "GAN", "T1w on T1w"]) == 0
    poses = read_rows([tmp_path / "poses.csv"])
    assert [(r["group"], r["bin"]) for r in poses] == [(way, b) for way in ("GAN", "T1w on T1w") for b in ("0", "1")]
    # the subject that the split keeps for testing, and no other
    assert {r["name"] for r in poses} == {"sub-A13"} and all(float(r["degrees"]) < 4 for r in poses)
    images = {r["way"]: r for r in read_rows([tmp_path / "likeness.csv"])}
    # a phantom's T2w image is bright where the T1w one is dark, as the network by hand makes it
    assert float(images["GAN"]["ssim"]) > 0.6 > float(images["T1w as it is"]["ssim"])
    assert float(images["T1w inverted"]["mae"]) < float(images["T1w as it is"]["mae"])
    assert (tmp_path / "montage_sub-A13.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "contrast.md").read_text()
    assert "**GAN**: 1 image(s)" in table and "**T1w**" not in table
    before = {p.name: p.read_text() for p in (tmp_path / "parts").iterdir()}
    assert len(before) == 3
    assert main([*command, "search", "--ways", "GAN", "T1w on T1w"]) == 0
    assert before == {p.name: p.read_text() for p in (tmp_path / "parts").iterdir()}
    capsys.readouterr()
    for options, words in ((["guess"], "--methods guess: choose from"), (["search", "--names", "nobody"], "--names leaves none")):
        assert main([*command, *options]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_poses_are_made_right_and_wrong_on_purpose(miniature: Miniature, tmp_path: Path) -> None:
    cases = {c.name: c for c in confidence.confidence_cases(miniature.folder, ("validation",))}
    assert set(cases) == {"CRL+27", "FidonSBA+28", "CHN+25", "CHN+33", "Serag+36", "sub-A12-T2w"}
    assert "sub-A04-T2w" in {c.name for c in confidence.confidence_cases(miniature.folder, ("train",))}
    case = cases["FidonSBA+28"]
    confidence.run_task((case, tmp_path, 1, 0, None))
    path = confidence.part_path(tmp_path, case, BenchmarkRunner(None).networks.sha256)
    rows = {r["source"]: r for r in read_rows([path])}
    assert list(rows) == [*confidence.NATURAL, *confidence.PERTURBED]
    right = {s for s, r in rows.items() if float(r["degrees"]) <= 15}
    assert right >= set(confidence.NATURAL) and not right & {"rival", "turned"}
    before = path.read_text()
    confidence.run_task((case, tmp_path, 1, 0, None))
    assert path.read_text() == before


@pytest.fixture
def few(miniature: Miniature, tmp_path: Path) -> Path:
    names = ("ds-epi", "ds-scans", "ds-stacks", "ds-labels", "ds-negative", "ds-fetal", "ds-neonates")
    return miniature.part(tmp_path / "data", *names, atlases=("CRL/30",))


@pytest.mark.slow
@pytest.mark.parametrize("test", [False, True])
def test_extracted_brains_are_distinguished_from_heads(few: Path, tmp_path: Path, test: bool) -> None:
    part = PartFile(tmp_path / "rows.csv")
    extracted.measure(few, part, test=test)
    rows = part.rows
    brains = {(r["group"], r["name"]) for r in rows if r["part"] == "brain"}
    if test:
        assert brains == {("newborns", "sub-A13_T1w"), ("newborns", "sub-A13_T2w"), ("fetus", "sub-f234_rec-svr_T2w")}
    else:
        assert {("newborns", "sub-A04_T2w"), ("label maps", "sub-B01_desc-tissues_dseg"), ("drawn in scans", "sub-01_run-1")} < brains
        assert ("tpl-CRL", "tpl-CRL_cohort-30_T2w") in brains and not any("A13" in name for _, name in brains)
        assert {r["kind"] for r in rows if r["part"] == "older"} == {"whole"}
    taken = {}
    for line in extracted.report(rows).splitlines()[2:]:
        cells = [c.strip() for c in line.strip("|").split("|")]
        taken[cells[0]] = (int(cells[1]), int(cells[6]), int(cells[7]))
    assert taken["brain: whole"] == (len(brains),) * 3  # all are taken
    heads = {kind: found for kind, found in taken.items() if kind.startswith("other: head")}
    assert len(heads) == 2 * len(extracted.SHELLS) and all(n == empty and not good for n, empty, good in heads.values())
    # half of a brain, by each of its axes; each of its rims
    assert taken["brain: 50 % left"][0] == 3 * len(brains)
    whole, half = (np.median([float(r["millilitres"]) for r in rows if r["kind"] == kind]) for kind in ("whole", "50 % left"))
    assert half == pytest.approx(whole / 2, rel=0.1)
    if not test:
        of_crl = {r["kind"]: float(r["millilitres"]) for r in rows if r["name"] == "tpl-CRL_cohort-30_T2w"}
        assert 0.85 < of_crl["no cerebellum"] / of_crl["whole"] < 0.99
        assert taken["other: scan, zero below 0.1"][0] == 5
    count = len(rows)
    extracted.measure(few, part, test=test)
    assert len(part.rows) == count
