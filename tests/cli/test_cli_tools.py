"""``posepipe-tools``: one image without BIDS, and the demonstration."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posepipe.cli.demo_command import LOST_DEGREES, PoseError, pose_errors, table
from posepipe.cli.tools import COMMANDS, build_parser, main
from posepipe.files import name_stem
from posepipe.geometry import Rigid, read_itk


def test_every_command_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--help"])
    output = capsys.readouterr().out
    assert all(f"    {command}" in output for command in COMMANDS)


@pytest.mark.slow
def test_align_writes_the_same_kinds_of_files(raw_study: Any, tmp_path: Path, capsys: Any) -> None:
    image = raw_study.bids / "sub-03/anat/sub-03_T2w.nii.gz"
    code = main(
        [
            "align", str(image), "--age", "39.1", "-o", str(tmp_path), "--atlas", "Phantom",
            "--atlas-dir", str(raw_study.demo.atlas_dir), "--init", "search", "--refine", "torch",
        ]
    )  # fmt: skip
    output = capsys.readouterr().out
    assert code == 0, output
    files = sorted(p.name for p in tmp_path.iterdir())
    assert all(name.startswith("sub-03_T2w") for name in files)
    assert {Path(name).suffix for name in files} == {".txt", ".json", ".gz", ".html"}
    html = (tmp_path / "sub-03_T2w.html").read_text(encoding="utf-8")
    assert "data:image/" in html and "Phantom" in html
    forward = [p for p in tmp_path.glob("*.txt") if "to-Phantom" in p.name]
    truth = next(row for row in raw_study.demo.truth_tsv.read_text().splitlines() if "sub-03_T2w" in row).split("\t")
    true = Rigid.from_rotvec([float(v) for v in truth[3:6]], [float(v) for v in truth[6:9]])
    assert len(forward) == 1 and read_itk(forward[0]).degrees_from(true) < 5


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--atlas", "Phantm"], 2, "no atlas named"),
        (["--mask-file", "/nowhere.nii.gz"], 1, "/nowhere.nii.gz"),
        (["--mask", "given"], 1, "--mask"),
    ],
)
def test_align_says_what_is_wrong(
    raw_study: Any, tmp_path: Path, capsys: Any, options: list[str], code: int, words: str
) -> None:
    image = raw_study.bids / "sub-01/anat/sub-01_rec-svr_T2w.nii.gz"
    command = ["align", str(image), "--age", "24", "-o", str(tmp_path / "out"), "--atlas-dir"]
    assert main([*command, str(raw_study.demo.atlas_dir), "--init", "center", "--refine", "none", *options]) == code
    assert words in capsys.readouterr().err


def test_stems() -> None:
    names = ("a.nii", "b.nii.gz", "c.MGZ", "d.x.nii.gz", "e/f.g_xfm.niftyreg.txt", "h.json", "i")
    assert [name_stem(Path(n)) for n in names] == ["a", "b", "c", "d.x", "f.g_xfm", "h", "i"]


def test_each_output_of_an_image_with_dots_in_its_name_has_a_sidecar_of_its_own(raw_study: Any, tmp_path: Path) -> None:
    image = tmp_path / "my.brain.nii.gz"
    shutil.copy(raw_study.bids / "sub-01/anat/sub-01_rec-svr_T2w.nii.gz", image)
    command = ["align", str(image), "--age", "24", "-o", str(tmp_path / "out"), "--atlas-dir", str(raw_study.demo.atlas_dir)]
    assert main([*command, "--init", "center", "--refine", "none"]) == 0
    files = {p.name for p in (tmp_path / "out").iterdir()}
    outputs = {name for name in files if name.endswith((".txt", ".nii.gz"))}
    assert len(outputs) == 5 and {f"{name_stem(name)}.json" for name in outputs} == {name for name in files if name.endswith(".json")}


@pytest.mark.slow
def test_demo_runs_and_compares(home: Path, tmp_path: Path, capsys: Any) -> None:
    code = main(["demo", str(tmp_path), "--n-subjects", "1", "--spacing", "1.5", "--refine", "torch", "--nprocs", "1"])
    output = capsys.readouterr().out
    assert code == 0, output
    assert f"report: {tmp_path / 'posepipe' / 'sub-01.html'}" in output
    assert output.rstrip().endswith(f"report: {tmp_path / 'posepipe' / 'group_pose.html'}")
    assert (tmp_path / "posepipe" / "group_pose.html").is_file()
    assert "turned by" in output and "LOST" not in output
    # with a method that cannot find the pose, the demonstration says so
    useless = ["--init", "center", "--refine", "none"]
    code = main(["demo", str(tmp_path), "--n-subjects", "1", "--spacing", "1.5", *useless])
    assert code == 1 and "LOST" in capsys.readouterr().out


def test_errors_against_the_truth(first_run: Any, tmp_path: Path) -> None:
    errors = pose_errors(first_run.study.demo, first_run.study.out)
    assert len(errors) == 6 and all(error.degrees is not None and error.degrees < 5 for error in errors)
    truth = first_run.study.demo.truth_tsv.read_text().splitlines()
    cells = truth[1].split("\t")
    turned = Rigid.from_rotvec([0, 0, np.radians(20)]) @ Rigid.from_rotvec([float(v) for v in cells[3:6]])
    cells[3:6] = [f"{v:.6f}" for v in turned.rotvec]
    (tmp_path / "truth.tsv").write_text("\n".join([truth[0], "\t".join(cells), *truth[2:]]) + "\n")
    errors = pose_errors(replace(first_run.study.demo, truth_tsv=tmp_path / "truth.tsv"), first_run.study.out)
    assert [error.is_lost for error in errors] == [True, False, False, False, False, False]


def test_table_marks_what_is_lost() -> None:
    lines = table(
        [PoseError("a", 90, 1.2, 0.5), PoseError("bb", 10, LOST_DEGREES + 1, 3), PoseError("c", 5, None, None)]
    ).splitlines()
    assert lines[1].split() == ["a", "90.0°", "1.20°", "0.50", "mm"]
    assert [line.endswith("LOST") for line in lines[1:]] == [False, True, True]
    assert "no pose" in lines[3]


@pytest.mark.parametrize(
    "command",
    [
        ["align", "brain.nii.gz", "--omp-nthreads", "0"],
        ["demo", "out", "--nprocs", "0"],
        ["bench", "volume", "data", "-o", "out", "--trials", "-1"],
        ["bench", "classical", "data", "-o", "out", "--jobs", "0"],
        ["bench", "scans", "data", "-o", "out", "--threads", "two"],
        ["reproduce", "table2", "data", "-o", "out", "--trials", "0"],
    ],
)
def test_counts_are_whole_numbers_above_0(command: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2 and "is not a whole number above 0" in capsys.readouterr().err
