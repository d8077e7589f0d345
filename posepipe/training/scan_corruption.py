"""Random corruption of scans as of echo-planar and diffusion imaging: distortion, ghosts, signal loss and low contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .fields import blurred, chance, smooth_field, uniform


@dataclass(frozen=True)
class ScanCorruption:
    """Probabilities. ``distorted``: smooth displacement along one axis, of a standard deviation up to ``distance`` (in units of half the
    cube's side); ``ghosts``: a faint copy, shifted along an axis; ``losses``: local signal loss; ``flat``: low contrast inside the brain;
    ``coarse``: blur, as of a grid up to twice as coarse."""

    distorted: float = 0.3
    distance: float = 0.06
    ghosts: float = 0.2
    losses: float = 0.3
    flat: float = 0.5
    coarse: float = 0.3

    def none(self) -> ScanCorruption:
        """The same with all probabilities 0."""
        return ScanCorruption(0, 0, 0, 0, 0, 0)

    def displacement(self, n: int, side: int, rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        """Random displacements (n, side³, 3) in units of half the cube's side; zeros (n, 1, 3), which broadcast, if no crop is
        distorted."""
        some = rng.random(n) < self.distorted
        out = torch.zeros(n, side**3 if some.any() else 1, 3)
        for i in np.flatnonzero(some):
            field = smooth_field(1, 1, side, 5, generator).flatten()
            out[i, :, int(rng.integers(3))] = field * self.distance * float(rng.random())
        return out


def epi_like(image: Tensor, brain: Tensor, how: ScanCorruption, generator: torch.Generator) -> Tensor:
    """``image`` (B, 1, S, S, S) ≥ 0 with the intensity corruption of ``how``; ``brain`` (alike): share of each voxel that is brain."""
    n, side = len(image), image.shape[-1]
    some = brain.flatten(1).sum(1).clamp_min(1)
    mean = ((image * brain).flatten(1).sum(1) / some)[:, None, None, None, None]
    flat = chance(n, how.flat, generator) * uniform(n, 0.2, 0.95, generator)
    image = image + flat * brain * (mean - image)
    for i in (torch.rand(n, generator=generator) < how.losses).nonzero().flatten().tolist():
        for _ in range(3):
            blob = (smooth_field(1, 1, side, 5, generator) - 0.7).clamp(0, 1)
            image[i] = image[i] * (1 - blob[0] * float(torch.rand(1, generator=generator)))
    for i in (torch.rand(n, generator=generator) < how.ghosts).nonzero().flatten().tolist():
        axis, by = int(torch.randint(3, (1,), generator=generator)), int(torch.randint(side // 4, side, (1,), generator=generator))
        image[i] = image[i] + 0.25 * float(torch.rand(1, generator=generator)) * image[i].roll(by, 1 + axis)
    for i in (torch.rand(n, generator=generator) < how.coarse).nonzero().flatten().tolist():
        image[i : i + 1] = blurred(image[i : i + 1], float(uniform(1, 0.4, 1.2, generator)))
    return image
