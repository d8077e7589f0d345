"""The rotation bank: one template sampled at thousands of rotations, so that an image is compared with all of them in milliseconds."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._version import __version__
from ..files import replacing
from ..geometry import super_fibonacci
from ..geometry.so3 import Array
from ..imaging.sampling import sample, tensor
from .brain import Brain

LOGGER = logging.getLogger(__name__)

ROTATIONS = 4608
"""Rotations of the bank, on a super-Fibonacci grid: the next one lies within about 9°
(:func:`~posepipe.geometry.sampling.grid_radius`)."""
STEP, REACH = 0.185, 1.45
"""The sampling points fill a ball of radius ``REACH`` at a spacing of ``STEP``, both in template radii."""
CLASSES = 6
"""Intensity classes of the correlation ratio of the bank, of equal size. How it was chosen is not recorded."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores (J, H) of J rotations at H centres: ``dice`` of the masks, ``overlap`` (fraction of the smaller mask inside the other),
    ``ncc`` and ``ratio`` (correlation ratio) of the intensities inside the intersection."""

    dice: Tensor
    overlap: Tensor
    ncc: Tensor
    ratio: Tensor


class RotationBank:
    """A template sampled on a ball of points at J rotations.

    ``rotations`` (J, 3, 3) map template to image. ``mask`` and ``value`` (J, P) are the mask and intensity of the rotated template at the
    ball's points (P, 3), which are in units of the template's radius.
    """

    def __init__(self, mask: Tensor, value: Tensor) -> None:
        self.rotations = super_fibonacci(len(mask))
        self.points = ball()
        self._size = mask.sum(1)
        self._first, self._second = torch.cat([mask, mask * value]), mask * value * value

    @classmethod
    def build(cls, template: Brain, n: int = ROTATIONS) -> RotationBank:
        """Sample ``template`` at ``n`` rotations of a super-Fibonacci grid."""
        return cls(*_turned(template, n))

    @classmethod
    def cached(cls, template: Brain, folder: Path | None) -> RotationBank:
        """As :meth:`build`, cached in ``folder`` under a hash of the template's voxels.

        If the folder is not writable, a warning is logged and the bank is rebuilt each time.
        """
        if folder is None:
            return cls.build(template)
        path = folder / f"bank-{_fingerprint(template)}.npz"
        device = template.image.device
        try:
            with np.load(path) as saved:
                return cls(tensor(saved["mask"], device) / 255, tensor(saved["value"], device))
        except (FileNotFoundError, NotADirectoryError):
            pass
        except Exception as error:  # any error in a corrupted cache file: rebuild it
            LOGGER.warning("%s: corrupted rotation bank (%s); rebuilt", path, error)
        mask, value = _turned(template, ROTATIONS)
        small_mask = (mask * 255).round().to(torch.uint8)
        small_value = value.to(torch.float16)
        _save(path, small_mask.cpu().numpy(), small_value.cpu().numpy())
        # the first run uses the stored precision too, so that all runs give the same bits
        return cls(small_mask.float() / 255, small_value.float())

    def score(self, image: Brain, radius: float, centers: Array) -> Scores:
        """Scores of ``image`` at every rotation. The ball has the radius ``radius`` (mm); its centre is the mask's, shifted by ``centers``
        (H, 3), in radii."""
        device = self._first.device
        where = (self.points.to(device)[None] + tensor(centers, device)[:, None]) * radius + tensor(image.center, device)
        brightness, weight = sample(torch.stack([image.image * image.mask, image.mask]), image.world_to_voxel, where)
        value = torch.where(weight > 0.05, brightness / weight.clamp_min(0.05), torch.zeros_like(weight))
        h, j = len(centers), len(self._size)
        # the weights of the classes sum to the total weight, so that the totals follow from the sums over classes
        classes = torch.stack([_classes(v, w) for v, w in zip(value, weight, strict=True)], 1).flatten(1)
        sums = (self._first @ torch.cat([classes, brightness.T], 1)).reshape(2, j, -1)
        count, total = sums[..., :-h].reshape(2, j, h, CLASSES)
        n, s_t = count.sum(-1).clamp_min(1), total.sum(-1)
        s_i, s_ti = sums[..., -h:]
        s_ii, s_tt = self._first[:j] @ (brightness * value).T, self._second @ weight.T
        variance_i, variance_t = s_ii - s_i**2 / n, s_tt - s_t**2 / n
        ncc = (s_ti - s_i * s_t / n) / (variance_i.clamp_min(1e-3) * variance_t.clamp_min(1e-3)).sqrt()
        between = (total**2 / count.clamp_min(0.5)).sum(-1) - s_t**2 / n
        size_i, size_t = weight.sum(1)[None], self._size[:, None]
        return Scores(
            2 * n / (size_i + size_t), n / torch.minimum(size_i, size_t), ncc, between / variance_t.clamp_min(1e-3)
        )


def ball() -> Tensor:
    """The ball's points (P, 3), in radii."""
    axis = torch.arange(-8, 9) * STEP
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return points[points.norm(dim=1) <= REACH]


def _turned(template: Brain, n: int) -> tuple[Tensor, Tensor]:
    device = template.image.device
    rotations = tensor(super_fibonacci(n), device)
    stack = torch.stack([template.image * template.mask, template.mask])
    mask, value = [], []
    for some in rotations.split(512):  # in pieces, for memory
        where = torch.einsum("jba,pb->jpa", some, ball().to(device)) * template.radius + tensor(template.center, device)
        brightness, inside = sample(stack, template.world_to_voxel, where)
        mask.append(inside)
        value.append(torch.where(inside > 0.05, brightness / inside.clamp_min(0.05), torch.zeros_like(inside)))
    return torch.cat(mask), torch.cat(value)


def _classes(value: Tensor, weight: Tensor) -> Tensor:
    """Intensity classes (P, CLASSES) of equal size inside the mask, times the mask."""
    inside = value[weight > 0.5]
    if len(inside) < CLASSES:
        return (weight / CLASSES)[:, None].expand(-1, CLASSES)
    edges = torch.quantile(inside, torch.linspace(0, 1, CLASSES + 1, device=value.device)[1:-1])
    return torch.nn.functional.one_hot(torch.bucketize(value, edges), CLASSES).to(value.dtype) * weight[:, None]


def _fingerprint(template: Brain) -> str:
    h = hashlib.sha256(f"{__version__} {ROTATIONS} {STEP} {REACH} {template.spacing} {template.radius:.4f}".encode())
    h.update(template.image.cpu().numpy().tobytes())
    h.update(template.mask.cpu().numpy().tobytes())
    return h.hexdigest()[:24]


def _save(path: Path, mask: np.ndarray, value: np.ndarray) -> None:
    try:
        with replacing(path) as temporary:
            np.savez(temporary, mask=mask, value=value)
    except OSError as error:
        LOGGER.warning("%s: the rotation bank could not be saved (%s); it is rebuilt each time", path, error)
