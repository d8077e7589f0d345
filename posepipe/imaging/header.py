"""Checks of an image's header (affine, qform, sform, shape) and file length, most of them before the voxels are read."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from ..errors import ImageError
from ..geometry.so3 import Array, project

TILT_DEGREES, SHIFT_MM = 0.5, 0.5
"""Limits of the difference between qform and sform, and of the shear of the axes, above which an image is for ``review``: the rule of the
project for headers. Rounding a header to three decimals, or to a float32 quaternion, gives at most 0.1° and 0.1 mm at a head;
0.5° and 0.5 mm are well below the accuracy of rigid registration of real brains."""
FLOAT32_ROUNDING = 1e-6
"""Largest cosine between the columns of an affine with orthogonal axes, due to the rounding to float32 in NIfTI."""
UNKNOWN = (
    "the header has neither qform nor sform (codes both 0): the position and handedness of the image are unknown, so left and "
    "right may be swapped; check the image, and set its header"
)
_CHUNK = 1 << 20
EDGES_MM = (0.02, 50.0)
"""Limits of the voxel edges, mm; other values are not from a scan of a head. By the rule of the project, 0.05 and 20 mm must be readable,
and a header in metres or micrometres must be detected (the usual edges of 0.3 to 8 mm, a factor of 1000 off, lie beyond these limits)."""
LEAST_VOLUME = 1e-3
"""Least volume of a voxel relative to that with orthogonal axes; below it the affine is singular. A gantry tilt of 45° gives 0.7."""
MOST_VOXELS = 1 << 28
"""Larger images are rejected before they are read: they take 1 GB in float32, a run holds several copies, and the limit of a run is 4 GB
(the rule of the project). A field of view of 320 mm at 0.5 mm has this size."""


def right_angled(affine: npt.ArrayLike) -> Array:
    """``affine`` (4, 4) with its axes replaced by the nearest orthogonal ones; voxel edges and the position of voxel 0 are unchanged.

    A qform stores such axes, and ITK requires them: it cannot read a sform with non-orthogonal axes.

    >>> sheared = np.array([[1, 0.02, 0, 5], [0, 1, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1.0]])
    >>> a = right_angled(sheared)[:3, :3]
    >>> abs(float(a[:, 0] @ a[:, 1])) < 1e-12, float(a[2, 2])
    (True, 2.0)
    """
    affine = np.array(affine, dtype=float)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / edges
    if np.abs(axes.T @ axes - np.eye(3)).max() > FLOAT32_ROUNDING:
        mirror = np.diag([1.0, 1.0, np.sign(np.linalg.det(axes))])
        affine[:3, :3] = project(axes @ mirror) @ mirror * edges
    return affine


def shear_doubts(affine: npt.ArrayLike, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Reasons for review of an ``affine`` (4, 4) of a grid of ``shape``: shear of the axes beyond the limits."""
    affine = np.asarray(affine, dtype=float)
    straight = right_angled(affine)
    axes, turned = (a[:3, :3] / np.linalg.norm(a[:3, :3], axis=0) for a in (affine, straight))
    degrees = float(np.degrees(np.arccos(np.clip((axes * turned).sum(0), -1, 1)).max()))
    millimetres = _shift(affine, straight, shape)
    if degrees <= TILT_DEGREES and millimetres <= SHIFT_MM:
        return ()
    return (
        f"the axes of the header are not at right angles: they were turned by {degrees:.1f}°, which moves the middle of the image by "
        f"{millimetres:.1f} mm; check the header",
    )


def header_doubts(image: Any) -> tuple[str, ...]:
    """Reasons for review of the header of a nibabel ``image``: no orientation, or a qform and a sform that disagree. For shears see
    :func:`shear_doubts`."""
    import nibabel as nib

    header = image.header
    if not isinstance(header, nib.Nifti1Header):
        return (UNKNOWN,) if isinstance(header, nib.analyze.AnalyzeHeader) and not _mat_file(image) else ()
    codes = int(header["qform_code"]), int(header["sform_code"])
    if codes[0] <= 0 and codes[1] <= 0:
        return (UNKNOWN,)
    if min(codes) <= 0:
        return ()
    try:
        by_q, by_s = header.get_qform(), header.get_sform()
    except (HeaderDataError, ValueError) as error:
        return (f"the qform of the header is not usable ({error}); the sform was used: check that it is right",)
    return _disagreement(by_q, right_angled(by_s), image.shape)


def _disagreement(by_q: Array, by_s: Array, shape: tuple[int, ...]) -> tuple[str, ...]:
    edges = [np.linalg.norm(a[:3, :3], axis=0) for a in (by_q, by_s)]
    if not all(np.isfinite(a).all() and (e > 0).all() for a, e in zip((by_q, by_s), edges, strict=True)):
        return ("the qform of the header is not usable (not finite); the sform was used: check that it is right",)
    relative = (by_q[:3, :3] / edges[0]) @ (by_s[:3, :3] / edges[1]).T
    if np.linalg.det(relative) < 0:
        return ("qform and sform of the header mirror each other: left and right may be swapped; the sform was used: check which is right",)
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(relative) - 1) / 2, -1, 1))))
    extent = float(np.abs((edges[0] - edges[1]) * (np.array(shape[:3]) - 1)).max())
    millimetres = max(_shift(by_q, by_s, shape), extent)
    if degrees <= TILT_DEGREES and millimetres <= SHIFT_MM:
        return ()
    apart = f"{degrees:.1f}° and {millimetres:.1f} mm"
    return (f"qform and sform of the header disagree, by {apart}; the sform was used: check which is right",)


def _shift(a: Array, b: Array, shape: tuple[int, ...]) -> float:
    """Distance (mm) between the positions of the middle of a grid by two affines."""
    middle = np.append((np.array(shape[:3]) - 1) / 2, 1.0)
    return float(np.linalg.norm(((a - b) @ middle)[:3]))


def _mat_file(image: Any) -> bool:
    """Whether an Analyze image has SPM's ``.mat`` file with its orientation."""
    path = image.get_filename()
    return bool(path) and Path(path).with_suffix(".mat").is_file()


def open_image(path: str | Path, *, whole: bool = False) -> Any:
    """Open a file as a nibabel image without reading its voxels; with ``whole``, a compressed file is unpacked and its checksum verified.

    Raises :class:`~posepipe.errors.ImageError` for a file that is missing or not an image, for a series, and for anything but a 3D grid of
    real numbers.
    """
    import nibabel as nib

    path = Path(path)
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
        if is_file:
            path.open("rb").close()
    except OSError as error:
        link = " (a link to what is not there; fetch it: datalad get, git annex get)" if os.path.islink(path) else ""  # noqa: PTH114
        missing = isinstance(error, FileNotFoundError) or link
        msg = f"{path}: no such file{link}" if missing else f"{path}: cannot be read ({error.strerror}); make it readable"
        raise ImageError(msg) from error
    if not is_file:
        msg = f"{path}: expected a file, found a folder, a pipe or a device; replace it by an image"
        raise ImageError(msg)
    try:
        image: Any = nib.load(path)
        shape, dtype = tuple(image.shape), image.get_data_dtype()
    except Exception as error:  # nibabel, gzip and zlib raise different exceptions for a broken file
        raise unreadable(path, error) from error
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        msg = f"{path}: expected one 3D image, found shape {shape}; split a series into single volumes"
        raise ImageError(msg)
    if any(n < 0 for n in shape) or int(np.prod(shape, dtype=object)) > MOST_VOXELS:
        size = " × ".join(map(str, shape))
        msg = f"{path}: its header says that it holds {size} voxels, which no scan of a head does; repair it, or cut or resample the image"
        raise ImageError(msg)
    if min(shape[:3]) < 2 or dtype.fields is not None or np.issubdtype(dtype, np.complexfloating):
        msg = f"{path}: expected a 3D image of real numbers, found {dtype} {shape}"
        raise ImageError(msg)
    if whole and path.name.endswith((".nii.gz", ".mgz")):
        try:
            # nibabel does not read the checksum at the end, and would accept a corrupted file
            image = type(image).from_bytes(gzip.decompress(path.read_bytes()))
        except Exception as error:
            raise unreadable(path, error) from error
    return image


def unreadable(path: Path, error: BaseException) -> ImageError:
    """The error for a file that cannot be read, because of ``error``."""
    return ImageError(f"{path}: cannot be read ({type(error).__name__}: {error}); is it a complete NIfTI file? If not, copy it again")


def check_affine(affine: npt.ArrayLike, source: str) -> None:
    """Raise :class:`~posepipe.errors.ImageError` for an affine that is not (4, 4), not finite, singular, or has voxel edges beyond
    :data:`EDGES_MM`."""
    a = np.asarray(affine, dtype=float)
    finite = a.shape == (4, 4) and bool(np.isfinite(a).all())
    edges = np.linalg.norm(a[:3, :3], axis=0) if finite else np.zeros(3)
    if edges.all() and (edges.min() < EDGES_MM[0] or edges.max() > EDGES_MM[1]):
        size = " × ".join(f"{edge:.3g}" for edge in edges)
        msg = f"{source}: voxels of {size} mm are of no scan of a head; check the header and its units (millimetres are expected)"
        raise ImageError(msg)
    if not edges.all() or abs(np.linalg.det(a[:3, :3] / edges)) < LEAST_VOLUME:
        msg = f"{source}: the header's affine is not usable (singular or not finite); repair the header"
        raise ImageError(msg)


def check_length(path: str | Path, image: Any) -> None:
    """Check that the file of a NIfTI ``image`` (of :func:`open_image`) has the length given by its header.

    A gzip file stores the unpacked length in its last four bytes; it is unpacked only if that differs from the expected length. Raises
    :class:`~posepipe.errors.ImageError` for a truncated file.
    """
    import nibabel as nib

    path = Path(path)
    if not isinstance(image, nib.Nifti1Image):
        return
    expected = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    try:
        if path.name.endswith(".gz"):
            with path.open("rb") as stream:
                stream.seek(-min(4, path.stat().st_size), 2)
                if int.from_bytes(stream.read(), "little") == expected % (1 << 32):
                    return
            length = 0
            with gzip.open(path, "rb") as unpacked:
                while chunk := unpacked.read(_CHUNK):
                    length += len(chunk)
        else:
            length = path.stat().st_size
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    if length < expected:
        msg = f"{path}: cut short, it holds {length} of {expected} bytes; copy or download it again"
        raise ImageError(msg)


class Checked(NamedTuple):
    """Result of :func:`check_header`: ``shape`` in voxels, ``spacing`` (3 values, mm), and ``doubts``, the reasons for review."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    doubts: tuple[str, ...]


def check_header(path: str | Path) -> Checked:
    """Check the header of an image file without reading its voxels.

    Raises :class:`~posepipe.errors.ImageError` as :func:`open_image`, :func:`check_affine` and :func:`check_length` do.
    """
    image = open_image(path)
    check_affine(image.affine, str(path))
    check_length(path, image)
    edges = np.linalg.norm(right_angled(image.affine)[:3, :3], axis=0)
    doubts = (*header_doubts(image), *shear_doubts(image.affine, image.shape))
    return Checked(tuple(int(n) for n in image.shape), tuple(float(edge) for edge in edges), doubts)
