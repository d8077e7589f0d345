"""Brain masks: where they come from, what makes them usable, and their size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..errors import MaskError
from .volume import Volume

MIN_MILLILITRES = 5.0
"""Less than this is no brain: at 16 weeks the intracranial volume is about 15 ml."""
EMPTY_FRACTION = 0.05
"""A background counts as exactly empty when at least this share of the voxels is 0."""

SPILL = 0.25
"""Voxels outside the mask that are not 0, as a share of the mask: the rim of a brain extracted with another mask."""


@dataclass(frozen=True, eq=False)
class BrainMask:
    """A brain mask on its image's grid: ``volume.data`` is bool, ``source`` says where it came from."""

    volume: Volume
    source: str
    warnings: tuple[str, ...] = ()

    @property
    def millilitres(self) -> float:
        """Volume inside the mask, ml."""
        return float(self.volume.data.sum()) * self.volume.voxel_volume / 1000


def given_mask(mask: Volume, image: Volume) -> BrainMask:
    """A mask drawn or made elsewhere, on the image's grid.

    Inside are voxels > 0.5 of binary and probability masks, and > 0 of label maps. Raises
    :class:`~posepipe.errors.MaskError` if the grids differ or the mask is empty.
    """
    if not mask.same_grid(image, tolerance=0.05):
        msg = (
            f"{mask.source}: this mask is not on the grid of {image.source} (shapes {mask.shape} and {image.shape}, "
            "or other affines); resample it to the image with nearest neighbours"
        )
        raise MaskError(msg)
    data = mask.data > (0.5 if float(mask.data.max()) <= 1 else 0)
    return _checked(data, image, "given", mask.source)


def nonzero_mask(image: Volume) -> BrainMask:
    """The voxels that are not exactly 0, holes filled: for images that were brain-extracted before.

    Raises :class:`~posepipe.errors.MaskError` unless the background is exactly empty: at least 5 % of the voxels are 0,
    and the faces of the grid are mostly 0 too (a whole uterus fills them; a few padded rows do not make a background).
    """
    data = image.data != 0
    empty = 1 - float(data.mean())
    faces = np.concatenate([np.take(data, i, axis=a).ravel() for a in range(3) for i in (0, -1)])
    if empty < EMPTY_FRACTION or float(faces.mean()) > 0.35:
        msg = (
            f"{image.source}: no brain mask was given and the background is not exactly empty "
            f"({100 * empty:.0f} % of the voxels are 0), so the brain cannot be told from what surrounds it; "
            "give a mask (BIDS App: -d DERIVATIVES with desc-brain_mask; one image: --mask-file) "
            "or a brain-extracted image"
        )
        raise MaskError(msg)
    return _checked(data, image, "nonzero", image.source)


def brain_mask(image: Volume, given: Volume | None = None, mode: str = "auto") -> BrainMask:
    """The brain mask of ``image`` by ``mode``: ``given``, ``nonzero``, or ``auto`` (given, else nonzero voxels)."""
    if mode not in {"auto", "given", "nonzero"}:
        msg = f"unknown mask mode {mode!r}: choose auto, given or nonzero"
        raise ValueError(msg)
    if given is not None and mode != "nonzero":
        return given_mask(given, image)
    if mode == "given":
        msg = f"{image.source}: --mask given, but no brain mask was found; point -d at the derivatives that hold it"
        raise MaskError(msg)
    return nonzero_mask(image)


def _checked(data: npt.NDArray[np.bool_], image: Volume, kind: str, source: str) -> BrainMask:
    """Keep the largest piece, fill its holes, and say what was odd."""
    warnings = []
    labels, n = ndimage.label(data)
    if n > 1:
        sizes = np.bincount(labels.ravel())[1:]
        biggest = int(sizes.argmax()) + 1
        lost = 1 - sizes.max() / sizes.sum()
        if lost > 0.02:
            warnings.append(f"the brain mask has {n} pieces; the largest was kept, the others hold {100 * lost:.0f} %")
        data = labels == biggest
    data = ndimage.binary_fill_holes(data)
    mask = BrainMask(image.with_data(data), kind, tuple(warnings))
    if mask.millilitres < MIN_MILLILITRES:
        held = f"{mask.millilitres:.1f} ml"
        msg = f"{source}: the brain mask holds {held}, too little for a brain; check the mask and its units"
        raise MaskError(msg)
    return mask


def is_skull_stripped(image: Volume, mask: Volume) -> bool:
    """Whether little of ``image`` but the brain is left: hardly a voxel outside ``mask`` (same grid, bool) is not 0."""
    outside = int(((image.data != 0) & ~mask.data).sum())
    return outside <= SPILL * int(mask.data.sum())
