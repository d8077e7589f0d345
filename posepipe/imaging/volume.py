"""Images in memory: an array, its affine, and the checks every input passes."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ImageError
from ..files import replacing
from ..geometry import Rigid

Float = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image: ``data`` (X, Y, Z), and ``affine`` (4, 4) from voxel indices to RAS mm. Treat both as read-only.

    >>> v = Volume(np.zeros((4, 5, 6), np.float32), np.diag([2., 2., 2., 1.]))
    >>> v.center
    array([3., 4., 5.])
    """

    data: npt.NDArray
    affine: npt.NDArray[np.float64]
    source: str = "array"

    def __post_init__(self) -> None:
        object.__setattr__(self, "affine", np.asarray(self.affine, dtype=float))
        if self.data.ndim != 3:
            msg = f"{self.source}: expected a 3D image, found {self.data.ndim} dimensions {self.data.shape}"
            raise ImageError(msg)
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all() or self.voxel_volume < 1e-6:
            msg = f"{self.source}: the header's affine is not usable (singular or not finite); repair the header"
            raise ImageError(msg)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        x, y, z = self.data.shape
        return x, y, z

    @property
    def spacing(self) -> npt.NDArray[np.float64]:
        """Voxel edge lengths (3,), mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel, mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def center(self) -> npt.NDArray[np.float64]:
        """Middle of the voxel grid (3,), RAS mm."""
        return self.affine[:3, :3] @ ((np.array(self.shape) - 1) / 2) + self.affine[:3, 3]

    def with_data(self, data: npt.NDArray) -> Volume:
        """The same grid holding other values."""
        return Volume(data, self.affine, self.source)

    def same_grid(self, other: Volume, tolerance: float = 1e-3) -> bool:
        """Whether both have the same shape, and voxel corners within ``tolerance`` mm of each other."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[[0, n - 1] for n in self.shape])).reshape(3, -1)
        corners = np.vstack([corners, np.ones(8)])
        return bool(np.abs(self.affine @ corners - other.affine @ corners)[:3].max() <= tolerance)

    def moved(self, pose: Rigid) -> Volume:
        """The same voxels placed by ``pose``: only the affine changes, nothing is interpolated."""
        return Volume(self.data, pose.matrix @ self.affine, self.source)


def load_volume(path: str | Path, dtype: npt.DTypeLike = np.float32) -> Volume:
    """Read a NIfTI (or MGH) file as a :class:`Volume` with ``data`` in ``dtype``; not-finite voxels become 0.

    A trailing axis of length 1 is dropped. Raises :class:`~posepipe.errors.ImageError` for a missing, unreadable, empty
    or 4D file, and for a header whose affine is unusable.
    """
    import nibabel as nib

    path = Path(path)
    if not path.is_file():
        msg = f"{path}: no such file"
        raise ImageError(msg)
    try:
        image = nib.load(path)
        if path.name.endswith((".nii.gz", ".mgz")):
            # nibabel stops before the checksum at the end, and so would take a damaged file for a good one
            image = type(image).from_bytes(gzip.decompress(path.read_bytes()))
        data = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel, gzip and zlib each raise their own for a broken file
        msg = f"{path}: cannot be read ({type(error).__name__}: {error}); is it a complete NIfTI file?"
        raise ImageError(msg) from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        msg = f"{path}: expected one 3D image, found shape {data.shape}; split a series into single volumes"
        raise ImageError(msg)
    if min(data.shape) < 2 or data.dtype.fields is not None or np.iscomplexobj(data):
        msg = f"{path}: expected a 3D image of real numbers, found {data.dtype} {data.shape}"
        raise ImageError(msg)
    data = np.asarray(data, dtype=dtype)
    if np.issubdtype(data.dtype, np.floating) and not np.isfinite(data).all():
        data = np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
    if float(data.max()) == float(data.min()):
        msg = f"{path}: every voxel has the value {float(data.max()):g}; there is no image in this file"
        raise ImageError(msg)
    return Volume(data, image.affine, str(path))


def save_volume(volume: Volume, path: str | Path, dtype: npt.DTypeLike | None = None) -> Path:
    """Write ``volume`` as NIfTI by way of a temporary name in the same folder, so that no half file is ever seen.

    The affine goes into the sform, with code 2 (aligned). The qform says the same but is marked unknown, code 0: ITK
    reads a valid qform first, and its float32 quaternion is off by up to 0.03° for axes turned by nearly 180°, as
    those of a slightly oblique LAS image are.
    """
    import nibabel as nib

    path = Path(path)
    data = volume.data if dtype is None else volume.data.astype(dtype)
    if data.dtype == bool:
        data = data.astype(np.uint8)
    image = nib.Nifti1Image(data, volume.affine)
    image.set_data_dtype(data.dtype)
    image.set_sform(volume.affine, code=2)
    image.set_qform(volume.affine, code=0)
    image.header.set_xyzt_units("mm", "sec")
    with replacing(path) as temporary:
        nib.save(image, temporary)
    return path
