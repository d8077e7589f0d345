"""Headers that occur in practice: axes not quite at right angles, no orientation, different qform and sform; and truncated files."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from posepipe.errors import ImageError
from posepipe.imaging.header import UNKNOWN, check_header, right_angled
from posepipe.imaging.volume import Volume, checked, load_volume, save_volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (60, 70, 65)


def turned(degrees: float, axis: int = 0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * np.eye(3)[axis]).as_matrix()
    return matrix


def oblique() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [12, 7, 31], degrees=True).as_matrix() * [-0.8, 0.8, 1.1]
    affine[:3, 3] = [40, -30, -20]
    return affine


def sheared(by: float) -> np.ndarray:
    shear = np.eye(4)
    shear[0, 1] = by
    return shear @ oblique()


def voxels(shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 99, shape).astype(np.int16)


def written(path, sform, qform=None, codes=(1, 1), data=None):
    """A NIfTI file with this sform and qform (default: the sform's) and these codes (qform's first)."""
    image = nib.Nifti1Image(voxels() if data is None else data, None)
    image.set_sform(sform, codes[1])
    image.set_qform(sform if qform is None else qform, codes[0])
    nib.save(image, path)
    return path


def by_itk(path) -> np.ndarray:
    """Affine (4, 4), RAS mm, of a file as ITK reads it."""
    import ants

    image = ants.image_read(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.direction) * image.spacing
    affine[:3, 3] = image.origin
    return LPS @ affine


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Greatest distance (mm) of the corners of a grid of SHAPE under two affines."""
    corners = np.array([[x, y, z, 1] for x in (0, SHAPE[0]) for y in (0, SHAPE[1]) for z in (0, SHAPE[2])]).T
    return float(np.linalg.norm(((a - b) @ corners)[:3], axis=0).max())


@pytest.mark.parametrize("affine", [
    *(sheared(s) for s in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 0.05)), np.round(oblique(), 2), np.round(oblique(), 3), oblique(),
    turned(0.02) @ np.diag([-0.8, 0.8, 0.8, 1.0]),
], ids=["1e-4", "3e-4", "1e-3", "3e-3", "1e-2", "0.05", "2 decimals", "3 decimals", "exact", "LAS, slightly oblique"])  # fmt: skip
def test_what_is_written_lies_in_one_place_for_nibabel_and_itk_where_itk_has_the_input(tmp_path, affine):
    source = written(tmp_path / "in.nii.gz", affine)
    volume = load_volume(source)
    out = save_volume(volume, tmp_path / "out.nii.gz")
    image = nib.load(out)
    assert apart(image.affine, by_itk(out)) < 1e-3
    assert apart(image.affine, volume.affine) < 1e-3
    assert apart(image.affine, by_itk(source)) < 0.1  # a float32 quaternion
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    assert apart(image.header.get_qform(), image.header.get_sform()) < 0.1


def test_a_volume_in_memory_is_written_with_right_angles_too(tmp_path):
    out = save_volume(Volume(voxels(), sheared(0.01)), tmp_path / "out.nii.gz")
    assert apart(nib.load(out).affine, by_itk(out)) < 1e-3


def test_axes_at_right_angles_stay_as_they_are_bit_by_bit():
    affine = oblique().astype(np.float32).astype(float)
    np.testing.assert_array_equal(right_angled(affine), affine)


@pytest.mark.parametrize("flip", [1, -1])
def test_axes_are_made_perpendicular_and_keep_lengths_handedness_and_the_first_voxel(flip):
    affine = sheared(0.1) @ np.diag([flip, 1, 1, 1])
    straight = right_angled(affine)
    axes = straight[:3, :3] / np.linalg.norm(straight[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(straight[:3, :3], axis=0), np.linalg.norm(affine[:3, :3], axis=0))
    assert np.sign(np.linalg.det(straight)) == np.sign(np.linalg.det(affine))
    np.testing.assert_array_equal(straight[:3, 3], affine[:3, 3])


def doubts(path) -> tuple[str, ...]:
    """What the header gives reason to doubt, by the plan's check and by reading the image: the same."""
    assert check_header(path).doubts == load_volume(path).doubts
    return load_volume(path).doubts


def test_a_sound_header_is_not_doubted(tmp_path):
    for n, (affine, codes) in enumerate([(oblique(), (1, 1)), (oblique(), (0, 1)), (oblique(), (1, 0)), (np.round(oblique(), 3), (1, 2))]):
        assert doubts(written(tmp_path / f"{n}.nii.gz", affine, codes=codes)) == ()


def test_no_orientation_is_doubted(tmp_path):
    assert doubts(written(tmp_path / "none.nii.gz", oblique(), codes=(0, 0))) == (UNKNOWN,)
    nib.save(nib.AnalyzeImage(voxels(), np.diag([-1.0, 1, 1, 1])), tmp_path / "old.img")
    assert doubts(tmp_path / "old.img") == (UNKNOWN,)


@pytest.mark.parametrize(("move", "said"), [
    (turned(30), "30.0°"), (turned(0.6, 2), "0.6°"), (turned(-0.6, 1), "0.6°"), (turned(0.3), None), (np.eye(4), None),
])  # fmt: skip
def test_qform_and_sform_that_disagree_in_angle_are_doubted(tmp_path, move, said):
    middle = np.eye(4)
    middle[:3, 3] = (oblique() @ np.append((np.array(SHAPE) - 1) / 2, 1))[:3]
    found = doubts(written(tmp_path / "x.nii.gz", middle @ move @ np.linalg.inv(middle) @ oblique(), oblique()))
    assert len(found) == (said is not None)
    assert said is None or ("qform and sform of the header disagree" in found[0] and said in found[0])


def test_qform_and_sform_that_disagree_in_place_or_size_are_doubted(tmp_path):
    for millimetres, n in ((0.4, 0), (0.6, 1), (50, 1)):
        moved = oblique()
        moved[:3, 3] += [0, millimetres, 0]
        assert len(doubts(written(tmp_path / "x.nii.gz", oblique(), moved))) == n
    larger = oblique() @ np.diag([1, 1, 1.02, 1])
    assert len(doubts(written(tmp_path / "x.nii.gz", oblique(), larger))) == 1


def test_a_mirror_between_qform_and_sform_is_doubted(tmp_path):
    (found,) = doubts(written(tmp_path / "x.nii.gz", oblique(), oblique() @ np.diag([-1, 1, 1, 1])))
    assert "mirror each other" in found


def test_an_unusable_qform_beside_a_sform_is_doubted(tmp_path):
    path = written(tmp_path / "x.nii", oblique())
    for value in (2.0, np.nan):
        raw = bytearray(path.read_bytes())
        header = nib.Nifti1Header(bytes(raw[:348]), check=False)
        header["quatern_b"] = value
        raw[:348] = header.binaryblock
        (tmp_path / "bad.nii").write_bytes(raw)
        (found,) = doubts(tmp_path / "bad.nii")
        assert "qform of the header is not usable" in found


def test_a_shear_that_matters_is_doubted_with_or_without_a_qform(tmp_path):
    for codes in ((1, 1), (0, 1)):
        (found,) = doubts(written(tmp_path / "x.nii.gz", sheared(0.05), codes=codes))
        assert "not at right angles" in found
        assert doubts(written(tmp_path / "x.nii.gz", sheared(0.003), codes=codes)) == ()
    assert "not at right angles" in checked(Volume(voxels(), sheared(0.05))).doubts[0]


@pytest.mark.parametrize(("share", "where"), [(0.001, "notes"), (0.04, "notes"), (0.06, "doubts"), (0.5, "doubts")])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_counted(tmp_path, share, where, value):
    data = voxels((20, 20, 20)).astype(np.float32)
    n = round(share * data.size)
    data.ravel()[:n] = value
    for volume in (load_volume(written(tmp_path / "x.nii.gz", oblique(), data=data)), checked(Volume(data, oblique()))):
        assert np.isfinite(volume.data).all()
        output = {"notes": volume.notes, "doubts": volume.doubts}
        (text,) = output.pop(where)
        assert text.startswith(f"{n} of 8000 voxels")
        assert list(output.values()) == [()]


def test_numbers_too_large_for_single_precision_are_counted_as_not_finite(tmp_path):
    data = voxels((20, 20, 20)).astype(np.float64)
    data[3, 4, 5] = 1e300
    assert load_volume(written(tmp_path / "x.nii.gz", oblique(), data=data)).notes[0].startswith("1 of 8000 voxels")


def test_the_plan_sees_series_single_slices_and_colours(tmp_path):
    shapes = {"series": (9, 9, 9, 4), "slice": (9, 9, 1), "flat": (9, 9)}
    for name, shape in shapes.items():
        with pytest.raises(ImageError, match=rf"{name}.*expected"):
            check_header(written(tmp_path / f"{name}.nii.gz", oblique(), data=voxels(shape)))
    colours = np.zeros((7, 8, 9), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ImageError, match="real numbers"):
        check_header(written(tmp_path / "rgb.nii.gz", oblique(), data=colours))


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii"])
@pytest.mark.parametrize("keep", [0.5, 0.9, 0.999])
def test_the_plan_sees_a_file_that_was_cut_short(tmp_path, name, keep):
    whole = written(tmp_path / name, oblique())
    check_header(whole)
    whole.write_bytes(whole.read_bytes()[: int(keep * whole.stat().st_size)])
    with pytest.raises(ImageError, match=r"cannot be read|cut short") as error:
        check_header(whole)
    assert str(whole) in str(error.value)


def test_the_plan_does_not_unpack_a_whole_file(tmp_path, monkeypatch):
    path = written(tmp_path / "x.nii.gz", oblique())
    unpacked = []
    own = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: unpacked.append(size) or own(self, size))
    check_header(path)
    assert sum(unpacked) < 10_000
    assert -1 not in unpacked


def test_compressed_files_of_several_members_or_with_bytes_after_the_image_are_whole(tmp_path):
    plain = written(tmp_path / "x.nii", oblique()).read_bytes()
    half = len(plain) // 2
    (tmp_path / "two.nii.gz").write_bytes(gzip.compress(plain[:half]) + gzip.compress(plain[half:]))
    (tmp_path / "more.nii.gz").write_bytes(gzip.compress(plain + bytes(100)))
    for name in ("two.nii.gz", "more.nii.gz"):
        check_header(tmp_path / name)
        assert load_volume(tmp_path / name).shape == SHAPE
