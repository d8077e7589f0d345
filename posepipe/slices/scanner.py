"""Simulated acquisition of slices of a head in a known pose: one interpolation, with the slice profile."""

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
"""Full width at half maximum of a pixel's response in the plane, in pixels (after SVoRT)."""
PLANES = 9
"""Planes that a slice's profile is summed over, within ±2.2 standard deviations (97 % of it)."""


class SliceScanner:
    """Acquires slices of ``volume`` inside its ``mask`` (same grid) with pixels of ``pixel`` mm.

    The response is a separable Gaussian: :data:`IN_PLANE` pixels wide in the plane, and as wide as the slice thickness across it. Its
    isotropic part is applied to the volume once; the remainder is summed along each slice's normal.
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
        """The slice on ``grid`` of the head in the pose ``moved`` (world of the volume → world of ``grid``, RAS mm).

        Its mask holds the pixels with at least half of the profile inside the brain.
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
