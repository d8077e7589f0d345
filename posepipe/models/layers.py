"""Layers and encoder shared by the U-Nets for volumes and for slices."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

UNSAFE_BFLOAT16_SIDE = 2
"""Largest number of voxels along an axis for which torch 2.13 computes a wrong weight gradient of a 3³ kernel in bfloat16 on the CPU: a
part of it is not written, so that it is 90 to 100 % wrong, infinite or NaN. From 3 voxels on it is right up to rounding
(docs/decisions/022-bfloat16-gradients.md)."""

M = TypeVar("M", bound=nn.Module)
_CONVOLUTIONS: Mapping[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORMALS: Mapping[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


class Layer(nn.Sequential):
    """3 × 3 × 3 convolution (of slices, ``axes`` 2: 3 × 3), batch normalisation, leaky ReLU; ``stride`` 2 halves the grid.

    In training on the CPU it computes in single precision, also under autocast, on grids too small for bfloat16
    (:data:`UNSAFE_BFLOAT16_SIDE`).
    """

    def __init__(self, inside: int, outside: int, stride: int = 1, *, axes: int = 3) -> None:
        convolution = _CONVOLUTIONS[axes](inside, outside, 3, stride, 1, bias=False)
        super().__init__(convolution, _NORMALS[axes](outside), nn.LeakyReLU(0.1, inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, ``inside``, X, Y, Z) → (B, ``outside``, X', Y', Z'); slices (B, ``inside``, X, Y) alike."""
        bfloat16 = torch.is_autocast_enabled("cpu") and torch.is_grad_enabled() and x.device.type == "cpu"
        if bfloat16 and min(x.shape[2:]) <= UNSAFE_BFLOAT16_SIDE:
            with torch.autocast("cpu", enabled=False):
                exact: Tensor = super().forward(x.float())
            return exact
        y: Tensor = super().forward(x)
        return y

    def fold(self) -> None:
        """Fold the batch normalisation into the convolution: the same output in evaluation mode; not reversible."""
        convolution, normal, _ = self
        if isinstance(convolution, (nn.Conv2d, nn.Conv3d)) and isinstance(normal, (nn.BatchNorm2d, nn.BatchNorm3d)):
            self[0], self[1] = fuse_conv_bn_eval(convolution, normal), nn.Identity()


class Encoder(nn.Module):
    """Encoder of a U-Net with ``channels`` input channels and four halvings, of ``width`` channels each. ``size``: side of the training
    cubes in voxels, or of the slices in pixels (``axes`` 2).

    Raises :class:`ValueError` for a size that is not a multiple of 16.
    """

    def __init__(self, channels: int, size: int, width: tuple[int, int, int, int], *, axes: int = 3) -> None:
        super().__init__()
        if size < 16 or size % 16:
            msg = f"size must be a multiple of 16, not {size}"
            raise ValueError(msg)
        self.size = size
        a, b, c, d = width
        self.fine = nn.Sequential(Layer(channels, a, 2, axes=axes), Layer(a, a, axes=axes))
        self.middle = nn.Sequential(Layer(a, b, 2, axes=axes), Layer(b, b, axes=axes))
        self.coarse = nn.Sequential(Layer(b, c, 2, axes=axes), Layer(c, c, axes=axes))
        self.bottom = nn.Sequential(Layer(c, d, 2, axes=axes), Layer(d, d, axes=axes), Layer(d, d, axes=axes))


class _Convolution(nn.Conv3d):
    """A convolution for inference that always uses oneDNN on the CPU, where torch is built with it. For a batch of one torch chooses a
    slower implementation; oneDNN is three to four times as fast, with the same result (docs/decisions/023-single-precision.md)."""

    def forward(self, input: Tensor) -> Tensor:
        """See :class:`torch.nn.Conv3d`."""
        plain = input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32
        if plain and torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu"):
            padding = tuple(int(n) for n in self.padding)
            answer: Tensor = torch.mkldnn_convolution(
                input, self.weight, self.bias, padding, self.stride, self.dilation, self.groups
            )
            return answer
        return super().forward(input)


def for_inference(network: M) -> M:
    """A copy of ``network`` for fast inference: batch normalisation folded into the convolutions, channels-last layout, no gradients."""
    copied = copy.deepcopy(network).eval()
    for module in list(copied.modules()):
        if isinstance(module, Layer):
            module.fold()
    for module in copied.modules():
        if isinstance(module, nn.Conv3d):
            module.__class__ = _Convolution
    return channels_last(copied).requires_grad_(False)


def channels_last(network: M) -> M:
    """``network`` in torch's channels-last memory format, of volumes or of slices by the type of its convolutions."""
    axes = 2 if any(isinstance(m, nn.Conv2d) for m in network.modules()) else 3
    return network.to(memory_format=_LAYOUTS[axes])  # type: ignore[call-overload]


def upsampled(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling by 2 of (B, C, X, Y, Z) or (B, C, X, Y)."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
