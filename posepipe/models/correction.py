"""Correction-Net: regresses the residual pose between two roughly aligned images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .inputs import FOREGROUND_OFFSET, known_sizes
from .trunk import RotationHead, Trunk, VectorHead


class CorrectionNet(nn.Module):
    """The paper's correction network (Salehi et al. 2018, §2.4): a reference and a roughly oriented image in, their pose out.

    The layers are those of :class:`~posepipe.models.posenet.PoseNet`, with two channels; a second head gives a translation. The
    reference may be any image, a template or another subject: it is an input, not part of the weights.

    The answer is the pose of the moving image against the reference, both sampled on the same cube, about the
    cube's centre: ``x_moving = exp([x]×) x_reference + t``, in RAS axes; ``t`` is in halves of the cube's side, so
    that 1 is from its centre to a face and no spacing need be known.

    Raises :class:`ValueError` for options that cannot be, and in ``forward`` for other input shapes.

    >>> cube = torch.zeros(2, 1, 16, 16, 16)
    >>> rotation, translation = CorrectionNet(size=16, width=0.1).eval()(cube, cube)
    >>> rotation.shape, translation.shape
    (torch.Size([2, 3]), torch.Size([2, 3]))

    Parameters
    ----------
    size
        Side of the cube in voxels, a multiple of 16.
    width
        Factor on the number of channels and of dense units.
    foreground_offset
        Constant that :func:`~posepipe.models.inputs.with_foreground_offset` adds inside the masks, in standard deviations. With 0 the
        inputs hold intensities alone.
    sizes
        What sets the side of the cubes: "mask", the radius of each brain mask; "age", that of the atlas template of the same age.
    """

    def __init__(self, size: int = 48, width: float = 1.0, foreground_offset: float = FOREGROUND_OFFSET, sizes: str = "mask") -> None:
        super().__init__()
        self.foreground_offset, self.sizes = foreground_offset, known_sizes(sizes)
        self.trunk = Trunk(2, size, width)
        self.rotation = RotationHead(self.trunk.features)
        self.translation = VectorHead(self.trunk.features)

    def forward(self, reference: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """Rotation vectors (B, 3) in radians and translations (B, 3) in units of half the cube's side, for two cubes (B, 1, S, S, S)."""
        features = self.trunk(torch.cat([reference, moving], 1))
        return self.rotation(features), self.translation(features)
