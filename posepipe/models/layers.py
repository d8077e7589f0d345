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


class Encoder(nn.Module):
    """The way down of a U-Net on ``channels``, four halvings to ``width`` channels each; ``size`` is the side of the cubes it learns from.

    Raises :class:`ValueError` for a size that is no multiple of 16.
    """

    def __init__(self, channels: int, size: int, width: tuple[int, int, int, int]) -> None:
        super().__init__()
        if size < 16 or size % 16:
            msg = f"size must be a multiple of 16, not {size}"
            raise ValueError(msg)
        self.size = size
        a, b, c, d = width
        self.fine = nn.Sequential(Layer(channels, a, 2), Layer(a, a))
        self.middle = nn.Sequential(Layer(a, b, 2), Layer(b, b))
        self.coarse = nn.Sequential(Layer(b, c, 2), Layer(c, c))
        self.bottom = nn.Sequential(Layer(c, d, 2), Layer(d, d), Layer(d, d))


def doubled(x: Tensor) -> Tensor:
    """(B, C, X, Y, Z) on a grid twice as fine, each voxel repeated."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
