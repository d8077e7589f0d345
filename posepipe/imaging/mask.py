"""Brain masks: sources, checks and volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..errors import MaskError
from ..geometry.so3 import Array
from .extracted import may_be_older, not_a_brain, signs
from .inside import inside_with_note
from .intensity import empty_value, measured
from .volume import Volume

MIN_MILLILITRES = 5.0
"""Least volume of a brain mask: at 16 weeks the intracranial volume is about 15 ml."""
EMPTY_FRACTION = 0.05
"""Least fraction of voxels with the background value for a background to count as exactly empty."""
IMPOSSIBLE_ML = 2000.0
"""Upper limit of the volume of a brain of any age; the adult in ds-negative has 1516 ml including all CSF inside the skull."""
CUT_MM2 = 400.0
"""Area of a mask's section at a face of the grid above which the brain may be cut; a whole brain in a tight box has less."""
STOPS_SHORT_MM = 3.0
"""Distance to the grid's faces within which sections of a network's mask are checked: the networks' input is 0 outside the image, and their
masks may end before its border."""
ROUND_MM = 120.0
"""Diameter of a ball with the curvature of the flattest side of a brain (115 mm in a newborn): at a depth of d mm the section of a whole
brain is at most π × this × d."""
SPILL = 0.25
"""Maximum number of nonzero voxels outside the mask, relative to the mask, in a skull-stripped image; it allows for another mask's
boundary."""


@dataclass(frozen=True, eq=False)
class FoundPose:
    """Pose of the canonical brain in a scan by the masking network: ``rotation`` (3, 3) from the canonical frame to RAS world, ``origin``
    (3,) of that frame, RAS mm, and its unit, the ``radius`` of the brain, mm. ``features``: ``agree``, the fraction of rotated crops with
    the same pose; ``spread``, their median angle (degrees); ``sure``, the mean brain probability; ``expected_error`` and ``residual`` of
    the coordinates (brain radii)."""

    rotation: Array
    origin: Array
    radius: float
    features: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class BrainMask:
    """A brain mask on its image's grid: ``volume.data`` is bool; ``source`` is ``given``, ``nonzero`` or ``network``; ``weights`` (name →
    SHA-256) of the networks and the pose ``found`` by them, if they made it."""

    volume: Volume
    source: str
    warnings: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    found: FoundPose | None = None

    @property
    def voxels(self) -> int:
        """Voxels inside the mask."""
        return int(self.volume.data.sum())

    @property
    def millilitres(self) -> float:
        """Volume inside the mask, ml."""
        return self.voxels * self.volume.voxel_volume / 1000

    def warned(self, text: str) -> BrainMask:
        """The same with one more warning."""
        return replace(self, warnings=(text, *self.warnings))


def no_brain(source: str, why: str = "") -> MaskError:
    """The error for an image ``source`` in which no brain was found, with an optional reason ``why``."""
    return MaskError(
        f"{source}: no brain was found in this image{f': {why}' if why else ''}; if there is one, give its mask (BIDS App: -d DERIVATIVES "
        "with desc-brain_mask; one image: --mask-file)"
    )


def given_mask(mask: Volume, image: Volume) -> BrainMask:
    """A mask from another source, on the image's grid.

    It is converted to bool by :func:`~posepipe.imaging.inside.inside_of`, with a warning if it is neither binary nor a label map, or has
    voxels that are not finite. Raises :class:`~posepipe.errors.MaskError` if the grids differ or the mask is empty.
    """
    if not mask.same_grid(image, tolerance=0.05):
        msg = (
            f"{mask.source}: this mask is not on the grid of {image.source} (shapes {mask.shape} and {image.shape}, "
            "or other affines); resample it to the image with nearest neighbours"
        )
        raise MaskError(msg)
    inside, note = inside_with_note(mask)
    found = checked_mask(inside.data, image, "given", mask.source)
    return found.warned(note) if note else found


def has_empty_background(image: Volume) -> bool:
    """Whether the background has one exact value, usually 0: at least 5 % of all voxels and most voxels on the faces of the grid have it
    (:func:`~posepipe.imaging.intensity.empty_value`)."""
    empty = empty_value(image.data)
    return empty is not None and float((image.data == empty).mean()) >= EMPTY_FRACTION


def is_extracted(image: Volume) -> bool:
    """Whether an image contains only the brain of a fetus or newborn: its background is exactly empty, and the other voxels can be a brain
    by volume, shape and intensities (:mod:`~posepipe.imaging.extracted`)."""
    return has_empty_background(image) and not not_a_brain(signs(image))


def maybe_older(image: Volume) -> str:
    """A warning for an image that may be the extracted brain of an older child, in which the networks would still find a brain; empty for
    others."""
    found = signs(image) if has_empty_background(image) else None
    if not may_be_older(found):
        return ""
    assert found is not None
    return (
        f"the background is exactly empty and the rest resembles a brain of {found.millilitres:.0f} ml, more than any up to 44 weeks: "
        "if it is the brain of an older child, no atlas here matches it; if it is a whole head, check the mask"
    )


def nonzero_mask(image: Volume) -> BrainMask:
    """Mask of the nonzero voxels, with holes filled, for brain-extracted images.

    A warning is added if they cannot be the brain of a fetus or newborn (:mod:`~posepipe.imaging.extracted`). Raises
    :class:`~posepipe.errors.MaskError` unless the background is exactly empty (:func:`has_empty_background`), and for more than
    :data:`IMPOSSIBLE_ML`.
    """
    data = measured(image.data)
    if not has_empty_background(image):
        msg = (
            f"{image.source}: the background is not exactly empty ({100 * (1 - float(data.mean())):.0f} % of the voxels are 0), so the "
            "nonzero voxels are not the brain; let the network find it (--mask network), give a mask (BIDS App: -d DERIVATIVES with "
            "desc-brain_mask; one image: --mask-file) or a brain-extracted image"
        )
        raise MaskError(msg)
    mask = checked_mask(data, image, "nonzero", image.source)
    if mask.millilitres > IMPOSSIBLE_ML:
        msg = (
            f"{image.source}: the nonzero voxels hold {mask.millilitres:.0f} ml, more than any brain: the image is not brain-extracted; "
            "let the network find the brain (--mask network), or give a mask (BIDS App: -d DERIVATIVES with desc-brain_mask; one image: "
            "--mask-file)"
        )
        raise MaskError(msg)
    why = not_a_brain(signs(image))
    warning = f"the image does not look brain-extracted: {why}; if it is not, have the networks find the brain (--mask network)"
    return mask.warned(warning) if why else mask


def checked_mask(data: npt.NDArray[np.bool_], image: Volume, kind: str, source: str) -> BrainMask:
    """Keep the largest connected component of a mask with the source ``kind``, fill its holes, and add warnings.

    Raises :class:`~posepipe.errors.MaskError` for a mask that is too small for a brain, or fills the image.
    """
    warnings = []
    piece, n = largest_piece(data)
    if n > 1:
        lost = 1 - piece.sum() / data.sum()
        if lost > 0.02:
            warnings.append(f"the brain mask has {n} pieces; the largest was kept, the others hold {100 * lost:.0f} %")
    data = ndimage.binary_fill_holes(piece)
    if data.all():
        msg = f"{source}: the brain mask fills the whole image, so that it has no background; give another mask, or a larger image"
        raise MaskError(msg)
    warnings.extend(
        f"the brain mask reaches the {side} edge of the image ({area / 100:.0f} cm²): part of the brain may lie outside"
        for side, area in _cut_sections(image.with_data(data), STOPS_SHORT_MM if kind == "network" else 0)
    )
    mask = BrainMask(image.with_data(data), kind, tuple(warnings))
    if mask.millilitres < MIN_MILLILITRES:
        held = f"{mask.millilitres:.1f} ml"
        msg = f"{source}: the brain mask holds {held}, too little for a brain; check the mask and its units"
        raise MaskError(msg)
    return mask


def largest_piece(data: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], int]:
    """The largest connected component (6-connectivity) of ``data`` (X, Y, Z), empty if there is none, and the number of components."""
    pieces, n = ndimage.label(data)
    return (pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax()) if n else np.zeros(data.shape, dtype=bool)), n


_SIDES = {"L": "left", "R": "right", "P": "posterior", "A": "anterior", "I": "inferior", "S": "superior"}


def _cut_sections(mask: Volume, depth: float) -> list[tuple[str, float]]:
    """Faces of the grid that cut a mask (bool): the nearest anatomical side of the image, by its header, and the area of the section (mm²).

    Slices within ``depth`` mm of the face are checked too, minus the section that a whole brain may have there.
    """
    codes = nib.aff2axcodes(mask.affine)
    opposite = dict(zip("LRPAIS", "RLAPSI", strict=True))
    found = []
    for axis, high in enumerate(codes):
        step = float(mask.spacing[axis])
        cell = float(np.linalg.norm(np.cross(*np.delete(mask.affine[:3, :3], axis, axis=1).T)))
        sections = cell * mask.data.sum(axis=tuple(other for other in range(3) if other != axis))
        slices = np.arange(min(int(depth / step) + 1, len(sections)))
        for side, outermost in ((opposite[high], sections[slices]), (high, sections[::-1][slices])):
            excess = outermost - np.pi * ROUND_MM * step * slices
            if excess.max() > CUT_MM2:
                found.append((_SIDES[side], float(outermost[excess.argmax()])))
    return found


def is_skull_stripped(image: Volume, mask: Volume) -> bool:
    """Whether ``image`` is skull-stripped: at most :data:`SPILL` nonempty voxels outside ``mask`` (same grid, bool)."""
    outside = int((measured(image.data) & ~mask.data).sum())
    return outside <= SPILL * int(mask.data.sum())
