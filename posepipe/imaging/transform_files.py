"""Rigid transforms in the formats of other tools: FSL, FreeSurfer (LTA), X5, NiftyReg, MIRTK, beside ITK.

**Every file says the same as the ITK file: how to resample the moving image onto the grid of the reference image.** In memory that is the
pose: the map from points of the reference to points of the moving image, RAS mm. What a file holds is, in its tool's terms:

========  =============================================================  =====================
format    numbers in the file                                            needs the images
========  =============================================================  =====================
itk       reference → moving, LPS mm                                     no
fsl       moving → reference, scaled voxels, x flipped where the voxel   both
          axes are right-handed (4 × 4 text)
lta       moving (src) → reference (dst), RAS mm, and both geometries    both
x5        reference → moving, RAS mm, and the reference's grid (HDF5)    the reference
niftyreg  reference → moving (floating), RAS mm (4 × 4 text)             no
mirtk     reference (target) → moving (source): three shifts, mm, and    no
          three angles, degrees (binary)
========  =============================================================  =====================

FSL, LTA and NiftyReg are written here and not by *nitransforms*. Its matrices for FSL are right (of oblique images, of either handedness
and of unlike shapes), but have 8 decimals, and it takes the edges of voxels from the affine, where flirt takes them from ``pixdim``. In
an LTA it puts the reference's geometry where the moving image's belongs (``src``), by which FreeSurfer's tools take the transform for its
inverse, and it reads the matrix in single precision. NiftyReg it does not know.

X5 is laid out as *nitransforms* 25.1 reads and writes it. MIRTK's file
is laid out as its sources have it (Transformation.cc, RigidTransformation.cc, Cofstream.cc, HomogeneousTransformation.h).
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TransformError, UsageError
from ..files import replacing, write_bytes, write_text
from ..geometry import Rigid, read_itk, write_itk
from ..geometry.so3 import Array
from ..settings import XFM_FORMATS
from .grid import Grid, grid_from_freesurfer

MIRTK_MAGIC, MIRTK_RIGID = 815007, 2
"""First two numbers of a rigid transform's file (TransformationType.h of MIRTK)."""
FREESURFER_MM = 0.01
"""Corners of one grid in an LTA and in its image's header lie this near to each other (mm): the tools that write LTAs give edges of voxels
in six decimals, which is 0.0003 mm over 300 voxels, and directions in seven digits, which is less."""
_MIRTK = ">III6d"
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Format:
    """One format: the tool that ``title`` names, what its numbers map (``maps``), which images' geometry it ``needs``
    (of ``moving``, ``reference``) to be written or used, how it is written and read, and which images reading needs."""

    name: str
    title: str
    maps: str
    needs: tuple[str, ...]
    write: Callable[[Rigid, Path, Any, Any], object]
    read: Callable[[Path, Any, Any], Rigid]
    needs_to_read: tuple[str, ...] = ()

    @property
    def extension(self) -> str:
        """What its files end in."""
        return XFM_FORMATS[self.name]

    def describe(self, moving: str, reference: str) -> dict[str, Any]:
        """The sidecar's description of a file in this format, for the images ``moving`` and ``reference``, by their names."""
        named = {"moving": moving, "reference": reference}
        return {"Format": self.title, "Maps": self.maps, "NeedsGeometryOf": [named[one] for one in self.needs]}


def write_transform(pose: Rigid, path: str | Path, form: str, moving: Grid | None = None, reference: Grid | None = None) -> Path:
    """Write ``pose`` (points of the reference → points of the moving image, RAS mm) in the format ``form``, whole or not at all.

    Raises :class:`~posepipe.errors.UsageError` for an unknown format and for an image that it needs and that was not given.
    """
    path, chosen = Path(path), format_named(form)
    _check_given(path, chosen, chosen.needs, moving, reference)
    chosen.write(pose, path, moving, reference)
    return path


def read_transform(path: str | Path, form: str | None = None, moving: Grid | None = None, reference: Grid | None = None) -> Rigid:
    """The pose that a transform file in the format ``form`` (None: detected) contains.

    Raises :class:`~posepipe.errors.TransformError` for a file that is missing, is not in that format, or is not rigid, and
    :class:`~posepipe.errors.UsageError` for an image that the format needs and that was not given.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"{path}: no such transform file"
        raise TransformError(msg)
    chosen = format_named(form or guess_format(path))
    _check_given(path, chosen, chosen.needs_to_read, moving, reference)
    try:
        return chosen.read(path, moving, reference)
    except TransformError as error:
        if str(error).startswith(str(path)):
            raise
        msg = f"{path}: {error}"
        raise TransformError(msg) from error
    except (ValueError, KeyError, OSError, IndexError, struct.error) as error:
        msg = f"{path}: not a transform as {chosen.title} has it ({error}); name its format with --from, or write it again"
        raise TransformError(msg) from error


def format_named(name: str) -> Format:
    """The format of that name; raises :class:`~posepipe.errors.UsageError` for an unknown one."""
    if name not in FORMATS:
        msg = f"{name!r} is no format of transforms that posepipe knows; choose among {', '.join(FORMATS)}"
        raise UsageError(msg)
    return FORMATS[name]


def guess_format(path: Path) -> str:
    """The format of a transform file by its content, and where that is four rows of numbers alone, FSL's and NiftyReg's, by its extension.

    Raises :class:`~posepipe.errors.TransformError` if neither is conclusive.
    """
    head = path.read_bytes()[:4096]
    if head.startswith(_HDF5):
        return "x5"
    if len(head) >= 4 and MIRTK_MAGIC in struct.unpack(">I", head[:4]) + struct.unpack("<I", head[:4]):
        return "mirtk"
    text = head.decode("latin-1")
    if text.startswith("#Insight Transform File"):
        return "itk"
    if re.search(r"^type\s*=", text, re.MULTILINE):
        return "lta"
    if re.fullmatch(r"(?:\s*[-+0-9.eEnaif]+)+\s*", text):
        by_name = {".mat": "fsl", ".txt": "niftyreg"}.get(path.suffix)
        if by_name:
            return by_name
        msg = f"{path}: four rows of numbers, as FSL and NiftyReg write them; say which with --from fsl or --from niftyreg"
        raise TransformError(msg)
    if path.suffix == ".mat":
        return "itk"
    msg = f"{path}: in no format of transforms that posepipe knows; name it with --from, of {', '.join(FORMATS)}"
    raise TransformError(msg)


def _check_given(path: Path, form: Format, needs: tuple[str, ...], moving: Grid | None, reference: Grid | None) -> None:
    given = {"moving": moving, "reference": reference}
    lacking = [name for name in needs if given[name] is None]
    if lacking:
        named = " and ".join(f"--{name}" for name in lacking)
        msg = f"{path}: a transform of {form.title} depends on the images that it is for; name {' and '.join(lacking)} image with {named}"
        raise UsageError(msg)


def _rows(matrix: Array) -> str:
    """Rows of numbers with all their digits: those that are left out move points far from the origin."""
    return "".join(" ".join(repr(float(v) + 0.0) for v in row) + "\n" for row in matrix)


def _read_rows(text: str) -> Array:
    """A homogeneous (4, 4) matrix from rows of numbers; its last row may be left out, and must say nothing else."""
    numbers = np.array(text.split(), dtype=float)
    if len(numbers) not in (12, 16):
        msg = f"{len(numbers)} numbers instead of four rows of four"
        raise ValueError(msg)
    matrix = np.eye(4)
    matrix[: len(numbers) // 4] = numbers.reshape(-1, 4)
    return matrix


def _write_itk(pose: Rigid, path: Path, _moving: Grid | None, _reference: Grid | None) -> None:
    write_itk(pose, path)


def _read_itk(path: Path, _moving: Grid | None, _reference: Grid | None) -> Rigid:
    return read_itk(path)


def _write_fsl(pose: Rigid, path: Path, moving: Grid, reference: Grid) -> None:
    write_text(path, _rows(reference.world_to_fsl @ (~pose).matrix @ np.linalg.inv(moving.world_to_fsl)))


def _read_fsl(path: Path, moving: Grid, reference: Grid) -> Rigid:
    matrix = _read_rows(path.read_text(encoding="utf-8"))
    return ~Rigid.from_matrix(np.linalg.inv(reference.world_to_fsl) @ matrix @ moving.world_to_fsl)


def _write_niftyreg(pose: Rigid, path: Path, _moving: Grid | None, _reference: Grid | None) -> None:
    write_text(path, _rows(pose.matrix))


def _read_niftyreg(path: Path, _moving: Grid | None, _reference: Grid | None) -> Rigid:
    return Rigid.from_matrix(_read_rows(path.read_text(encoding="utf-8")))


def _write_mirtk(pose: Rigid, path: Path, _moving: Grid | None, _reference: Grid | None) -> None:
    from scipy.spatial.transform import Rotation

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of angles that are not unique (gimbal lock) any will do
        # MIRTK's matrix is (Rz Ry Rx) transposed (Matrix.cc)
        angles = Rotation.from_matrix(pose.rotation.T).as_euler("xyz", degrees=True)
    write_bytes(path, struct.pack(_MIRTK, MIRTK_MAGIC, MIRTK_RIGID, 6, *pose.translation, *angles))


def _read_mirtk(path: Path, _moving: Grid | None, _reference: Grid | None) -> Rigid:
    from scipy.spatial.transform import Rotation

    content = path.read_bytes()
    order = ">" if content[:4] == struct.pack(">I", MIRTK_MAGIC) else "<"  # MIRTK reads either
    magic, kind, count = struct.unpack(f"{order}III", content[:12])
    if magic != MIRTK_MAGIC:
        msg = "it does not begin as files of MIRTK do"
        raise ValueError(msg)
    if (kind, count) != (MIRTK_RIGID, 6):
        msg = f"not a rigid transform of MIRTK (type {kind}, {count} parameters); convert it: mirtk convert-dof IN OUT -output-format rigid"
        raise TransformError(msg)
    numbers = struct.unpack(f"{order}6d", content[12:])
    return Rigid(Rotation.from_euler("xyz", numbers[3:], degrees=True).as_matrix().T, np.array(numbers[:3]))


def _write_x5(pose: Rigid, path: Path, _moving: Grid | None, reference: Grid) -> None:
    import h5py

    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["Format"], file.attrs["Version"] = "X5", np.uint16(1)
        node = file.create_group("TransformGroup").create_group("0")
        node.attrs["Type"], node.attrs["SubType"], node.attrs["Representation"] = "linear", "affine", "matrix"
        node.attrs["ArrayLength"] = 1
        node.create_dataset("Transform", data=pose.matrix)
        node.create_dataset("DimensionKinds", data=np.array(["space", "space", "space", "vector"], dtype="S"))
        domain = node.create_group("Domain")
        domain.create_dataset("Grid", data=np.uint8(1))
        domain.create_dataset("Size", data=np.array(reference.shape))
        domain.create_dataset("Mapping", data=reference.affine)
        domain.attrs["Coordinates"] = "cartesian"


def _read_x5(path: Path, _moving: Grid | None, _reference: Grid | None) -> Rigid:
    import h5py

    with h5py.File(path, "r") as file:
        nodes = file["TransformGroup"]
        kinds = [str(node.attrs.get("Type")) for node in nodes.values()]
        if file.attrs.get("Format") != "X5" or kinds != ["linear"]:
            msg = f"holds {len(kinds)} transforms ({', '.join(kinds)}); give a file with one linear transform"
            raise TransformError(msg)
        matrix = np.asarray(nodes[next(iter(nodes))]["Transform"], dtype=float)
    return Rigid.from_matrix(matrix.reshape(4, 4))


_GEOMETRY = """valid = 1  # volume info valid
filename = {name}
volume = {shape[0]} {shape[1]} {shape[2]}
voxelsize = {edges}
xras   = {axes[0]}
yras   = {axes[1]}
zras   = {axes[2]}
cras   = {middle}
"""
_LTA = """type      = 1 # LINEAR_RAS_TO_RAS
nxforms   = 1
mean      = 0.0000 0.0000 0.0000
sigma     = 1.0000
1 4 4
{matrix}src volume info
{moving}dst volume info
{reference}"""


def _geometry_text(grid: Grid) -> str:
    """FreeSurfer's volume geometry: ``cras`` is where the voxel with index shape / 2 lies, which is half a voxel from the middle."""
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    middle = grid.affine[:3, :3] @ (np.array(grid.shape) / 2) + grid.affine[:3, 3]

    def digits(values: Array) -> str:
        return " ".join(f"{v:.15e}" for v in values)

    axes = [digits(axis) for axis in (grid.affine[:3, :3] / spacing).T]
    name = grid.source.replace("\n", " ")
    return _GEOMETRY.format(name=name, shape=grid.shape, edges=digits(spacing), axes=axes, middle=digits(middle))


def _write_lta(pose: Rigid, path: Path, moving: Grid, reference: Grid) -> None:
    matrix = "".join(" ".join(f"{v:.15e}" for v in row) + "\n" for row in (~pose).matrix)
    write_text(path, _LTA.format(matrix=matrix, moving=_geometry_text(moving), reference=_geometry_text(reference)))


def _read_lta(path: Path, moving: Grid | None, reference: Grid | None) -> Rigid:
    text = path.read_text(encoding="utf-8", errors="replace")
    kind = int(_field(text, "type")[0])
    if kind not in (0, 1) or int(_field(text, "nxforms")[0]) != 1:
        msg = f"an LTA of type {kind}; give one transform of type 0 (voxels) or 1 (RAS): lta_convert --inlta IN --outlta OUT --ltavox2vox"
        raise TransformError(msg)
    matrix = _read_rows(text.partition("1 4 4")[2].partition("src volume info")[0])
    before, _, after = text.partition("dst volume info")
    source, target = _geometry(before.partition("src volume info")[2], path), _geometry(after, path)
    if kind == 0:
        if source is None or target is None:
            msg = "an LTA between voxels without the geometry of both images; make one with RAS: lta_convert"
            raise TransformError(msg)
        matrix = target.affine @ matrix @ np.linalg.inv(source.affine)
    if moving and reference and source and target and _is_swapped((source, target), (moving, reference)):
        msg = (
            "its source is the reference image and its target the moving one: it is the inverse of the requested transform, or was written "
            "by a tool that swaps the two; swap --moving and --reference, or look at its matrix"
        )
        raise TransformError(msg)
    return ~Rigid.from_matrix(matrix)


def _is_swapped(written: tuple[Grid, Grid], given: tuple[Grid, Grid]) -> bool:
    """Whether the grids that an LTA was ``written`` for are the ``given`` ones the other way round, and not as they are."""
    def agree(some: tuple[Grid, Grid]) -> bool:
        return all(a.is_at(b, FREESURFER_MM) for a, b in zip(written, some, strict=True))

    return agree(given[::-1]) and not agree(given)


def _field(text: str, key: str) -> list[str]:
    found = re.search(rf"^\s*{key}\s*=([^#\n]*)", text, re.MULTILINE)
    if found is None:
        msg = f"no {key} in it"
        raise ValueError(msg)
    return found[1].split()


def _geometry(text: str, path: Path) -> Grid | None:
    """The volume geometry at the start of ``text``; None where it says that it is not valid."""
    if _field(text, "valid")[0] != "1":
        return None
    shape, edges, middle = (np.array(_field(text, key), dtype=float) for key in ("volume", "voxelsize", "cras"))
    axes = np.array([_field(text, f"{axis}ras") for axis in "xyz"], dtype=float).T
    return grid_from_freesurfer(shape, edges, axes, middle, str(path))


_BOTH = ("moving", "reference")
FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Format("itk", "ITK (ANTs)", "points of the reference to points of the moving image, LPS mm", (), _write_itk, _read_itk),
        Format(
            "fsl", "FSL (flirt)", "the moving image to the reference, in scaled voxels, x flipped where the axes are right-handed",
            _BOTH, _write_fsl, _read_fsl, _BOTH,
        ),
        Format(
            "lta", "FreeSurfer (LTA)", "points of the moving image (src) to points of the reference (dst), RAS mm", _BOTH,
            _write_lta, _read_lta,
        ),
        Format(
            "x5", "X5 (nitransforms)", "points of the reference to points of the moving image, RAS mm", ("reference",), _write_x5,
            _read_x5,
        ),
        Format(
            "niftyreg", "NiftyReg", "points of the reference to points of the floating (moving) image, RAS mm", (),
            _write_niftyreg, _read_niftyreg,
        ),
        Format(
            "mirtk", "MIRTK (rigid)", "points of the target (reference) to points of the source (moving) image, RAS mm", (),
            _write_mirtk, _read_mirtk,
        ),
    )
}  # fmt: skip
"""Every format by its name."""
