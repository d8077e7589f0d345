"""A scan as the mask networks look at it: cubes about a place, what is seen in them, and that read back on the scan's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.so3 import Array
from ..imaging.mask import MIN_MILLILITRES, largest_piece
from ..imaging.moments import Moments, moments
from ..imaging.sampling import sample, tensor
from ..imaging.volume import Volume

STRAIGHT = np.eye(3)


@dataclass(frozen=True, eq=False)
class Scan:
    """Intensities ``data`` (1, X, Y, Z), and ``spacing`` (3,) in mm. Places are in mm along the axes of the grid from the first voxel."""

    data: Tensor
    spacing: Array

    @classmethod
    def of(cls, image: Volume, device: torch.device) -> Scan:
        """Of ``image``, nothing below 0."""
        return cls(tensor(image.data, device)[None].clamp_min(0), image.spacing)

    def darker(self, power: float) -> Scan:
        """The same with its brightness, relative to the brightest, raised to ``power``."""
        top = self.data.max()
        return self if power == 1 else Scan(top * (self.data / top) ** power, self.spacing)

    def cube(self, center: Array, step: float, counts: tuple[int, int, int], axes: Array = STRAIGHT) -> Tensor:
        """(1, 1, *counts): block means about as coarse as ``step`` mm, read at points ``step`` apart along ``axes`` about ``center``; 0
        outside."""
        block = np.maximum(np.round(step / self.spacing), 1).astype(int)
        block = np.minimum(block, self.data.shape[1:])
        means = F.avg_pool3d(self.data, tuple(block.tolist())) if block.max() > 1 else self.data
        # a voxel is a box: what lies within the outermost ones is inside, though beyond their centres
        means = F.pad(means[None], (1,) * 6, mode="replicate")[0]
        to_voxel = np.eye(4)
        to_voxel[[0, 1, 2], [0, 1, 2]] = 1 / (self.spacing * block)
        to_voxel[:3, 3] = 1 - (block - 1) / 2 / block
        return sample(means, tensor(to_voxel, self.data.device), _grid(center, step, counts, axes, self.data.device))[None]


@dataclass(frozen=True, eq=False)
class Look:
    """A look at a brain. ``likely`` (S, S, S): probabilities of brain, ``step`` mm apart along ``axes`` about ``center``; ``about`` is
    what of it was seen, ``sure`` the mean probability there."""

    likely: Tensor
    center: Array
    step: float
    about: Moments
    sure: float
    axes: Array


def seen_in(likely: Tensor, center: Array, step: float, axes: Array = STRAIGHT) -> Look | None:
    """What of a brain is to be seen in a look; None: less than any brain holds."""
    p = likely.cpu().numpy()
    piece, count = largest_piece(p > 0.5)
    if not count:
        return None
    inside = np.where(piece, p, 0)
    about = moments_of(inside, center - axes.sum(1) * (len(p) - 1) / 2 * step, step, axes)
    sure = float((inside**2).sum() / inside.sum())
    return None if about.millilitres < MIN_MILLILITRES else Look(likely, center, step, about, sure, axes)


def moved_by(about: Moments, center: Array, radius: float) -> float:
    """By how much, of its radius, a brain is elsewhere or of another size than about ``center`` with ``radius``."""
    return max(float(np.linalg.norm(about.center - center)), abs(about.radius - radius)) / about.radius


def _grid(center: Array, step: float, counts: tuple[int, int, int], axes: Array, device: torch.device) -> Tensor:
    along = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in counts], indexing="ij"), -1)
    return tensor(center + step * along @ axes.T, device)


def moments_of(p: np.ndarray, first: Array, step: float, axes: Array = STRAIGHT) -> Moments:
    affine = np.eye(4)
    affine[:3, :3] = step * axes
    affine[:3, 3] = first
    return moments(Volume(p, affine))


def read_back(looks: Sequence[Look], scan: Scan) -> np.ndarray:
    """The probability of brain in the last of the ``looks`` that reaches it at each voxel of ``scan`` (X, Y, Z); 0 where none does."""
    shape = scan.data.shape[1:]
    out = np.zeros(shape, dtype=np.float32)
    for look in looks:
        step, device, last = look.step, look.likely.device, look.likely.shape[0] - 1
        half = last / 2 * step * np.abs(look.axes).sum(1)
        low = np.maximum(np.ceil((look.center - half) / scan.spacing), 0).astype(int)
        high = np.minimum(np.floor((look.center + half) / scan.spacing).astype(int) + 1, shape)
        places = [np.arange(a, b) * s for a, b, s in zip(low, high, scan.spacing, strict=True)]
        where = tensor(np.stack(np.meshgrid(*places, indexing="ij"), -1), device)
        to_voxel = np.eye(4)
        to_voxel[:3, :3] = look.axes.T / step
        to_voxel[:3, 3] = last / 2 - to_voxel[:3, :3] @ look.center
        likely = sample(look.likely[None], tensor(to_voxel, device), where)[0].cpu().numpy()
        index = where @ tensor(to_voxel[:3, :3].T, device) + tensor(to_voxel[:3, 3], device)
        box = out[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
        reached = ((index >= 0) & (index <= last)).all(-1).cpu().numpy()
        box[reached] = likely[reached]
    return out
