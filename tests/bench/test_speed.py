"""Registration tools beside posepipe: each finds a known turn in the right direction, and what the rows and tables say."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from miniature import Miniature

from posepipe import phantom
from posepipe.bench import speed, speed_tables, speed_worker
from posepipe.bench.rows import read_rows
from posepipe.bench.tools import TOOLS, Options, Registered, greedy, itk_ants
from posepipe.bench.tools.base import ToolError, from_lps, run_program
from posepipe.bench.tools.elastix import euler_matrix
from posepipe.bench.tools.simpleitk import cube_rotations
from posepipe.cli.tools import main
from posepipe.errors import PosepipeError
from posepipe.geometry import Rigid, rotations_in_bin
from posepipe.imaging.volume import save_volume

AGE, VOXEL = 29.0, 2.5
AWAY = Rigid(np.eye(3), np.array([40.0, -30.0, 20.0]))
"""The template is not about the world's origin, so that a turn about that is told from one about the brain."""
TURN = Rigid.from_rotvec(np.radians(25) * np.array([0.6, -0.48, 0.64]))
OTHERS = (
    "ants", "ants-affine-initializer", "ants-axes", "greedy-moments", "greedy-search", "simpleitk-24", "elastix", "mrregister", "fireants",
)  # fmt: skip


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom on a left-handed oblique grid, turned by 25° and moved, with its template; the file that describes both."""
    folder = tmp_path_factory.mktemp("scene")
    labels = phantom.brain_labels(AGE, VOXEL)
    template, inside = phantom.render(labels, AGE).moved(AWAY), phantom.brain_mask(labels).moved(AWAY)
    pose = Rigid.about(TURN.rotation, (0, 0, 0), (12.0, -24.0, 8.0))
    grid = Rigid.from_rotvec([0.3, 0.2, -0.4]).rotation * [-1.0, 1.0, 1.0]
    image, mask, truth = phantom.subject(AGE, rng=np.random.default_rng(50), pose=pose, spacing=VOXEL, directions=grid)
    save_volume(speed._scaled(speed.brain_of(template, inside)), folder / "template.nii", np.float32)
    save_volume(speed._scaled(speed.brain_of(image, mask)), folder / "image.nii", np.float32)
    about = {"template": "template.nii", "truth": (truth @ ~AWAY).matrix.tolist(), "center": AWAY.translation.tolist()}
    (folder / "image.json").write_text(json.dumps(about))
    return folder / "image.json"


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_each_tool_finds_a_known_turn(name: str, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Template → image: the other way round, or in LPS, it would be 14° off at least."""
    options = Options(1, fireants_python=os.environ.get("POSEPIPE_FIREANTS_PYTHON", ""))
    if why := TOOLS[name].missing(options):
        pytest.skip(f"{name}: {why}")
    monkeypatch.setattr(itk_ants, "SEARCH_DEGREES", 60)
    monkeypatch.setattr(greedy, "SEARCH", "200 10 10")  # of all rotations a random one may fit the coarse phantom better
    monkeypatch.setenv("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
    TOOLS[name].start(options)
    try:
        row = speed_worker.measure(TOOLS[name], scene, json.loads(scene.read_text()))
    finally:
        TOOLS[name].stop()
    assert row["failure"] == ""
    assert row["degrees"] < 7 and row["mm"] < 4, row
    assert 0.7 < row["determinant"] < 1.4
    assert row["seconds"] > 0 and row["peak_mb"] > 10 and row["processor"] > 0


def test_the_turn_tells_directions_apart(scene: Path) -> None:
    """What the test above relies on."""
    about = json.loads(scene.read_text())
    truth, lps = Rigid.from_matrix(about["truth"]), np.diag([-1.0, -1.0, 1.0, 1.0])
    for wrong in (~truth, Rigid.from_matrix(lps @ truth.matrix @ lps), Rigid.identity()):
        assert wrong.degrees_from(truth) > 14
        assert wrong.mm_from(truth, about["center"]) > 4


def test_itk_s_transforms_in_the_frame_of_the_bench() -> None:
    """Against SimpleITK's arithmetic written out: y = A (x - c) + c + t in LPS."""
    rotation, center, shift = TURN.rotation, np.array([3.0, 5.0, -7.0]), np.array([1.0, -2.0, 4.0])
    point = np.array([11.0, -13.0, 17.0])
    flip = np.array([-1.0, -1.0, 1.0])
    wanted = flip * (rotation @ (flip * point - center) + center + shift)
    found = from_lps(rotation.ravel(), shift, center) @ np.append(point, 1)
    np.testing.assert_allclose(found[:3], wanted, atol=1e-9)


def test_elastix_s_angles(tmp_path: Path) -> None:
    """R = Rz Rx Ry; other orders, and files without a transform, are refused."""
    x, y, z = 0.2, -0.3, 0.5
    text = f"(ComputeZYX \"false\")\n(TransformParameters {x} {y} {z} 1 2 3)\n(CenterOfRotationPoint 4 5 6)\n"
    path = tmp_path / "TransformParameters.0.txt"
    path.write_text(text)
    each = [Rigid.from_rotvec(a * np.eye(3)[k]).rotation for k, a in enumerate((x, y, z))]
    wanted = from_lps(each[2] @ each[0] @ each[1], np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]))
    np.testing.assert_allclose(euler_matrix(path), wanted, atol=1e-9)
    path.write_text(text.replace("false", "true"))
    with pytest.raises(ToolError, match="another order of angles"):
        euler_matrix(path)
    with pytest.raises(ToolError, match=r"elastix wrote no nothing\.txt"):
        euler_matrix(tmp_path / "nothing.txt")


def test_starts_cover_the_cube() -> None:
    starts = np.array(cube_rotations())
    assert len({tuple(m.ravel()) for m in starts}) == 24
    np.testing.assert_allclose(np.linalg.det(starts), 1)
    # no rotation is further than 63° from the nearest
    for rotation in rotations_in_bin(50, 0, 180, np.random.default_rng(0)):
        assert min(Rigid(m, np.zeros(3)).degrees_from(Rigid(rotation, np.zeros(3))) for m in starts) < 63


def test_four_axes_are_half_turns_apart(scene: Path) -> None:
    poses = itk_ants.four_axes(scene.with_name("image.nii"), scene.with_name("template.nii"))
    truth = Rigid.from_matrix(json.loads(scene.read_text())["truth"])
    assert min(p.degrees_from(truth) for p in poses) < 10
    apart = [a.degrees_from(b) for i, a in enumerate(poses) for b in poses[:i]]
    assert apart == pytest.approx([180.0] * 6, abs=1e-3)


class _Fixed:
    """A tool whose answer is known; the kind of a mirrored or failed result cannot be had of a real one at will."""

    def __init__(self, matrix: np.ndarray | None) -> None:
        self.matrix = matrix

    def register(self, image: Path, template: Path, folder: Path) -> Registered:
        if self.matrix is None:
            msg = "no\nway"
            raise ToolError(msg)
        return Registered(self.matrix, 2.0, float("nan"), {"one": 0.5, "two": 1.5})


def test_what_mirrors_counts_as_failed(scene: Path) -> None:
    about = json.loads(scene.read_text())
    truth = np.array(about["truth"])
    right = speed_worker.measure(_Fixed(truth @ np.diag([1.1, 0.9, 1.0, 1.0])), scene, about)  # type: ignore[arg-type]
    assert right["degrees"] < 4 and right["determinant"] == pytest.approx(0.99) and right["failure"] == ""
    assert (right["seconds"], right["read"], right["parts"]) == (2.0, None, "one=0.5000 two=1.5000")
    mirrored = speed_worker.measure(_Fixed(truth @ np.diag([-1.0, 1, 1, 1])), scene, about)  # type: ignore[arg-type]
    assert mirrored["degrees"] is None and mirrored["failure"] == "mirrored: its determinant is -1.00"
    nothing = speed_worker.measure(_Fixed(truth * np.nan), scene, about)  # type: ignore[arg-type]
    assert nothing["degrees"] is None and nothing["failure"] == "the transform holds no numbers"
    broken = speed_worker.measure(_Fixed(None), scene, about)  # type: ignore[arg-type]
    assert broken["failure"] == "no way" and broken["seconds"] is None


def test_a_program_s_failure_is_told_and_its_memory_is_measured(tmp_path: Path) -> None:
    seconds, peak = run_program(["python3", "-c", "x = bytearray(80_000_000); import time; time.sleep(0.3)"], tmp_path / "log", 1)
    assert 85 < peak < 400 and seconds > 0.3
    with pytest.raises(ToolError, match="sh ended with 3: bad luck"):
        run_program(["sh", "-c", "echo bad luck; exit 3"], tmp_path / "log", 1)


ROW = speed.Row("deep", 1, "fetus", "f1", 0, 0, 0, 2.0, 1.0, 1.0, 0.5, 3.0, 0.01, "mask=0.1 pose=0.4", 0.6, 500.0, "")


def cells(text: str, first: str) -> list[str]:
    """The cells of the first line whose first cell is ``first``."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [c.strip() for c in line.strip("|").split("|")]


def test_tables_count_failures_and_hide_nothing() -> None:
    rows = [replace(ROW, trial=k, degrees=d, seconds=s) for k, (d, s) in enumerate(((1.0, 0.4), (3.0, 0.5), (20.0, 0.9)))]
    rows += [replace(ROW, trial=3, degrees=None, mm=None, failure="mirrored"), replace(ROW, method="ants", threads=2, read=None, parts="")]
    text = speed_tables.report(rows, {"elastix": "not here"}, "A machine", shared=True)
    line = cells(text, "deep")
    assert line[1] == "4" and line[2].startswith("0.50 (") and line[6].startswith("3.0 (1.2–18.3)")
    assert line[8:] == ["2 of 4 (50 %)", "1", "500"]
    assert cells(text, "ants")[5] == "in seconds"
    assert "other work at the same time" in text and "`elastix`: **not run**, not here" in text
    assert cells(text, "deep | 1") == ["deep", "1", "0.100", "0.400", "0.500"]
    assert cells(text, "paper, six cores: vvr-gc")[1] == "553"
    assert cells(text, "posepipe, 1 thread: deep")[1] == "0.50"
    quiet = speed_tables.report(rows, {}, "A machine", shared=False)
    assert "other work" not in quiet


def test_only_images_asked_for(miniature: Miniature) -> None:
    assert [c.name for c in speed.speed_cases(miniature.folder, ("f234", "sub-A"))] == ["f234", "sub-A13-T2w"]


@pytest.mark.slow
def test_the_whole_run_and_once_more(miniature: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "speed", str(miniature.folder), "-o", str(tmp_path), "--names", "f234", "--threads", "1", "--shared", "--methods"]
    methods = ["deep", "search+torch", "fireants"]
    assert main([*command, *methods]) == 0
    told = capsys.readouterr().out
    assert "fireants: not run, give the Python of an environment that has FireANTs with --fireants-python" in told
    rows = [speed.Row.of(r) for r in read_rows([tmp_path / "speed.csv"])]
    assert [(r.method, r.bin) for r in rows] == [(m, b) for m in methods[:2] for b in range(6)]
    for row in rows:
        assert row.degrees is not None and row.degrees < 6 and row.failure == ""
        parts = speed_tables.stages(row)
        assert list(parts) == ["mask", "prepare", "pose", *(["refine"] if row.method == "search+torch" else [])]
        assert row.seconds == pytest.approx(sum(parts.values()), abs=0.001) and row.read is not None and row.start > 0
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "speed.md").read_text().strip() in told
    before = (tmp_path / "speed.csv").read_text()
    assert main([*command, *methods]) == 0
    assert (tmp_path / "speed.csv").read_text() == before
    capsys.readouterr()
    for options, words in ((["guess"], "--methods: guess is none of"), (["deep", "--names", "nobody"], "no image to measure")):
        assert main([*command, *options]) == 2
        assert words in capsys.readouterr().err


def test_an_absent_interpreter_is_a_reason() -> None:
    assert "--fireants-python /no/python" in TOOLS["fireants"].missing(Options(fireants_python="/no/python"))
    assert issubclass(ToolError, PosepipeError)
