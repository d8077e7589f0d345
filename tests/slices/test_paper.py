"""The paper's slice network as a pose: its rotation vector and slice number map the atlas to the slice, and not the reverse."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from posepipe.errors import WeightsError
from posepipe.geometry import Rigid, so3
from posepipe.geometry.so3 import Array
from posepipe.imaging.volume import Volume
from posepipe.matching.target import Target
from posepipe.models.slices import MIDDLE, NUMBERS, SliceCoordinateNet, SlicePoseNet
from posepipe.models.weights import save_network
from posepipe.slices.frames import SliceGrid
from posepipe.slices.network import mask_middle
from posepipe.slices.paper import SlicePoseNetwork
from posepipe.slices.points import SliceTarget
from posepipe.slices.scanner import SliceScanner

TILT = Rigid.from_rotvec([0.5, -0.4, 0.9], [14.0, -22.0, 31.0])
"""Where the template lies, against the upright one: 64° and 40 mm off."""


@pytest.fixture(scope="module")
def tilted(average: tuple[Volume, Volume]) -> SliceTarget:
    return SliceTarget(Target(*(v.moved(TILT) for v in average), "Tilted+29", to_canonical=TILT.rotation.T))


def answering(folder: Path, rotation: Array, number: float) -> SlicePoseNetwork:
    """A network that says ``rotation`` and ``number`` of any slice."""
    options = {"size": 32, "width": 0.05}
    network = SlicePoseNet(**options)
    with torch.no_grad():
        network.rotation.dense.weight.zero_()
        network.rotation.dense.bias.copy_(torch.atanh(torch.tensor(so3.log(rotation)) / math.pi))
        network.number.weight.zero_()
        network.number.bias.fill_(number)
    save_network(network, "slice-pose", folder, architecture="SlicePoseNet", options=options, card="For a test.", terms="none")
    return SlicePoseNetwork("slice-pose", folder)


def number_of(grid: SliceGrid, average: tuple[Volume, Volume], center: Array) -> float:
    """The slice's number in the upright brain, by its voxels."""
    mask = average[1]
    heights = (np.argwhere(mask.data > 0) @ mask.affine[:3, :3].T + mask.affine[:3, 3] - center) @ grid.normal
    low, high = heights.min(), heights.max()
    return float((((grid.center - center) @ grid.normal - (low + high) / 2) / (MIDDLE * (high - low)) + 0.5) * (NUMBERS - 1))


@pytest.mark.parametrize("which", [3, 5, 8])
def test_what_the_network_says_becomes_a_pose(
    which: int, planes: list[SliceGrid], average: tuple[Volume, Volume], slice_target: SliceTarget, tilted: SliceTarget, tmp_path: Path
) -> None:
    """The head is the upright template, so the true pose of the tilted one is the way back."""
    grid, center = planes[which], slice_target.center
    number = number_of(grid, average, center)
    piece = SliceScanner(*average, 1.2).acquire(grid, Rigid.identity())
    (pose,) = answering(tmp_path, grid.axes.T, number).poses([piece], tilted)
    truth = ~TILT
    assert pose.degrees_from(truth) < 0.5
    lands, true = (grid.pose_in_frame(p).apply(tilted.center) for p in (pose, truth))
    assert lands[2] == pytest.approx(true[2], abs=2.5)
    np.testing.assert_allclose(lands[:2], mask_middle(piece), atol=1e-6)


def test_numbers_count_along_the_slices_normal(
    planes: list[SliceGrid], average: tuple[Volume, Volume], tilted: SliceTarget, tmp_path: Path
) -> None:
    """From 0 to 29 the slice rises by the middle 66 % of the brain, so the brain's centre sinks below it by that much."""
    piece = SliceScanner(*average, 1.2).acquire(planes[0], Rigid.identity())
    heights = [
        float(piece.grid.pose_in_frame(answering(tmp_path, piece.grid.axes.T, n).poses([piece], tilted)[0]).apply(tilted.center)[2])
        for n in (0.0, 29.0)
    ]
    along = tilted.cells @ piece.grid.normal * tilted.target.brain.radius
    assert heights[0] > 0 > heights[1]
    assert heights[0] - heights[1] == pytest.approx(MIDDLE * np.ptp(along), rel=1e-3)


def test_the_brain_is_measured_upright(average: tuple[Volume, Volume], slice_target: SliceTarget, tilted: SliceTarget) -> None:
    """The cells of one brain are the same whatever way the template lies, and hold its voxels to a cell (0.16)."""
    mask, radius = average[1], slice_target.target.brain.radius
    voxels = (np.argwhere(mask.data > 0) @ mask.affine[:3, :3].T + mask.affine[:3, 3] - slice_target.center) / radius
    for cells in (slice_target.cells, tilted.cells):
        np.testing.assert_allclose(cells.min(0), voxels.min(0), atol=0.165)
        np.testing.assert_allclose(cells.max(0), voxels.max(0), atol=0.165)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    options = {"size": 16, "width": [2, 2, 2, 2]}
    network = SliceCoordinateNet(16, (2, 2, 2, 2))
    save_network(network, "slice-pose", tmp_path, architecture="SliceCoordinateNet", options=options, card="For a test.", terms="none")
    with pytest.raises(WeightsError, match="must be a SlicePoseNet, not a SliceCoordinateNet"):
        SlicePoseNetwork("slice-pose", tmp_path)
