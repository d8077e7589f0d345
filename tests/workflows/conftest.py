"""Settings of the runs whose workflows are built."""

from __future__ import annotations

from pathlib import Path

import pytest

from posepipe.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "bids", tmp_path / "out", tmp_path / "work", "run1", refine="torch")
