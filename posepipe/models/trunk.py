"""Parts shared by the paper's networks: the convolutional trunk and the rotation head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CONVOLUTIONS = (8, 32, 32, 64, 64)
"""Channels of the convolutions (Salehi et al. 2018, §2.3)."""
DENSE = (512, 512, 256)
"""Units of the dense layers (ibid.)."""
CELLS = 4
"""Cells along each axis in the input of the dense layers."""
STEP = 4 * CELLS
"""The cube's side is a multiple of this: two halvings, then ``CELLS`` cells of equal size."""


class Trunk(nn.Module):
    """Convolutional trunk from a cube to a feature vector (Salehi et al. 2018, §2.3).

    3 × 3 × 3 convolutions with 8, 32, 32, 64 and 64 channels, the first two followed by max-pooling by 2; dense layers of 512,
    512 and 256; each with ReLU, then batch normalisation.

    Two departures from the paper. The cube is smaller than its 120³: there the first dense layer alone would have 110 million
    weights. And before that layer the features are max-pooled once more, to 4 × 4 × 4 cells whatever the size: 2.1 million.

    Raises :class:`ValueError` for a size or width that cannot be, and in ``forward`` for another input shape.

    Parameters
    ----------
    channels
        Number of input channels.
    size
        Side of the cube in voxels, a multiple of 16.
    width
        Factor on the number of channels and of dense units.
    """

    def __init__(self, channels: int, size: int, width: float) -> None:
        super().__init__()
        check_options(size, width, STEP, "the side of the cube", "voxels")
        self.shape = (channels, size, size, size)
        layers: list[nn.Module] = []
        before = channels
        for i, wide in enumerate(_scaled(CONVOLUTIONS, width)):
            layers += [nn.Conv3d(before, wide, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm3d(wide)]
            layers += [nn.MaxPool3d(2)] if i < 2 else []
            before = wide
        layers += [nn.MaxPool3d(size // STEP), nn.Flatten()]
        before *= CELLS**3
        for wide in _scaled(DENSE, width):
            layers += [nn.Linear(before, wide), nn.ReLU(inplace=True), nn.BatchNorm1d(wide)]
            before = wide
        self.layers = nn.Sequential(*layers)
        self.features = before

    def forward(self, cube: Tensor) -> Tensor:
        """Features (B, F) of ``cube`` (B, C, S, S, S)."""
        if cube.ndim != 5 or cube.shape[1:] != self.shape:
            msg = f"the network takes (batch, {', '.join(map(str, self.shape))}), not {tuple(cube.shape)}"
            raise ValueError(msg)
        features: Tensor = self.layers(cube)
        return features


def check_options(size: int, width: float, step: int, side: str, unit: str) -> None:
    """Raises :class:`ValueError` unless ``size`` is a multiple of ``step`` and ``width`` is positive; ``side`` and ``unit`` name the size
    in the message."""
    if size < step or size % step:
        msg = f"{side} must be a multiple of {step} {unit}, not {size}"
        raise ValueError(msg)
    if not (math.isfinite(width) and width > 0):
        msg = f"the width of a network must be above 0, not {width}"
        raise ValueError(msg)


class VectorHead(nn.Module):
    """A dense layer from features to three numbers, in single precision also under autocast."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(features, 3)

    def forward(self, features: Tensor) -> Tensor:
        """A vector (B, 3) of ``features`` (B, F)."""
        with torch.autocast(features.device.type, enabled=False):
            vector: Tensor = self.dense(features.to(self.dense.weight.dtype))
        return vector


class RotationHead(VectorHead):
    """:class:`VectorHead` followed by ``π tanh``: a rotation vector with components in [−π, π]."""

    def forward(self, features: Tensor) -> Tensor:
        """Rotation vectors (B, 3), radians, each component in [−π, π], of ``features`` (B, F)."""
        return math.pi * torch.tanh(super().forward(features))


def _scaled(numbers: tuple[int, ...], width: float) -> list[int]:
    return [max(1, round(n * width)) for n in numbers]
