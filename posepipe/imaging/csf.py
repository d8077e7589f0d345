"""The brain without the fluid around it, where an image's intensities tell them apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .mask import largest_piece
from .volume import Volume

DEPTH_MM = 2.0
"""Voxels this near to the mask's rim are taken for fluid: the rim is half skull, and dark. Bridges thinner than twice that are cut."""
REGROWN = 1.3
"""What is left is grown back by so many depths, into what is left only: a little more than was taken, so that corners return."""
BINS = 128


def without_extra_axial_csf(image: Volume, mask: Volume) -> Volume:
    """``mask`` (on the grid of T2-weighted ``image``, bool comes back) without the bright fluid at its rim: about the brain's own surface.

    Bright is what lies in the upper of three classes of intensity (Otsu 1979, A threshold selection method from gray-level histograms).
    The largest piece is kept and its holes, the ventricles, are filled. Empty where nothing but bright voxels is left.
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
    """The upper of the two thresholds that part ``values`` into three classes with the greatest variance between them."""
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
