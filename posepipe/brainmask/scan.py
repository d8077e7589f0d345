"""Network inputs from a scan: crops at any position and orientation, and resampling of predictions to the scan's grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.so3 import Array
from ..imaging.intensity import from_zero
from ..imaging.sampling import sample, tensor
from ..imaging.volume import Volume


@dataclass(frozen=True, eq=False)
class Frame:
    """The grid of a crop: ``counts`` voxels with a spacing of ``step`` mm along ``axes`` (columns, (3, 3)), centred on ``center`` (3,).
    Scan coordinates: mm along the axes of the scan's grid, from its first voxel."""

    center: Array
    step: float
    counts: tuple[int, int, int]
    axes: Array

    @classmethod
    def about(cls, center: Array, half: float, side: int, axes: Array | None = None) -> Frame:
        """A cube of ``side`` voxels with half the edge ``half``, mm, centred on ``center`` (3,)."""
        return cls(center, 2 * half / side, (side,) * 3, np.eye(3) if axes is None else axes)

    def points(self, device: torch.device) -> Tensor:
        """Scan coordinates (X, Y, Z, 3) of its voxels."""
        along = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in self.counts], indexing="ij"), -1)
        return tensor(self.center + self.step * along @ self.axes.T, device)

    @property
    def affine(self) -> Array:
        """Affine (4, 4) from voxels of the crop to scan coordinates."""
        out = np.eye(4)
        out[:3, :3] = self.step * self.axes
        out[:3, 3] = self.center - out[:3, :3] @ ((np.array(self.counts) - 1) / 2)
        return out


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan on its own grid: intensities ``data`` (1, X, Y, Z) and ``spacing`` (3,), mm."""

    data: Tensor
    spacing: Array

    @classmethod
    def of(cls, image: Volume, device: torch.device) -> Scan:
        """From ``image``, with intensities shifted to start at 0 (:func:`~posepipe.imaging.intensity.from_zero`)."""
        return cls(tensor(from_zero(image.data), device)[None], image.spacing)

    @property
    def size(self) -> Array:
        """Extent along each axis (3,), mm, between the centres of the outermost voxels."""
        return (np.array(self.data.shape[1:]) - 1) * self.spacing

    def crop(self, frame: Frame) -> Tensor:
        """The scan resampled to ``frame`` (1, 1, X, Y, Z), after averaging over blocks of about the frame's step; 0 outside the scan."""
        block = np.maximum(np.round(frame.step / self.spacing), 1).astype(int)
        block = np.minimum(block, self.data.shape[1:])
        means = F.avg_pool3d(self.data, tuple(block.tolist())) if block.max() > 1 else self.data
        # replicate padding: points in the outer half of the outermost voxels lie inside the scan
        means = F.pad(means[None], (1,) * 6, mode="replicate")[0]
        to_voxel = np.eye(4)
        to_voxel[[0, 1, 2], [0, 1, 2]] = 1 / (self.spacing * block)
        to_voxel[:3, 3] = 1 - (block - 1) / 2 / block
        return sample(means, tensor(to_voxel, self.data.device), frame.points(self.data.device))[None]

    def read_back(self, likely: Tensor, frame: Frame) -> np.ndarray:
        """Probabilities ``likely`` (X, Y, Z) on ``frame`` resampled to the voxels of the scan; 0 outside the frame."""
        shape = np.array(self.data.shape[1:])
        half = np.abs(frame.axes) @ ((np.array(frame.counts) - 1) / 2 * frame.step)
        low = np.clip(np.ceil((frame.center - half) / self.spacing), 0, shape).astype(int)
        high = np.clip(np.floor((frame.center + half) / self.spacing).astype(int) + 1, low, shape)
        places = [np.arange(a, b) * s for a, b, s in zip(low, high, self.spacing, strict=True)]
        where = tensor(np.stack(np.meshgrid(*places, indexing="ij"), -1), likely.device)
        to_voxel = tensor(np.linalg.inv(frame.affine), likely.device)
        index = where @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        inside = ((index >= 0) & (index <= tensor(np.array(frame.counts) - 1, likely.device))).all(-1)
        out = np.zeros(shape, dtype=np.float32)
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        out[box] = (sample(likely[None], to_voxel, where)[0] * inside).cpu().numpy()
        return out
