"""The paper's losses: where they are zero, invariances, and finite gradients everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rotation_strategies import AWKWARD, axes, rotvecs

from posepipe.geometry import so3
from posepipe.models.losses import STAGES, geodesic_loss, pose_loss, rotation_loss, rotation_mse, translation_mse

PADDING = 2.1e-6
"""The geodesic distance of equal rotations: its roots are padded by 1e-12."""

vectors = st.tuples(*[st.floats(-math.pi, math.pi)] * 3).map(np.array)
"""What π tanh can give: the whole cube, its corners outside the ball of radius π too."""


def one(x: np.ndarray, dtype: torch.dtype = torch.float64, grad: bool = False) -> torch.Tensor:
    """A batch of one."""
    return torch.tensor(np.asarray(x)[None], dtype=dtype, requires_grad=grad)


def gradient(predicted: np.ndarray, target: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    x = one(predicted, dtype, grad=True)
    geodesic_loss(x, one(target, dtype)).backward()
    assert x.grad is not None
    return x.grad


@given(vectors, rotvecs())
def test_the_geodesic_loss_is_the_angle_between_the_rotations(x, y):
    expected = float(so3.geodesic_distance(so3.exp(x), so3.exp(y)))
    assert float(geodesic_loss(one(x), one(y))) == pytest.approx(expected, abs=PADDING)


@given(vectors, rotvecs())
def test_losses_are_symmetric(x, y):
    for loss in (geodesic_loss, rotation_mse, translation_mse):
        assert float(loss(one(x), one(y))) == pytest.approx(float(loss(one(y), one(x))), abs=1e-12)


@given(rotvecs())
def test_losses_are_zero_at_the_truth(x):
    assert float(geodesic_loss(one(x), one(x))) <= PADDING
    assert float(rotation_mse(one(x), one(x))) == 0
    assert float(translation_mse(one(x), one(x))) == 0


@given(rotvecs(1e-3, math.pi))
def test_the_long_way_round_is_the_same_rotation_to_the_geodesic_loss_only(x):
    angle = np.linalg.norm(x)
    other = x * (1 - 2 * math.pi / angle)
    assert float(geodesic_loss(one(other), one(x))) <= PADDING
    assert float(rotation_mse(one(other), one(x))) == pytest.approx((2 * math.pi) ** 2 / 3)


@given(rotvecs(), rotvecs(), rotvecs())
def test_the_geodesic_loss_does_not_change_when_both_are_turned(x, y, turn):
    """From the left (another image frame) and from the right (another atlas frame)."""
    r = so3.exp(turn)
    before = float(geodesic_loss(one(x), one(y)))
    for a, b in ((r @ so3.exp(x), r @ so3.exp(y)), (so3.exp(x) @ r, so3.exp(y) @ r)):
        assert float(geodesic_loss(one(so3.log(a)), one(so3.log(b)))) == pytest.approx(before, abs=PADDING)


@given(rotvecs(), rotvecs(), rotvecs())
def test_mean_squares_do_not_change_when_the_axes_turn(x, y, turn):
    r = so3.exp(turn)
    assert float(rotation_mse(one(r @ x), one(r @ y))) == pytest.approx(float(rotation_mse(one(x), one(y))), abs=1e-12)


@given(vectors, rotvecs())
def test_the_gradient_is_finite_and_at_most_1_long(x, y):
    """The distance cannot change faster than the vector does."""
    for dtype in (torch.float32, torch.float64):
        assert float(gradient(x, y, dtype).norm()) < 1.01


@given(rotvecs(), axes(), st.sampled_from([*AWKWARD, 1e-7, math.pi - 1e-7, math.pi - 5e-4]))
def test_the_gradient_is_finite_at_0_and_at_pi(y, axis, angle):
    """Pairs an awkward angle apart, whichever way the target is turned."""
    x = so3.log(so3.exp(axis * angle) @ so3.exp(y))
    for dtype in (torch.float32, torch.float64):
        assert float(gradient(x, y, dtype).norm()) < 1.01


@given(axes(), st.floats(0.01, 3.1))
def test_the_gradient_points_along_the_axis(axis, angle):
    """For a target at 0: straight away from it, length 1."""
    np.testing.assert_allclose(gradient(axis * angle, np.zeros(3), torch.float64)[0], axis, atol=1e-6)


def test_losses_are_means_over_the_batch():
    x, y = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for loss in (geodesic_loss, rotation_mse, translation_mse):
        each = [float(loss(a[None], b[None])) for a, b in zip(x, y, strict=True)]
        assert float(loss(x, y)) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("stage", STAGES)
def test_the_total_loss(stage):
    x, y, t, s = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(1))
    total = pose_loss(x, y, t, s, stage=stage, translation_weight=7.0)
    rotation = {"mse": rotation_mse, "geodesic": geodesic_loss}[stage](x, y)
    torch.testing.assert_close(total, rotation + 7 * translation_mse(t, s))
    assert float(pose_loss(x, y, t, s, stage=stage, translation_weight=0.0)) == float(rotation)


@pytest.mark.parametrize("loss", [geodesic_loss, rotation_mse, translation_mse])
def test_autocast_does_not_blur_the_losses(loss):
    x, y = torch.randn(2, 64, 3, generator=torch.Generator().manual_seed(2))
    plain = loss(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(loss(x, y)) == float(plain)
        assert loss(x.bfloat16(), y).dtype == torch.float32


def test_what_cannot_be_is_refused():
    x = torch.zeros(4, 3)
    with pytest.raises(ValueError, match="'cosine'"):
        rotation_loss(x, x, "cosine")
    for weight in (-1.0, math.nan):
        with pytest.raises(ValueError, match=str(weight)):
            pose_loss(x, x, x, x, stage="mse", translation_weight=weight)
    for loss in (geodesic_loss, rotation_mse, translation_mse):
        with pytest.raises(ValueError, match=r"\(4, 3\) and \(3,\)"):
            loss(x, x[0])
        with pytest.raises(ValueError, match=r"\(4, 9\)"):
            loss(torch.zeros(4, 9), torch.zeros(4, 9))
