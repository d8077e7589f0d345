"""Conversion of mask files to bool: binary masks, label maps, and probabilities in any unit. All masks are read through this module."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .volume import Volume, finite, load_volume

GRADED_SHARE, GRADED_TOP = 0.5, 10
"""Integer data are an interpolated mask (grades), not labels, if the largest value is at least ``GRADED_TOP`` and at least this fraction of
the voxels above 0 has it. In 35 label maps of the data (tissues, regions, structures) the largest label has at most 0.29."""
MANY_GRADES, DENSE_GRADES = 60, 0.3
"""Integer data are also grades if they have more than this number of values, which fill at least this fraction of their range: a smoothed
mask in per cent or with the maximum 255. Of 138 label maps none has more than 53 values. The two rules identify all of 80 masks in per
cent, smoothed by 0.5 to 3 voxels or shifted by fractions of one (docs/decisions/039)."""

logger = logging.getLogger(__name__)


def inside_of(data: npt.NDArray) -> tuple[npt.NDArray[np.bool_], str]:
    """Convert a mask's ``data`` (X, Y, Z) to bool, with a note for the user (empty for a binary mask or a label map).

    - Two values: the higher one is inside.
    - Integers that are not grades (:data:`GRADED_SHARE`, :data:`MANY_GRADES`): a label map; values above 0 are inside.
    - Other data, such as probabilities and interpolated masks: values of at least half of the maximum are inside; noted.
    - NaN and infinite values are outside; noted.

    >>> inside_of(np.array([[[0, 255]]]))[0], inside_of(np.array([[[0, 1, 7]]]))[0]
    (array([[[False,  True]]]), array([[[False,  True,  True]]]))
    >>> inside_of(np.array([[[0, 0.2, 0.6, 1]]]))[1]
    'the brain mask is not binary: voxels with at least half of its largest value, 1, were taken as brain'
    """
    if data.dtype == bool:
        return data, ""
    data, lost, _ = finite(data)
    inside, note = _inside_of_finite(data)
    return inside, "; ".join(text for text in (_in_mask(lost), note) if text)


def _in_mask(lost: str) -> str:
    return f"in the brain mask {lost}, outside of the brain" if lost else ""


def _inside_of_finite(data: npt.NDArray) -> tuple[npt.NDArray[np.bool_], str]:
    low, top = float(data.min()), float(data.max())
    if low == top:
        return data > 0, ""
    if bool(((data == low) | (data == top)).all()):
        return data == top, ""
    if top <= 0 or _is_labels(data, top):
        return data > 0, ""
    return data >= top / 2, f"the brain mask is not binary: voxels with at least half of its largest value, {top:g}, were taken as brain"


def _is_labels(data: npt.NDArray, top: float) -> bool:
    """Whether ``data`` (more than two values, maximum ``top``) is a label map."""
    if not bool((data == np.round(data)).all()):
        return False
    above = data[data > 0]
    if top >= GRADED_TOP and float((above == top).mean()) >= GRADED_SHARE:
        return False
    count = len(np.unique(above))
    return count <= MANY_GRADES or count < DENSE_GRADES * top


def inside_with_note(mask: Volume) -> tuple[Volume, str]:
    """``mask`` as bool by :func:`inside_of`, and the note, which is also logged; it includes voxels that were not finite when read."""
    inside, note = inside_of(mask.data)
    note = "; ".join(text for text in (_in_mask(mask.not_finite), note) if text)
    if note:
        logger.warning("%s: %s", mask.source, note)
    return mask.with_data(inside), note


def as_inside(mask: Volume) -> Volume:
    """``mask`` as bool by :func:`inside_of`; the note is only logged."""
    return inside_with_note(mask)[0]


def load_mask(path: str | Path) -> Volume:
    """Read a mask file as bool by :func:`as_inside`; raises what :func:`~posepipe.imaging.volume.load_volume` does."""
    return as_inside(load_volume(path))
