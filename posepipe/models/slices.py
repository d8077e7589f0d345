"""Networks for single slices: the default one, which regresses canonical coordinates of the pixels, and the paper's, which regresses the
pose.

The slice frame (u, v, w) is in brain radii. The slice is the plane w = 0, S × S pixels over ``2 HALF_SIDE`` radii, with u along the first
axis of the image and v along the second. Canonical points x map to the slice frame by ``u = s R x + t``. The twin of this pose shows the
same slice (:mod:`posepipe.models.twin`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .coordinates import CoordinateField, DenseNet, grid_points
from .inputs import FOREGROUND_OFFSET
from .procrustes import Similarity, procrustes
from .trunk import RotationHead, check_options

NUMBERS = 30
"""Number of slice numbers over the middle of a brain (Salehi et al. 2018, §3.1)."""
MIDDLE = 0.66
"""Share of the brain's extent along the slice's normal that the slice numbers cover."""
EXTENT_CELLS = 20
"""Cells along each axis of the grid on which a brain's extent for :func:`slice_offset` is measured: from the first to the last centre of
the cells that are more than half brain. The grid reaches :data:`~posepipe.models.coordinates.HALF_SIDE` radii to either side of the
brain's centre. Networks were trained with this grid (:mod:`posepipe.training.slices`); another one would move the outermost slices by
0.05 radii."""
RESNET = (64, 128, 256, 512)
"""Channels of ResNet-18 (He et al. 2016)."""
_HALVINGS = 32
"""Factor between the resolution of the input and of the last level."""


class SliceField(CoordinateField):
    """Output of :class:`SliceCoordinateNet` for each pixel: ``position`` (B, 3, s, s), ``log_error`` and ``foreground`` (B, 1, s, s)."""

    __slots__ = ()

    def solve(self, scale: float | None = 1.0) -> Similarity:
        """The similarity transform canonical → slice frame: the inverse of the weighted least-squares map from pixels to coordinates.

        Points in one plane determine a proper rotation. ``scale`` is used as given, for brains whose size is known from the age; None:
        it is estimated. ``residual`` of the result is the misfit of the coordinates in brain radii.
        """
        where = slice_points(self.position.shape[-1], device=self.position.device).to(self.position.dtype)
        back = None if scale is None else 1 / scale
        found = procrustes(where.expand(len(self.position), -1, -1), self.position.flatten(2).mT, self.weight, scale=back)
        size = 1 / found.scale.clamp_min(1e-6)
        turn = found.rotation.mT
        shift = -size[:, None] * (turn @ found.translation[..., None])[..., 0]
        return Similarity(turn, shift, size, found.residual)


class SliceCoordinateNet(DenseNet):
    """U-Net on two channels, intensities and mask of a slice: (B, 2, S, S) → :class:`SliceField` on S/2.

    Intensities have mean 0 and standard deviation 1 inside the mask and are 0 outside; without a mask that channel is 1 everywhere.
    ``size`` S is a multiple of 16; ``width``: channels from fine to coarse. The coordinates may be those of the pose or of its twin.

    >>> SliceCoordinateNet(16, (2, 2, 2, 2)).eval()(torch.zeros(3, 2, 16, 16)).position.shape
    torch.Size([3, 3, 8, 8])
    """

    def __init__(self, size: int = 64, width: tuple[int, int, int, int] = (32, 64, 128, 256)) -> None:
        super().__init__(size, width, axes=2)

    def forward(self, x: Tensor) -> SliceField:
        """Input (B, 2, S, S) → field on (S/2)²."""
        return SliceField(*self.dense(x))


class SlicePoseNet(nn.Module):
    """The paper's slice network (Salehi et al. 2018, §2.3, §3.1): a ResNet-18 (He et al. 2016) on one channel, a head of ``π tanh`` for the
    rotation vector and one of ReLU for the slice's number.

    ``size`` is the side of the slices, a multiple of 32 pixels, for which the paper's text gives no number; ``width`` a factor on the
    channels, 11.2 million weights at 1 and 2.8 million at 0.5. ``foreground_offset`` is what
    :func:`~posepipe.models.inputs.with_foreground_offset` adds inside the mask. For the slice number see :func:`slice_offset`.

    Raises :class:`ValueError` for invalid options, and in ``forward`` for another input shape.

    >>> rotation, number = SlicePoseNet(32, 0.1).eval()(torch.zeros(2, 1, 32, 32))
    >>> rotation.shape, number.shape
    (torch.Size([2, 3]), torch.Size([2]))
    """

    def __init__(self, size: int = 64, width: float = 1.0, foreground_offset: float = FOREGROUND_OFFSET) -> None:
        super().__init__()
        check_options(size, width, _HALVINGS, "the side of the slices", "pixels")
        self.size, self.foreground_offset = size, foreground_offset
        before, *_ = wide = [max(1, round(n * width)) for n in RESNET]
        layers: list[nn.Module] = [
            nn.Conv2d(1, before, 7, 2, 3, bias=False), nn.BatchNorm2d(before), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        ]  # fmt: skip
        for i, channels in enumerate(wide):
            layers += [_Block(before, channels, 1 if i == 0 else 2), _Block(channels, channels)]
            before = channels
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.rotation = RotationHead(before)
        self.number = nn.Linear(before, 1)
        # initial output: the middle slice number; a ReLU that starts below 0 for all slices has no gradient
        nn.init.constant_(self.number.bias, (NUMBERS - 1) / 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rotation vectors (B, 3), radians, each component in [−π, π], and slice numbers (B,) ≥ 0 of ``x`` (B, 1, S, S)."""
        if x.ndim != 4 or x.shape[1:] != (1, self.size, self.size):
            msg = f"the network takes (batch, 1, {self.size}, {self.size}), not {tuple(x.shape)}"
            raise ValueError(msg)
        features = self.trunk(x)
        with torch.autocast(x.device.type, enabled=False):
            number = F.relu(self.number(features.to(self.number.weight.dtype)))[:, 0]
        return self.rotation(features), number


class _Block(nn.Module):
    """Basic block of a ResNet: two 3 × 3 convolutions and a skip connection, with a 1 × 1 convolution where the shape changes."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside),
        )  # fmt: skip
        same = stride == 1 and inside == outside
        past = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        self.past: nn.Module = nn.Identity() if same else past

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.convolutions(x) + self.past(x))


def slice_points(side: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Centres (side², 3) of the pixels of a slice of ``side`` pixels, u slowest, w = 0.

    >>> slice_points(2)[:2]
    tensor([[-0.8000, -0.8000,  0.0000],
            [-0.8000,  0.8000,  0.0000]])
    """
    return F.pad(grid_points(side, 2, device=device), (0, 1))


def slice_offset(number: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Position of the slice with this ``number`` along its normal, in brain radii from the brain's centre.

    Numbers are 0 to ``NUMBERS − 1``, spaced evenly over the middle :data:`MIDDLE` of the brain's extent from ``low`` to ``high``. For a
    slice with the pose R, t, s the position is ``−t_w / s``.

    >>> slice_offset(torch.tensor([0.0, 14.5, 29.0]), torch.tensor(-1.0), torch.tensor(1.0))
    tensor([-0.6600,  0.0000,  0.6600])
    """
    return (low + high) / 2 + (number / (NUMBERS - 1) - 0.5) * MIDDLE * (high - low)


def slice_number(offset: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The inverse of :func:`slice_offset`; below 0 or above ``NUMBERS − 1`` for slices outside the middle of the brain."""
    return ((offset - (low + high) / 2) / (MIDDLE * (high - low)) + 0.5) * (NUMBERS - 1)
