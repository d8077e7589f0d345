"""The default pose network: a small 3D U-Net that regresses the canonical coordinates of each voxel; the pose follows by Procrustes.

Dense coordinates give thousands of targets in each training image, and are learnt faster than one rotation: on validation images
``pose-coarse`` has a median error of 5.5° after 107,000 training images, ``pose-net``, which regresses the rotation, 17.5° after 240,000
(model cards). All outputs are on a grid of half the input's resolution.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .layers import Encoder, Layer, upsampled
from .procrustes import Similarity, procrustes

HALF_SIDE = 1.6
"""Half the side of the input cube, in brain radii."""


class CoordinateField(NamedTuple):
    """Output of the network. ``position`` (B, 3, s, s, s): canonical coordinates in brain radii; ``log_error`` (B, 1, s, s, s): logarithm
    of their predicted error (scale of a Laplace density); ``foreground`` (B, 1, s, s, s): logit of the probability of brain."""

    position: Tensor
    log_error: Tensor
    foreground: Tensor

    @property
    def weight(self) -> Tensor:
        """Weight of each voxel in the pose (B, s³): probability of brain over predicted error."""
        return (torch.sigmoid(self.foreground) * torch.exp(-self.log_error)).flatten(1)

    def solve(self) -> Similarity:
        """The similarity transform canonical → input cube by weighted least squares, in brain radii."""
        where = cube_points(self.position.shape[-1], device=self.position.device).to(self.position.dtype)
        return procrustes(self.position.flatten(2).transpose(1, 2), where.expand(len(self.position), -1, -1), self.weight)


class DenseNet(Encoder):
    """The U-Net behind the coordinate networks: (B, 2, S, …) → five channels on S/2, of cubes (``axes`` 3) or slices (2)."""

    def __init__(self, size: int, width: tuple[int, int, int, int], *, axes: int = 3) -> None:
        super().__init__(2, size, width, axes=axes)
        a, b, c, d = width
        self.up_coarse, self.up_middle = Layer(c + d, c, axes=axes), Layer(b + c, b, axes=axes)
        self.up_fine = Layer(a + b, a, axes=axes)
        self.head = nn.Conv3d(a, 5, 1) if axes == 3 else nn.Conv2d(a, 5, 1)
        # initial output near coordinate 0, an error of half a radius, and a probability of brain of one half
        nn.init.normal_(self.head.weight, std=0.01)

    def dense(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Position (B, 3, …), logarithm of its error (B, 1, …) and logit of the probability of brain (B, 1, …), float32."""
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        y = self.up_coarse(torch.cat([upsampled(self.bottom(coarse)).to(coarse.dtype), coarse], 1))
        y = self.up_middle(torch.cat([upsampled(y), middle], 1))
        y = self.head(self.up_fine(torch.cat([upsampled(y), fine], 1))).float()
        return y[:, :3], y[:, 3:4].clamp(-5, 3) - 0.7, y[:, 4:]


class CoordinateNet(DenseNet):
    """U-Net on two channels, brain intensities and mask: (B, 2, S, S, S) → :class:`CoordinateField` on S/2.

    ``size`` S is a multiple of 16 (four halvings). The cube reaches :data:`HALF_SIDE` brain radii to either side of the mask's centre.
    ``width``: channels from fine to coarse. With ``residual`` the network regresses the difference between each voxel's canonical
    coordinates and its position in the cube.
    """

    def __init__(self, size: int = 32, width: tuple[int, int, int, int] = (16, 48, 96, 192), *, residual: bool = False) -> None:
        super().__init__(size, width)
        self.residual = residual

    def forward(self, x: Tensor) -> CoordinateField:
        """Input (B, 2, S, S, S) → field on (S/2)³."""
        position, log_error, foreground = self.dense(x)
        side = position.shape[-1]
        if self.residual:
            position = position + cube_points(side, device=position.device).T.reshape(1, 3, side, side, side)
        return CoordinateField(position, log_error, foreground)


def cube_points(side: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Centres (side³, 3) of the voxels of a cube of ``side`` voxels that reaches :data:`HALF_SIDE` radii, x slowest.

    >>> cube_points(2)[0]
    tensor([-0.8000, -0.8000, -0.8000])
    """
    return grid_points(side, 3, device=device)


def grid_points(side: int, axes: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Centres (side ** axes, axes) of the cells of a grid with ``side`` cells along each of its ``axes``, which reaches :data:`HALF_SIDE`
    radii to either side of 0; first axis slowest."""
    axis = (torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side * 2 * HALF_SIDE - HALF_SIDE
    return torch.stack(torch.meshgrid(*[axis] * axes, indexing="ij"), -1).reshape(-1, axes)
