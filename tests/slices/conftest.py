"""A phantom template made ready for slices, and slices of it."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe import phantom
from posepipe.geometry import random_rotations
from posepipe.geometry.so3 import Array
from posepipe.imaging.volume import Volume
from posepipe.matching.target import Target
from posepipe.slices.frames import SliceGrid
from posepipe.slices.points import SliceTarget

AGE = 29.0


@pytest.fixture(scope="session", autouse=True)
def _apart(one_thread_no_cache: None) -> None:
    """All tests here run so."""


@pytest.fixture(scope="session")
def average() -> tuple[Volume, Volume]:
    """Template image and mask, in atlas pose, upright."""
    labels = phantom.brain_labels(AGE, 1.5)
    return phantom.render(labels, AGE), phantom.brain_mask(labels)


@pytest.fixture(scope="session")
def slice_target(average: tuple[Volume, Volume]) -> SliceTarget:
    """The same, ready."""
    return SliceTarget(Target(*average, "Phantom+29", to_canonical=np.eye(3)))


@pytest.fixture(scope="session")
def planes(slice_target: SliceTarget) -> list[SliceGrid]:
    """Twelve slice planes of any orientation within 25 mm of the brain's centre."""
    rng = np.random.default_rng(4)
    return [grid_through(slice_target.center, axes, rng.uniform(-25, 25)) for axes in random_rotations(12, rng)]


def grid_through(center: Array, axes: Array, offset: float, thickness: float = 3.0) -> SliceGrid:
    """A grid of 96 × 96 pixels of 1.2 mm whose middle is ``offset`` mm from ``center`` along the last of ``axes``."""
    affine = np.eye(4)
    affine[:3, :3] = axes * [1.2, 1.2, thickness]
    affine[:3, 3] = center + axes @ [-57.0, -57.0, offset]
    return SliceGrid((96, 96), affine, thickness)
