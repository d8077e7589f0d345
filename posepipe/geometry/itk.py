"""ITK transform files: rigid maps in and out, LPS on disk and RAS in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import TransformError
from ..files import replacing
from .rigid import Rigid
from .so3 import Array

_TEXT = """#Insight Transform File V1.0
#Transform 0
Transform: AffineTransform_double_3_3
Parameters: {parameters}
FixedParameters: {fixed}
"""


def write_itk(pose: Rigid, path: str | Path, center: Array | None = None) -> Path:
    """Write ``pose`` (RAS mm) as an ITK transform (LPS), text or ``.mat``, for ``antsApplyTransforms -t``.

    A map from atlas points to image points resamples the image onto the atlas grid. The file is written atomically. ``center`` (3,) is the
    centre of rotation (RAS mm; default: the origin; text files only). It does not change the map, but an optimisation that starts from the
    file rotates about that point.
    """
    path = Path(path)
    about = np.zeros(3) if center is None else np.asarray(center, dtype=float)
    with replacing(path) as temporary:
        if path.suffix == ".mat":
            from nitransforms.io.itk import ITKLinearTransform

            ITKLinearTransform.from_ras(pose.matrix).to_filename(temporary)
        else:
            # nitransforms writes six digits, an error of up to 0.005 mm far from the origin; all digits are written here
            rotation, translation = Rigid(pose.rotation, pose.apply(about) - about).to_lps()
            parameters = " ".join(repr(float(v)) for v in (*rotation.ravel(), *translation))
            fixed = " ".join(f"{v + 0.0:.17g}" for v in about * [-1, -1, 1])
            temporary.write_text(_TEXT.format(parameters=parameters, fixed=fixed))
    return path


def read_itk(path: str | Path) -> Rigid:
    """Read a rigid ITK transform, text or ``.mat`` (ANTs' ``0GenericAffine.mat``), into RAS mm.

    Raises :class:`~posepipe.errors.TransformError` if the file is missing, unreadable, not one linear transform given
    as a matrix (an Euler or versor transform, a series), or not rigid.
    """
    from nitransforms.io.itk import ITKLinearTransform

    path = Path(path)
    if not path.is_file():
        msg = f"{path}: no such transform file"
        raise TransformError(msg)
    try:
        matrix = np.asarray(ITKLinearTransform.from_filename(path).to_ras(), dtype=float)
    except Exception as error:  # nitransforms raises various exceptions for a malformed file
        why = str(error) or type(error).__name__
        what = "give one AffineTransform, as ANTs and posepipe write for rigid maps"
        msg = f"{path}: not an ITK matrix transform ({why}); {what}"
        raise TransformError(msg) from error
    try:
        return Rigid.from_matrix(matrix)
    except TransformError as error:
        msg = f"{path}: {error}"
        raise TransformError(msg) from error
