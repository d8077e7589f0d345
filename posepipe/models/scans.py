"""Networks for scans without a brain mask: detection of brain candidates, canonical coordinates and segmentation of the brain.

Eyes, orbits, skull base, jaw and neck determine the orientation of a head also where the brain itself has little contrast
(docs/decisions/026-head-landmarks.md). Contrast, pose, age and surroundings are random in training, as in SynthStrip (Hoopes et al. 2022).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .coordinates import HALF_SIDE, CoordinateField, CoordinateNet
from .inputs import standardised
from .layers import Encoder, Layer, upsampled

TOP = 0.98
"""Quantile of the intensities above 0 that is scaled to 1 in :func:`scaled`."""
BRIGHTEST = 1.5
"""Scaled intensities are clipped to this value."""
_FAR = 6.0
"""Unit of the locator's offsets and radii, in voxels."""
_ENOUGH, _GOLDEN = 4096, 0.6180339887498949
"""Number of voxels from which the quantile is estimated, and the golden ratio minus 1, which spaces them."""


class ScanField(NamedTuple):
    """Output of :class:`ScanNet` for a crop (X, Y, Z). ``position`` (B, 3, X/2, Y/2, Z/2): canonical coordinates in brain radii;
    ``log_error`` (B, 1, X/2, Y/2, Z/2): logarithm of their predicted error (scale of a Laplace density); ``foreground`` (B, 1, X, Y, Z):
    logit of the probability of brain."""

    position: Tensor
    log_error: Tensor
    foreground: Tensor

    @property
    def coordinates(self) -> CoordinateField:
        """The field with ``foreground`` averaged to the grid of ``position``; its method ``solve`` gives the pose."""
        share = F.avg_pool3d(torch.sigmoid(self.foreground), 2).clamp(1e-6, 1 - 1e-6)
        return CoordinateField(self.position, self.log_error, torch.logit(share))


class Located(NamedTuple):
    """Output of :class:`LocatorNet`. ``foreground`` (B, 1, X, Y, Z): logit of the probability of brain. For each cell of 2³ voxels:
    ``offset`` (B, 3, X/2, Y/2, Z/2), vector from the cell to the centre of its brain, and ``log_radius`` (B, 1, X/2, Y/2, Z/2), logarithm
    of the radius of that brain; both in voxels of the input, and meaningful in brain cells only."""

    foreground: Tensor
    offset: Tensor
    log_radius: Tensor


class LocatorNet(Encoder):
    """U-Net for brain detection in a whole scan: (B, 1, X, Y, Z), multiples of 16 → :class:`Located`. Voxels whose offsets lead to the
    same centre belong to one brain (Hough voting, as in Milletari et al. 2017)."""

    def __init__(self, size: int = 32, width: tuple[int, int, int, int] = (8, 24, 48, 96)) -> None:
        super().__init__(1, size, width)
        a, b, c, d = width
        self.up_coarse, self.up_middle, self.up_fine = Layer(c + d, c), Layer(b + c, b), Layer(a + b, a)
        self.head = nn.Conv3d(a, 12, 1)
        # initial output: a low probability of brain, offset 0, and a brain radius of six voxels
        nn.init.constant_(self.head.bias[:8], -2.0)  # type: ignore[index]
        nn.init.constant_(self.head.bias[8:], 0.0)  # type: ignore[index]

    def forward(self, x: Tensor) -> Located:
        """Intensities (B, 1, X, Y, Z) by :func:`scaled` → :class:`Located`."""
        y = self.head(unet_features(self, x)).float()
        return Located(depth_to_space(y[:, :8]), y[:, 8:11] * _FAR, y[:, 11:] + math.log(_FAR))


class ScanNet(Encoder):
    """U-Net on an unmasked crop and a previous brain mask: (B, 2, X, Y, Z), multiples of 16 → :class:`ScanField`.

    Channel 0: unmasked intensities by :func:`scaled`. Channel 1: probability of brain from the previous forward pass (in the first round
    that of the locator). ``width``: channels from fine to coarse; the finest feature grid has half the input's resolution, and the
    segmentation on the input's grid comes from the last layer alone (:func:`depth_to_space`). ``size``: side of the crops in voxels. As
    in :class:`~posepipe.models.coordinates.CoordinateNet` with ``residual``, the network regresses the difference between each voxel's
    canonical coordinates and its position in the crop.
    """

    def __init__(self, size: int = 32, width: tuple[int, int, int, int] = (16, 48, 96, 192)) -> None:
        super().__init__(3, size, width)
        a, b, c, d = width
        self.up_coarse, self.up_middle, self.up_fine = Layer(c + d, c), Layer(b + c, b), Layer(a + b, a)
        self.head = nn.Conv3d(a, 12, 1)
        # initial output near coordinate 0, an error of half a radius, and a probability of brain of one half
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, x: Tensor) -> ScanField:
        """Intensities and previous mask (B, 2, X, Y, Z) → :class:`ScanField`."""
        image, before = x[:, :1], x[:, 1:]
        y = self.head(unet_features(self, torch.cat([standardised(image, before), image], 1))).float()
        return ScanField(y[:, :3] + _places(y), y[:, 3:4].clamp(-5, 3) - 0.7, depth_to_space(y[:, 4:]))

    @torch.no_grad()
    def initialise_from(self, masked: CoordinateNet) -> None:
        """Copy the weights of a network for masked brains of the same ``width``. The weights of the unmasked intensities are set to 0, so
        that initially the output is that of ``masked``."""
        own = self.state_dict()
        for name, theirs in masked.state_dict().items():
            if name == "fine.0.0.weight":
                own[name][:, :2].copy_(theirs)
                own[name][:, 2:].zero_()
            elif name.startswith("head."):
                own[name][:4].copy_(theirs[:4])
                own[name][4:].copy_(theirs[4:5].expand_as(own[name][4:]))
            else:
                own[name].copy_(theirs)


class OutlineNet(Encoder):
    """U-Net for the segmentation of the brain at the centre of a crop: intensities (B, 1, X, Y, Z) by :func:`scaled`, multiples of 16 →
    logits of the probability of brain (B, 1, X, Y, Z)."""

    def __init__(self, size: int = 48, width: tuple[int, int, int, int] = (16, 32, 64, 128)) -> None:
        super().__init__(1, size, width)
        a, b, c, d = width
        # 1 × 1 × 1 convolutions that reduce the channels before upsampling, where most of the computation would be
        self.narrow_bottom, self.narrow_coarse, self.narrow_middle = nn.Conv3d(d, c, 1), nn.Conv3d(c, b, 1), nn.Conv3d(b, a, 1)
        self.up_coarse, self.up_middle, self.up_fine = Layer(2 * c, c), Layer(2 * b, b), Layer(2 * a, a)
        self.head = nn.Conv3d(a, 8, 1)
        # initial output: a low probability of brain
        nn.init.constant_(self.head.bias, -2.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) → logits (B, 1, X, Y, Z)."""
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        y = self.narrow_bottom(self.bottom(coarse))
        y = self.narrow_coarse(self.up_coarse(torch.cat([upsampled(y), coarse], 1)))
        y = self.narrow_middle(self.up_middle(torch.cat([upsampled(y), middle], 1)))
        return depth_to_space(self.head(self.up_fine(torch.cat([upsampled(y), fine], 1))).float())


def unet_features(network: LocatorNet | ScanNet, x: Tensor) -> Tensor:
    """Features (B, a, X/2, Y/2, Z/2) of the U-Net's last decoder level, before the head."""
    fine = network.fine(x)
    middle = network.middle(fine)
    coarse = network.coarse(middle)
    y = network.up_coarse(torch.cat([upsampled(network.bottom(coarse)).to(coarse.dtype), coarse], 1))
    y = network.up_middle(torch.cat([upsampled(y), middle], 1))
    out: Tensor = network.up_fine(torch.cat([upsampled(y), fine], 1))
    return out


def _places(y: Tensor) -> Tensor:
    """Centres (3, X, Y, Z) of the voxels of a crop, in brain radii; its first side is 2 :data:`HALF_SIDE` long."""
    step = 2 * HALF_SIDE / y.shape[2]
    axes = [(torch.arange(n, device=y.device, dtype=torch.float32) - (n - 1) / 2) * step for n in y.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def depth_to_space(x: Tensor) -> Tensor:
    """Rearrange eight channels (B, 8, X, Y, Z) into 2 × 2 × 2 voxels of each cell (B, 1, 2X, 2Y, 2Z): 3D pixel shuffle.

    >>> depth_to_space(torch.arange(8.0).reshape(1, 8, 1, 1, 1))[0, 0, 0]
    tensor([[0., 1.],
            [2., 3.]])
    """
    n, _, i, j, k = x.shape
    cells = x.reshape(n, 2, 2, 2, i, j, k).permute(0, 4, 1, 5, 2, 6, 3)
    return cells.reshape(n, 1, 2 * i, 2 * j, 2 * k)


def scaled(image: Tensor) -> Tensor:
    """``image`` (B, 1, X, Y, Z) as network input: scaled so that the :data:`TOP` quantile of the intensities above 0 is 1, and clipped to
    0 … :data:`BRIGHTEST`.

    >>> scaled(torch.tensor([-3.0, 0.0, 5.0, 10.0]).reshape(1, 1, 1, 1, 4)).flatten()
    tensor([0.0000, 0.0000, 0.5000, 1.0000])
    """
    flat = image.flatten(1)
    if flat.shape[1] > _ENOUGH:
        # steps by the golden ratio cover the grid evenly and are not periodic along any axis
        flat = flat[:, ((torch.arange(_ENOUGH, device=flat.device, dtype=torch.float64) * _GOLDEN) % 1 * flat.shape[1]).long()]
    some = flat.sort(1).values
    empty = (some <= 0).sum(1, keepdim=True)
    rank = empty + (TOP * (some.shape[1] - empty)).long()
    top = some.gather(1, rank.clamp_max(some.shape[1] - 1)).clamp_min(1e-6)
    return (image / top[:, :, None, None, None]).clamp(0, BRIGHTEST)
