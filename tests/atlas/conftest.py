"""Keeps every atlas test away from the machine's own caches."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache folder, no TEMPLATEFLOW_HOME, no POSEPIPE_ATLAS_PATH; returns the cache folder."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("TEMPLATEFLOW_HOME", raising=False)
    monkeypatch.delenv("POSEPIPE_ATLAS_PATH", raising=False)
    return cache
