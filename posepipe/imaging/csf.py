"""Removal of extra-axial CSF from a brain mask, by the intensities of a T2w image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .mask import largest_piece
from .volume import Volume

DEPTH_MM = 2.0
"""Voxels within this distance of the mask's boundary are treated as CSF, as partial volume with the skull makes them dark. Bridges thinner
than twice this are cut."""
REGROWN = 1.3
"""Dilation after the erosion, in units of :data:`DEPTH_MM`, within the remaining voxels; more than the erosion, so that corners are
restored."""
BINS = 128
"""Bins of the histogram that is divided into classes. Numerical: not tuned."""


def without_extra_axial_csf(image: Volume, mask: Volume) -> Volume:
    """``mask`` (on the grid of the T2w ``image``) without the bright extra-axial CSF at its boundary, as bool: approximately the brain
    tissue and ventricles.

    Bright voxels are those in the upper of three intensity classes (Otsu 1979, A threshold selection method from gray-level histograms).
    The largest connected component is kept, and its holes, the ventricles, are filled. Empty if only bright voxels remain.
    """
    brain = mask.data > 0
    if not brain.any():
        return mask.with_data(brain)
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    data, inside = image.data[box], np.pad(brain[box], 1)
    spacing = tuple(float(s) for s in image.spacing)
    rim = inside & (ndimage.distance_transform_edt(inside, spacing) <= DEPTH_MM)
    bright = inside & np.pad(data > _upper_threshold(data[brain[box]]), 1)
    pieces, _ = ndimage.label(bright | rim)
    kept = inside & ~np.isin(pieces, np.unique(pieces[rim]))
    core, _ = largest_piece(ndimage.distance_transform_edt(kept, spacing) > DEPTH_MM)
    if core.any():
        kept &= ndimage.distance_transform_edt(~core, spacing) <= REGROWN * DEPTH_MM
        core = ndimage.binary_fill_holes(kept)
    out = np.zeros(brain.shape, dtype=bool)
    out[box] = core[1:-1, 1:-1, 1:-1]
    return mask.with_data(out)


def _upper_threshold(values: npt.NDArray[np.floating]) -> float:
    """The upper of the two thresholds that divide ``values`` into three classes with the greatest between-class variance."""
    count, edges = np.histogram(values, BINS, tuple(np.percentile(values, [1, 99])))
    share = count / max(int(count.sum()), 1)
    weight, moment = np.cumsum(share), np.cumsum(share * (edges[1:] + edges[:-1]) / 2)

    def gain(w: npt.NDArray[np.floating], m: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        return np.where(w > 0, m**2 / np.maximum(w, 1e-9), 0)

    low, high = weight[:, None], weight[None]
    between = gain(low, moment[:, None]) + gain(high - low, moment[None] - moment[:, None])
    between = between + gain(1 - high, moment[-1] - moment[None])
    upper = np.unravel_index(int(np.where(np.triu(np.ones_like(between)), between, -np.inf).argmax()), between.shape)[1]
    return float(edges[upper + 1])
