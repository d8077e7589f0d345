"""The default network: a small 3D U-Net that says of each voxel where in the canonical brain it lies; the pose follows by Procrustes.

Regressing one rotation from an image needs hundreds of thousands of examples; dense coordinates give thousands of targets an example and
are learnt an order of magnitude faster (docs/experiments.md). All outputs are on half the input's grid.
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
    """``position`` (B, 3, s, s, s): canonical coordinates in brain radii; ``log_error`` (B, 1, s, s, s): logarithm of their
    expected error (scale of a Laplace density); ``foreground`` (B, 1, s, s, s): logit of being brain."""

    position: Tensor
    log_error: Tensor
    foreground: Tensor

    @property
    def weight(self) -> Tensor:
        """How much each voxel counts for the pose (B, s³): probability of brain over expected error."""
        return (torch.sigmoid(self.foreground) * torch.exp(-self.log_error)).flatten(1)

    def solve(self) -> Similarity:
        """The map canonical → image that fits best, weighted least squares; in radii of the input cube's unit."""
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
        # start near no opinion: coordinate 0, an error of half a radius, brain as likely as not
        nn.init.normal_(self.head.weight, std=0.01)

    def dense(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Position (B, 3, …), logarithm of its error (B, 1, …) and logit of being brain (B, 1, …), float32."""
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        y = self.up_coarse(torch.cat([upsampled(self.bottom(coarse)).to(coarse.dtype), coarse], 1))
        y = self.up_middle(torch.cat([upsampled(y), middle], 1))
        y = self.head(self.up_fine(torch.cat([upsampled(y), fine], 1))).float()
        return y[:, :3], y[:, 3:4].clamp(-5, 3) - 0.7, y[:, 4:]


class CoordinateNet(DenseNet):
    """U-Net on two channels, brain intensities and mask: (B, 2, S, S, S) → :class:`CoordinateField` on S/2.

    ``size`` S is a multiple of 16 (four halvings), the cube :data:`HALF_SIDE` radii either way of the mask's centre. ``width`` gives the
    channels from fine to coarse. With ``residual`` the input is nearly upright and the network says by how much each voxel's coordinate
    differs from its place in the cube.
    """

    def __init__(self, size: int = 32, width: tuple[int, int, int, int] = (16, 48, 96, 192), *, residual: bool = False) -> None:
        super().__init__(size, width)
        self.residual = residual

    def forward(self, x: Tensor) -> CoordinateField:
        """(B, 2, S, S, S) → field on (S/2)³."""
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
    """Centres (sideᵃ, a) of the cells of a grid of ``axes`` a and ``side`` cells along each that reaches :data:`HALF_SIDE` radii."""
    axis = (torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side * 2 * HALF_SIDE - HALF_SIDE
    return torch.stack(torch.meshgrid(*[axis] * axes, indexing="ij"), -1).reshape(-1, axes)
