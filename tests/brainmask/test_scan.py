"""Crops of a scan: they show the stated position, along any axes, and results are mapped back to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.brainmask.scan import Frame, Scan
from posepipe.geometry import random_rotations

SPACING, SHAPE = np.array([1.0, 1.5, 2.0]), (40, 30, 24)
GROWS = np.einsum("axyz,a->xyz", np.indices(SHAPE), SPACING * [1, 2, 3]).astype(np.float32)
"""Intensities that grow along all three axes, each by its own measure, so that every place has its own."""


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), step=st.floats(0.8, 1.4))
def test_what_is_seen_along_any_axes_is_read_back_where_it_is(seed, step):
    axes = random_rotations(1, np.random.default_rng(seed))[0]
    scan = Scan(torch.as_tensor(GROWS)[None], SPACING)
    center = np.array([19.0, 22.0, 24.0])
    frame = Frame(center, step, (12, 12, 12), axes)
    crop = scan.crop(frame)[0, 0]
    expected = frame.points(torch.device("cpu")) @ torch.tensor([1.0, 2, 3])
    assert torch.allclose(crop, expected, atol=1e-2)
    found = scan.read_back(crop, frame)
    away = np.abs((np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING - center) @ axes).max(-1)
    inside = away < 5.4 * step
    assert np.allclose(found[inside], GROWS[inside], atol=1e-2) and not found[away > 5.6 * step].any()


def test_coarse_crops_are_of_means_and_what_lies_outside_is_empty():
    noisy = (GROWS + 500 * (np.indices(SHAPE).sum(0) % 2)).astype(np.float32)
    scan = Scan(torch.as_tensor(noisy)[None], SPACING)
    crop = scan.crop(Frame(scan.size / 2, 4.0, (4, 4, 4), np.eye(3)))[0, 0]
    expected = Frame(scan.size / 2, 4.0, (4, 4, 4), np.eye(3)).points(torch.device("cpu")) @ torch.tensor([1.0, 2, 3]) + 250
    assert torch.allclose(crop, expected, atol=26)  # of a chequered pattern of 0 and 500 half is left in every mean
    assert float(scan.crop(Frame(scan.size / 2 + 500, 4.0, (4, 4, 4), np.eye(3))).abs().max()) == 0


def test_a_frame_knows_its_places():
    frame = Frame.about(np.array([1.0, 2, 3]), 8.0, 16)
    points = frame.points(torch.device("cpu"))
    assert points[0, 0, 0].tolist() == pytest.approx([-6.5, -5.5, -4.5]) and frame.step == 1.0
    assert (frame.affine @ [15, 0, 0, 1])[:3] == pytest.approx(points[15, 0, 0].numpy())
