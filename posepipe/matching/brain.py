"""A brain resampled for pose estimation: an isotropic, coarse grid, with the mask's centre and size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import MaskError
from ..geometry.so3 import Array
from ..imaging.moments import Moments, moments
from ..imaging.sampling import sample, smooth, tensor
from ..imaging.volume import Volume


@dataclass(frozen=True, eq=False)
class Brain:
    """``image`` and ``mask`` (X, Y, Z) on an isotropic RAS grid of ``spacing`` mm, centred on the mask.

    ``image`` has mean 0 and standard deviation 1 inside the mask and is 0 outside. ``mask`` is the fraction of brain in each voxel,
    0 to 1. ``origin`` (3,) is the world position (RAS mm) of voxel 0; ``moments`` are those of the mask at full resolution.
    """

    image: Tensor
    mask: Tensor
    origin: Array
    spacing: float
    moments: Moments

    @classmethod
    def prepare(cls, volume: Volume, mask: Volume, spacing: float, device: torch.device | str = "cpu") -> Brain:
        """Resample ``volume`` inside ``mask`` (same grid) to ``spacing`` mm, after a blur that matches the coarser spacing.

        The blur is a normalised convolution inside the mask, so that the background has no influence.
        """
        m = moments(mask)
        box = bounding_box(mask.data, mask.source)
        weight = tensor(mask.data[box], device)
        raw = tensor(volume.data[box], device) * weight
        affine = volume.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [s.start for s in box]
        low, high = _window(raw, weight)
        raw = ((raw.clamp(low, high) - low) / (high - low)) * weight
        sigma = tuple(0.42 * np.sqrt(max(spacing**2 - v**2, 0.0)) / v for v in volume.spacing)
        both = smooth(torch.stack([raw, weight]), (sigma[0], sigma[1], sigma[2]))
        corners = np.array(np.meshgrid(*[[0, n - 1] for n in weight.shape])).reshape(3, -1)
        world = affine[:3, :3] @ corners + affine[:3, 3:]
        half = np.ceil(np.abs(world - m.center[:, None]).max(1) / spacing).astype(int) + 1
        origin = m.center - half * spacing
        axes = [o + spacing * np.arange(2 * h + 1) for o, h in zip(origin, half, strict=True)]
        points = torch.stack(torch.meshgrid(*[tensor(a, device) for a in axes], indexing="ij"), -1)
        both = sample(both, tensor(np.linalg.inv(affine), device), points)
        inside = both[1]
        image = torch.where(inside > 0.05, both[0] / inside.clamp_min(0.05), torch.zeros_like(inside))
        image = _standardise(image, inside)
        return cls(*_trim(image, inside, origin, spacing), spacing, m)

    def coarser(self, step: int) -> Brain:
        """The same brain at ``step`` times the spacing, after a blur inside the mask."""
        sigma = (0.42 * float(np.sqrt(step**2 - 1)),) * 3
        both = smooth(torch.stack([self.image * self.mask, self.mask]), sigma)[:, ::step, ::step, ::step]
        inside = both[1].contiguous()
        image = torch.where(inside > 0.05, both[0] / inside.clamp_min(0.05), torch.zeros_like(inside))
        return Brain(_standardise(image, inside), inside, self.origin, self.spacing * step, self.moments)

    @property
    def center(self) -> Array:
        """Centre of the mask (3,), RAS mm."""
        return self.moments.center

    @property
    def stack(self) -> Tensor:
        """``image`` times ``mask``, and ``mask`` (2, X, Y, Z)."""
        return torch.stack([self.image * self.mask, self.mask])

    @property
    def radius(self) -> float:
        """Radius of the ball with the same second moments as the mask, mm."""
        return self.moments.radius

    @property
    def world_to_voxel(self) -> Tensor:
        """(4, 4): world RAS mm → index into ``image``."""
        m = np.eye(4) / self.spacing
        m[:3, 3] = -self.origin / self.spacing
        m[3, 3] = 1
        return tensor(m, self.image.device)


def bounding_box(mask: np.ndarray, source: str) -> tuple[slice, slice, slice]:
    """Bounding box of ``mask`` with a margin of one voxel; raises :class:`~posepipe.errors.MaskError` for an empty mask."""
    spans = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(hit):
            msg = f"{source}: the mask is empty"
            raise MaskError(msg)
        spans.append(slice(max(int(hit[0]) - 1, 0), min(int(hit[-1]) + 2, mask.shape[axis])))
    return spans[0], spans[1], spans[2]


def _window(raw: Tensor, weight: Tensor) -> tuple[float, float]:
    """1st and 99th percentile inside the mask, from at most 50,000 voxels."""
    values = raw[weight > 0.5]
    values = values[:: max(1, len(values) // 50_000)]
    low, high = torch.quantile(values, torch.tensor([0.01, 0.99], device=raw.device)).tolist()
    return (low, high) if high > low else (low, low + 1.0)


def _standardise(image: Tensor, weight: Tensor) -> Tensor:
    # double precision: the last digits of float32 sums depend on the number of threads, which changed ANTs' result by up to 0.1°
    value, share = image.double(), weight.double()
    total = share.sum()
    mean = (value * share).sum() / total
    deviation = (((value - mean) ** 2 * share).sum() / total).sqrt().clamp_min(1e-6)
    mean, deviation = mean.float(), deviation.float()
    return torch.where(weight > 0.05, (image - mean) / deviation, torch.zeros_like(image))


def _trim(image: Tensor, mask: Tensor, origin: Array, spacing: float) -> tuple[Tensor, Tensor, Array]:
    hit = [(mask > 0.05).any(dim=b).any(dim=a).nonzero() for a, b in ((1, 2), (0, 2), (0, 1))]
    spans = [(max(int(h[0]) - 1, 0), int(h[-1]) + 2) for h in hit]
    box = tuple(slice(a, b) for a, b in spans)
    return image[box].contiguous(), mask[box].contiguous(), origin + spacing * np.array([a for a, _ in spans])
