"""A Slurm, and small studies of phantoms in folders with names that are hard to quote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_here

from posepipe.phantom.demo_data import DemoDataset, write_demo

HARD = "it's a \"study\" 100% $HOME; x"
"""What a folder may be called, and what shells and schedulers make of it if it is not quoted."""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[slurm_here.Slurm]:
    with slurm_here.running(tmp_path_factory.mktemp("slurm")) as here:
        yield here


@pytest.fixture
def hard(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> DemoDataset:
    """Three participants (02 has two sessions, 03 a T1w and a T2w image) in a folder that is hard to quote, in which one stands."""
    return _study(tmp_path / HARD, 3, monkeypatch)


@pytest.fixture
def two(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> DemoDataset:
    """Two participants, in a folder that is only nearly as hard."""
    return _study(tmp_path / HARD.replace("%", ""), 2, monkeypatch)


def _study(folder: Path, participants: int, monkeypatch: pytest.MonkeyPatch) -> DemoDataset:
    folder.mkdir()
    monkeypatch.chdir(folder)
    return write_demo(folder, n_subjects=participants, spacing=2.0)
