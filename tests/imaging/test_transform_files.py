"""Transforms in the formats of other tools agree with the ITK file: read by each tool's own rules, implemented here independently."""

from __future__ import annotations

import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from grid_strategies import grids
from hypothesis import given, settings
from rotation_strategies import rigids
from scipy import ndimage

from posepipe.errors import PosepipeError, TransformError, UsageError
from posepipe.geometry import Rigid, random_rotations, write_itk
from posepipe.imaging.apply import resample_to_template
from posepipe.imaging.grid import Grid
from posepipe.imaging.transform_files import FORMATS, guess_format, read_transform, write_transform
from posepipe.imaging.volume import Volume, load_volume, save_volume
from posepipe.settings import XFM_FORMATS

MM = 1e-6
"""Points of one transform in two formats lie this near to each other (mm), all digits being written; rounding makes 1e-12."""


# how each tool uses a file: a function from points of the reference to points of the moving image, RAS mm, each by that tool's own rules
def as_itk_does(path: Path, moving: Grid, reference: Grid, points: np.ndarray) -> np.ndarray:
    lines = dict(line.split(": ") for line in path.read_text().splitlines() if ": " in line)
    numbers, center = np.array(lines["Parameters"].split(), float), np.array(lines["FixedParameters"].split(), float)
    lps = points * [-1, -1, 1]
    return ((lps - center) @ numbers[:9].reshape(3, 3).T + numbers[9:] + center) * [-1, -1, 1]


def as_flirt_does(path: Path, moving: Grid, reference: Grid, points: np.ndarray) -> np.ndarray:
    """Voxels, times their edges, x from the other end in right-handed grids; the matrix leads from the input to the reference."""

    def voxels_to_fsl(grid: Grid, index: np.ndarray) -> np.ndarray:
        if np.linalg.det(grid.affine[:3, :3]) > 0:
            index = index * [-1, 1, 1] + [grid.shape[0] - 1, 0, 0]
        return index * np.linalg.norm(grid.affine[:3, :3], axis=0)

    def fsl_to_voxels(grid: Grid, place: np.ndarray) -> np.ndarray:
        index = place / np.linalg.norm(grid.affine[:3, :3], axis=0)
        return index * [-1, 1, 1] + [grid.shape[0] - 1, 0, 0] if np.linalg.det(grid.affine[:3, :3]) > 0 else index

    matrix = np.linalg.inv(np.loadtxt(path))
    index = nib.affines.apply_affine(np.linalg.inv(reference.affine), points)
    place = nib.affines.apply_affine(matrix, voxels_to_fsl(reference, index))
    return nib.affines.apply_affine(moving.affine, fsl_to_voxels(moving, place))


def as_freesurfer_does(path: Path, moving: Grid, reference: Grid, points: np.ndarray) -> np.ndarray:
    """src to dst in RAS; src must be the moving image by its geometry, or the tools would invert the matrix."""
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    assert lines[0].split("=")[1].strip() == "1"
    start = lines.index("1 4 4") + 1
    matrix = np.array([line.split() for line in lines[start : start + 4]], float)
    for title, grid in (("src volume info", moving), ("dst volume info", reference)):
        at = lines.index(title)
        known = dict(line.split(" = ") if " = " in line else line.split("= ") for line in lines[at + 1 : at + 9])
        known = {key.strip(): value.split() for key, value in known.items()}
        assert known["valid"] == ["1"] and [int(n) for n in known["volume"]] == list(grid.shape)
        axes = np.array([known[f"{axis}ras"] for axis in "xyz"], float)
        for index in ([0, 0, 0], [n - 1 for n in grid.shape]):
            from_middle = (np.array(index) - np.array(grid.shape) / 2) * np.array(known["voxelsize"], float)
            place = from_middle @ axes + np.array(known["cras"], float)
            np.testing.assert_allclose(place, nib.affines.apply_affine(grid.affine, index), atol=1e-6)
    return nib.affines.apply_affine(np.linalg.inv(matrix), points)


def as_nitransforms_does(path: Path, moving: Grid, reference: Grid, points: np.ndarray) -> np.ndarray:
    x5 = pytest.importorskip("nitransforms.io.x5", reason="this nitransforms has no X5")
    (node,) = x5.from_filename(path)
    assert node.type == "linear" and tuple(node.domain.size) == tuple(reference.shape) and node.domain.grid
    np.testing.assert_array_equal(node.domain.mapping, reference.affine)
    return nib.affines.apply_affine(node.transform, points)


def as_reg_resample_does(path: Path, moving: Grid, reference: Grid, points: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(np.loadtxt(path), points)


def as_mirtk_does(path: Path, moving: Grid, reference: Grid, points: np.ndarray) -> np.ndarray:
    """Big-endian: 815007, 2 (rigid), 6, then tx ty tz (mm) rx ry rz (degrees); the matrix is that of RigidParametersToMatrix."""
    content = path.read_bytes()
    assert struct.unpack(">3I", content[:12]) == (815007, 2, 6) and len(content) == 60
    tx, ty, tz, *angles = struct.unpack(">6d", content[12:])
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    rows = [
        [cy * cz, cy * sz, -sy, tx],
        [sx * sy * cz - cx * sz, sx * sy * sz + cx * cz, sx * cy, ty],
        [cx * sy * cz + sx * sz, cx * sy * sz - sx * cz, cx * cy, tz],
    ]
    return nib.affines.apply_affine(np.array([*rows, [0, 0, 0, 1]]), points)


USE = {
    "itk": as_itk_does, "fsl": as_flirt_does, "lta": as_freesurfer_does, "x5": as_nitransforms_does, "niftyreg": as_reg_resample_does,
    "mirtk": as_mirtk_does,
}  # fmt: skip


def test_every_format_has_an_option_and_an_extension_of_its_own():
    assert tuple(FORMATS) == tuple(XFM_FORMATS) == tuple(USE)
    assert len(set(XFM_FORMATS.values())) == len(XFM_FORMATS)


@pytest.mark.parametrize("form", XFM_FORMATS)
@settings(max_examples=60)
@given(pose=rigids(), moving=grids(), reference=grids())
def test_each_file_moves_points_as_the_itk_file_does_in_both_directions(form, pose, moving, reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("xfm")
    for one, (source, target) in ((pose, (moving, reference)), (~pose, (reference, moving))):
        itk = write_itk(one, folder / "pose.txt")
        other = write_transform(one, folder / f"other{XFM_FORMATS[form]}", form, source, target)
        expected = as_itk_does(itk, source, target, target.corners)
        np.testing.assert_allclose(expected, one.apply(target.corners), atol=MM)
        # angles that are not unique cost MIRTK digits: 1e-7 of a turn about the origin
        tolerance = 1e-4 if form == "mirtk" else MM
        np.testing.assert_allclose(USE[form](other, source, target, target.corners), expected, atol=tolerance)
        again = read_transform(other, None, source, target)
        # posepipe's reader of ITK files is nitransforms', which keeps single precision
        tolerance = 1e-4 if form in {"mirtk", "itk"} else MM
        np.testing.assert_allclose(again.apply(target.corners), one.apply(target.corners), atol=tolerance)


@settings(max_examples=30)
@given(pose=rigids(), moving=grids(), reference=grids())
def test_nitransforms_reads_our_lta_as_the_same_map(pose, moving, reference, tmp_path_factory):
    from nitransforms.io.lta import FSLinearTransform, FSLinearTransformArray

    path = write_transform(pose, tmp_path_factory.mktemp("lta") / "x.lta", "lta", moving, reference)
    (theirs,) = FSLinearTransformArray.from_filename(path).xforms
    assert isinstance(theirs, FSLinearTransform)
    points = reference.corners
    np.testing.assert_allclose(nib.affines.apply_affine(theirs.to_ras(), points), pose.apply(points), atol=1e-3)  # they read float32
    for name, grid in (("src", moving), ("dst", reference)):
        np.testing.assert_allclose(theirs[name].as_affine(), grid.affine, atol=1e-4)


@settings(max_examples=30)
@given(pose=rigids(), moving=grids(), reference=grids())
def test_nitransforms_converts_to_the_same_fsl_matrix_but_for_its_digits(pose, moving, reference, tmp_path_factory):
    from nitransforms.io.fsl import FSLLinearTransform

    images = [nib.Nifti1Image(np.broadcast_to(np.uint8(0), g.shape), None) for g in (moving, reference)]
    for image, grid in zip(images, (moving, reference), strict=True):
        image._affine = grid.affine  # in double precision
    theirs = np.asarray(FSLLinearTransform.from_ras(pose.matrix, *images).structarr["parameters"])
    path = write_transform(pose, tmp_path_factory.mktemp("fsl") / "x.mat", "fsl", moving, reference)
    np.testing.assert_allclose(np.loadtxt(path), theirs, atol=1e-6)


def smooth_image(rng: np.random.Generator, *, right_handed: bool, oblique: bool) -> Volume:
    """A smooth, lopsided pattern about the origin."""
    shape = (26, 31, 23)
    axes = random_rotations(1, rng)[0] if oblique else np.eye(3)
    axes = axes if right_handed else axes @ np.diag([-1.0, 1, 1])
    affine = np.eye(4)
    affine[:3, :3] = axes * [1.9, 1.5, 2.2]
    affine[:3, 3] = rng.uniform(-4, 4, 3) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    data = ndimage.gaussian_filter(rng.normal(size=shape), 2.5) * 1000
    return Volume(data.astype(np.float32), affine)


def flirt_applyxfm(moving: nib.Nifti1Image, reference: nib.Nifti1Image, matrix: np.ndarray) -> np.ndarray:
    """What ``flirt -applyxfm`` shows, by loops of its own: images stored left-handed as they are, others with x reversed in memory; then
    voxel by voxel of the reference, its millimetres through the inverse matrix to the input's."""
    stored = np.asarray(moving.dataobj)[::-1] if np.linalg.det(moving.affine) > 0 else np.asarray(moving.dataobj)
    edges = [np.array(image.header.get_zooms()[:3]) for image in (moving, reference)]
    out = np.zeros(reference.shape)
    back = np.linalg.inv(matrix)
    for index in np.ndindex(*reference.shape):
        place = back @ np.append(np.array(index) * edges[1], 1.0)
        out[index] = ndimage.map_coordinates(stored, (place[:3] / edges[0])[:, None], order=1, cval=np.nan)[0]
    return out[::-1] if np.linalg.det(reference.affine) > 0 else out


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("hands", [(True, True), (True, False), (False, True), (False, False)])
def test_flirt_would_show_the_image_that_posepipe_shows(hands, oblique, tmp_path):
    rng = np.random.default_rng(sum(hands) + 10 * oblique)
    image = smooth_image(rng, right_handed=hands[0], oblique=oblique)
    axes = np.diag([1.0 if hands[1] else -1.0, 1, 1])
    template = np.eye(4)
    template[:3, :3] = (random_rotations(1, rng)[0] @ axes if oblique else axes) * [2.5, 3.0, 2.0]
    template[:3, 3] = -template[:3, :3] @ [4, 3.5, 5]
    reference = Volume(np.arange(9 * 8 * 11, dtype=np.float32).reshape(9, 8, 11), template)
    files = [save_volume(volume, tmp_path / f"{name}.nii.gz") for name, volume in (("image", image), ("template", reference))]
    pose = Rigid(random_rotations(1, rng)[0], rng.uniform(-3, 3, 3))
    matrix = write_transform(pose, tmp_path / "x.mat", "fsl", *map(Grid.load, files))
    shown = flirt_applyxfm(*map(nib.load, files), np.loadtxt(matrix))
    ours = resample_to_template(load_volume(files[0]), load_volume(files[1]), pose, order=1).data
    inside = np.isfinite(shown) & (ours != 0)
    assert inside.mean() > 0.8
    np.testing.assert_allclose(shown[inside], ours[inside], atol=1e-3 * float(np.ptp(image.data)))


def made(tmp_path: Path, name: str = "image.nii.gz") -> Path:
    return save_volume(smooth_image(np.random.default_rng(1), right_handed=True, oblique=False), tmp_path / name)


def test_a_grid_from_a_file_is_that_of_the_volume_in_it(tmp_path):
    path = made(tmp_path)
    grid, volume = Grid.load(path), load_volume(path)
    assert grid.is_at(Grid.of(volume)) and grid.source == str(path) and grid.is_right_handed
    np.testing.assert_allclose(grid.affine, volume.affine)
    np.testing.assert_allclose(grid.edges, volume.spacing, rtol=1e-6)


POSE = Rigid.from_rotvec([0.3, -1.2, 0.5], [12, -30, 7])


@pytest.mark.parametrize(
    ("form", "lacks"), [("fsl", "--moving and --reference"), ("lta", "--moving and --reference"), ("x5", "--reference")]
)
def test_what_depends_on_images_asks_for_them(form, lacks, tmp_path):
    with pytest.raises(UsageError, match=f"x{XFM_FORMATS[form]}.*{FORMATS[form].title[:2]}.*{lacks}"):
        write_transform(POSE, tmp_path / f"x{XFM_FORMATS[form]}", form)
    assert not list(tmp_path.iterdir())


def test_four_rows_of_numbers_are_distinguished_by_their_extension_or_need_from(tmp_path):
    grid = Grid.load(made(tmp_path))
    fsl = write_transform(POSE, tmp_path / "x.mat", "fsl", grid, grid)
    assert guess_format(fsl) == "fsl"
    with pytest.raises(UsageError, match=r"x\.mat.*--moving and --reference"):
        read_transform(fsl)
    other = fsl.rename(tmp_path / "x.xfm")
    with pytest.raises(TransformError, match=r"x\.xfm.*--from fsl or --from niftyreg"):
        read_transform(other)
    assert read_transform(other, "fsl", grid, grid).is_close(POSE)
    ants = write_itk(POSE, tmp_path / "0GenericAffine.mat")
    assert guess_format(ants) == "itk" and read_transform(ants).is_close(POSE, 1e-4, 1e-4)


def not_rigid(tmp_path: Path, form: str, matrix: np.ndarray) -> Path:
    path = tmp_path / f"bad{XFM_FORMATS[form]}"
    grid = Grid.load(made(tmp_path))
    write_transform(POSE, path, form, grid, grid)
    if form == "x5":
        import h5py

        with h5py.File(path, "r+") as file:
            file["TransformGroup/0/Transform"][...] = matrix
    elif form == "lta":
        before, _, after = path.read_text().partition("1 4 4\n")
        rows = "\n".join(" ".join(map(str, row)) for row in matrix)
        path.write_text(before + "1 4 4\n" + rows + "\n" + after[after.index("src volume"):])
    else:
        path.write_text("\n".join(" ".join(map(str, row)) for row in matrix))
    return path


@pytest.mark.parametrize("form", ["fsl", "lta", "x5", "niftyreg"])
@pytest.mark.parametrize(("matrix", "says"), [(np.diag([1.1, 1, 1, 1]), "stretches"), (np.diag([-1.0, 1, 1, 1]), "mirrors")])
def test_what_is_not_rigid_is_refused_by_name(form, matrix, says, tmp_path):
    path = not_rigid(tmp_path, form, matrix)
    grid = Grid.load(tmp_path / "image.nii.gz")
    with pytest.raises(TransformError, match=f"bad.*{says}"):
        read_transform(path, form, grid, grid)


@pytest.mark.parametrize("form", [f for f in XFM_FORMATS if f != "itk"])
@pytest.mark.parametrize("content", [b"", b"1 2 3\n", b"\x89HDF\r\n\x1a\nrest", b"type = 1\nnxforms = 1\n", struct.pack(">I", 815007)])
def test_errors_of_broken_files_name_them(form, content, tmp_path):
    path = tmp_path / f"broken{XFM_FORMATS[form]}"
    path.write_bytes(content)
    grid = Grid.load(made(tmp_path))
    with pytest.raises(TransformError, match="broken"):
        read_transform(path, form, grid, grid)


def test_other_wrong_input_is_reported(tmp_path):
    with pytest.raises(TransformError, match=r"none\.txt: no such transform file"):
        read_transform(tmp_path / "none.txt")
    with pytest.raises(UsageError, match=r"'elastix' is no format.*niftyreg"):
        write_transform(POSE, tmp_path / "x.txt", "elastix")
    (tmp_path / "letter.txt").write_text("Dear all,")
    with pytest.raises(TransformError, match=r"letter\.txt: in no format.*--from"):
        read_transform(tmp_path / "letter.txt")
    with pytest.raises(PosepipeError, match=r"gone\.nii\.gz: no such file"):
        Grid.load(tmp_path / "gone.nii.gz")
    affine = struct.pack(">III12d", 815007, 3, 12, *range(12))
    (tmp_path / "affine.dof").write_bytes(affine)
    with pytest.raises(TransformError, match=r"affine\.dof: not a rigid transform of MIRTK \(type 3, 12.*convert-dof"):
        read_transform(tmp_path / "affine.dof")


def test_little_endian_mirtk_and_voxel_lta_are_read(tmp_path):
    path = write_transform(POSE, tmp_path / "x.dof", "mirtk")
    numbers = struct.unpack(">III6d", path.read_bytes())
    path.write_bytes(struct.pack("<III6d", *numbers))
    assert read_transform(path).is_close(POSE, 1e-9, 1e-9)
    image = Grid.load(made(tmp_path))
    template = Grid((9, 8, 11), np.diag([-2.0, 3, 2.5, 1]), np.array([2.0, 3, 2.5]), "template.nii.gz")
    lta = write_transform(POSE, tmp_path / "x.lta", "lta", image, template)
    voxels = np.linalg.inv(template.affine) @ (~POSE).matrix @ image.affine
    before, _, after = lta.read_text().partition("1 4 4\n")
    rows = "".join(" ".join(map(repr, map(float, row))) + "\n" for row in voxels)
    lta.write_text(before.replace("type      = 1", "type      = 0") + "1 4 4\n" + rows + after[after.index("src volume"):])
    assert read_transform(lta).is_close(POSE, 1e-6, 1e-6)


def test_an_lta_of_nitransforms_names_the_wrong_source_and_is_refused(tmp_path):
    """FreeSurfer's tools invert what has the image to be moved as its target: nitransforms' files they would apply the wrong way."""
    from nitransforms.io.lta import FSLinearTransform

    image, template = Volume(np.ones((20, 22, 24), np.float32), np.diag([1.0, 2, 1, 1])), np.diag([-2.0, 3, 2.5, 1])
    reference = Volume(np.ones((9, 8, 11), np.float32), template)
    files = [save_volume(volume, tmp_path / f"{name}.nii.gz") for name, volume in (("i", image), ("t", reference))]
    swapped = tmp_path / "swapped.lta"
    FSLinearTransform.from_ras(POSE.matrix, *map(nib.load, files)).to_filename(swapped)
    with pytest.raises(TransformError, match=r"swapped\.lta.*swap --moving and --reference"):
        read_transform(swapped, None, *map(Grid.load, files))
