"""Application of a pose: resampling to the atlas grid, and reorientation by the header."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..geometry import Rigid
from .intensity import outside
from .volume import Volume


def resample_to_template(image: Volume, template: Volume, pose: Rigid, order: int = 3) -> Volume:
    """``image`` on the grid of ``template`` by ``pose`` (template → image, RAS mm): one interpolation, cubic by default.

    Values are clipped to the image's range (splines overshoot at edges). Voxels outside the image get 0, or the image's background value
    (:func:`~posepipe.imaging.intensity.outside`). ``order`` 0 is for masks.
    """
    to_image = np.linalg.inv(image.affine) @ pose.matrix @ template.affine
    data = ndimage.affine_transform(
        image.data.astype(np.float32), to_image[:3, :3], to_image[:3, 3], output_shape=template.shape, order=order,
        cval=outside(image.data),
    )
    if order > 1:
        data = np.clip(data, float(image.data.min()), float(image.data.max()))
    return Volume(data, template.affine, image.source)


def reorient(image: Volume, pose: Rigid) -> Volume:
    """The same voxels with the inverse of ``pose`` applied to the affine: in the atlas's frame without interpolation."""
    return image.moved(~pose)
