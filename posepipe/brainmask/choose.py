"""Choice of the source of the brain mask."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import MaskError
from ..imaging.mask import BrainMask, given_mask, is_extracted, maybe_older, nonzero_mask
from ..imaging.volume import Volume
from ..settings import MASK_CHOICES
from .finder import BrainFinder


def brain_mask(
    image: Volume, given: Volume | None = None, mode: str = "auto", finder: Callable[[], BrainFinder] | None = None
) -> BrainMask:
    """The brain mask of ``image`` by ``mode``: ``given``, ``nonzero``, ``network``, or ``auto``: the given mask, else the nonzero voxels
    if the image is brain-extracted, else the networks.

    ``finder`` returns the loaded networks and is called only if they are needed (default: those of the package).
    Raises :class:`~posepipe.errors.MaskError` if there is no mask of that kind, or if no brain is found.
    """
    if mode not in MASK_CHOICES:
        msg = f"unknown mask mode {mode!r}: choose {', '.join(MASK_CHOICES[:-1])} or {MASK_CHOICES[-1]}"
        raise ValueError(msg)
    if given is not None and mode in {"auto", "given"}:
        return given_mask(given, image)
    if mode == "given":
        msg = f"{image.source}: --mask given, but no brain mask was found; point -d at the derivatives that hold it"
        raise MaskError(msg)
    if mode == "nonzero" or (mode == "auto" and is_extracted(image)):
        return nonzero_mask(image)
    found = (finder or BrainFinder)().find(image)
    older = maybe_older(image) if mode == "auto" else ""
    return found.warned(older) if older else found
