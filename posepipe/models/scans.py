"""The network that finds a brain in whatever surrounds it: of each voxel of an unmasked crop, whether it is brain and which part of it.

Eyes, orbits, skull base, jaw and neck tell how a head lies where the brain itself has hardly any contrast (docs/experiments-scans.md).
Contrast, pose, age and surroundings are random in training, as in SynthStrip (Hoopes et al. 2022).
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
"""Share of the voxels above 0 that are darker than what counts as 1."""
BRIGHTEST = 1.5
_FAR = 6.0
"""Voxels: what the locator's offsets are multiples of."""
_ENOUGH, _GOLDEN = 4096, 0.6180339887498949


class ScanField(NamedTuple):
    """What the network says of a crop of S voxels a side. ``position`` (B, 3, X/2, Y/2, Z/2): canonical coordinates in brain radii, and
    ``log_error`` (B, 1, …) the logarithm of their expected error (scale of a Laplace density), on half the crop's grid; ``foreground``
    (B, 1, X, Y, Z): logit of being brain, on the crop's own."""

    position: Tensor
    log_error: Tensor
    foreground: Tensor

    @property
    def coordinates(self) -> CoordinateField:
        """The same on half the grid, from which the pose follows."""
        share = F.avg_pool3d(torch.sigmoid(self.foreground), 2).clamp(1e-6, 1 - 1e-6)
        return CoordinateField(self.position, self.log_error, torch.logit(share))


class Located(NamedTuple):
    """What the locator says: ``foreground`` (B, 1, X, Y, Z), logit of being brain; of each cell of 2³ voxels, if it is brain, where the
    centre of its brain lies from it, ``offset`` (B, 3, X/2, Y/2, Z/2) in voxels of the input, and ``log_radius`` (B, 1, …), the logarithm
    of the brain's radius in these."""

    foreground: Tensor
    offset: Tensor
    log_radius: Tensor


class LocatorNet(Encoder):
    """U-Net (B, 1, X, Y, Z), multiples of 16 → :class:`Located`: where in a whole scan brains may be, how large, and which voxels are of
    the same one: those that point to the same centre (a Hough transform that is learnt, as in Milletari et al. 2017)."""

    def __init__(self, size: int = 32, width: tuple[int, int, int, int] = (8, 24, 48, 96)) -> None:
        super().__init__(1, size, width)
        a, b, c, d = width
        self.up_coarse, self.up_middle, self.up_fine = Layer(c + d, c), Layer(b + c, b), Layer(a + b, a)
        self.head = nn.Conv3d(a, 12, 1)
        # most voxels are not brain; a brain of six voxels' radius is in the middle of what is seen
        nn.init.constant_(self.head.bias[:8], -2.0)  # type: ignore[index]
        nn.init.constant_(self.head.bias[8:], 0.0)  # type: ignore[index]

    def forward(self, x: Tensor) -> Located:
        """(B, 1, X, Y, Z), :func:`scaled` → what is seen."""
        y = self.head(unet_features(self, x)).float()
        return Located(depth_to_space(y[:, :8]), y[:, 8:11] * _FAR, y[:, 11:] + math.log(_FAR))


class ScanNet(Encoder):
    """U-Net on a crop and on what is known of its brain: (B, 2, X, Y, Z), multiples of 16 → :class:`ScanField`.

    The first channel holds intensities with all that surrounds the brain, :func:`scaled`, the second the probability of brain by the look
    before. ``width`` gives the channels from fine to coarse; the finest grid of features is half the input's, whose eight voxels a cell are
    told apart by the head alone. ``size`` is the side of the crops that it is used with. As in the network of brains that are masked,
    :class:`~posepipe.models.coordinates.CoordinateNet`, it says by how much each voxel's coordinate differs from its place in the crop.
    """

    def __init__(self, size: int = 32, width: tuple[int, int, int, int] = (16, 48, 96, 192)) -> None:
        super().__init__(3, size, width)
        a, b, c, d = width
        self.up_coarse, self.up_middle, self.up_fine = Layer(c + d, c), Layer(b + c, b), Layer(a + b, a)
        self.head = nn.Conv3d(a, 12, 1)
        # start near no opinion: coordinate 0, an error of half a radius, brain as likely as not
        nn.init.normal_(self.head.weight, std=0.01)

    def forward(self, x: Tensor) -> ScanField:
        """(B, 2, X, Y, Z) → what is seen."""
        image, before = x[:, :1], x[:, 1:]
        y = self.head(unet_features(self, torch.cat([standardised(image, before), image], 1))).float()
        return ScanField(y[:, :3] + _places(y), y[:, 3:4].clamp(-5, 3) - 0.7, depth_to_space(y[:, 4:]))

    @torch.no_grad()
    def initialise_from(self, masked: CoordinateNet) -> None:
        """Take over what a network of masked brains has learnt, which must be as wide: at first it is that network, and what surrounds the
        brain counts for nothing."""
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
    """U-Net (B, 1, X, Y, Z), :func:`scaled`, multiples of 16 → logits of being brain (B, 1, X, Y, Z): the outline of the brain about the
    middle of a crop."""

    def __init__(self, size: int = 48, width: tuple[int, int, int, int] = (16, 32, 64, 128)) -> None:
        super().__init__(1, size, width)
        a, b, c, d = width
        # narrowed before the grids are joined: most of a U-Net's work would be there
        self.narrow_bottom, self.narrow_coarse, self.narrow_middle = nn.Conv3d(d, c, 1), nn.Conv3d(c, b, 1), nn.Conv3d(b, a, 1)
        self.up_coarse, self.up_middle, self.up_fine = Layer(2 * c, c), Layer(2 * b, b), Layer(2 * a, a)
        self.head = nn.Conv3d(a, 8, 1)
        # most voxels are not brain
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
    """The features of a U-Net (B, a, X/2, Y/2, Z/2) before its head."""
    fine = network.fine(x)
    middle = network.middle(fine)
    coarse = network.coarse(middle)
    y = network.up_coarse(torch.cat([upsampled(network.bottom(coarse)).to(coarse.dtype), coarse], 1))
    y = network.up_middle(torch.cat([upsampled(y), middle], 1))
    out: Tensor = network.up_fine(torch.cat([upsampled(y), fine], 1))
    return out


def _places(y: Tensor) -> Tensor:
    """Centres (3, X, Y, Z) of the voxels of a crop, in halves of its first side times :data:`HALF_SIDE`."""
    step = 2 * HALF_SIDE / y.shape[2]
    axes = [(torch.arange(n, device=y.device, dtype=torch.float32) - (n - 1) / 2) * step for n in y.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def depth_to_space(x: Tensor) -> Tensor:
    """Eight channels (B, 8, X, Y, Z) laid out as the eight voxels of each cell (B, 1, 2X, 2Y, 2Z).

    >>> depth_to_space(torch.arange(8.0).reshape(1, 8, 1, 1, 1))[0, 0, 0]
    tensor([[0., 1.],
            [2., 3.]])
    """
    n, _, i, j, k = x.shape
    cells = x.reshape(n, 2, 2, 2, i, j, k).permute(0, 4, 1, 5, 2, 6, 3)
    return cells.reshape(n, 1, 2 * i, 2 * j, 2 * k)


def scaled(image: Tensor) -> Tensor:
    """``image`` (B, 1, X, Y, Z) as the network wants it: 0 to :data:`BRIGHTEST`, where 1 is brighter than 98 % of what is above 0.

    >>> scaled(torch.tensor([-3.0, 0.0, 5.0, 10.0]).reshape(1, 1, 1, 1, 4)).flatten()
    tensor([0.0000, 0.0000, 0.5000, 1.0000])
    """
    flat = image.flatten(1)
    if flat.shape[1] > _ENOUGH:
        # by the golden section: evenly over the grid, and in step with none of its axes
        flat = flat[:, ((torch.arange(_ENOUGH, device=flat.device, dtype=torch.float64) * _GOLDEN) % 1 * flat.shape[1]).long()]
    some = flat.sort(1).values
    empty = (some <= 0).sum(1, keepdim=True)
    rank = empty + (TOP * (some.shape[1] - empty)).long()
    top = some.gather(1, rank.clamp_max(some.shape[1] - 1)).clamp_min(1e-6)
    return (image / top[:, :, None, None, None]).clamp(0, BRIGHTEST)
