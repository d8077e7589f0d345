"""A head whose truth is known, for the tests of pictures and pages."""

from __future__ import annotations

import pytest
from head_truth import TRUTH, make_scene

from posepipe.imaging.volume import Volume
from posepipe.reports.views import Views, make_views


@pytest.fixture(scope="session")
def scene() -> tuple[Volume, Volume, Volume, Volume]:
    """Image, mask, template and the template's mask."""
    return make_scene()


@pytest.fixture(scope="session")
def views(scene: tuple[Volume, Volume, Volume, Volume]) -> Views:
    """The views of the head by its true pose."""
    return make_views(*scene, TRUTH)
