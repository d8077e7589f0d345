"""Pose-Net and Correction-Net: shapes, ranges, the paper's layers, and that they can be trained; the default network's folded copy."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posepipe.geometry import random_rotations, so3
from posepipe.imaging.sampling import smooth
from posepipe.models.coordinates import CoordinateNet
from posepipe.models.correction import CorrectionNet
from posepipe.models.layers import UNSAFE_BFLOAT16_SIDE, Layer, for_inference
from posepipe.models.losses import geodesic_loss, pose_loss, rotation_mse
from posepipe.models.posenet import PoseNet

MOST_WEIGHTS = 4_000_000


def volumes(n: int, side: int) -> Tensor:
    """``n`` random smooth cubes (n, 1, side, side, side) of unit variance."""
    cubes = smooth(torch.randn(n, side, side, side), (2.0, 2.0, 2.0))
    return (cubes / cubes.flatten(1).std(1)[:, None, None, None])[:, None]


def rotations(n: int) -> Tensor:
    return torch.tensor(so3.log(random_rotations(n, np.random.default_rng(3))), dtype=torch.float32)


@pytest.mark.parametrize("size", [16, 32, 48])
@pytest.mark.parametrize("width", [0.25, 0.5])
def test_shapes_and_range(size, width):
    cube = 5 * torch.randn(2, 1, size, size, size)
    outputs = [PoseNet(size, width)(cube), *CorrectionNet(size, width)(cube, cube)]
    for x in outputs:
        assert x.shape == (2, 3)
        assert bool(x.isfinite().all())
    assert float(torch.stack(outputs[:2]).detach().abs().max()) <= math.pi + 1e-6


def test_the_layers_of_the_paper():
    net = PoseNet()
    convolutions = [(m.in_channels, m.out_channels, m.kernel_size) for m in net.modules() if isinstance(m, nn.Conv3d)]
    assert convolutions == [(a, b, (3, 3, 3)) for a, b in pairwise([1, 8, 32, 32, 64, 64])]
    assert [m.out_features for m in net.modules() if isinstance(m, nn.Linear)] == [512, 512, 256, 3]
    kinds = [type(m).__name__ for m in net.trunk.layers]
    for i, kind in enumerate(kinds):
        if kind in ("Conv3d", "Linear"):
            assert kinds[i + 1] == "ReLU"
            assert kinds[i + 2].startswith("BatchNorm")
    two = CorrectionNet()
    ours, theirs = dict(net.trunk.named_parameters()), dict(two.trunk.named_parameters())
    differ = [key for key, value in ours.items() if value.shape != theirs[key].shape]
    assert differ == ["layers.0.weight"]  # two channels instead of one


@pytest.mark.parametrize("size", [32, 48])
def test_weights_stay_few(size):
    for net in (PoseNet(size), CorrectionNet(size)):
        assert sum(p.numel() for p in net.parameters()) < MOST_WEIGHTS


def test_a_saturated_head_stays_inside_pi_and_has_finite_gradients():
    net = PoseNet(16, 0.1)
    with torch.no_grad():
        net.rotation.dense.bias.copy_(torch.tensor([50.0, -50.0, 0.0]))
    x = net(torch.randn(4, 1, 16, 16, 16))
    assert math.pi - 0.01 < float(x.detach().abs().max()) <= math.pi + 1e-6
    geodesic_loss(x, torch.zeros(4, 3)).backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters())


def test_evaluation_is_one_by_one_and_repeatable():
    net = PoseNet(16, 0.5)
    cubes = volumes(4, 16)
    net(cubes)  # running statistics other than 0 and 1
    net.eval()
    together = net(cubes)
    torch.testing.assert_close(torch.cat([net(c[None]) for c in cubes]), together, atol=1e-5, rtol=0)
    assert torch.equal(net(cubes), together)


def test_heads_are_in_single_precision_under_autocast():
    net, cubes = CorrectionNet(16, 0.25), volumes(4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        for x in net(cubes, cubes.flip(0)):
            assert x.dtype == torch.float32


def test_reference_and_moving_image_are_reported_apart():
    net, cubes = CorrectionNet(16, 0.25), volumes(4, 16)
    net(cubes, cubes.flip(0))
    net.eval()
    there, back = net(cubes[:1], cubes[1:2]), net(cubes[1:2], cubes[:1])
    assert float((there[0] - back[0]).detach().abs().max()) > 1e-3


def fit(net: nn.Module, loss: Callable[[], Tensor], steps: int, lr: float) -> None:
    """Adam, its rate falling to nothing."""
    optimiser = torch.optim.Adam(net.parameters(), lr=lr)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()


def settle(net: nn.Module, cubes: Tensor) -> None:
    """Running statistics of the weights as they are now; of many copies, for they count n − 1 where a batch counts n."""
    for layer in net.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm3d)):
            layer.momentum = 1.0
    with torch.no_grad():
        net(cubes.repeat(32, 1, 1, 1, 1))


@pytest.mark.slow
def test_posenet_learns_eight_volumes_by_both_stages():
    net, cubes, target = PoseNet(16, 0.5), volumes(8, 16), rotations(8)

    def error() -> float:
        with torch.no_grad():
            return float(geodesic_loss(net(cubes), target))

    assert error() > 1.0
    fit(net, lambda: rotation_mse(net(cubes), target), 40, 2e-3)
    middle = error()
    assert middle < 0.4
    # slower: this gradient does not grow shorter near the truth
    fit(net, lambda: geodesic_loss(net(cubes), target), 60, 3e-4)
    end = error()
    assert end < min(middle, 0.1)
    settle(net, cubes)
    net.eval()
    assert error() < end + 0.02


@pytest.mark.slow
def test_correction_net_learns_eight_pairs():
    net, reference, moving = CorrectionNet(16, 0.5), volumes(8, 16), volumes(8, 16)
    rotation, shift = rotations(8) / 6, 0.3 * torch.randn(8, 3)

    def loss(stage: str) -> Tensor:
        x, t = net(reference, moving)
        return pose_loss(x, rotation, t, shift, stage=stage, translation_weight=10.0)

    fit(net, lambda: loss("mse"), 40, 2e-3)
    fit(net, lambda: loss("geodesic"), 60, 3e-4)
    with torch.no_grad():
        x, t = net(reference, moving)
    assert float(geodesic_loss(x, rotation)) < 0.1
    assert float((t - shift).abs().max()) < 0.15


@pytest.mark.parametrize("options", [{"size": 40}, {"size": 0}, {"size": -16}, {"width": 0.0}, {"width": math.nan}])
@pytest.mark.parametrize("cls", [PoseNet, CorrectionNet])
def test_options_that_cannot_be_are_refused(cls, options):
    (value,) = options.values()
    with pytest.raises(ValueError, match=f"not {value}"):
        cls(**options)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32, 32), (2, 2, 16, 16, 16), (1, 16, 16, 16)])
def test_another_input_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"takes \(batch, 1, 16, 16, 16\)"):
        PoseNet(16, 0.25)(torch.zeros(shape))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_copy_that_only_answers_answers_the_same(batch: int):
    net = CoordinateNet(16, (2, 3, 4, 5), residual=True)
    for _ in range(3):
        net(torch.randn(4, 2, 16, 16, 16) + 0.5)  # running means and variances that are not 0 and 1
    net.eval()
    x = torch.randn(batch, 2, 16, 16, 16)
    with torch.inference_mode():
        for answer, expected in zip(for_inference(net)(x), net(x), strict=True):
            torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm3d) for m in for_inference(net).modules())
    assert any(isinstance(m, nn.BatchNorm3d) for m in net.modules())  # the network itself can still be trained


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", range(1, 5))
def test_gradients_under_autocast_are_right_on_the_smallest_grids(side: int, stride: int):
    """In bfloat16 the weight gradients of a 3³ kernel on 2³ voxels are wrong on the CPU; the layer computes there in single precision."""
    layer, x = Layer(16, 24, stride), torch.randn(4, 16, side, side, side)
    gradients = []
    for blurred in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=blurred):
            y = layer(x)
        y.float().square().sum().backward()
        weight = layer[0].weight.grad
        assert weight is not None
        gradients.append(weight.clone())
    exact, found = gradients
    assert (found - exact).norm() <= (0 if side <= UNSAFE_BFLOAT16_SIDE else 0.05) * exact.norm()
