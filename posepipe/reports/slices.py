"""Position and extent of a brain in world space, and interpolation of a volume for pictures.

**Frame: RAS millimetres. Slices are displayed in neurological orientation: the subject's right is on the right.** Axial
slices have anterior on top, coronal and sagittal slices superior on top, sagittal slices anterior on the right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import MaskError
from ..geometry import Rigid
from ..imaging.volume import Float, Volume

Array = npt.NDArray[np.float64]

#: name → (axis drawn to the right, axis drawn upwards, axis cut across), of 0 = R, 1 = A, 2 = S.
PLANES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}


def centroid(mask: Volume) -> Array:
    """Centre (3,) of the voxels of ``mask`` above 0.5, RAS mm; :class:`~posepipe.errors.MaskError` if none is."""
    inside = _inside(mask)
    total = inside.sum()
    index = np.array([(inside.sum(axis=others) @ np.arange(n)) / total for others, n in _axes(mask)])
    return mask.affine[:3, :3] @ index + mask.affine[:3, 3]


def extent(mask: Volume) -> tuple[Array, Array]:
    """Lowest and highest corner (3,) each of the box around ``mask``, along the world axes, RAS mm."""
    inside = _inside(mask)
    ends = [np.flatnonzero(inside.any(axis=others))[[0, -1]] + [-0.5, 0.5] for others, _ in _axes(mask)]
    corners = np.array(np.meshgrid(*ends)).reshape(3, -1)
    world = mask.affine[:3, :3] @ corners + mask.affine[:3, 3:]
    return world.min(axis=1), world.max(axis=1)


def start_pose(mask: Volume, template_mask: Volume) -> Rigid:
    """The pose 'before': no rotation; the centroid of the template's mask maps to the centroid of the image's."""
    return Rigid(np.eye(3), centroid(mask) - centroid(template_mask))


def sample(volume: Volume, points: npt.ArrayLike, order: int = 1) -> Float:
    """Values of ``volume`` at ``points`` (..., 3), RAS mm, interpolated with ``order`` 0 or 1; 0 outside the grid."""
    from scipy.ndimage import map_coordinates

    points = np.asarray(points, dtype=float)
    back = np.linalg.inv(volume.affine)
    index = points.reshape(-1, 3) @ back[:3, :3].T + back[:3, 3]
    data = volume.data.view(np.uint8) if volume.data.dtype == bool else volume.data
    values = map_coordinates(data, index.T, output=np.float32, order=order, mode="constant", cval=0.0)
    return values.reshape(points.shape[:-1])


def _axes(mask: Volume) -> list[tuple[tuple[int, int], int]]:
    """For each axis: the two others, and its length."""
    return [((1, 2), mask.shape[0]), ((0, 2), mask.shape[1]), ((0, 1), mask.shape[2])]


def _inside(mask: Volume) -> npt.NDArray[np.bool_]:
    inside = mask.data > 0.5
    if not inside.any():
        msg = f"{mask.source}: the brain mask is empty, so there is nothing to centre a figure on; give another mask"
        raise MaskError(msg)
    return inside
