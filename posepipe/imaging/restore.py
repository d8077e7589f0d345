"""Back from the atlas's frame: what was made of an upright image, onto the image's own grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import ImageError, UsageError
from ..geometry import Rigid
from .apply import reorient, resample_to_template
from .volume import Volume

ORDERS = {0: "nearest neighbour", 1: "linear", 3: "cubic"}
"""Orders of interpolation that :func:`restore` takes, in words."""


def order_for(data: npt.NDArray) -> int:
    """0 (nearest) for labels, 3 (cubic) for images, by the numbers: labels are stored as whole numbers, or are all whole.

    >>> order_for(np.array([0, 3], np.uint8)), order_for(np.array([0.0, 3.0])), order_for(np.array([0.0, 0.5], np.float32))
    (0, 0, 3)
    """
    whole = not np.issubdtype(data.dtype, np.floating) or bool(np.array_equal(data, np.round(data)))
    return 0 if whole else 3


def restore(volume: Volume, original: Volume, pose: Rigid, order: int | None = None) -> Volume:
    """``volume``, which lies in the atlas's frame, on the grid of ``original``; ``pose`` maps points of the atlas to its points.

    It may have been made of the reoriented image (header only): then it gets the header of ``original`` again. Or it
    lies on another grid in that frame, the template's as a rule: then it is interpolated once. ``order`` is 0 (nearest), 1 (linear) or 3
    (cubic); None: :func:`order_for`. What lies outside of it becomes 0 for order 0, else the image's empty value. The data type stays;
    whole numbers that are interpolated are rounded.

    Raises :class:`~posepipe.errors.ImageError` for a volume that lies on the grid of ``original`` already, though the pose turns it, and
    :class:`~posepipe.errors.UsageError` for another order.
    """
    order = order_for(volume.data) if order is None else order
    if order not in ORDERS:
        msg = f"no interpolation of order {order}; give {', '.join(f'{n} ({name})' for n, name in ORDERS.items())}"
        raise UsageError(msg)
    if is_reoriented(volume, original, pose):
        return Volume(volume.data, original.affine, volume.source)
    if volume.same_grid(original):
        msg = f"{volume.source}: is already on the grid of {original.source}, not in the atlas's frame; it needs no restoring"
        raise ImageError(msg)
    if order == 0:
        data = _nearest(volume, original, pose)
    else:
        data = resample_to_template(volume, original, ~pose, order).data
        if not np.issubdtype(volume.data.dtype, np.floating):
            data = np.round(data)
    return Volume(data.astype(volume.data.dtype), original.affine, volume.source)


def is_reoriented(volume: Volume, original: Volume, pose: Rigid) -> bool:
    """Whether ``volume`` has the voxels of ``original`` in the atlas's frame, so that restoring it is a matter of the header alone."""
    return volume.same_grid(reorient(original, pose), tolerance=1e-2)


def labels_on_image(labels: Volume, image: Volume, pose: Rigid) -> Volume:
    """The label map ``labels`` of a template on the grid of ``image`` by ``pose`` (template → image): nearest neighbour, 0 outside."""
    return Volume(_nearest(labels, image, pose), image.affine, labels.source)


def _nearest(volume: Volume, original: Volume, pose: Rigid) -> npt.NDArray:
    """Voxels of ``volume`` at those of ``original``, in their own type, slab by slab: a whole head's indices would not fit in memory."""
    back = np.linalg.inv(volume.affine) @ (~pose).matrix @ original.affine
    out = np.zeros(original.shape, volume.data.dtype)
    at = np.moveaxis(np.indices(original.shape[1:]), 0, -1)
    plane = at @ back[:3, 1:3].T + back[:3, 3]
    limits = np.array(volume.shape)
    for x in range(original.shape[0]):
        index = np.floor(plane + x * back[:3, 0] + 0.5).astype(np.intp)
        inside = ((index >= 0) & (index < limits)).all(-1)
        i, j, k = index[inside].T
        out[x][inside] = volume.data[i, j, k]
    return out
