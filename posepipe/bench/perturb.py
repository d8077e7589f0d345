"""Images with known pose from real images: random motion, resampling to another voxel grid, and corruption."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..geometry import Rigid, random_rotations
from ..geometry.so3 import Array
from ..imaging.moments import moments
from ..imaging.volume import Volume

COMBINED = ("bias", "leak", "cut", "noise")
"""The kinds of corruption that ``all`` applies, in this order."""
STRENGTHS = {"cut": 0.15, "leak": 0.15, "bias": 0.3, "noise": 0.15, "slices": 4.0, "invert": 1.0}
"""Kind of corruption → its size at strength 1 (units: :func:`corrupted`)."""
CORRUPTIONS = (*STRENGTHS, "all")


def turned(
    image: Volume, mask: Volume, rotation: Array, rng: np.random.Generator, *, max_shift: float = 40.0
) -> tuple[Volume, Volume, Rigid]:
    """``image`` and ``mask`` after a motion of the head, resampled to another voxel grid.

    The motion rotates by ``rotation`` (3, 3) about the brain's centre and translates by up to ``max_shift`` mm along each axis. The new
    grid has a uniform random orientation relative to the head, 0.8–1.2 times the spacing, a random voxel phase and randomly flipped voxel
    axes (half of the affines are left-handed). Values come from one linear interpolation. Returns the new image, its mask, and the motion
    (old world → new world).
    """
    m = moments(mask)
    motion = Rigid.about(rotation, m.center, m.center + rng.uniform(-max_shift, max_shift, 3))
    spacing = image.spacing * rng.uniform(0.8, 1.2, 3)
    axes = random_rotations(1, rng)[0] * rng.choice([-1.0, 1.0], 3)
    points = np.argwhere(mask.data)[::7] @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    local = (points - m.center) @ axes
    low, high = local.min(0) - 4 * spacing * rng.uniform(0.5, 1.5, 3), local.max(0) + 4 * spacing
    shape = tuple(np.ceil((high - low) / spacing).astype(int) + 1)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = m.center + axes @ low
    to_old = np.linalg.inv(image.affine) @ affine
    data = ndimage.affine_transform(
        np.where(mask.data, image.data, 0).astype(np.float32), to_old[:3, :3], to_old[:3, 3], shape, order=1
    )
    inside = ndimage.affine_transform(mask.data.astype(np.float32), to_old[:3, :3], to_old[:3, 3], shape, order=1) > 0.5
    new = motion.matrix @ affine
    return Volume(data * inside, new, image.source), Volume(inside, new, mask.source), motion


def corrupted(
    image: Volume, mask: Volume, kind: str, strength: float, rng: np.random.Generator
) -> tuple[Volume, Volume]:
    """``image`` and ``mask`` with a corruption of ``kind``: ``cut``, ``leak``, ``bias``, ``noise``, ``all`` of these four, ``slices`` or
    ``invert``.

    ``strength`` scales the values of :data:`STRENGTHS`, which are: cut, share of the brain's volume that is removed behind a random
    plane; leak, volume of a bright ball added at the border, as a share of the brain; bias, standard deviation of the logarithm of the
    bias field; noise, standard deviation of Rician noise as a share of the brain's mean; slices, thickness in mm of slices across one
    voxel axis; invert, gamma of the inverted contrast.
    """
    if kind not in CORRUPTIONS:
        msg = f"unknown corruption {kind!r}: choose from {', '.join(CORRUPTIONS)}"
        raise ValueError(msg)
    if kind == "all":
        for single in COMBINED:
            image, mask = corrupted(image, mask, single, strength, rng)
        return image, mask
    strength = strength * STRENGTHS[kind]
    data, inside = image.data.astype(np.float32), mask.data.astype(bool)
    if kind == "cut":
        inside = _cut(image, inside, strength, rng)
    elif kind == "leak":
        data, inside = _leaked(image, data, inside, strength, rng)
    elif kind == "bias":
        field = ndimage.gaussian_filter(rng.normal(size=data.shape).astype(np.float32), 25.0 / image.spacing)
        data = data * np.exp(strength * (field - field[inside].mean()) / field[inside].std())
    elif kind == "slices":
        data, inside = _sliced(data, inside, int(rng.integers(3)), strength, image.spacing, rng)
    elif kind == "invert":
        low, high = np.quantile(data[inside], [0.01, 0.99])
        bright = np.clip((data - low) / max(high - low, 1e-6), 0, 1)
        data = high * (0.05 + 0.95 * (1 - bright) ** strength)
    else:
        sigma = strength * float(data[inside].mean())
        data = np.hypot(data + sigma * rng.normal(size=data.shape), sigma * rng.normal(size=data.shape))
    return image.with_data(np.where(inside, np.maximum(data, 0), 0).astype(np.float32)), mask.with_data(inside)


def _cut(image: Volume, inside: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """The mask ``inside`` without the ``share`` of its voxels that lies beyond a plane of random direction."""
    direction = rng.normal(size=3)
    world = image.affine[:3, :3].T @ (direction / np.linalg.norm(direction))
    x, y, z = (w * np.arange(n) for w, n in zip(world, inside.shape, strict=True))
    height = x[:, None, None] + y[:, None] + z
    return inside & (height <= np.quantile(height[inside], 1 - share))


def _leaked(
    image: Volume, data: np.ndarray, inside: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``data`` and the mask ``inside``, to which a ball at its edge is added, as if the mask had leaked into textured tissue. The part of
    the ball outside the brain has ``share`` of the brain's volume."""
    edge = np.argwhere(inside & ~ndimage.binary_erosion(inside))
    at = edge[rng.integers(len(edge))]
    # half of the ball is outside
    radius = (3 * share * inside.sum() * image.voxel_volume / (2 * np.pi)) ** (1 / 3)
    offset = np.stack(np.meshgrid(*[np.arange(n) for n in data.shape], indexing="ij"), -1) - at
    blob = np.linalg.norm(offset @ image.affine[:3, :3].T, axis=-1) < radius
    texture = ndimage.gaussian_filter(rng.normal(size=data.shape).astype(np.float32), 3.0 / image.spacing)
    texture = texture / texture.std()
    level = float(np.quantile(data[inside], rng.uniform(0.3, 1.0)))
    return np.where(blob & ~inside, level * (1 + 0.2 * texture), data), inside | blob


def _sliced(
    data: np.ndarray, inside: np.ndarray, axis: int, thickness: float, spacing: Array, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``data`` and mask as slices of ``thickness`` mm across ``axis``, with a random phase. Each slice is the mean of its voxels, with
    linear interpolation between slices; a slice of the mask is kept where more than half of it was brain."""
    n = max(1, round(thickness / float(spacing[axis])))
    before = int(rng.integers(n))
    after = -(data.shape[axis] + before) % n
    mean = []
    for volume in (np.where(inside, data, 0), inside):
        stack = np.pad(np.moveaxis(volume.astype(np.float32), axis, 0), ((before, after), (0, 0), (0, 0)))
        mean.append(stack.reshape(-1, n, *stack.shape[1:]).mean(1))
    place = (np.arange(data.shape[axis]) + before + 0.5) / n - 0.5
    below = np.clip(np.floor(place).astype(int), 0, max(len(mean[0]) - 2, 0))
    share = np.clip(place - below, 0, 1)[:, None, None]
    upper = np.minimum(below + 1, len(mean[0]) - 1)
    values = (1 - share) * mean[0][below] + share * mean[0][upper]
    kept = mean[1][(np.arange(data.shape[axis]) + before) // n] > 0.5
    return np.moveaxis(values, 0, axis), np.moveaxis(kept, 0, axis)
