"""The rotation bank: its proposals, and its cache on disk."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from posepipe.geometry import so3
from posepipe.matching.rotation_bank import REACH, ROTATIONS, STEP, RotationBank, ball
from posepipe.matching.target import Target, default_cache

CENTER = np.zeros((1, 3))


def scores(bank: RotationBank, brain) -> np.ndarray:
    s = bank.score(brain, brain.radius, CENTER)
    return np.stack([p.numpy() for p in (s.dice, s.overlap, s.ncc, s.ratio)])


@pytest.mark.slow
def test_best_rotation_is_near_the_true_one(heads, target):
    for h in heads[1::3]:
        s = target.bank.score(h.brain.coarser(2), h.brain.radius, CENTER)
        for value in (s.overlap + 0.3 * s.ncc, s.dice + 0.3 * s.ratio):
            best = target.bank.rotations[int(value[:, 0].argmax())]
            assert np.degrees(so3.geodesic_distance(best, h.pose.rotation)) < 25


def test_scores_are_shares(heads, target):
    s = target.bank.score(heads[0].brain.coarser(2), heads[0].brain.radius, CENTER)
    assert s.dice.shape == (ROTATIONS, 1)
    for value in (s.dice, s.overlap):
        assert value.min() > 0.3
        assert value.max() <= 1.01
    assert s.ncc.abs().max() <= 1.001
    assert s.ratio.min() >= -1e-3
    assert s.ratio.max() <= 1.001


def test_ball_is_full_even_and_centred():
    points = ball()
    assert points.norm(dim=1).max() <= REACH
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-6)
    assert len(points) == pytest.approx(4 / 3 * np.pi * (REACH / STEP) ** 3, rel=0.05)


@pytest.fixture(scope="module")
def kept(target, tmp_path_factory) -> tuple[Path, RotationBank]:
    """The file of the template's bank, in a folder made for it, and the bank as it was when it was made."""
    folder = tmp_path_factory.mktemp("cache") / "new" / "banks"
    bank = RotationBank.cached(target.brain.coarser(2), folder)
    (path,) = folder.iterdir()  # and no temporary files
    return path, bank


@pytest.mark.slow
def test_cache_is_used_again_bit_for_bit(kept, target, heads, caplog):
    path, first = kept
    brain, made = heads[3].brain.coarser(2), path.stat().st_mtime_ns
    again = RotationBank.cached(target.brain.coarser(2), path.parent)
    assert path.stat().st_mtime_ns == made
    assert not caplog.text
    np.testing.assert_array_equal(scores(first, brain), scores(again, brain))
    # half precision on disk changes next to nothing
    np.testing.assert_allclose(scores(first, brain), scores(target.bank, brain), atol=5e-3)


def test_damaged_cache_is_reported_and_made_again(kept, target, heads, tmp_path, caplog):
    path, first = kept
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        mended = RotationBank.cached(target.brain.coarser(2), tmp_path)
    assert f"{copy}: corrupted rotation bank" in caplog.text
    brain = heads[3].brain.coarser(2)
    np.testing.assert_array_equal(scores(mended, brain), scores(first, brain))
    assert copy.stat().st_size == path.stat().st_size


def test_folder_that_cannot_be_made_is_reported_and_not_used(target, heads, tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        bank = RotationBank.cached(target.brain.coarser(2), blocked / "banks")
    assert "the rotation bank could not be saved" in caplog.text
    assert "damaged" not in caplog.text
    assert scores(bank, heads[3].brain.coarser(2)).shape == (4, ROTATIONS, 1)


@pytest.mark.skipif(
    os.geteuid() == 0, reason="run as root, who may write in any folder: use another account; what stops root too is tested above"
)
def test_folder_that_cannot_be_written(target, tmp_path, caplog):
    tmp_path.chmod(0o500)
    with caplog.at_level(logging.WARNING):
        RotationBank.cached(target.brain.coarser(2), tmp_path)
    assert "the rotation bank could not be saved" in caplog.text


def test_another_template_has_another_file(kept, heads):
    path, _ = kept
    RotationBank.cached(heads[0].brain.coarser(2), path.parent)
    names = {p.name for p in path.parent.iterdir()}
    assert path.name in names
    assert len(names) == 2


def test_target_finds_its_bank_in_the_given_folder(kept, average, heads):
    path, first = kept
    before = {p.name for p in path.parent.iterdir()}
    own = Target(*average, cache_dir=path.parent)
    assert own.bank is own.bank
    assert {p.name for p in path.parent.iterdir()} == before
    brain = heads[3].brain.coarser(2)
    np.testing.assert_array_equal(scores(own.bank, brain), scores(first, brain))


def test_default_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "posepipe" / "banks"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "posepipe" / "banks"
