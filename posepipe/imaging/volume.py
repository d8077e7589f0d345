"""Images in memory: an array, its affine, and the checks for every input."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ImageError
from ..files import replacing
from ..geometry import Rigid
from .header import check_affine, header_doubts, open_image, right_angled, shear_doubts, unreadable

NOT_FINITE = 0.05
"""Fraction of NaN or infinite voxels above which an image is for ``review``: the rule of the project. Such voxels are set to 0; up to this
fraction they may be a margin or a few broken voxels."""
_STORED = ("u1", "i1", "u2", "i2", "i4", "f4")
Float = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image: ``data`` (X, Y, Z), and ``affine`` (4, 4) from voxel indices to RAS mm. Treat both as read-only.

    ``doubts`` are problems with its header and voxels that lead to the verdict ``review``; ``notes`` are problems that do not.
    ``not_finite`` is the one of them about NaN or infinite voxels, empty if there were none.

    >>> v = Volume(np.zeros((4, 5, 6), np.float32), np.diag([2., 2., 2., 1.]))
    >>> v.center
    array([3., 4., 5.])
    """

    data: npt.NDArray
    affine: npt.NDArray[np.float64]
    source: str = "array"
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    not_finite: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "affine", np.asarray(self.affine, dtype=float))
        if self.data.ndim != 3:
            msg = f"{self.source}: expected a 3D image, found {self.data.ndim} dimensions {self.data.shape}"
            raise ImageError(msg)
        check_affine(self.affine, self.source)

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
    """Read a NIfTI (or MGH) file as a :class:`Volume` with ``data`` in ``dtype`` (None: as it is stored), :func:`checked`.

    A trailing axis of length 1 is dropped. The affine is the sform, else the qform, as in nibabel.
    Raises :class:`~posepipe.errors.ImageError` for a missing, unreadable, empty or 4D file, and for a header whose affine is unusable.
    """
    path = Path(path)
    image = open_image(path, whole=True)
    try:
        data = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel raises various exceptions for a broken file
        raise unreadable(path, error) from error
    while data.ndim > 3:
        data = data[..., 0]
    if dtype is not None and np.issubdtype(dtype, np.floating):
        with np.errstate(over="ignore"):  # too large a number is not finite then
            data = np.asarray(data, dtype=dtype)
    volume = checked(Volume(data, image.affine, str(path), header_doubts(image)))
    volume = volume if dtype is None else replace(volume, data=np.asarray(volume.data, dtype=dtype))
    if float(volume.data.max()) == float(volume.data.min()):
        msg = (
            f"{path}: every voxel has the value {float(volume.data.max()):g}: the image is empty; create it again, or leave it out"
        )
        raise ImageError(msg)
    return volume


def load_logged(path: str | Path) -> Volume:
    """As :func:`load_volume`; doubts and notes are logged as warnings."""
    volume = load_volume(path)
    for text in (*volume.doubts, *volume.notes):
        logger.warning("%s: %s", path, text)
    return volume


def checked(volume: Volume) -> Volume:
    """``volume`` with orthogonal axes and 0 for voxels that are not finite; the changes are described in its doubts and notes."""
    doubts, notes = [*volume.doubts, *shear_doubts(volume.affine, volume.shape)], [*volume.notes]
    data, note, share = finite(volume.data)
    if note:
        (doubts if share > NOT_FINITE else notes).append(note)
    return replace(
        volume, data=data, affine=right_angled(volume.affine), doubts=tuple(dict.fromkeys(doubts)), notes=tuple(notes),
        not_finite=note or volume.not_finite,
    )  # fmt: skip


def finite(data: npt.NDArray) -> tuple[npt.NDArray, str, float]:
    """``data`` (any shape) with 0 for NaN and infinite values, a note (empty if there were none), and their fraction.

    >>> finite(np.array([1.0, np.nan, 3.0, -np.inf]))
    (array([1., 0., 3., 0.]), '2 of 4 voxels (50 %) are NaN or infinite; they were set to 0', 0.5)
    """
    bad = int(data.size - np.isfinite(data).sum()) if np.issubdtype(data.dtype, np.floating) else 0
    if not bad:
        return data, "", 0.0
    share = bad / data.size
    note = f"{bad} of {data.size} voxels ({100 * share:.2g} %) are NaN or infinite; they were set to 0"
    return np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0), note, share


def stored_type(dtype: npt.DTypeLike) -> np.dtype:
    """The type that voxels of type ``dtype`` are written in: their own where every NIfTI reader takes it, else float32.

    >>> str(stored_type(np.int16)), str(stored_type(">i2")), str(stored_type(np.float64))
    ('int16', 'int16', 'float32')
    """
    native = np.dtype(dtype).newbyteorder("=")
    return native if native.str[1:] in _STORED else np.dtype(np.float32)


def save_volume(volume: Volume, path: str | Path, dtype: npt.DTypeLike | None = None) -> Path:
    """Write ``volume`` as NIfTI, atomically.

    Sform and qform are equal, with orthogonal axes and code 1, so that all readers place the image identically. With another code ITK would
    use the qform, whose float32 quaternion has an error of up to 0.04° for rotations of nearly 180°, as in slightly oblique LAS images.
    """
    import nibabel as nib

    path = Path(path)
    data = volume.data if dtype is None else volume.data.astype(dtype)
    if data.dtype == bool:
        data = data.astype(np.uint8)
    affine = right_angled(volume.affine)
    image = nib.Nifti1Image(data, affine)
    image.set_data_dtype(data.dtype)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    with replacing(path) as temporary:
        nib.save(image, temporary)
    return path
