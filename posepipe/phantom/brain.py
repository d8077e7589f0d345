"""The phantom's label map and its image, in atlas pose."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ..errors import AgeError, UsageError
from ..imaging.volume import Volume
from . import anatomy as parts
from .shapes import Points, smooth_union, within

#: Names of the labels, in the key that the fetal atlases use.
LABELS = MappingProxyType(
    {
        1: "white matter",
        2: "ventricles",
        3: "cerebellum",
        4: "extra-axial CSF",
        5: "cortical grey matter",
        6: "deep grey matter",
        7: "brainstem",
        8: "corpus callosum",
    }
)

# brightness by label 0..8 at 21 and at 44 weeks, fluid (T2w) = 1
_T2W = np.array(
    [
        [0, 0.72, 1.0, 0.62, 0.97, 0.50, 0.62, 0.55, 0.52],
        [0, 0.64, 1.0, 0.52, 0.97, 0.46, 0.45, 0.40, 0.48],
    ]
)
_T1W = np.array(
    [
        [0, 0.52, 0.25, 0.66, 0.25, 0.74, 0.72, 0.78, 0.62],
        [0, 0.60, 0.22, 0.82, 0.22, 0.82, 0.90, 0.98, 0.72],
    ]
)


def brain_labels(
    age: float, spacing: float = 0.8, seed: int | None = None, shape_jitter: float = 0.0, margin: float = 5.0
) -> Volume:
    """Label map (uint8, key :data:`LABELS`) of a brain at ``age`` postmenstrual weeks, in atlas pose, 0 outside.

    Args:
        age: 21 to 44 weeks.
        spacing: voxel edge, mm.
        seed: seed of the individual variation; used only with ``shape_jitter``.
        shape_jitter: scale of the individual variation about the average of that age; 1 is that of real brains.
        margin: empty border around the brain, mm.

    Raises :class:`~posepipe.errors.AgeError` for another age, :class:`~posepipe.errors.UsageError` for a spacing
    outside 0.2–10 mm.

    >>> brain = brain_labels(28, spacing=2.0)
    >>> sorted(set(brain.data.ravel().tolist()))
    [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """
    low, high = parts.AGES
    if not low <= age <= high:
        msg = f"the phantom is made for {low:g} to {high:g} weeks, not {age:g}"
        raise AgeError(msg)
    if not 0.2 <= spacing <= 10:
        msg = f"the phantom's voxels are 0.2 to 10 mm, not {spacing:g}"
        raise UsageError(msg)
    rng = None if seed is None else np.random.default_rng(seed)
    a = parts.anatomy(age, rng, shape_jitter)
    corners = zip(*parts.extent(a), strict=True)
    axes = [np.arange(np.floor(lo / spacing), np.ceil(hi / spacing) + 1) * spacing for lo, hi in corners]
    border = max(1, int(np.ceil(margin / spacing)))
    labels = np.pad(_label(*parts.atlas_points(axes[0], axes[1], axes[2], a), a), border)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [axis[0] - border * spacing for axis in axes]
    return Volume(labels, affine, f"phantom of {age:g} weeks")


def _label(p: Points, straight: Points, a: parts.Anatomy) -> npt.NDArray[np.uint8]:
    """Label of each point; where solids overlap, the deeper structure wins."""
    q = Points(np.abs(p.x), p.y, p.z)
    left = np.asarray(0.5 - 0.5 * np.tanh(straight.x / 2), dtype=np.float32)
    surface = parts.hemisphere(q, left, a)
    folded = parts.sulci(straight, q, left, surface, a)
    outside = parts.intracranial(p) >= 0

    inner, box = within(q, (0.0, -40.0, -25.0), (30.0, 34.0, 24.0))
    grey, arch = parts.deep_grey(inner), parts.callosum(inner, a)
    fluid = parts.ventricles(inner, left[box[0]], a)
    # white matter wraps the deep parts, so that the cortical ribbon does not cross them
    core = np.minimum(np.minimum(grey, fluid), arch)
    near = folded[box]
    brain = folded.copy()
    brain[box] = smooth_union(near, core - 2.0, 2.0)

    out = np.full(surface.shape, 4, dtype=np.uint8)
    out[brain < 0] = 5
    out[brain < -a.cortex] = 1
    deep = out[box]
    deep[(core < 1.2) & (near > -a.cortex)] = 1
    below, low_box = within(q, (0.0, -45.0, -60.0), (32.0, 12.0, 0.0))
    behind = out[low_box]
    behind[parts.brainstem(below) < 0] = 7
    behind[parts.cerebellum(below, a) < 0] = 3
    for label, field in ((6, grey), (8, arch), (2, fluid)):
        deep[field < 0] = label
    out[outside] = 0
    return out


def brain_mask(labels: Volume) -> Volume:
    """Brain with its extra-axial CSF: every voxel that has a label, as uint8 0 and 1."""
    return labels.with_data((labels.data > 0).astype(np.uint8))


def render(
    labels: Volume,
    age: float,
    contrast: str = "T2w",
    *,
    blur_mm: float = 0.6,
    rng: np.random.Generator | None = None,
    contrast_jitter: float = 0.0,
) -> Volume:
    """Image (float32, about 0–1000) of a label map: T2w with bright fluid, or T1w with the contrast of an unmyelinated brain.

    Tissue boundaries are blurred by ``blur_mm`` (Gaussian sigma), as by partial volume; before about 32 weeks T2w shows the bright
    subplate under the cortex and the dark germinal zone on the ventricles. Outside the mask the value is exactly 0.
    With ``rng``, each tissue's brightness varies by the fraction ``contrast_jitter``.

    Raises :class:`~posepipe.errors.UsageError` for a contrast other than ``T1w`` and ``T2w``.
    """
    from scipy import ndimage

    tables = {"T1w": _T1W, "T2w": _T2W}
    if contrast not in tables:
        msg = f"the phantom's contrast is T1w or T2w, not {contrast!r}"
        raise UsageError(msg)
    young = np.clip((parts.AGES[1] - age) / (parts.AGES[1] - parts.AGES[0]), 0, 1)
    table = young * tables[contrast][0] + (1 - young) * tables[contrast][1]
    if rng is not None:
        table = table * (1 + contrast_jitter * rng.uniform(-1, 1, table.size))
    mask = labels.data > 0
    image = table.astype(np.float32)[labels.data]
    layers = float(np.clip((34 - age) / 8, 0, 1)) * (0.16 if contrast == "T2w" else -0.1)
    sigma = 1 / labels.spacing
    if layers:
        white = labels.data == 1
        near = ndimage.gaussian_filter(
            (labels.data == 5) * np.float32(1) - (labels.data == 2) * np.float32(1.4), 2.0 * sigma, truncate=2.5
        )
        image += layers * white * near
    weight = ndimage.gaussian_filter(mask.astype(np.float32), blur_mm * sigma, truncate=3)
    image = ndimage.gaussian_filter(image, blur_mm * sigma, truncate=3)
    image = np.where(mask, 1000 * image / np.maximum(weight, 0.05), 0)
    return labels.with_data(image.astype(np.float32))
