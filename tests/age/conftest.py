"""Fixtures of this folder."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _apart(one_thread_no_cache: None) -> None:
    """All tests here run so."""
