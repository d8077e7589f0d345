"""Errors a user may meet. Every message names the file, what is wrong and what to do."""

from __future__ import annotations


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
    """A dataset folder that cannot be walked."""


class RatingError(PosepipeError):
    """A file of ratings that cannot be read, or that holds what no page exports."""


class WeightsError(PosepipeError):
    """Weights of a network that are unknown, missing, damaged, or not of the network they are said to be."""


class TrainingError(PosepipeError):
    """Training that cannot go on: its loss is no longer a finite number."""
