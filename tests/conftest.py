"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# the same examples every time, no time limit an example, no folder of past failures
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: ``POSEPIPE_DATA``, else ``../shared/data`` beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("POSEPIPE_DATA", default))
    if not (folder / "atlases").is_dir():
        pytest.skip(f"no real data at {folder}: set POSEPIPE_DATA to the folder that holds atlases/ and ds-*")
    return folder
