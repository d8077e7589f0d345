"""Slices as a scanner would see them, of a head whose place is known: one interpolation, with the profile of a slice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ..geometry import Rigid
from ..imaging.sampling import sample, smooth, tensor
from ..imaging.volume import Volume
from .frames import Slice, SliceGrid
from .points import FWHM

IN_PLANE = 1.2
"""Full width at half maximum of a pixel's response in the plane, in pixels (METHODS §4, after SVoRT)."""
PLANES = 9
"""Planes that a slice's profile is summed over, within ±2.2 standard deviations (97 % of it)."""


class SliceScanner:
    """A head that slices are acquired of: ``volume`` inside its ``mask`` (same grid), seen with pixels of ``pixel`` mm.

    The response is a separable Gaussian: :data:`IN_PLANE` pixels wide in the plane, as wide as the slice is thick across it. Its part
    that is alike along all axes blurs the volume once; the rest is summed along each slice's normal.
    """

    def __init__(self, volume: Volume, mask: Volume, pixel: float) -> None:
        inside = np.asarray(mask.data) > 0
        self.blur = IN_PLANE * pixel / FWHM
        raw = tensor(np.where(inside, volume.data, 0))[None]
        # trilinear reading blurs by about 0.4 voxels as well
        sigma = [float(np.sqrt(max((self.blur / v) ** 2 - 0.16, 0.0))) for v in volume.spacing]
        both = torch.cat([smooth(raw, (sigma[0], sigma[1], sigma[2])), tensor(inside)[None]])
        self._both, self._to_voxel = both, tensor(np.linalg.inv(volume.affine))

    def acquire(self, grid: SliceGrid, moved: Rigid, index: int = 0) -> Slice:
        """The slice of ``grid`` while the head is ``moved`` (the volume's world → the world of ``grid``, RAS mm).

        Its mask is where at least half of the profile is brain.
        """
        left = np.sqrt(max((grid.thickness / FWHM) ** 2 - self.blur**2, 0.0))
        offsets = np.linspace(-2.2, 2.2, PLANES) * left if left > 0.05 else np.zeros(1)
        shares = np.exp(-0.5 * (offsets / max(left, 1e-6)) ** 2)
        points = (~moved).apply(grid.points)
        step = (~moved).rotation @ grid.normal
        where = tensor(points)[None] + tensor(offsets)[:, None, None, None] * tensor(step)
        seen = torch.einsum("ckuv,k->cuv", sample(self._both, self._to_voxel, where), tensor(shares / shares.sum()))
        image: npt.NDArray[np.float32] = seen[0].numpy()
        return Slice(grid, image, seen[1].numpy() >= 0.5, index)
