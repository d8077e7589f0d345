"""Fixtures: phantom brains on coarse grids, one template, its target, and heads in known poses against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from posepipe import phantom
from posepipe.geometry import Rigid, rotations_in_bin
from posepipe.geometry.so3 import Array
from posepipe.imaging.volume import Volume
from posepipe.matching.brain import Brain
from posepipe.matching.target import SPACING, Target

AGE = 29.0
VOXEL = 1.5
BINS = [(low, low + 30.0) for low in range(0, 180, 30)]


@dataclass(frozen=True, eq=False)
class Head:
    """An individual in a known ``pose`` (template → image)."""

    image: Volume
    mask: Volume
    pose: Rigid

    @cached_property
    def brain(self) -> Brain:
        """Ready for registration."""
        return Brain.prepare(self.image, self.mask, SPACING)


MakeHead = Callable[..., Head]


@pytest.fixture(scope="session")
def average(one_thread_no_cache: None) -> tuple[Volume, Volume]:
    """Template image and mask, in atlas pose."""
    labels = phantom.brain_labels(AGE, VOXEL)
    return phantom.render(labels, AGE), phantom.brain_mask(labels)


@pytest.fixture(scope="session")
def target(average: tuple[Volume, Volume]) -> Target:
    """The template made ready, its bank in memory only."""
    return Target(*average, "Phantom+29")


@pytest.fixture(scope="session")
def make_head(one_thread_no_cache: None) -> MakeHead:
    """A function that makes the head of one seed: turned by an angle from ``bin``, and moved."""

    def make(seed: int, bin: tuple[float, float] = (0.0, 180.0), age: float = AGE, **options: Any) -> Head:
        rng = np.random.default_rng(seed)
        rotation: Array = rotations_in_bin(1, *bin, rng)[0]
        pose = Rigid(rotation, rng.uniform(-30, 30, 3))
        return Head(*phantom.subject(age, rng=rng, pose=pose, **{"spacing": VOXEL} | options))

    return make


@pytest.fixture(scope="session")
def heads(make_head: MakeHead) -> list[Head]:
    """Two heads in each of the six bins of angles, of unlike ages; of each pair one grid is left-handed."""
    mirror = np.diag([-1.0, 1.0, 1.0])
    made = []
    for i in range(12):
        slant = rotations_in_bin(1, 0, 40, np.random.default_rng(100 + i))[0]
        made.append(make_head(i, BINS[i // 2], 28.3 + 0.13 * i, directions=slant @ mirror if i % 2 else slant))
    return made


@pytest.fixture(scope="session")
def head(make_head: MakeHead) -> Head:
    """One head, turned far."""
    return make_head(50, (100.0, 160.0))
