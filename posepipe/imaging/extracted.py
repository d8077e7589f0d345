"""Whether what is not 0 in an image can be a brain of a fetus or newborn: by its size, its shape, and what lies at its rim."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .intensity import measured, offset
from .moments import moments
from .volume import Volume

LEAST_ML, MOST_ML = 25.0, 700.0
"""Brains hold 52 ml (21 weeks, spina bifida) to 631 ml (44 weeks); half of the smallest holds 26 ml, the largest with a rim of 2.5 mm
655 ml. All limits: docs/experiments-zero-background.md."""
LEAST_FULL = 0.9
"""Whole brains have 0.94 and more, without cerebellum 0.91; 216 of 231 brains of which three tenths were cut off are above the limit.
Zeroed scans have 0.91 at most, heads with a neck 0.85 to 0.98."""
MOST_LONG = 2.4
"""Whole brains have 1.6 at most, those of which three tenths were cut off 2.4."""
LEAST_DIP = 0.5
"""Brains have 0.71 and more, heads with bone all round 0.17 to 0.24."""
STEP_MM = 2.0
"""Voxels are skipped down to about this spacing where depths are measured."""
LEAST_VOXELS = 20
"""A layer of fewer is left out."""
LAYERS = 12
"""Layers, as thick as that spacing, whose brightness is compared, from the surface inwards."""


@dataclass(frozen=True)
class Signs:
    """What tells a brain from a whole head or a body.

    ``millilitres``; ``fullness``: volume over that of the ellipsoid with the same second moments, 1 for an ellipsoid and less for all
    else; ``elongation``: longest over shortest axis of that; ``dip``: how bright the darkest layer under the surface is, over the
    darker of the brightest layers outside and inside of it, 1 where none is darker than what lies outside of it.
    """

    millilitres: float
    fullness: float
    elongation: float
    dip: float


def signs(image: Volume) -> Signs | None:
    """Those of the largest piece of what is not 0, its holes filled; None where all is 0."""
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
    """The largest piece (faces touch) of ``inside`` (X, Y, Z), its holes filled; nothing where there is none."""
    pieces, n = ndimage.label(inside)
    if n == 0:
        return np.zeros(inside.shape, dtype=bool)
    largest = 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    outside, _ = ndimage.label(np.pad(pieces != largest, 1, constant_values=True))
    whole: npt.NDArray[np.bool_] = (outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return whole


def _levels(data: npt.NDArray, inside: npt.NDArray[np.bool_], spacing: list[float]) -> list[float]:
    """Median brightness of the layers under the surface, from outside inwards, and of all below them."""
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    depth = ndimage.distance_transform_edt(np.pad(inside[box], 1), spacing)[1:-1, 1:-1, 1:-1]
    some = depth > 0
    values, layer = data[box][some], np.minimum((depth[some] / STEP_MM).astype(int), LAYERS)
    return [float(np.median(mine)) for k in range(LAYERS + 1) if len(mine := values[layer == k]) > LEAST_VOXELS]


def _deepest(level: list[float]) -> float:
    dips = [level[k] / max(min(max(level[:k]), max(level[k + 1 :])), 1e-9) for k in range(1, len(level) - 1)]
    return min([1.0, *dips])


def not_a_brain(found: Signs | None) -> str:
    """Why what is not 0 cannot be the brain of a fetus or newborn, in words; empty where it can."""
    if found is None:
        return "nothing is not 0"
    held = f"what is not 0 holds {found.millilitres:.0f} ml"
    if found.millilitres < LEAST_ML:
        return f"{held}, less than any brain of 21 weeks or more"
    if found.millilitres > MOST_ML:
        return f"{held}, more than any brain up to 44 weeks"
    if found.fullness < LEAST_FULL:
        return f"{held} and is not round as a brain is ({found.fullness:.2f} of its ellipsoid; brains fill {LEAST_FULL:g} and more)"
    if found.elongation > MOST_LONG:
        return f"{held} and is {found.elongation:.1f} times as long as wide, more than any brain"
    if found.dip < LEAST_DIP:
        return f"{held}, with a dark layer inside a bright one, as bone lies under skin: a whole head"
    return ""


def may_be_older(found: Signs | None) -> bool:
    """Whether what is not 0 is like a brain in all but its size: the brain of an infant, a child or an adult, or a head without a clear
    layer of bone."""
    return found is not None and found.millilitres > MOST_ML and not not_a_brain(replace(found, millilitres=MOST_ML))
