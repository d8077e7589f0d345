"""A head whose truth is known, for the tests of pictures and pages."""

from __future__ import annotations

import numpy as np
import pytest
from head_truth import TRUTH, grid, head

from posepipe.imaging.volume import Volume
from posepipe.reports.views import Views, make_views


@pytest.fixture(scope="session")
def scene() -> tuple[Volume, Volume, Volume, Volume]:
    """Image and mask turned by TRUTH, on an LAS-like grid with unequal voxels; template and mask."""
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = [-40, -42, -38]
    data, mask = head(grid((81, 85, 77), affine))
    template, template_mask = Volume(data, affine), Volume(mask, affine)
    affine = np.array([[-1.3, 0, 0, 100], [0, 1.1, 0, -75], [0, 0, 1.6, -45], [0, 0, 0, 1]], float)
    data, mask = head((~TRUTH).apply(grid((105, 100, 75), affine)))
    return Volume(data, affine), Volume(mask, affine), template, template_mask


@pytest.fixture(scope="session")
def views(scene: tuple[Volume, Volume, Volume, Volume]) -> Views:
    """The views of the head by its true pose."""
    return make_views(*scene, TRUTH)
