"""The scan network: shapes, frames, and the weights that it takes from a network of masked brains."""

from __future__ import annotations

import torch

from posepipe.models.coordinates import HALF_SIDE, CoordinateNet, cube_points
from posepipe.models.inputs import standardised
from posepipe.models.scans import LocatorNet, OutlineNet, ScanNet, scaled


def test_a_fresh_network_says_that_every_voxel_is_where_it_is_in_the_crop():
    network = ScanNet(32, (2, 2, 2, 2)).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
        found = network(torch.rand(2, 2, 32, 32, 32))
    assert found.foreground.shape == (2, 1, 32, 32, 32) and found.position.shape == (2, 3, 16, 16, 16)
    assert torch.allclose(found.position[1].flatten(1).T, cube_points(16), atol=1e-5)
    pose = found.coordinates.solve()
    assert torch.allclose(pose.rotation[0], torch.eye(3), atol=1e-4) and abs(float(pose.scale[0]) - 1) < 1e-4


def test_any_grid_of_whole_cells_is_taken():
    found = ScanNet(32, (2, 2, 2, 2)).eval()(torch.rand(1, 2, 48, 32, 16))
    assert found.foreground.shape[2:] == (48, 32, 16) and found.position.shape[2:] == (24, 16, 8)
    assert abs(float(found.position[0, 0].detach().max())) < 2 * HALF_SIDE


def test_at_first_it_is_the_network_of_masked_brains_that_it_began_from():
    torch.manual_seed(0)
    masked, network = CoordinateNet(32, (2, 3, 4, 5), residual=True).eval(), ScanNet(32, (2, 3, 4, 5)).eval()
    network.initialise_from(masked)
    image, before = torch.rand(1, 1, 32, 32, 32), (torch.rand(1, 1, 32, 32, 32) > 0.5).float()
    with torch.no_grad():
        theirs, own = masked(standardised(image, before)), network(torch.cat([image, before], 1))
    assert torch.allclose(theirs.position, own.position, atol=1e-5)
    assert torch.allclose(theirs.log_error, own.log_error, atol=1e-5)
    cells = own.foreground.reshape(1, 16, 2, 16, 2, 16, 2)
    assert torch.allclose(cells[:, :, 1, :, 0, :, 1], theirs.foreground[:, 0], atol=1e-5)


def test_the_locator_keeps_the_grid_and_initially_predicts_no_offset():
    network = LocatorNet(32, (2, 2, 2, 2)).eval()
    with torch.no_grad():
        network.head.weight.zero_()
    found = network(torch.rand(1, 1, 48, 32, 16))
    assert found.foreground.shape == (1, 1, 48, 32, 16)
    assert found.offset.shape == (1, 3, 24, 16, 8) and found.log_radius.shape == (1, 1, 24, 16, 8)
    assert float(found.offset.abs().max()) == 0 and torch.allclose(found.log_radius.exp(), torch.tensor(6.0))


def test_the_outline_network_keeps_the_grid_and_initially_segments_hardly_any_brain():
    found = OutlineNet(32, (2, 2, 2, 2)).eval()(torch.rand(1, 1, 48, 32, 16))
    assert found.shape == (1, 1, 48, 32, 16) and float(torch.sigmoid(found).mean()) < 0.3


def test_scaling_knows_no_unit():
    x = torch.rand(2, 1, 16, 16, 16)
    assert torch.allclose(scaled(x), scaled(700 * x), atol=1e-4)
