"""What of a file counts as inside: binary masks, label maps, probabilities in any unit. The one place where this is decided."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .volume import Volume, finite, load_volume

GRADED_SHARE, GRADED_TOP = 0.5, 10
"""Whole numbers are grades, not labels, where the largest, which is no small one, holds at least this share of what is above 0: the inside
of a mask that was interpolated. Of 35 label maps of the data (tissues, regions, structures) the largest label holds 0.29 at most."""
MANY_GRADES, DENSE_GRADES = 60, 0.3
"""And where there are more, filling so much of their range: a mask in per cent or of 255 that was smoothed. Of 138 label maps none has more
than 53. By either rule all of 80 masks in per cent, smoothed by 0.5 to 3 voxels or moved by parts of one, are graded
(docs/experiments-zero-background.md)."""

logger = logging.getLogger(__name__)


def inside_of(data: npt.NDArray) -> tuple[npt.NDArray[np.bool_], str]:
    """Which voxels of a mask's ``data`` (X, Y, Z) are inside, bool alike, and what is to be said of it, empty for a plain mask.

    Two values: the higher is inside. Whole numbers, unless they are grades (:data:`GRADED_SHARE`, :data:`MANY_GRADES`): labels, inside is
    what is above 0. All else, such as probabilities, per cent and what interpolation left of a mask: inside is what has at least half of
    the largest value, and that is said. What is NaN or infinite is outside, and that is said.

    >>> inside_of(np.array([[[0, 255]]]))[0], inside_of(np.array([[[0, 1, 7]]]))[0]
    (array([[[False,  True]]]), array([[[False,  True,  True]]]))
    >>> inside_of(np.array([[[0, 0.2, 0.6, 1]]]))[1]
    'the brain mask is not binary: voxels with at least half of its largest value, 1, were taken for brain'
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
    return data >= top / 2, f"the brain mask is not binary: voxels with at least half of its largest value, {top:g}, were taken for brain"


def _is_labels(data: npt.NDArray, top: float) -> bool:
    """Whether ``data``, of more than two values, up to ``top``, are the whole numbers of a label map."""
    if not bool((data == np.round(data)).all()):
        return False
    above = data[data > 0]
    if top >= GRADED_TOP and float((above == top).mean()) >= GRADED_SHARE:
        return False
    count = len(np.unique(above))
    return count <= MANY_GRADES or count < DENSE_GRADES * top


def inside_with_note(mask: Volume) -> tuple[Volume, str]:
    """The voxels of ``mask`` that are inside, bool, by :func:`inside_of`, and what is to be said, which is logged: also of voxels that were
    not finite when it was read."""
    inside, note = inside_of(mask.data)
    note = "; ".join(text for text in (_in_mask(mask.not_finite), note) if text)
    if note:
        logger.warning("%s: %s", mask.source, note)
    return mask.with_data(inside), note


def as_inside(mask: Volume) -> Volume:
    """The same without what is to be said."""
    return inside_with_note(mask)[0]


def load_mask(path: str | Path) -> Volume:
    """Read a mask file as bool by :func:`as_inside`; raises what :func:`~posepipe.imaging.volume.load_volume` does."""
    return as_inside(load_volume(path))
