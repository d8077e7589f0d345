"""Networks of single slices: shapes, the paper's layers, the pose that follows from coordinates, and its twin."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from posepipe.geometry import random_rotations
from posepipe.geometry.so3_torch import geodesic_distance
from posepipe.models.coordinates import HALF_SIDE, cube_points
from posepipe.models.layers import for_inference
from posepipe.models.procrustes import procrustes
from posepipe.models.slices import (
    MIDDLE,
    NUMBERS,
    SliceCoordinateNet,
    SliceField,
    SlicePoseNet,
    slice_number,
    slice_offset,
    slice_points,
)
from posepipe.models.twin import twin, twin_distance


def poses(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rotations, translations and scales of ``u = s R x + t``, double."""
    rng = np.random.default_rng(seed)
    return torch.tensor(random_rotations(n, rng)), torch.tensor(rng.normal(0, 0.3, (n, 3))), torch.tensor(np.exp(rng.normal(0, 0.1, n)))


def shown(u: Tensor, rotation: Tensor, translation: Tensor, scale: Tensor) -> Tensor:
    """Canonical points (n, N, 3) of slice points ``u`` (N, 3)."""
    return ((u - translation[:, None]) / scale[:, None, None]) @ rotation


def field(position: Tensor, side: int) -> SliceField:
    n = len(position)
    return SliceField(position.mT.reshape(n, 3, side, side), torch.zeros(n, 1, side, side), torch.zeros(n, 1, side, side))


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_the_twin_shows_the_mirrored_points_on_the_plane_and_is_proper(seed: int) -> None:
    rotation, translation, scale = poses(3, seed)
    other = twin(rotation, translation)
    torch.testing.assert_close(torch.linalg.det(other[0]), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(other[0] @ other[0].mT, torch.eye(3, dtype=torch.float64).expand(3, 3, 3))
    u = slice_points(6).double()
    mirror = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(shown(u, *other, scale), mirror * shown(u, rotation, translation, scale))
    # off the plane the two are on opposite sides of it
    above = u + torch.tensor([0.0, 0.0, 0.2], dtype=torch.float64)
    below = u - torch.tensor([0.0, 0.0, 0.2], dtype=torch.float64)
    torch.testing.assert_close(shown(above, *other, scale), mirror * shown(below, rotation, translation, scale))
    back = twin(*other)
    torch.testing.assert_close(back[0], rotation)
    torch.testing.assert_close(back[1], translation)


def test_the_twin_is_the_formula_of_the_atlas_side() -> None:
    """With x = A (u, v, 0) + b the twin is (M A F, M b)."""
    rotation, translation, _ = poses(4)
    m, f = torch.diag(torch.tensor([-1.0, 1, 1])).double(), torch.diag(torch.tensor([1.0, 1, -1])).double()
    a, b = rotation.mT, -(rotation.mT @ translation[..., None])
    turned, moved = twin(rotation, translation)
    torch.testing.assert_close(turned.mT, m @ a @ f)
    torch.testing.assert_close(-(turned.mT @ moved[..., None]), m @ b)


def test_the_twins_are_apart_by_twice_the_angle_between_normal_and_x() -> None:
    rotation, _, _ = poses(20)
    same, other = twin_distance(rotation, rotation)
    assert float(same.max()) < 1e-5
    to_x = torch.arccos(rotation[:, 2, 0].abs())
    torch.testing.assert_close(other, 2 * to_x, atol=1e-5, rtol=0)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), solved=st.booleans())
def test_coordinates_of_a_plane_give_the_pose(seed: int, solved: bool) -> None:
    rotation, translation, scale = poses(4, seed)
    if not solved:
        scale = torch.full_like(scale, 1.1)
    truth = field(shown(slice_points(8).double(), rotation, translation, scale).float(), 8)
    found = truth.solve(None if solved else 1.1)
    assert float(geodesic_distance(found.rotation.double(), rotation).max()) < 1e-3
    torch.testing.assert_close(torch.linalg.det(found.rotation), torch.ones(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.translation.double(), translation, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.scale.double(), scale, atol=1e-4, rtol=0)
    assert float(found.residual.max()) < 1e-3


def test_of_mirrored_coordinates_the_twin_follows() -> None:
    rotation, translation, scale = poses(4)
    ones = torch.ones_like(scale)
    seen = field(shown(slice_points(8).double(), rotation, translation, ones).float(), 8)
    found = seen._replace(position=seen.position * torch.tensor([-1.0, 1, 1])[:, None, None]).solve()
    turned, moved = twin(rotation, translation)
    assert float(geodesic_distance(found.rotation.double(), turned).max()) < 1e-3
    torch.testing.assert_close(found.translation.double(), moved, atol=1e-4, rtol=0)


def test_pixels_that_are_not_brain_or_not_sure_count_less() -> None:
    rotation, translation, scale = poses(1)
    seen = field(shown(slice_points(8).double(), rotation, translation, torch.ones_like(scale)).float(), 8)
    position, error, foreground = seen.position.clone(), seen.log_error.clone(), seen.foreground.clone()
    position[..., :2, :], foreground[..., :2, :] = 3.0, -20.0
    position[..., 2:4, :], error[..., 2:4, :] = -2.0, 8.0
    found = SliceField(position, error, foreground).solve()
    assert float(geodesic_distance(found.rotation.double(), rotation)) < 0.02


def test_a_scale_that_is_given_is_kept() -> None:
    x = torch.randn(1, 40, 3)
    found = procrustes(x, 2 * x + 1, torch.ones(1, 40), scale=1.5)
    assert float(found.scale) == 1.5 and float(found.residual) > 0.1
    torch.testing.assert_close(found.rotation[0], torch.eye(3), atol=1e-5, rtol=0)


def test_gradients_of_a_plane_are_finite() -> None:
    rotation, translation, scale = poses(2)
    position = field(shown(slice_points(8).double(), rotation, translation, scale).float(), 8).position.requires_grad_()
    zeros = torch.zeros(2, 1, 8, 8)
    SliceField(position, zeros, zeros).solve().rotation[:, 0].sum().backward()
    assert position.grad is not None and bool(position.grad.isfinite().all()) and bool(position.grad.any())


def test_pixels_lie_where_the_middle_plane_of_a_cube_does() -> None:
    side = 8
    cube = cube_points(side).reshape(side, side, side, 3)[:, :, 0]
    torch.testing.assert_close(slice_points(side).reshape(side, side, 3)[..., :2], cube[..., :2])
    assert not slice_points(side)[:, 2].any() and float(slice_points(side).abs().max()) < HALF_SIDE


@pytest.mark.parametrize("size", [16, 32, 64])
def test_shapes_of_the_field(size: int) -> None:
    seen = SliceCoordinateNet(size, (4, 6, 8, 8))(torch.randn(3, 2, size, size))
    half = size // 2
    assert [tuple(x.shape) for x in seen] == [(3, 3, half, half), (3, 1, half, half), (3, 1, half, half)]
    assert seen.weight.shape == (3, half * half)
    assert seen.solve().rotation.shape == (3, 3, 3)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_copy_that_only_answers_answers_the_same(batch: int) -> None:
    net = SliceCoordinateNet(16, (2, 3, 4, 5))
    for _ in range(3):
        net(torch.randn(4, 2, 16, 16) + 0.5)
    net.eval()
    x = torch.randn(batch, 2, 16, 16)
    with torch.inference_mode():
        for answer, expected in zip(for_inference(net)(x), net(x), strict=True):
            torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in for_inference(net).modules())


def test_the_layers_of_resnet_18() -> None:
    net = SlicePoseNet()
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len([m for m in convolutions if m.kernel_size != (1, 1)]) == 17  # and the dense layer is the 18th
    assert (convolutions[0].in_channels, convolutions[0].kernel_size, convolutions[0].stride) == (1, (7, 7), (2, 2))
    # torchvision's ResNet-18 has 11,176,512 weights without its dense layer and with three channels in
    assert sum(p.numel() for p in net.trunk.parameters()) == 11_176_512 - 2 * 64 * 49
    assert [m.out_features for m in net.modules() if isinstance(m, nn.Linear)] == [3, 1]


@pytest.mark.parametrize("size", [32, 64])
def test_shapes_and_ranges_of_the_paper_s_net(size: int) -> None:
    net = SlicePoseNet(size, 0.125)
    vector, number = net(5 * torch.randn(4, 1, size, size))
    assert vector.shape == (4, 3) and number.shape == (4,)
    assert float(vector.detach().abs().max()) <= math.pi + 1e-6
    with torch.no_grad():
        net.number.bias.fill_(-50.0)
    assert not net(torch.randn(4, 1, size, size))[1].any()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(x.dtype == torch.float32 for x in net(torch.randn(4, 1, size, size)))


@pytest.mark.parametrize("options", [{"size": 48}, {"size": 0}, {"width": 0.0}, {"width": math.nan}])
def test_options_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    (value,) = options.values()
    with pytest.raises(ValueError, match=f"not {value}"):
        SlicePoseNet(**options)  # type: ignore[arg-type]


def test_another_input_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes \(batch, 1, 32, 32\)"):
        SlicePoseNet(32, 0.1)(torch.zeros(2, 2, 32, 32))
    with pytest.raises(ValueError, match="multiple of 16"):
        SliceCoordinateNet(40)


def test_numbers_count_evenly_over_the_middle() -> None:
    low, high = torch.tensor(-0.8), torch.tensor(1.2)
    offsets = slice_offset(torch.arange(NUMBERS).float(), low, high)
    assert float(offsets[0]) == pytest.approx(0.2 - MIDDLE) and float(offsets[-1]) == pytest.approx(0.2 + MIDDLE)
    torch.testing.assert_close(offsets.diff(), torch.full((NUMBERS - 1,), 2 * MIDDLE / (NUMBERS - 1)))
    torch.testing.assert_close(slice_number(offsets, low, high), torch.arange(NUMBERS).float(), atol=1e-4, rtol=0)
