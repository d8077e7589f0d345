"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def one_thread_no_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread of torch, and no cache or atlas of the user's."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TEMPLATEFLOW_HOME", str(tmp_path_factory.mktemp("templateflow")))
        patch.delenv("POSEPIPE_ATLAS_PATH", raising=False)
        yield
    torch.set_num_threads(before)
