"""Real scans for training: position, size, pose and fold of each, and the orientation from landmarks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scenes import scene

from posepipe.errors import UsageError
from posepipe.geometry import random_rotations, so3
from posepipe.imaging.volume import Volume
from posepipe.training.scene_files import EYES_TILT_DEGREES, Landmarks, place_mask, read_landmarks
from posepipe.training.scenes import Scenes
from posepipe.training.split import load_folds, load_scan_poses


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), flip=st.booleans())
def test_scenes_keep_place_size_and_pose(seed: int, flip: bool) -> None:
    turn = random_rotations(1, np.random.default_rng(seed))[0]
    made = scene(turn, flip=flip)
    assert made.spacing == 2.0 and made.image.shape == (50, 48, 52)
    # the last axis has its first voxel's middle 1 mm nearer to the edge than before
    assert made.center == pytest.approx([50, 48, 53], abs=0.7)
    head = made.placed()
    assert head.posed and not head.endless and head.origin * 2 == pytest.approx(made.center)
    axes = np.diag([-1.0 if flip else 1.0, 1, 1])
    assert head.matrix == pytest.approx(made.radius / 2 * axes @ turn, abs=1e-6)


def test_scenes_are_written_and_read(tmp_path: Path) -> None:
    turn = so3.exp(np.array([0.4, -0.2, 0.9]))
    joined = Scenes.joined([Scenes((scene(turn),), {"one": "CC0"}), Scenes((scene(group="two"),), {"two": "CC0"})])
    again = Scenes.load(joined.save(tmp_path / "scenes.npz"))
    assert [s.name for s in again.scenes] == ["one-1", "two-1"] and again.terms == {"one": "CC0", "two": "CC0"}
    np.testing.assert_array_equal(again.scenes[0].mask, joined.scenes[0].mask)
    assert again.scenes[0].rotation == pytest.approx(turn) and again.scenes[1].rotation is None
    assert not again.scenes[1].placed().posed and set(again.placed()) == {"one", "two"}
    assert [s.name for s in again.without({"one-1"}).scenes] == ["two-1"]


def test_a_subject_s_scenes_are_left_out_together() -> None:
    runs = tuple(replace(scene(), name=f"sub-01_run-{k}") for k in (1, 2))
    assert len(Scenes((*runs, scene())).without({"sub-01"}).scenes) == 1


def test_what_is_no_file_of_scenes_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="not a file of training scenes"):
        Scenes.load(tmp_path / "a.npz")
    with pytest.raises(UsageError, match="no scenes"):
        Scenes.joined([])


def test_folds_share_no_subject_and_poses_are_of_their_scans(tmp_path: Path) -> None:
    folds = list(load_folds().values())
    assert len(set().union(*folds)) == sum(map(len, folds))
    for name, rotation in load_scan_poses().items():
        assert any({name, name.partition("_")[0]} & fold for fold in folds)
        assert np.linalg.det(rotation) == pytest.approx(1)
    (tmp_path / "scans.toml").write_text("[folds]\n")
    with pytest.raises(UsageError, match="not a file of scans"):
        load_folds(tmp_path / "scans.toml")


def test_landmarks_give_the_pose_that_put_them_there(tmp_path: Path) -> None:
    rotation, at = so3.exp(np.array([0.7, 1.1, -0.4])), np.array([12.0, -30, 8])
    tilt = np.radians(EYES_TILT_DEGREES)
    eyes = [np.array([x, 40 * np.cos(tilt), -40 * np.sin(tilt)]) for x in (-20.0, 20.0)]
    values = [at, *(rotation @ e + at for e in eyes)]
    names = [f"{of}_{axis}" for of in ("brain", "eyeL", "eyeR") for axis in "xyz"]
    rows = ["\t".join(["participant_id", *names]), "\t".join(["sub-1", *(f"{v:.6f}" for p in values for v in p)])]
    (tmp_path / "landmarks.tsv").write_text("\n".join(rows) + "\n")
    marks = read_landmarks(tmp_path)["sub-1"]
    assert isinstance(marks, Landmarks) and marks.canonical() == pytest.approx(rotation, abs=1e-5)
    pose = marks.pose(np.array([1.0, 2, 3]), np.eye(3))
    assert pose.rotation == pytest.approx(rotation, abs=1e-5)
    assert pose.apply(np.array([1.0, 2, 3])) == pytest.approx(at, abs=1e-5)
    box = np.zeros((20, 20, 20), np.float32)
    box[5:15, 5:15, 5:15] = 1
    template = Volume(box, np.diag([2.0, 2, 2, 1]))
    laid = place_mask(template, Volume(np.zeros((40, 40, 40), np.float32), pose.matrix @ np.diag([1.0, 1, 1, 1])), pose)
    assert laid.data.sum() == pytest.approx(box.sum() * 8, rel=0.15)
    (tmp_path / "landmarks.tsv").write_text("participant_id\tbrain_x\nsub-1\t3\n")
    with pytest.raises(UsageError, match="not a table of landmarks"):
        read_landmarks(tmp_path)
    assert read_landmarks(tmp_path / "elsewhere") == {}
