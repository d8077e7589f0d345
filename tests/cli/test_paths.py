"""Paths that users give become absolute when they are parsed, because nodes run in other folders."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posepipe.atlas import AtlasLibrary
from posepipe.cli import parser as app
from posepipe.cli import tools
from posepipe.paths import absolute_derivative, absolute_path

PLACES = {"DIR", "FILE", "FILE.npz", "DEST", "BIDS", "PATH", "[NAME=]PATH", "OUT_DIR", "IMAGE"}
"""What stands for a path in the help."""
OF_THE_APP = (
    "--atlas-dir", "--weights", "--work-dir", "--bids-filter-file", "--plugin-args", "--ratings",
)  # fmt: skip


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        for inner in action.choices.values() if isinstance(action, argparse._SubParsersAction) else ():
            yield from actions(inner)


@pytest.mark.parametrize("parser", [app.build_parser(), tools.build_parser()], ids=["posepipe", "posepipe-tools"])
def test_every_path_is_made_absolute_by_its_option(parser: argparse.ArgumentParser) -> None:
    found = [action for action in actions(parser) if action.metavar in PLACES or action.dest.endswith(("_dir", "_file"))]
    found += [action for action in actions(parser) if action.dest in {"data", "output"}]
    assert len(found) >= 10
    for action in found:
        assert action.type in (absolute_path, absolute_derivative), action.option_strings or action.dest
    assert not any(action.type is Path for action in actions(parser))


def test_settings_hold_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    command = ["bids", "out", "group", *(word for option in OF_THE_APP for word in (option, f"x{option}"))]
    settings = app.parse_settings([*command, "--atlas-dir=~/atlases", "-d", "masks=derived/m", "other"])
    assert (settings.bids_dir, settings.out_dir, settings.work_dir) == (tmp_path / "bids", tmp_path / "out", tmp_path / "x--work-dir")
    assert settings.atlas_dir == (tmp_path / "x--atlas-dir", tmp_path / "home/atlases")
    assert settings.derivatives == (f"masks={tmp_path}/derived/m", f"{tmp_path}/other")
    for name in ("weights", "bids_filter_file", "plugin_args", "ratings"):
        path = getattr(settings, name)
        assert path.is_absolute() and path.parent == tmp_path


def test_config_file_holds_paths_as_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/run.toml").write_text('atlas-dir = ["a", "/b"]\nderivatives = ["m=c"]\nwork-dir = "w"\nweights = "n"\n')
    settings = app.parse_settings(["bids", "out", "participant", "--config-file", "conf/run.toml"])
    assert settings.atlas_dir == (tmp_path / "a", Path("/b")) and settings.derivatives == (f"m={tmp_path}/c",)
    assert (settings.work_dir, settings.weights) == (tmp_path / "w", tmp_path / "n")
    assert settings.config_file == tmp_path / "conf/run.toml"


def test_folders_of_the_environment_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("POSEPIPE_ATLAS_PATH", "TEMPLATEFLOW_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, name.lower())
    assert all(folder.is_absolute() and folder.is_relative_to(tmp_path) for folder in AtlasLibrary.default().dirs)
    assert len(AtlasLibrary.default().dirs) == 3


@pytest.mark.slow
def test_relative_paths_all_the_way(raw_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_posepipe: Any) -> None:
    monkeypatch.chdir(tmp_path)
    atlases, masks, bids = (os.path.relpath(p, tmp_path) for p in (raw_study.demo.atlas_dir, raw_study.demo.masks_dir, raw_study.bids))
    code, output = run_posepipe([
        bids, "out", "participant", "--participant-label", "04", "--atlas", "Phantom", "--atlas-dir", atlases, "-d", f"masks={masks}",
        "-w", "work", "--init", "center", "--refine", "none", "--nprocs", "1",
    ])  # fmt: skip
    assert code == 0 and "1 aligned" in output, output
    assert list((tmp_path / "out").rglob("*_xfm.txt")) and (tmp_path / "work").is_dir()
