"""Random corruption of single slices: spin-history bands, signal voids, motion within the slice, and a missing mask.

Images and masks are (B, 1, S, S); the side is ``2 HALF_SIDE`` brain radii; brain intensities are about 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.coordinates import HALF_SIDE, grid_points
from .corruption import Corruption, corrupt
from .fields import blurred, chance, smooth_field, uniform


@dataclass(frozen=True)
class SliceCorruption(Corruption):
    """The kinds of corruption of volumes, in the plane of the slice, and these with their probabilities:

    ``bands``: one or two dark stripes (spin history: tissue that another slice has just excited); ``voids``: partial or complete signal
    loss about a point; ``moved``: a ghost shifted by a few pixels; ``soft``: blur of up to two pixels; ``absent``: no mask is given, and
    the image shows surroundings of the brain (in a third of these cases background 0).
    """

    cut: float = 0.1
    leak: float = 0.2
    rim: float = 0.6
    rim_radii: float = 0.1
    texture: float = 0.12
    noise: float = 0.2
    thick: float = 0.0
    bands: float = 0.2
    voids: float = 0.1
    moved: float = 0.2
    soft: float = 0.3
    absent: float = 0.2

    def none(self) -> SliceCorruption:
        """The same with all probabilities and strengths 0."""
        return SliceCorruption(*[0.0] * 13)


def corrupt_slice(image: Tensor, mask: Tensor, how: SliceCorruption, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """``image`` and ``mask`` → corrupted image; observed mask, 1 everywhere where none is given; and the true brain inside the observed
    mask."""
    n = len(image)
    out, observed, brain = corrupt(image, mask, how, generator)
    absent = chance(n, how.absent, generator, axes=2) > 0
    out = torch.where(absent & (mask <= 0.05), _surroundings(mask, generator), out)
    if how.soft:
        soft = chance(n, how.soft, generator, axes=2)
        out = soft * blurred(out, 2 * float(torch.rand(1, generator=generator, device=image.device))) + (1 - soft) * out
    if how.moved:
        out = _ghosts(out, how.moved, generator)
    out = out * _bands(out, how.bands, generator) * _voids(out, how.voids, generator)
    return out, torch.where(absent, torch.ones_like(observed), observed), torch.where(absent, mask, brain)


def _surroundings(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Synthetic fluid, bone and skin about ``mask``, and beyond them tissue of two intensities; 0 in a third of the batch."""
    n, side = len(mask), mask.shape[-1]
    voxel = 2 * HALF_SIDE / side
    far = blurred(mask, 0.14 / voxel)
    wave = smooth_field(n, 2, side, 9, generator, axes=2)
    out = torch.where(wave[:, :1] > 0, uniform(n, 0, 1, generator, axes=2), uniform(n, 0, 1, generator, axes=2))
    # the blurred mask falls from a half at the border to nearly 0 at 0.3 radii outside
    for level in (0.01, 0.05, 0.2):
        out = torch.where(far > level * uniform(n, 0.5, 1.5, generator, axes=2), uniform(n, 0, 1, generator, axes=2), out)
    out = (out + 0.1 * wave[:, 1:]).clamp_min(0)
    return out * (1 - chance(n, 1 / 3, generator, axes=2))


def _ghosts(image: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    n, device = len(image), image.device
    strength = chance(n, probability, generator, axes=2) * uniform(n, 0.05, 0.35, generator, axes=2)
    axis = chance(n, 0.5, generator, axes=2)
    far = int(torch.randint(1, max(image.shape[-1] // 10, 2), (1,), generator=generator, device=device))
    ghost = axis * image.roll(far, 2) + (1 - axis) * image.roll(far, 3)
    return (1 - strength) * image + strength * ghost


def _bands(image: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Factors (B, 1, S, S) of the signal: below 1 in a stripe, else 1."""
    n, side = len(image), image.shape[-1]
    points = grid_points(side, 2, device=image.device)
    angle = uniform(n, 0, torch.pi, generator, axes=2).flatten()
    height = (torch.stack([angle.cos(), angle.sin()], 1) @ points.T).reshape(n, 1, side, side)
    use, out = chance(n, probability, generator, axes=2), torch.ones_like(image)
    for _ in range(2):
        place, width = uniform(n, -0.9, 0.9, generator, axes=2), uniform(n, 0.04, 0.15, generator, axes=2)
        out = out * (1 - use * uniform(n, 0.3, 0.9, generator, axes=2) * torch.exp(-(((height - place) / width) ** 2)))
        use = use * chance(n, 0.5, generator, axes=2)
    return out


def _voids(image: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Factors (B, 1, S, S) of the signal: below 1 near the centre of a void, 1 far from it."""
    n, side = len(image), image.shape[-1]
    points = grid_points(side, 2, device=image.device)
    center = 1.6 * (torch.rand(n, 2, generator=generator, device=image.device) - 0.5)
    distance = torch.cdist(center, points).reshape(n, 1, side, side)
    use, width = chance(n, probability, generator, axes=2), uniform(n, 0.15, 0.6, generator, axes=2)
    return 1 - use * uniform(n, 0.5, 1, generator, axes=2) * torch.exp(-0.5 * (distance / width) ** 2)
