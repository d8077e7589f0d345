"""Conversion of T1w brain images to T2-like contrast: the generator of :mod:`posepipe.models.contrast`, slice-wise along three axes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..imaging.sampling import sample, smooth, tensor
from ..imaging.volume import Volume
from ..matching.brain import bounding_box
from ..models.contrast import HALVINGS, SLICES
from ..models.precision import inference_context
from ..models.weights import CONTRAST_NETWORK, load_network

BRIGHT = 1000.0
"""Intensity that the network's output 1 is scaled to."""
FINEST_MM, COARSEST_MM, STEP_MM = 0.75, 1.3, 1.0
"""Images with all voxel edges between the first two (mm) are converted on their own grid; others are resampled to the third first."""
DARK, LIGHT = 0.005, 0.995
"""Quantiles inside the mask that are scaled to 0 and 1."""
BATCH = 32
"""Slices per forward pass: memory only."""


@dataclass(frozen=True, eq=False)
class Converted:
    """A T1w image in T2-like contrast: ``volume`` on the image's grid, 0 outside the mask; ``weights``, name → SHA-256, of the network."""

    volume: Volume
    weights: dict[str, str]


class Converter:
    """The :class:`~posepipe.models.contrast.ContrastNet` called ``name``. Raises :class:`~posepipe.errors.WeightsError`."""

    def __init__(self, weights_dir: str | Path | None = None, device: str = "cpu", name: str = CONTRAST_NETWORK) -> None:
        loaded = load_network(name, weights_dir=weights_dir, device=device)
        self._network = loaded.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.sha256 = {name: loaded.sha256}
        self._device = torch.device(device)

    def convert(self, image: Volume, mask: Volume) -> Converted:
        """Convert ``image`` (T1w) inside ``mask`` (same grid) to T2-like contrast: float32, 0–:data:`BRIGHT`, on the same grid.

        Intensities are scaled by quantiles inside the mask, so that the scanner's scale has no influence. The slices along each of the
        three axes are converted, and the three volumes are averaged. Raises :class:`~posepipe.errors.MaskError` for an empty mask.
        """
        box = bounding_box(mask.data, mask.source)
        inside = tensor(mask.data[box] > 0, self._device)
        values = _scaled(tensor(image.data[box], self._device), inside)
        spacing = image.spacing
        if spacing.min() >= FINEST_MM and spacing.max() <= COARSEST_MM:
            synthesised = self._synthesised(values, inside)
        else:
            synthesised = self._at_network_spacing(values, inside, spacing)
        out = np.zeros(image.shape, np.float32)
        out[box] = (BRIGHT * synthesised * inside).cpu().numpy()
        return Converted(image.with_data(out), dict(self.sha256))

    def _at_network_spacing(self, values: Tensor, inside: Tensor, spacing: np.ndarray) -> Tensor:
        """The conversion at isotropic voxels of :data:`STEP_MM`, resampled back to the image's grid."""
        shape = np.array(values.shape)
        there = np.maximum(np.ceil((shape - 1) * spacing / STEP_MM).astype(int) + 1, 2)
        sigma = tuple(0.42 * np.sqrt(max(STEP_MM**2 - v**2, 0.0)) / v for v in spacing)
        both = smooth(torch.stack([values, inside]), (sigma[0], sigma[1], sigma[2]))
        both = _resampled(both, there, STEP_MM / spacing)
        weight = both[1]
        # normalised convolution: divide by the blurred mask
        even = torch.where(weight > 0.3, both[0] / weight.clamp_min(0.3), torch.zeros_like(weight)).clamp(0, 1)
        synthesised = self._synthesised(even, (weight > 0.3).float())
        back = _resampled(torch.stack([synthesised, (weight > 0.3).float()]), shape, spacing / STEP_MM)
        return back[0] / back[1].clamp_min(0.3)

    def _synthesised(self, values: Tensor, inside: Tensor) -> Tensor:
        """Mean of the conversions along the three axes (X, Y, Z)."""
        total = torch.zeros_like(values)
        for axis in range(3):
            order = (axis, *(a for a in range(3) if a != axis))
            with inference_context(values.device):
                along = self._along_first(values.permute(order)) * inside.permute(order)
            total += along.permute(tuple(order.index(a) for a in range(3)))
        return total / 3

    def _along_first(self, values: Tensor) -> Tensor:
        n, h, w = values.shape
        unit = 2**HALVINGS
        high, wide = -h % unit, -w % unit
        edge = SLICES // 2
        padded = torch.nn.functional.pad(values, (0, wide, 0, high, edge, edge))
        slices = torch.stack([padded[i : i + n] for i in range(SLICES)], 1)
        synthesised = [self._network(part.contiguous(memory_format=torch.channels_last))[:, 0, :h, :w] for part in slices.split(BATCH)]
        return torch.cat(synthesised)


def _scaled(values: Tensor, inside: Tensor) -> Tensor:
    """``values`` scaled to 0–1 between the quantiles :data:`DARK` and :data:`LIGHT` inside the mask, 0 outside."""
    some = values[inside > 0]
    some = some[:: max(1, len(some) // 100_000)]
    low, high = torch.quantile(some, torch.tensor([DARK, LIGHT], device=some.device)).tolist()
    return ((values - low) / max(high - low, 1e-6)).clamp(0, 1) * inside


def _resampled(stack: Tensor, shape: np.ndarray, step: np.ndarray) -> Tensor:
    """``stack`` (C, X, Y, Z) resampled to ``shape`` voxels with a spacing of ``step`` (3,) of its own voxels, from voxel 0."""
    axes = [tensor(np.arange(n) * s, stack.device) for n, s in zip(shape, step, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    return sample(stack, torch.eye(4, device=stack.device), points)
