"""Random corruption of training images and masks: cut masks, leaks, uneven mask borders, bias field, noise and thick slices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.coordinates import HALF_SIDE, grid_points
from .fields import blurred, chance, smooth_field, uniform


@dataclass(frozen=True)
class Corruption:
    """Probabilities and largest strengths of the kinds of corruption.

    Probabilities: ``cut``, a half-space of the mask is removed, 0 to about 30 % of the brain; ``leak``, one or two balls of other
    tissue are added to the mask; ``rim``, the mask is dilated or eroded unevenly, by up to ``rim_radii`` brain radii; ``thick``, three
    neighbouring slices along an axis are averaged. Largest standard deviations: ``texture``, of a smooth additive field (intensities
    are 0–1); ``bias``, of the logarithm of the bias field; ``noise``, as a share of the standard deviation of the image.
    """

    cut: float = 0.35
    leak: float = 0.3
    rim: float = 0.7
    rim_radii: float = 0.12
    texture: float = 0.15
    bias: float = 0.4
    noise: float = 0.25
    thick: float = 0.25

    def none(self) -> Corruption:
        """The same with all probabilities and strengths 0."""
        return Corruption(0, 0, 0, 0, 0, 0, 0, 0)


def corrupt(image: Tensor, mask: Tensor, how: Corruption, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """``image`` and ``mask`` (B, 1, S, S, S) → corrupted image, observed mask, and the true brain inside the observed mask (alike).

    Also for slices (B, 1, S, S), with half-planes and discs in place of half-spaces and balls, and without ``thick``.
    """
    n, side, axes = len(image), image.shape[-1], image.ndim - 2
    texture = smooth_field(n, 2, side, max(side // 3, 4), generator, axes=axes)
    image = image + uniform(n, 0, how.texture, generator, axes=axes) * texture[:, :1]
    outside = uniform(n, 0, 1, generator, axes=axes) + 0.15 * texture[:, 1:]
    image = torch.where(mask > 0.05, image, outside)
    observed = _rim(mask, how, generator)
    points = grid_points(side, axes, device=image.device)
    where = chance(n, how.leak, generator, axes=axes)
    for _ in range(2):
        ball = _ball(points, n, generator) * where
        image = torch.where((ball > 0.5) & (mask < 0.5), outside, image)
        observed = torch.maximum(observed, ball)
        where = where * chance(n, 0.3, generator, axes=axes)
    observed = observed * (1 - _beyond_plane(points, n, generator) * chance(n, how.cut, generator, axes=axes))
    image = image * torch.exp(uniform(n, 0, how.bias, generator, axes=axes) * smooth_field(n, 1, side, 3, generator, axes=axes))
    if how.thick and axes == 3:
        image = _thick(image, how.thick, generator)
    if how.noise:
        level = uniform(n, 0, how.noise, generator, axes=axes) * image.std(tuple(range(2, image.ndim)), keepdim=True)
        image = image + torch.randn(image.shape, generator=generator, device=image.device).mul_(level)
    return image, observed, mask * (observed > 0.5)


def perturbed_mask(mask: Tensor, how: Corruption, generator: torch.Generator) -> Tensor:
    """An imperfect estimate of ``mask`` (B, 1, S, S, S), as of an earlier network prediction: uneven border, leaks and cuts by ``how``; in
    half of the cases blurred."""
    n, axes = len(mask), mask.ndim - 2
    out = _rim(mask, how, generator)
    points = grid_points(mask.shape[-1], axes, device=mask.device)
    out = torch.maximum(out, _ball(points, n, generator) * chance(n, how.leak, generator, axes=axes))
    out = out * (1 - _beyond_plane(points, n, generator) * chance(n, how.cut, generator, axes=axes))
    soft = chance(n, 0.5, generator, axes=axes)
    return torch.where(soft > 0, blurred(out, 1.0), out).clamp(0, 1)


def _rim(mask: Tensor, how: Corruption, generator: torch.Generator) -> Tensor:
    """The mask, with probability ``how.rim`` dilated or eroded by a smooth random amount."""
    if not how.rim:
        return mask
    n, side, axes = len(mask), mask.shape[-1], mask.ndim - 2
    voxel = 2 * HALF_SIDE / side
    soft = blurred(mask, 1.2)
    # at its middle the blurred edge falls by about a third a voxel
    far = 0.33 * how.rim_radii / voxel
    level = 0.5 + far * (uniform(n, -1, 1, generator, axes=axes) + 0.5 * smooth_field(n, 1, side, 5, generator, axes=axes))
    rough = ((soft - level.clamp(0.08, 0.92)) * 7 + 0.5).clamp(0, 1)
    use = chance(n, how.rim, generator, axes=axes)
    return use * rough + (1 - use) * mask


def _ball(points: Tensor, n: int, generator: torch.Generator) -> Tensor:
    axes = points.shape[1]
    direction = torch.randn(n, axes, *[1] * axes, generator=generator, device=points.device)
    center = direction / direction.norm(dim=1, keepdim=True) * uniform(n, 0.85, 1.25, generator, axes=axes)
    center = center.flatten(1)
    # |p − c|² = |p|² − 2 p·c + |c|²: one product for the batch
    square = points.square().sum(1) - 2 * center @ points.T + center.square().sum(1, keepdim=True)
    distance = _grid(square.clamp_min_(0).sqrt_(), axes)
    radius = uniform(n, 0.15, 0.5, generator, axes=axes)
    return ((radius - distance) * 12 + 0.5).clamp(0, 1)


def _beyond_plane(points: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """1 beyond a random plane 0.25 to 1.1 radii from the centre, else 0. One plane in three is perpendicular to an axis, like the edge of
    a field of view."""
    axes = points.shape[1]
    normal = torch.randn(n, axes, *[1] * axes, generator=generator, device=points.device)
    normal = normal / normal.norm(dim=1, keepdim=True)
    along = (normal.abs() == normal.abs().amax(1, keepdim=True)) * normal.sign()
    straight = chance(n, 1 / 3, generator, axes=axes)
    normal = straight * along + (1 - straight) * normal
    height = _grid(normal.flatten(1) @ points.T, axes)
    return (height > uniform(n, 0.25, 1.1, generator, axes=axes)).float()


def _grid(values: Tensor, axes: int) -> Tensor:
    """(B, Sᵃ) → (B, 1, S, …)."""
    side = round(values.shape[1] ** (1 / axes))
    return values.reshape(len(values), 1, *[side] * axes)


def _thick(image: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """``image`` with every three neighbouring slices along a random axis averaged, in a share ``probability`` of the batch."""
    n = len(image)
    use = chance(n, probability, generator) > 0
    axis = torch.randint(3, (n, 1, 1, 1, 1), generator=generator, device=image.device)
    for a in range(3):
        pick = (use & (axis == a)).flatten()
        some = image[pick]
        image[pick] = (some + some.roll(1, 2 + a) + some.roll(-1, 2 + a)) / 3
    return image
