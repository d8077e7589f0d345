"""Errors a user may meet. Every message names the file, what is wrong and what to do."""

from __future__ import annotations

import errno


class PosepipeError(Exception):
    """Root of posepipe's errors: caught per image, so that one bad input never stops the others."""


class UsageError(PosepipeError):
    """Options that cannot work together, or that name something unknown (exit code 2)."""


class ImageError(PosepipeError):
    """An image file that cannot be read or used."""


class MaskError(PosepipeError):
    """No usable brain mask."""


class AgeError(PosepipeError):
    """No age, an age without units, or an age outside the atlas's range."""


class AtlasError(PosepipeError):
    """An atlas that is unknown, not found on this machine, or incomplete."""


class TransformError(PosepipeError):
    """A transform file that cannot be read, or a matrix that is not a rotation."""


class BidsError(PosepipeError):
    """A dataset folder or one of its files that cannot be read or used."""


class RatingError(PosepipeError):
    """A file of ratings that cannot be read, or that holds what no page exports."""


class WeightsError(PosepipeError):
    """Network weights that are unknown, missing, corrupted, or of another network than stated."""


class TrainingError(PosepipeError):
    """Training that cannot continue: the loss is not finite."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Errno values: the disk is full, or the user's quota is used up."""
_FULL = ("No space left on device", "Disk quota exceeded")


def advised(text: str) -> str:
    """``text`` of an error, with advice added if the disk is full.

    >>> advised("OSError: [Errno 28] No space left on device")
    'OSError: [Errno 28] No space left on device; make room in OUT_DIR or the working folder (-w); the same command then continues'
    """
    first, *rest = text.splitlines() or [""]
    if any(sign in text for sign in _FULL):
        first += "; make room in OUT_DIR or the working folder (-w); the same command then continues"
    return "\n".join([first, *rest])
