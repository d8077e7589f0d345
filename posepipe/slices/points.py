"""What slice-to-volume registration compares: a template at three levels of blur, and the pixels of slices at the same levels.

Both are brightness inside the brain mask and 0 outside, so that the brain's outline counts as well as what is inside. A level's blur is
a Gaussian in the slice's plane, taken from the original pixels in one step; the template is blurred alike along all axes, and what a
slice's thickness exceeds that by is made up by sampling several planes (:func:`profile`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import MaskError
from ..imaging.sampling import smooth, tensor
from ..registration.target import Target
from .frames import Slice

LEVELS = ((4.0, 4.0), (2.0, 3.0), (0.8, 2.4))
"""Blur (standard deviation, mm) and distance of pixels (mm) of each level, coarse to fine. A brain is 60–150 mm long, the template's grid
has 1.6 mm; pixels are about as far apart as the blur leaves detail, and no nearer than the time for a stack allows."""
MARGIN_MM = 8.0
"""Pixels up to about so far outside a slice's mask count, mm: there the template should be dark. As for volumes, of the order of the
blur of the first level and less than the brain's own radius (30–60 mm)."""
FWHM = 2.3548
"""Full width at half maximum of a Gaussian over its standard deviation."""
THIN = 0.4
"""A profile that exceeds the template's blur by less (standard deviation, mm) is one plane; a quarter of the template's 1.6 mm grid."""


@dataclass(frozen=True, eq=False)
class TemplateLevel:
    """``fields`` (4, X, Y, Z): brightness and its gradient an mm along RAS; ``to_voxel`` (4, 4) from mm about the brain's centre."""

    fields: Tensor
    to_voxel: Tensor
    blur: float


class SliceTarget:
    """A template made ready for slices: its brightness at each of :data:`LEVELS`, made once.

    ``center`` (3,) is its brain's centre, atlas RAS mm, about which poses are fitted.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.center = np.asarray(target.brain.center, dtype=float)

    @cached_property
    def levels(self) -> tuple[TemplateLevel, ...]:
        """One for each of :data:`LEVELS`."""
        brain = self.target.brain
        raw = _brightness(brain.image, brain.mask)
        pad = int(np.ceil(2.5 * LEVELS[0][0] / brain.spacing))
        raw = F.pad(raw, (pad,) * 6)
        to_voxel = np.diag([1 / brain.spacing] * 3 + [1.0])
        to_voxel[:3, 3] = (self.center - (brain.origin - pad * brain.spacing)) / brain.spacing
        out = []
        for blur, _ in LEVELS:
            value = smooth(raw[None], (blur / brain.spacing,) * 3)[0]
            fields = torch.stack([value, *torch.gradient(value, spacing=brain.spacing)])
            out.append(TemplateLevel(fields, tensor(to_voxel, value.device), blur))
        return tuple(out)


def _brightness(image: Tensor, mask: Tensor) -> Tensor:
    """A prepared brain (mean 0, deviation 1 inside) as brightness above its own darkest per cent, times its mask."""
    inside = image[mask > 0.5]
    inside = inside[:: max(1, len(inside) // 50_000)]
    low, high = torch.quantile(inside, torch.tensor([0.01, 0.99], device=image.device)).tolist()
    return ((image - low) / max(high - low, 1e-6)).clamp(0, 1.2) * mask


@dataclass(frozen=True, eq=False)
class SlicePoints:
    """Pixels of B slices, P each: ``where`` (B, P, 2) mm along û, v̂ from the slice frame's origin; ``value`` and ``weight`` (B, P).

    Weights are 0 in what pads a slice to P pixels. ``area`` is what a pixel stands for, mm².
    """

    where: Tensor
    value: Tensor
    weight: Tensor
    area: float

    def pick(self, index: Tensor) -> SlicePoints:
        """The slices at ``index`` (n,), which may repeat."""
        return SlicePoints(self.where[index], self.value[index], self.weight[index], self.area)


class SliceBatch:
    """Slices made ready to be registered together: of one stack, or of any number of heads.

    ``slices`` may differ in shape and spacing. Raises :class:`~posepipe.errors.MaskError` where one has an empty mask.
    """

    def __init__(self, slices: Sequence[Slice], device: torch.device | str = "cpu") -> None:
        if not slices or not all(s.mask.any() for s in slices):
            msg = "every slice needs pixels inside its brain mask; leave out the others"
            raise MaskError(msg)
        self.slices, self.device = tuple(slices), device
        n_u, n_v = (max(s.grid.shape[a] for s in slices) for a in (0, 1))
        both = np.zeros((2, len(slices), n_u, n_v), dtype=np.float32)
        for i, s in enumerate(slices):
            inside = s.mask.astype(np.float32)
            top = float(np.quantile(s.image[s.mask], 0.99)) or 1.0
            both[0, i, : s.grid.shape[0], : s.grid.shape[1]] = np.clip(s.image / top, 0, 1.2) * inside
            both[1, i, : s.grid.shape[0], : s.grid.shape[1]] = inside
        self._both = tensor(both, device)
        self.thickness = tensor(np.array([s.grid.thickness for s in slices]), device)

    def __len__(self) -> int:
        return len(self.slices)

    @cached_property
    def levels(self) -> tuple[SlicePoints, ...]:
        """One for each of :data:`LEVELS`."""
        return tuple(self._level(blur, step) for blur, step in LEVELS)

    def _level(self, blur: float, step: float) -> SlicePoints:
        along = [self._axis(axis, step) for axis in (0, 1)]
        (value,) = self._blurred(self._both[:1], along, blur)
        (reach,) = self._blurred(self._both[1:], along, MARGIN_MM / 1.6)
        # outside a straight edge a blurred mask falls to 0.055 at 1.6 standard deviations
        weight = ((reach - 0.055) / 0.10).clamp(0, 1)
        grid = torch.stack(torch.broadcast_tensors(along[0][1][:, :, None], along[1][1][:, None, :]), -1)
        flat = weight.flatten(1)
        order = flat.argsort(dim=1, descending=True, stable=True)[:, : int((flat > 0).sum(1).max())]
        return SlicePoints(
            grid.flatten(1, 2).gather(1, order[..., None].expand(-1, -1, 2)),
            value.flatten(1).gather(1, order), flat.gather(1, order), step**2,
        )  # fmt: skip

    def _axis(self, axis: int, step: float) -> tuple[Tensor, Tensor]:
        """Places of the pixels (B, n) and of the level's grid (B, m) along one pixel axis, mm from the frame's origin."""
        n = self._both.shape[2 + axis]
        spacing = np.array([s.grid.spacing[axis] for s in self.slices])
        origin = np.array([-s.grid.spacing[axis] * (s.grid.shape[axis] - 1) / 2 for s in self.slices])
        hit = [np.flatnonzero(s.mask.any(1 - axis))[[0, -1]] for s in self.slices]
        spans = origin[:, None] + spacing[:, None] * np.array(hit)
        m = int(np.ceil((np.ptp(spans, axis=1).max() + 2 * MARGIN_MM) / step)) + 1
        grid = spans.mean(1)[:, None] + step * (np.arange(m) - (m - 1) / 2)
        pixels = origin[:, None] + spacing[:, None] * np.arange(n)
        return tensor(pixels, self.device), tensor(grid, self.device)

    def _blurred(self, images: Tensor, along: list[tuple[Tensor, Tensor]], blur: float) -> Tensor:
        """Images (C, B, n_u, n_v) blurred and put on the level's grid, (C, B, m_u, m_v); 0 outside the pixels."""
        kernels = []
        for axis, (pixels, grid) in enumerate(along):
            edge = tensor(np.array([s.grid.spacing[axis] for s in self.slices]), self.device)[:, None, None]
            sigma = edge.mul(0.4).clamp_min(blur)
            kernel = torch.exp(-0.5 * ((grid[:, :, None] - pixels[:, None, :]) / sigma) ** 2)
            # the sum that an endless row of pixels would have
            kernels.append(kernel * edge / (sigma * float(np.sqrt(2 * np.pi))))
        return kernels[0] @ images @ kernels[1].transpose(1, 2)


def profile(thickness: Tensor, blur: float) -> tuple[Tensor, Tensor]:
    """Places (B, K) in mm along n̂ and shares (K,) of the planes that stand for slices of ``thickness`` (B,), mm.

    The profile is Gaussian with its full width at half maximum equal to the thickness; variance that the template's ``blur`` has
    already is left out. Three planes of Gauss–Hermite quadrature, exact to the fifth power of the distance; one where little is left.
    """
    left = ((thickness / FWHM) ** 2 - blur**2).clamp_min(0).sqrt()
    if float(left.max()) < THIN:
        return torch.zeros_like(left)[:, None], torch.ones(1, device=left.device)
    nodes = torch.tensor([-1.0, 0.0, 1.0], device=left.device) * float(np.sqrt(3.0))
    return left[:, None] * nodes, torch.tensor([1 / 6, 2 / 3, 1 / 6], device=left.device)
