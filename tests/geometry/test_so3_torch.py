"""The torch versions of the SO(3) functions: the same values, and correct finite gradients, also at 0 and π."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from rotation_strategies import AWKWARD, rotvecs, unit

from posepipe.geometry import random_rotations, so3, so3_torch

AXIS = unit(np.array([0.5, -0.8, 0.33]))


def double(x: np.ndarray, grad: bool = False) -> torch.Tensor:
    return torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=grad)


def central_difference(function, x: np.ndarray, step: float) -> np.ndarray:
    """Jacobian (outputs…, inputs…) of ``function`` of an array."""
    columns = []
    for i in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[i] = step
        columns.append((function(x + e) - function(x - e)) / (2 * step))
    return np.stack(columns, -1).reshape(*np.shape(columns[0]), *x.shape)


@given(rotvecs())
def test_exp_agrees_with_numpy(x):
    np.testing.assert_allclose(so3_torch.exp(double(x)).numpy(), so3.exp(x), atol=1e-14)


@given(rotvecs())
def test_log_agrees_with_numpy(x):
    r = so3.exp(x)
    ours, theirs = so3_torch.log(double(r)).numpy(), so3.log(r)
    if np.linalg.norm(x) > np.pi - 1e-7 and ours @ theirs < 0:
        ours = -ours  # either sign at π
    np.testing.assert_allclose(ours, theirs, atol=1e-13)


@given(rotvecs(), rotvecs())
def test_distance_agrees_with_numpy_to_its_padding(x, y):
    a, b = so3.exp(x), so3.exp(y)
    ours = float(so3_torch.geodesic_distance(double(a), double(b)))
    assert ours == pytest.approx(float(so3.geodesic_distance(a, b)), abs=2.1e-6)


def test_batches_and_single_precision():
    x = torch.tensor(so3.log(random_rotations(24, np.random.default_rng(0))).reshape(2, 3, 4, 3), dtype=torch.float32)
    r = so3_torch.exp(x)
    assert r.shape == (2, 3, 4, 3, 3)
    assert r.dtype == torch.float32
    np.testing.assert_allclose(r, so3.exp(x.numpy()), atol=1e-6)
    np.testing.assert_allclose(so3_torch.log(r), x, atol=2e-5)
    distance = so3_torch.geodesic_distance(r[:1, :1, :1], r)
    assert distance.shape == (2, 3, 4)


@pytest.mark.parametrize("angle", [*AWKWARD, 0.7, 1.9, 3.1])
def test_gradient_of_exp(angle):
    x = AXIS * angle
    auto = torch.autograd.functional.jacobian(so3_torch.exp, double(x))
    np.testing.assert_allclose(auto.numpy(), central_difference(so3.exp, x, 1e-6), atol=1e-9)


@pytest.mark.parametrize("angle", [a for a in AWKWARD if a < np.pi - 1e-5])
def test_log_inverts_exp_to_first_order(angle):
    """The Jacobian of log ∘ exp is the identity wherever log is smooth, at 0 exactly too."""
    x = double(AXIS * angle)
    jacobian = torch.autograd.functional.jacobian(lambda v: so3_torch.log(so3_torch.exp(v)), x)
    np.testing.assert_allclose(jacobian.numpy(), np.eye(3), atol=1e-9)


@pytest.mark.parametrize("axis", [AXIS, *np.eye(3), -np.eye(3)[1]])
@pytest.mark.parametrize("angle", [0.0, 1e-9, np.pi - 1e-9, np.pi])
def test_gradients_are_finite_at_zero_and_at_pi(axis, angle):
    for function in (
        lambda r: so3_torch.log(r).sum(),
        lambda r: so3_torch.geodesic_distance(r, torch.eye(3, dtype=torch.float64)),
        lambda r: so3_torch.geodesic_distance(r, r.detach()),
    ):
        r = double(so3.exp(axis * angle), grad=True)
        function(r).backward()
        assert r.grad is not None
        assert bool(r.grad.isfinite().all())
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor(axis * angle, dtype=dtype, requires_grad=True)
        so3_torch.log(so3_torch.exp(x)).square().sum().backward()
        assert x.grad is not None
        assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize("angle", [1e-4, 0.02, 0.6, 1.5, 2.8, np.pi - 1e-3])
def test_gradient_of_the_distance(angle):
    target = random_rotations(1, np.random.default_rng(4))[0]
    start = so3.log(target @ so3.exp(AXIS * angle))
    x = double(start, grad=True)
    so3_torch.geodesic_distance(so3_torch.exp(x), double(target)).backward()
    numeric = central_difference(lambda v: so3.geodesic_distance(so3.exp(v), target), start, 1e-6)
    # the padding of the roots, 1e-12, shortens the gradient by 2e-12/θ²: 2e-4 at the smallest angle here
    np.testing.assert_allclose(x.grad.numpy(), numeric, atol=3e-4)


def test_descent_on_the_distance_finds_the_target_from_far_and_stays_there():
    target = double(random_rotations(1, np.random.default_rng(5))[0])
    x = double(np.zeros(3), grad=True)
    optimiser = torch.optim.Adam([x], lr=0.1)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.1 * 0.96**step
        optimiser.zero_grad()
        so3_torch.geodesic_distance(so3_torch.exp(x), target).backward()
        optimiser.step()
    assert float(so3.geodesic_distance(so3.exp(x.detach().numpy()), target.numpy())) < 1e-3
