"""Finding the brain in whatever was scanned: a small 3D U-Net that says of each voxel whether it is brain.

Three of them work together (:mod:`posepipe.registration.masking`): one sees the whole image on a coarse grid, one the neighbourhood of
the brain it found, one draws the outline. Contrast, pose, age and surroundings are random in training, as in SynthStrip (Hoopes et al.
2022).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Encoder, Layer, doubled

COARSE_MM = 6.0
"""Spacing of the grid on which the whole image is looked at."""
TOP = 0.98
"""Share of the voxels above 0 that are darker than what counts as 1."""
BRIGHTEST = 1.5
_ENOUGH, _GOLDEN = 4096, 0.6180339887498949


class MaskNet(Encoder):
    """U-Net (B, 1, X, Y, Z) → logits of being brain on the same grid; X, Y, Z are multiples of 16 (four halvings).

    ``size`` is the side of the cubes it was trained on. ``width`` gives the channels from fine to coarse; the finest grid of features is
    half the input's, whose eight voxels a cell are told apart by the head alone.
    """

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
        y = self.narrow_coarse(self.up_coarse(torch.cat([doubled(y), coarse], 1)))
        y = self.narrow_middle(self.up_middle(torch.cat([doubled(y), middle], 1)))
        return spread(self.head(self.up_fine(torch.cat([doubled(y), fine], 1))).float())


def spread(x: Tensor) -> Tensor:
    """Eight channels (B, 8, X, Y, Z) laid out as the eight voxels of each cell (B, 1, 2X, 2Y, 2Z).

    >>> spread(torch.arange(8.0).reshape(1, 8, 1, 1, 1))[0, 0, 0]
    tensor([[0., 1.],
            [2., 3.]])
    """
    n, _, i, j, k = x.shape
    cells = x.reshape(n, 2, 2, 2, i, j, k).permute(0, 4, 1, 5, 2, 6, 3)
    return cells.reshape(n, 1, 2 * i, 2 * j, 2 * k)


def scaled(image: Tensor) -> Tensor:
    """``image`` (B, 1, X, Y, Z) as the networks want it: 0 to :data:`BRIGHTEST`, where 1 is brighter than 98 % of what is above 0.

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
