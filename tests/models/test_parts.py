"""Parts of the networks: input, solver and losses, compared with values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from posepipe.geometry import so3
from posepipe.models.contrast import discriminator_loss, generator_adversarial_loss, masked_l1
from posepipe.models.coordinates import CoordinateField, CoordinateNet, cube_points
from posepipe.models.correction import CorrectionNet
from posepipe.models.inputs import standardised
from posepipe.models.procrustes import procrustes


def test_input_has_mean_0_and_deviation_1_inside_the_mask_and_is_0_outside() -> None:
    generator = torch.Generator().manual_seed(0)
    image = 7 + 3 * torch.rand(2, 1, 12, 12, 12, generator=generator)
    mask = torch.zeros_like(image)
    mask[..., 2:9, 3:8, 4:10] = 1
    image = torch.where(mask > 0, image, 100 * image)  # what lies outside must not matter
    value = standardised(image, mask)[:, :1]
    inside = value[mask > 0].reshape(2, -1)
    torch.testing.assert_close(inside.mean(1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(inside.std(1, correction=0), torch.ones(2), atol=1e-4, rtol=0)
    assert not value[mask == 0].any()


def test_a_mirrored_brain_is_matched_by_a_rotation_and_a_large_misfit() -> None:
    """Of points whose mirror image fits exactly, the best rotation is still one, and the residual says that it fits badly."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 80, 3, generator=generator) * torch.tensor([1.0, 2.0, 3.0])
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    found = procrustes(x, x * mirror, torch.ones(1, 80))
    assert float(torch.linalg.det(found.rotation)) == pytest.approx(1.0, abs=1e-5)
    assert float(found.residual) > 0.5
    exact = procrustes(x, x, torch.ones(1, 80))
    assert float(exact.residual) < 1e-5 and float(exact.scale) == pytest.approx(1.0, abs=1e-5)


def test_points_count_by_their_weight() -> None:
    """A tenth of the points lies elsewhere: with weight 0 they change nothing."""
    generator = torch.Generator().manual_seed(1)
    turn = torch.tensor(so3.exp([0.3, -0.5, 0.2]), dtype=torch.float32)
    x = torch.randn(1, 100, 3, generator=generator)
    y = 1.3 * x @ turn.T + torch.tensor([0.1, 0.2, -0.3])
    weight = torch.ones(1, 100)
    y[:, :10], weight[:, :10] = 5.0, 0.0
    found = procrustes(x, y, weight)
    torch.testing.assert_close(found.rotation[0], turn, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.translation[0], torch.tensor([0.1, 0.2, -0.3]), atol=1e-5, rtol=0)


def test_voxels_with_a_large_expected_error_count_less() -> None:
    """A third of the voxels says something else; the pose follows those that the network trusts."""
    side, turn = 6, torch.tensor(so3.exp([0.0, 0.0, 1.2]), dtype=torch.float32)
    points = cube_points(side)
    position = points.clone()
    position[::3] = points[::3] @ turn.T
    log_error = torch.zeros(len(points))
    for trusted, degrees in ((-4.0, math.degrees(1.2)), (4.0, 0.0)):
        log_error[::3] = trusted
        field = CoordinateField(
            position.T.reshape(1, 3, side, side, side),
            log_error.reshape(1, 1, side, side, side),
            torch.full((1, 1, side, side, side), 5.0),
        )
        found = field.solve().rotation[0].double().numpy()
        assert np.degrees(so3.geodesic_distance(found, np.eye(3))) == pytest.approx(degrees, abs=4.0)


def test_a_fresh_network_of_differences_says_that_each_voxel_lies_where_it_is() -> None:
    torch.manual_seed(0)
    network = CoordinateNet(16, (2, 3, 4, 5), residual=True).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        assert network.head.bias is not None
        network.head.bias.zero_()
        field = network(torch.randn(1, 2, 16, 16, 16))
    torch.testing.assert_close(field.position.flatten(2)[0].T, cube_points(8))
    found = field.solve()
    torch.testing.assert_close(found.rotation[0], torch.eye(3), atol=1e-4, rtol=0)
    assert float(found.scale) == pytest.approx(1.0, abs=1e-4)


def test_adversarial_losses_have_the_values_of_their_definitions() -> None:
    """Where the discriminator returns a probability of one half, both of its terms are log 2, and it minimises half their sum."""
    unsure = torch.zeros(2, 1, 3, 3)
    assert float(discriminator_loss(unsure, unsure)) == pytest.approx(math.log(2))
    assert float(generator_adversarial_loss(unsure)) == pytest.approx(math.log(2))
    logit = torch.full((2, 1, 3, 3), math.log(3.0))  # three to one that it is real
    assert float(discriminator_loss(logit, logit)) == pytest.approx(0.5 * (math.log(4 / 3) + math.log(4)))
    assert float(generator_adversarial_loss(logit)) == pytest.approx(math.log(4 / 3))


def test_l1_is_a_mean_over_the_mask_alone() -> None:
    a, b = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.25)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 1, :3] = 1
    assert float(masked_l1(a, b, mask)) == pytest.approx(0.25)


def test_the_first_channel_of_correction_net_is_the_reference() -> None:
    """Stored weights rely on the order: without the second channel's weights the moving image changes nothing."""
    torch.manual_seed(0)
    network = CorrectionNet(16, 0.1).eval()
    with torch.no_grad():
        network.trunk.layers[0].weight[:, 1] = 0
        one, other, third = torch.randn(3, 1, 1, 16, 16, 16)
        answer, same, changed = network(one, other), network(one, third), network(third, other)
    assert all(torch.equal(a, b) for a, b in zip(answer, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(answer, changed, strict=True))
