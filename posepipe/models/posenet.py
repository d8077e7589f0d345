"""Pose-Net: regresses a rotation from one image."""

from __future__ import annotations

from torch import Tensor, nn

from .inputs import FOREGROUND_OFFSET, known_sizes
from .trunk import RotationHead, Trunk


class PoseNet(nn.Module):
    """The paper's 3D-to-3D pose network (Salehi et al. 2018, §2.3): a cube in, the rotation vector of its pose out.

    The layers, and how they depart from the paper (a cube of ``size`` voxels a side instead of 120; one more pooling before
    the dense layers): :class:`~posepipe.models.trunk.Trunk`. 2.7 million weights at any size.

    The answer is the rotation of the pose: ``exp([x]×)`` takes atlas directions to image directions, in the RAS
    axes of the cube. The head, ``π tanh``, covers each rotation once inside the ball of radius π, and jumps at its border.

    Raises :class:`ValueError` for options that cannot be, and in ``forward`` for another input shape.

    >>> import torch
    >>> PoseNet(size=16, width=0.1).eval()(torch.zeros(2, 1, 16, 16, 16)).shape
    torch.Size([2, 3])

    Parameters
    ----------
    size
        Side of the cube in voxels, a multiple of 16.
    width
        Factor on the number of channels and of dense units.
    foreground_offset
        Constant that :func:`~posepipe.models.inputs.with_foreground_offset` adds inside the mask, in standard deviations. With 0 the
        input holds intensities alone.
    sizes
        What sets the side of the cube: "mask", the radius of the brain mask; "age", that of the atlas template of the same age (the
        paper's GA scale parameter).
    """

    def __init__(self, size: int = 48, width: float = 1.0, foreground_offset: float = FOREGROUND_OFFSET, sizes: str = "mask") -> None:
        super().__init__()
        self.foreground_offset, self.sizes = foreground_offset, known_sizes(sizes)
        self.trunk = Trunk(1, size, width)
        self.rotation = RotationHead(self.trunk.features)

    def forward(self, cube: Tensor) -> Tensor:
        """Rotation vectors (B, 3), radians, each component in [−π, π], of ``cube`` (B, 1, S, S, S)."""
        rotation: Tensor = self.rotation(self.trunk(cube))
        return rotation
