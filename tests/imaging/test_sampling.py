"""The torch sampler and blur against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from posepipe.geometry import random_rotations
from posepipe.imaging.sampling import sample, smooth, tensor

RNG = np.random.default_rng(0)
IMAGE = RNG.random((2, 11, 14, 17)).astype(np.float32)
AFFINE = np.eye(4)
AFFINE[:3, :3] = random_rotations(1, RNG)[0] * [0.8, -1.2, 2.0]
AFFINE[:3, 3] = [30, -20, 10]


def at_voxels(index: np.ndarray) -> torch.Tensor:
    """World points of voxel coordinates (..., 3)."""
    return tensor(index @ AFFINE[:3, :3].T + AFFINE[:3, 3])


def read(points: torch.Tensor) -> np.ndarray:
    return sample(tensor(IMAGE), tensor(np.linalg.inv(AFFINE)), points).numpy()


@pytest.mark.parametrize("shape", [(500,), (5, 100), (5, 10, 10)])
def test_sample_agrees_with_map_coordinates(shape):
    index = RNG.uniform(0, np.array(IMAGE.shape[1:]) - 1, (*shape, 3))
    expected = [ndimage.map_coordinates(c, np.moveaxis(index, -1, 0), order=1) for c in IMAGE]
    found = read(at_voxels(index))
    assert found.shape == (2, *shape)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_sample_returns_the_voxels_themselves():
    index = np.moveaxis(np.indices(IMAGE.shape[1:]), 0, -1).astype(float)
    np.testing.assert_allclose(read(at_voxels(index)), IMAGE, atol=2e-5)


def test_outside_the_grid_is_zero_with_a_ramp_of_one_voxel():
    index = RNG.uniform(-3, np.array(IMAGE.shape[1:]) + 2, (2000, 3))
    # zeros beyond the faces: the same as a grid padded with zeros
    padded = np.pad(IMAGE, ((0, 0), (4, 4), (4, 4), (4, 4)))
    expected = [ndimage.map_coordinates(c, index.T + 4, order=1) for c in padded]
    np.testing.assert_allclose(read(at_voxels(index)), expected, atol=2e-5)


def test_sample_has_the_gradient_of_the_trilinear_surface():
    points = at_voxels(np.array([[3.3, 4.6, 5.2], [7.1, 2.4, 9.9]])).double().requires_grad_()
    image, inverse = torch.tensor(IMAGE).double(), torch.tensor(np.linalg.inv(AFFINE))
    assert torch.autograd.gradcheck(lambda p: sample(image, inverse, p), points, eps=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma", [(1.0, 1.5, 2.3), (0.7, 0.0, 3.0), (0.0, 0.0, 0.0)])
def test_smooth_agrees_with_gaussian_filter(sigma):
    expected = [ndimage.gaussian_filter(c, sigma, mode="constant", truncate=4.0) for c in IMAGE]
    np.testing.assert_allclose(smooth(tensor(IMAGE), sigma).numpy(), expected, atol=2e-4)


def test_smooth_keeps_the_mass_of_what_is_far_from_the_edge():
    image = np.zeros((1, 31, 33, 35), np.float32)
    image[0, 15, 16, 17] = 1
    blurred = smooth(tensor(image), (1.2, 1.6, 2.0))
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-3)
    index = np.moveaxis(np.indices(image.shape[1:]), 0, -1) - [15, 16, 17]
    spread = np.sqrt((blurred.numpy()[0][..., None] * index**2).sum((0, 1, 2)))
    np.testing.assert_allclose(spread, [1.2, 1.6, 2.0], rtol=0.02)


def test_smooth_leaves_its_input_alone_and_blurs_below_a_fifth_of_a_voxel_not_at_all():
    image = tensor(IMAGE)
    before = image.clone()
    assert torch.equal(smooth(image, (0.1, 0.19, 0.0)), before)
    smooth(image, (2.0, 2.0, 2.0))
    assert torch.equal(image, before)


def test_tensor_takes_any_layout_and_type():
    array = np.asfortranarray(np.arange(24).reshape(2, 3, 4))[:, ::-1]
    made = tensor(array)
    assert made.dtype == torch.float32
    np.testing.assert_array_equal(made.numpy(), array)
