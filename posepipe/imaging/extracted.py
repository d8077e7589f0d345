"""Whether the nonzero voxels of an image can be the brain of a fetus or newborn: by volume, shape, and intensities below the surface."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .intensity import measured, offset
from .moments import moments
from .volume import Volume

LEAST_ML, MOST_ML = 25.0, 700.0
"""Limits of the volume, ml. Brains have 52 ml (21 weeks, spina bifida) to 631 ml (44 weeks); half of the smallest has 26 ml, the largest
dilated by 2.5 mm 655 ml. All limits: docs/decisions/038."""
LEAST_FULL = 0.9
"""Least ``fullness``. Whole brains have 0.94 and more, without cerebellum 0.91; 216 of 231 brains with 30 % cut off are above the limit.
Zeroed scans have 0.91 at most, heads with a neck 0.85 to 0.98."""
MOST_LONG = 2.4
"""Largest ``elongation``. Whole brains have 1.6 at most, brains with 30 % cut off 2.4."""
LEAST_DIP = 0.5
"""Least ``dip``. Brains have 0.71 and more, heads with a complete layer of bone 0.17 to 0.24."""
STEP_MM = 2.0
"""Voxels are subsampled to about this spacing (mm) for the measurement of depths; also the thickness of the layers."""
LEAST_VOXELS = 20
"""Layers with fewer voxels are ignored."""
LAYERS = 12
"""Number of layers, from the surface inwards, whose median intensities are compared."""


@dataclass(frozen=True)
class Signs:
    """Features that distinguish a brain from a whole head or a body.

    ``millilitres``; ``fullness``: volume over that of the ellipsoid with the same second moments, 1 for an ellipsoid, else less;
    ``elongation``: longest over shortest axis of that ellipsoid; ``dip``: intensity of the darkest layer under the surface, over the darker
    of the brightest layers outside and inside of it; 1 if no layer is darker than those outside of it.
    """

    millilitres: float
    fullness: float
    elongation: float
    dip: float


def signs(image: Volume) -> Signs | None:
    """Features of the largest connected component of the nonzero voxels, with holes filled; None if all voxels are 0."""
    every = tuple(slice(None, None, max(1, int(STEP_MM / s))) for s in image.spacing)
    data = image.data[every]
    inside = filled(measured(data))
    if not inside.any():
        return None
    steps = np.diag([*(float(e.step) for e in every), 1.0])
    about = moments(Volume(inside, image.affine @ steps, image.source))
    axes = np.sqrt(np.linalg.eigvalsh(about.covariance))
    ellipsoid = 4 / 3 * np.pi * 5**1.5 * float(np.prod(axes)) / 1000
    spacing = [float(s) * e.step for s, e in zip(image.spacing, every, strict=True)]
    dip = _deepest(_levels(data - offset(data), inside, spacing))
    return Signs(about.millilitres, about.millilitres / ellipsoid, float(axes[-1] / axes[0]), dip)


def filled(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest connected component (6-connectivity) of ``inside`` (X, Y, Z), with holes filled; empty if there is none."""
    pieces, n = ndimage.label(inside)
    if n == 0:
        return np.zeros(inside.shape, dtype=bool)
    largest = 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    outside, _ = ndimage.label(np.pad(pieces != largest, 1, constant_values=True))
    whole: npt.NDArray[np.bool_] = (outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return whole


def _levels(data: npt.NDArray, inside: npt.NDArray[np.bool_], spacing: list[float]) -> list[float]:
    """Median intensity of the layers under the surface, from outside inwards, and of the voxels below them."""
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    depth = ndimage.distance_transform_edt(np.pad(inside[box], 1), spacing)[1:-1, 1:-1, 1:-1]
    some = depth > 0
    values, layer = data[box][some], np.minimum((depth[some] / STEP_MM).astype(int), LAYERS)
    return [float(np.median(mine)) for k in range(LAYERS + 1) if len(mine := values[layer == k]) > LEAST_VOXELS]


def _deepest(level: list[float]) -> float:
    dips = [level[k] / max(min(max(level[:k]), max(level[k + 1 :])), 1e-9) for k in range(1, len(level) - 1)]
    return min([1.0, *dips])


def not_a_brain(found: Signs | None) -> str:
    """Reason why the nonzero voxels cannot be the brain of a fetus or newborn; empty if they can."""
    if found is None:
        return "all voxels are 0"
    held = f"the nonzero voxels hold {found.millilitres:.0f} ml"
    if found.millilitres < LEAST_ML:
        return f"{held}, less than any brain of 21 weeks or more"
    if found.millilitres > MOST_ML:
        return f"{held}, more than any brain up to 44 weeks"
    if found.fullness < LEAST_FULL:
        return f"{held} and are not as round as a brain ({found.fullness:.2f} of their ellipsoid; brains fill {LEAST_FULL:g} and more)"
    if found.elongation > MOST_LONG:
        return f"{held} and are {found.elongation:.1f} times as long as wide, more than any brain"
    if found.dip < LEAST_DIP:
        return f"{held}, with a dark layer inside a bright one, as bone under skin: a whole head"
    return ""


def may_be_older(found: Signs | None) -> bool:
    """Whether the nonzero voxels resemble a brain in all features except the volume: the brain of an infant, a child or an adult, or a head
    without a clear layer of bone."""
    return found is not None and found.millilitres > MOST_ML and not not_a_brain(replace(found, millilitres=MOST_ML))
