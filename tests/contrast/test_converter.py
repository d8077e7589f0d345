"""Conversion of volumes: geometry kept, any grid and scanner scale, the three orientations treated alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posepipe.contrast.converter import BRIGHT, Converter
from posepipe.errors import MaskError, WeightsError
from posepipe.imaging.volume import Volume
from posepipe.models import save_network
from posepipe.models.contrast import ContrastNet
from posepipe.models.weights import CONTRAST_NETWORK


class Inverts(nn.Module):
    """Draws the middle slice turned over, so that what comes out is known."""

    def forward(self, slices: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 1, H, W)."""
        return 1 - slices[:, 1:2]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A converter that was never trained."""
    torch.manual_seed(0)
    options = {"size": 64, "width": (4, 4, 4, 4, 4)}
    save_network(ContrastNet(64, (4, 4, 4, 4, 4)), "contrast", tmp_path, architecture="ContrastNet", options=options, card="x", terms="y")
    return tmp_path


@pytest.fixture
def inverting(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Converter:
    """A converter whose network turns brightness over."""
    converter = Converter(weights)
    monkeypatch.setattr(converter, "_network", Inverts())
    return converter


def ball(spacing: tuple[float, float, float]) -> tuple[Volume, Volume]:
    """A ball of 24 mm radius that grows brighter upwards, in a box larger than it."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -40
    shape = tuple(int(80 / s) for s in spacing)
    where = np.moveaxis(np.indices(shape), 0, -1) * spacing - 40.0
    inside = np.linalg.norm(where, axis=-1) < 24
    return Volume(np.where(inside, 300 + 5 * where[..., 2], 7).astype(np.float32), affine), Volume(inside, affine)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.9, 1.1, 0.8), (0.5, 0.5, 2.0), (2.0, 1.5, 0.6)])
def test_every_voxel_stays_where_it_is(inverting: Converter, spacing: tuple[float, float, float]) -> None:
    image, mask = ball(spacing)
    converted = inverting.convert(image, mask).volume
    assert converted.same_grid(image) and converted.data.dtype == np.float32
    assert not converted.data[~mask.data].any()
    # the network turns over; deep inside, that is all
    where = np.argwhere(mask.data) * spacing - 40.0
    deep = np.linalg.norm(where, axis=-1) < 20
    expected = 0.5 - where[deep, 2] / (2 * 23.2)
    assert np.abs(converted.data[mask.data][deep] / BRIGHT - expected).max() < 0.06
    assert converted.data.min() >= 0 and converted.data.max() <= BRIGHT


def test_the_scanners_scale_does_not_matter(weights: Path) -> None:
    image, mask = ball((1.0, 1.0, 1.0))
    converter = Converter(weights)
    one, other = (converter.convert(image.with_data(image.data * a + b), mask).volume.data for a, b in ((1, 0), (0.02, -40)))
    assert np.abs(one - other).max() < 0.02 * BRIGHT


def test_the_three_orientations_are_treated_alike(weights: Path) -> None:
    image, mask = ball((1.0, 1.0, 1.0))
    converter = Converter(weights)
    there = converter.convert(image, mask).volume.data
    turned = converter.convert(Volume(image.data.transpose(2, 0, 1), image.affine), Volume(mask.data.transpose(2, 0, 1), mask.affine))
    mean = (there.transpose(2, 0, 1) + turned.volume.data)[mask.data.transpose(2, 0, 1)].mean() / 2
    # a slice and its transpose are two slices to a network: alike, not the same
    assert np.abs(there.transpose(2, 0, 1) - turned.volume.data).mean() < 0.25 * mean


def test_what_a_converter_needs(weights: Path, tmp_path: Path) -> None:
    image, mask = ball((2.0, 2.0, 2.0))
    with pytest.raises(MaskError, match="empty"):
        Converter(weights).convert(image, mask.with_data(np.zeros_like(mask.data)))
    with pytest.raises(WeightsError, match="no network is called"):
        Converter(weights, name="nothing")
    assert list(Converter(weights).convert(image, mask).weights) == [CONTRAST_NETWORK]
