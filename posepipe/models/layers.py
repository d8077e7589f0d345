"""What the 3D U-Nets share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Layer(nn.Sequential):
    """3 × 3 × 3 convolution, batch normalisation, leaky ReLU; ``stride`` 2 halves the grid."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        convolution = nn.Conv3d(inside, outside, 3, stride, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm3d(outside), nn.LeakyReLU(0.1, inplace=True))

    def fold(self) -> None:
        """Work the normalisation into the convolution: the same answers, for good."""
        convolution, normal, _ = self
        if isinstance(convolution, nn.Conv3d) and isinstance(normal, nn.BatchNorm3d):
            self[0], self[1] = fuse_conv_bn_eval(convolution, normal), nn.Identity()


def doubled(x: Tensor) -> Tensor:
    """(B, C, X, Y, Z) on a grid twice as fine, each voxel repeated."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
