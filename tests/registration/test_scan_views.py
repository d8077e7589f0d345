"""A scan as the mask networks look at it: what is seen along any axes is read back where it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posepipe.imaging.moments import Moments
from posepipe.registration.masking import TURNED
from posepipe.registration.scan_views import STRAIGHT, Look, Scan, read_back


def test_where_a_narrower_look_does_not_reach_the_wider_counts():
    scan = Scan(torch.zeros(1, 9, 9, 9), np.ones(3))
    center = np.full(3, 4.0)
    about = Moments(center, np.eye(3), 0.1)
    wide, narrow = (Look(torch.full((4, 4, 4), p), center, step, about, p, STRAIGHT) for p, step in ((0.9, 2.0), (0.2, 1.0)))
    found = read_back((wide, narrow), scan)
    inside = np.abs(np.indices((9, 9, 9)) - 4).max(0)
    assert np.allclose(found[inside <= 1], 0.2) and np.allclose(found[(inside > 1) & (inside <= 3)], 0.9) and not found[inside > 3].any()
    assert np.allclose(read_back((narrow, wide), scan)[inside <= 3], 0.9)


@pytest.mark.parametrize("axes", [STRAIGHT, TURNED])
def test_what_is_seen_along_any_axes_is_read_back_where_it_is(axes):
    """Intensities that grow along all three axes of the scan, each by its own measure, so that every place has its own."""
    assert np.allclose(axes @ axes.T, np.eye(3)) and np.linalg.det(axes) > 0
    spacing, shape = np.array([1.0, 1.5, 2.0]), (40, 30, 24)
    grows = np.einsum("axyz,a->xyz", np.indices(shape), spacing * [1, 2, 3])
    scan = Scan(torch.as_tensor(grows, dtype=torch.float32)[None], spacing)
    center = np.array([19.0, 22.0, 24.0])
    cube = scan.cube(center, 1.2, (16,) * 3, axes)[0, 0]
    assert float(cube[15, 8, 8] - cube[0, 8, 8]) == pytest.approx(15 * 1.2 * axes[:, 0] @ [1, 2, 3], rel=1e-4)
    about = Moments(center, np.eye(3), 0.1)
    found = read_back([Look(cube, center, 1.2, about, 1.0, axes)], scan)
    away = np.abs((np.moveaxis(np.indices(shape), 0, -1) * spacing - center) @ axes).max(-1)
    assert np.allclose(found[away < 8.9], grows[away < 8.9], atol=1e-2) and not found[away > 9.1].any()
