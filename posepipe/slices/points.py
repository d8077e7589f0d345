"""Data for slice-to-volume registration: a template at three levels of blur, and the pixels of slices at the same levels.

There are two channels, as for volumes (:mod:`posepipe.matching.channels`). *Brightness*: intensity plus a foreground offset on an empty
background, so that the brain's outline contributes as well as its inside. *Texture*: locally normalised intensity, independent of the bias
field and the mask's boundary. The blur of a level is an in-plane Gaussian, computed from the original pixels in one step. The template's
blur is isotropic; the remaining thickness of a slice is accounted for by sampling several planes (:func:`profile`).
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
from ..geometry.so3 import Array
from ..imaging.sampling import sample, smooth, tensor
from ..matching.channels import TEXTURE_EROSION_MM, TEXTURE_WINDOW_MM
from ..matching.target import SPACING, Target
from ..models.coordinates import cube_points, grid_points
from ..models.slices import EXTENT_CELLS
from .frames import MidsagittalPlane, Slice

LEVELS = ((4.0, 4.0), (2.0, 3.0), (0.8, 2.4))
"""Blur (standard deviation, mm) and pixel spacing (mm) of each level, coarse to fine. A brain is 60–150 mm long, the template's grid has
1.6 mm. The spacing matches the blur, with a lower limit for the computing time of a stack."""
FOREGROUND_OFFSET = 1.0
"""Offset of the brain above the background in the brightness channel for the registration of single slices, in units of the brain's 99th
percentile. Chosen from 0, 0.5, 1 and 2 by registration from starts 10° off on the brains of :mod:`posepipe.bench.slice_register`
(docs/decisions/033). Without it dark tissue is confused with background."""
MARGIN_MM = 8.0
"""Pixels up to about this distance outside a slice's mask have weight, mm: the template should be dark there. As for volumes, of the order
of the blur of the first level and less than the brain's radius (30–60 mm)."""
FWHM = 2.3548
"""Full width at half maximum of a Gaussian over its standard deviation."""
LEAST_INSIDE_MM2 = 200.0
"""If the eroded mask is smaller than this, mm² (a disc 16 mm wide), the mask is not eroded."""
THIN = 0.4
"""Standard deviation (mm) of the remaining slice profile below which one plane is sampled; a quarter of the template's 1.6 mm grid."""


@dataclass(frozen=True, eq=False)
class TemplateLevel:
    """``fields`` (8, X, Y, Z): brightness with offset and its gradient per mm along RAS, then the same of texture; ``to_voxel`` (4, 4) from
    mm about the brain's centre."""

    fields: Tensor
    to_voxel: Tensor
    blur: float


class SliceTarget:
    """A template prepared for slice registration at each of :data:`LEVELS`; computed once.

    ``center`` (3,) is its brain's centre, atlas RAS mm, the centre of rotation in the fit.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._levels: dict[float, tuple[TemplateLevel, ...]] = {}
        self.center = np.asarray(target.brain.center, dtype=float)

    @property
    def to_canonical(self) -> Array:
        """Rotation (3, 3) of the atlas to the canonical frame; the identity if it is not known."""
        known = self.target.to_canonical
        return np.eye(3) if known is None else np.asarray(known, dtype=float)

    @property
    def plane(self) -> MidsagittalPlane:
        """The plane about which its brain is nearly symmetric."""
        return MidsagittalPlane.of(self.to_canonical, self.center)

    @cached_property
    def cells(self) -> Array:
        """Canonical coordinates (n, 3), in brain radii, of a coarse grid of brain cells, which define the brain's extent for the slice
        numbers of networks (:data:`~posepipe.models.slices.EXTENT_CELLS`)."""
        brain = self.target.brain
        device = brain.image.device
        side = 2 * EXTENT_CELLS
        world = brain.radius * cube_points(side, device=device) @ tensor(self.to_canonical, device) + tensor(self.center, device)
        share = F.avg_pool3d(sample(brain.mask[None], brain.world_to_voxel, world).reshape(1, side, side, side), 2)
        places: Array = grid_points(EXTENT_CELLS, 3).double().numpy()
        return places[(share.flatten() > 0.5).cpu().numpy()]

    def levels(self, foreground_offset: float = FOREGROUND_OFFSET) -> tuple[TemplateLevel, ...]:
        """One for each of :data:`LEVELS`, the background ``foreground_offset`` below the brain; made once."""
        if foreground_offset not in self._levels:
            self._levels[foreground_offset] = self._made(foreground_offset)
        return self._levels[foreground_offset]

    def _made(self, foreground_offset: float) -> tuple[TemplateLevel, ...]:
        brain = self.target.brain
        pad = int(np.ceil(2.5 * LEVELS[0][0] / brain.spacing))
        image, mask = F.pad(brain.image, (pad,) * 6), F.pad(brain.mask, (pad,) * 6)
        inside = image[mask > 0.5]
        low, high = torch.quantile(inside[:: max(1, len(inside) // 50_000)], torch.tensor([0.01, 0.99], device=image.device)).tolist()
        raw = (foreground_offset + ((image - low) / max(high - low, 1e-6)).clamp(0, 1.2)) * mask
        window = (TEXTURE_WINDOW_MM / brain.spacing,) * 3
        total, first, second = smooth(torch.stack([mask, image * mask, image * image * mask]), window)
        both = torch.stack([raw, _texture(image, mask, total, first, second)])
        to_voxel = np.diag([1 / brain.spacing] * 3 + [1.0])
        to_voxel[:3, 3] = (self.center - (brain.origin - pad * brain.spacing)) / brain.spacing
        out = []
        for blur, _ in LEVELS:
            outline, texture = smooth(both, (blur / brain.spacing,) * 3)
            fields = [f for value in (outline, texture) for f in (value, *torch.gradient(value, spacing=brain.spacing))]
            out.append(TemplateLevel(torch.stack(fields), tensor(to_voxel, image.device), blur))
        return tuple(out)


def _texture(image: Tensor, mask: Tensor, total: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """``image`` (deviation about 1) relative to its surroundings, times ``mask``; the others are the blurred mask and moments."""
    total = total.clamp_min(1e-2)
    spread = (second / total - (first / total) ** 2).clamp_min(0)
    return (image - first / total) / (spread + 0.05).sqrt() * mask


@dataclass(frozen=True, eq=False)
class SlicePoints:
    """Pixels of B slices, P each: ``where`` (B, P, 2) mm along û, v̂ from the slice frame's origin; ``value`` and ``weight`` (B, 2, P),
    of brightness and of texture.

    Weights are 0 in the padding to P pixels. ``area`` is the area of a pixel, mm².
    """

    where: Tensor
    value: Tensor
    weight: Tensor
    area: float

    def pick(self, index: Tensor) -> SlicePoints:
        """The slices at ``index`` (n,), which may repeat."""
        return SlicePoints(self.where[index], self.value[index], self.weight[index], self.area)


class SliceBatch:
    """Slices prepared for joint registration, of one stack or of any number of heads.

    ``slices`` may differ in shape and spacing. Raises :class:`~posepipe.errors.MaskError` if one has an empty mask.
    """

    def __init__(self, slices: Sequence[Slice], device: torch.device | str = "cpu") -> None:
        if not slices or not all(s.mask.any() for s in slices):
            msg = "every slice needs pixels inside its brain mask; leave out the others"
            raise MaskError(msg)
        self.slices, self.device = tuple(slices), device
        self._levels: dict[float, tuple[SlicePoints, ...]] = {}
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

    def levels(self, foreground_offset: float = FOREGROUND_OFFSET) -> tuple[SlicePoints, ...]:
        """One for each of :data:`LEVELS`, the background ``foreground_offset`` below the brain; made once."""
        if foreground_offset not in self._levels:
            self._levels[foreground_offset] = tuple(self._level(blur, step, foreground_offset) for blur, step in LEVELS)
        return self._levels[foreground_offset]

    @cached_property
    def _pixels(self) -> tuple[list[Tensor], list[Tensor]]:
        """For both pixel axes: positions of the pixels (B, n), mm from the frame's origin, and their edges (B,), mm."""
        shape = [[s.grid.shape[a] for s in self.slices] for a in (0, 1)]
        edges = [np.array([s.grid.spacing[a] for s in self.slices]) for a in (0, 1)]
        places = [e[:, None] * (np.arange(self._both.shape[2 + a]) - (np.array(shape[a])[:, None] - 1) / 2) for a, e in enumerate(edges)]
        return [tensor(p, self.device) for p in places], [tensor(e, self.device) for e in edges]

    def crops(self, centers: Tensor, half: Tensor, side: int) -> Tensor:
        """Network inputs (B, 2, side, side): square crops of image times mask (about 0 to 1), and mask.

        ``centers`` (B, 2) mm along û, v̂ from the slice frame's origin; ``half`` (B,): half the edge of the square, mm.
        """
        across = (torch.arange(side, device=self.device, dtype=torch.float32) + 0.5) / side * 2 - 1
        grid = [centers[:, a, None] + half[:, None] * across for a in (0, 1)]
        places, edges = self._pixels
        # the blur of the trilinear interpolation in training; the pixels are wider than the remaining detail
        return _carried(self._both, places, edges, grid, float(0.4 * 2 * half.mean() / side)).transpose(0, 1)

    def _grid(self, step: float) -> list[Tensor]:
        """For both pixel axes: a grid (B, m) centred on each mask with a spacing of ``step`` mm; positions in mm from the frame's
        origin."""
        out = []
        for axis, places in enumerate(self._pixels[0]):
            hit = np.array([np.flatnonzero(s.mask.any(1 - axis))[[0, -1]] for s in self.slices])
            spans = np.take_along_axis(places.double().cpu().numpy(), hit, 1)
            m = int(np.ceil((np.ptp(spans, axis=1).max() + 2 * MARGIN_MM) / step)) + 1
            out.append(tensor(spans.mean(1)[:, None] + step * (np.arange(m) - (m - 1) / 2), self.device))
        return out

    @cached_property
    def _fine(self) -> tuple[list[Tensor], Tensor]:
        """A grid of :data:`~posepipe.matching.target.SPACING`, and texture on it with its weight (2, B, m, m)."""
        places, edges = self._pixels
        grid = self._grid(SPACING)
        raw, mask = _carried(self._both, places, edges, grid, 0.5 * SPACING)
        value = raw / mask.clamp_min(1e-2)
        mean, deviation = _moments(value, mask)
        value = (value - mean) / deviation
        edge = [torch.full_like(edges[0], SPACING)] * 2
        total, first, second = _carried(torch.stack([mask, value * mask, value**2 * mask]), grid, edge, grid, TEXTURE_WINDOW_MM)
        eroded = _carried(mask[None], grid, edge, grid, TEXTURE_EROSION_MM)[0]
        inner = ((eroded - 0.80) / 0.08).clamp(0, 1) * mask
        # the eroded mask of a small section may be empty
        inner = torch.where(inner.sum((1, 2), keepdim=True) * SPACING**2 < LEAST_INSIDE_MM2, mask, inner)
        return grid, torch.stack([_texture(value, mask, total, first, second), inner])

    def _level(self, blur: float, step: float, foreground_offset: float) -> SlicePoints:
        places, edges = self._pixels
        grid = self._grid(step)
        image, mask = _carried(self._both, places, edges, grid, blur)
        outline = image + foreground_offset * mask
        reach = _carried(self._both[1:], places, edges, grid, MARGIN_MM / 1.6)[0]
        # outside a straight edge a blurred mask falls to 0.055 at 1.6 standard deviations
        near = ((reach - 0.055) / 0.10).clamp(0, 1)
        fine, texture = self._fine
        edge = [torch.full_like(edges[0], SPACING)] * 2
        value = torch.stack([outline, _carried(texture[:1], fine, edge, grid, blur)[0]], 1).flatten(2)
        weight = torch.stack([near, _carried(texture[1:], fine, edge, grid, 0.5 * step)[0]], 1).flatten(2)
        where = torch.stack(torch.broadcast_tensors(grid[0][:, :, None], grid[1][:, None, :]), -1).flatten(1, 2)
        some = weight[:, 0]
        order = some.argsort(dim=1, descending=True, stable=True)[:, : int((some > 0).sum(1).max())]
        two = order[:, None].expand(-1, 2, -1)
        return SlicePoints(where.gather(1, order[..., None].expand(-1, -1, 2)), value.gather(2, two), weight.gather(2, two), step**2)


def _carried(images: Tensor, places: list[Tensor], edges: list[Tensor], grid: list[Tensor], blur: float) -> Tensor:
    """Images (C, B, n_u, n_v) with pixels of ``edges`` mm at ``places``, blurred and resampled to ``grid``: (C, B, m_u, m_v); 0 outside."""
    kernels = []
    for own, edge, new in zip(places, edges, grid, strict=True):
        sigma = (0.4 * edge).clamp_min(blur)[:, None, None]
        kernel = torch.exp(-0.5 * ((new[:, :, None] - own[:, None, :]) / sigma) ** 2)
        # normalised as for an infinite row of pixels
        kernels.append(kernel * edge[:, None, None] / (sigma * float(np.sqrt(2 * np.pi))))
    return kernels[0] @ images @ kernels[1].transpose(1, 2)


def _moments(value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, 1, 1) of ``value`` (B, m, m) under ``mask``."""
    total = mask.sum((1, 2), keepdim=True)
    mean = (value * mask).sum((1, 2), keepdim=True) / total
    return mean, (((value - mean) ** 2 * mask).sum((1, 2), keepdim=True) / total).sqrt().clamp_min(1e-4)


def profile(thickness: Tensor, blur: float) -> tuple[Tensor, Tensor]:
    """Positions (B, K), mm along n̂, and weights (K,) of the planes that represent slices of ``thickness`` (B,), mm.

    The slice profile is Gaussian with its full width at half maximum equal to the thickness, minus the variance of the template's ``blur``.
    Three planes of Gauss–Hermite quadrature, exact to the fifth power of the distance; one plane if the remainder is below :data:`THIN`.
    """
    left = ((thickness / FWHM) ** 2 - blur**2).clamp_min(0).sqrt()
    if float(left.max()) < THIN:
        return torch.zeros_like(left)[:, None], torch.ones(1, device=left.device)
    nodes = torch.tensor([-1.0, 0.0, 1.0], device=left.device) * float(np.sqrt(3.0))
    return left[:, None] * nodes, torch.tensor([1 / 6, 2 / 3, 1 / 6], device=left.device)
