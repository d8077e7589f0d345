"""ITK transform files, read and written by way of nitransforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import TransformError
from .rigid import Rigid


def write_itk(pose: Rigid, path: str | Path) -> Path:
    """Write ``pose`` (RAS mm) as an ITK text transform (LPS): what ``antsApplyTransforms -t`` takes.

    A map from atlas points to image points resamples the image onto the atlas grid.
    """
    from nitransforms.linear import Affine

    path = Path(path)
    Affine(pose.matrix).to_filename(path, fmt="itk")
    return path


def read_itk(path: str | Path) -> Rigid:
    """Read a rigid ITK transform, text or ``.mat`` (ANTs' ``0GenericAffine.mat``), into RAS mm.

    Raises :class:`~posepipe.errors.TransformError` if the file is missing, unreadable or not rigid.
    """
    from nitransforms.io.itk import ITKLinearTransform

    path = Path(path)
    if not path.is_file():
        msg = f"{path}: no such transform file"
        raise TransformError(msg)
    try:
        matrix = np.asarray(ITKLinearTransform.from_filename(path).to_ras(), dtype=float)
    except Exception as error:  # nitransforms raises many kinds for a malformed file
        msg = f"{path}: not an ITK linear transform ({error}); give a file written by ANTs, ITK-SNAP or posepipe"
        raise TransformError(msg) from error
    try:
        return Rigid.from_matrix(matrix)
    except TransformError as error:
        msg = f"{path}: {error}"
        raise TransformError(msg) from error
