"""Volumes and NIfTI files that occur in practice: series, NaN, scaled integers, broken files and broken headers."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from posepipe.errors import ImageError
from posepipe.geometry import Rigid, random_rotations
from posepipe.imaging.volume import Volume, load_volume, save_volume

AFFINE = np.array([[-0.9, 0.1, 0, 40], [0.1, 0.9, 0, -30], [0, 0, 1.2, 5], [0, 0, 0, 1.0]])


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 1000, shape or (7, 8, 9)).astype(np.float32)


def nifti(path, data, affine=AFFINE):
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def raw_nifti(path, data, **header):
    """A .nii file with these header fields as they stand, which nibabel would tidy up on saving."""
    block = nib.Nifti1Image(data, AFFINE).header
    for key, value in {"magic": b"n+1", "vox_offset": 352, "sform_code": 1, "qform_code": 0, **header}.items():
        block[key] = value
    path.write_bytes(block.binaryblock + bytes(4) + data.tobytes(order="F"))
    return path


def refusal(path, **options) -> str:
    """The message with which ``path`` is refused; it names the file."""
    with pytest.raises(ImageError) as error:
        load_volume(path, **options)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.mgz"])
def test_reads_values_affine_and_source(name, tmp_path):
    data = values()
    image = nib.MGHImage(data, AFFINE) if name.endswith("mgz") else nib.Nifti1Image(data, AFFINE)
    nib.save(image, tmp_path / name)
    volume = load_volume(str(tmp_path / name))
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)
    assert volume.data.dtype == np.float32
    assert volume.source == str(tmp_path / name)


def test_scaled_integers_are_read_as_what_they_mean(tmp_path):
    stored = np.arange(7 * 8 * 9, dtype=np.int16).reshape(7, 8, 9)
    path = raw_nifti(tmp_path / "scaled.nii", stored, scl_slope=0.25, scl_inter=-12)
    np.testing.assert_allclose(load_volume(path).data, stored * 0.25 - 12)
    np.testing.assert_allclose(load_volume(path).affine, AFFINE, atol=1e-5)


def test_not_finite_voxels_become_zero(tmp_path):
    data = values()
    data[0, 0, 0], data[1, 1, 1], data[2, 2, 2] = np.nan, np.inf, -np.inf
    volume = load_volume(nifti(tmp_path / "nan.nii.gz", data))
    assert volume.data[[0, 1, 2], [0, 1, 2], [0, 1, 2]].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(volume.data[3:], data[3:])


def test_a_trailing_axis_of_one_is_dropped_and_a_series_refused(tmp_path):
    assert load_volume(nifti(tmp_path / "one.nii", values(7, 8, 9, 1, 1))).shape == (7, 8, 9)
    message = refusal(nifti(tmp_path / "series.nii", values(7, 8, 9, 3)))
    assert "expected one 3D image" in message
    assert "(7, 8, 9, 3)" in message
    assert "split" in message
    assert "3D" in refusal(nifti(tmp_path / "flat.nii", values(7, 8)))
    assert "3D" in refusal(nifti(tmp_path / "slice.nii", values(7, 8, 1)))


@pytest.mark.parametrize("keep", [0, 5, 200, 900])
def test_truncated_gzip_is_refused(keep, tmp_path):
    whole = nifti(tmp_path / "whole.nii.gz", values()).read_bytes()
    assert len(whole) > 1000
    path = tmp_path / "cut.nii.gz"
    path.write_bytes(whole[:keep])
    assert "cannot be read" in refusal(path)


def test_corrupt_gzip_truncated_nifti_and_other_files_are_refused(tmp_path):
    whole = bytearray(nifti(tmp_path / "whole.nii.gz", values()).read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    (tmp_path / "corrupt.nii.gz").write_bytes(whole)
    plain = nifti(tmp_path / "plain.nii", values()).read_bytes()
    (tmp_path / "short.nii").write_bytes(plain[:-100])
    (tmp_path / "text.nii").write_text("this is no image")
    (tmp_path / "zipped_text.nii.gz").write_bytes(gzip.compress(b"this is no image"))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    for name in ("corrupt.nii.gz", "short.nii", "text.nii", "zipped_text.nii.gz", "picture.png"):
        assert "cannot be read" in refusal(tmp_path / name)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.nii.gz")
    assert "expected a file, found a folder" in refusal(tmp_path)


@pytest.mark.parametrize("row", [[0, 0, 0, 0], [np.nan, 0, 1, 0]])
def test_a_header_without_a_usable_affine_is_refused(row, tmp_path):
    message = refusal(raw_nifti(tmp_path / "bad.nii", values(), srow_z=row))
    assert "affine" in message
    assert "repair the header" in message


@pytest.mark.parametrize("value", [0, 7])
def test_an_image_of_one_value_is_refused(value, tmp_path):
    message = refusal(nifti(tmp_path / "flat.nii", np.full((7, 8, 9), value, np.int16)))
    assert f"every voxel has the value {value}" in message


def test_colours_and_complex_numbers_are_refused(tmp_path):
    rgb = np.zeros((7, 8, 9), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "real numbers" in refusal(nifti(tmp_path / "rgb.nii", rgb))
    assert "real numbers" in refusal(nifti(tmp_path / "complex.nii", values().astype(np.complex64)))


def test_label_maps_keep_their_integers(tmp_path):
    labels = np.random.default_rng(0).integers(0, 300, (7, 8, 9)).astype(np.int16)
    read = load_volume(nifti(tmp_path / "dseg.nii.gz", labels), dtype=np.int32)
    assert read.data.dtype == np.int32
    np.testing.assert_array_equal(read.data, labels)


@pytest.mark.parametrize("name", ["deep/er/x.nii.gz", "deep/er/x.nii"])
def test_saved_volumes_read_back_and_leave_nothing_beside(name, tmp_path):
    volume = Volume(values(), AFFINE)
    path = save_volume(volume, tmp_path / name)
    back = load_volume(path)
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, AFFINE, atol=1e-5)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_saved_types(tmp_path):
    mask = Volume(values() > 500, AFFINE)
    assert nib.load(save_volume(mask, tmp_path / "mask.nii.gz")).get_data_dtype() == np.uint8
    image = save_volume(Volume(values(), AFFINE), tmp_path / "x.nii.gz", np.int16)
    assert nib.load(image).get_data_dtype() == np.int16
    np.testing.assert_array_equal(load_volume(image).data, values().astype(np.int16))


def test_the_saved_header_says_where_and_in_what_units(tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = random_rotations(1, np.random.default_rng(1))[0] * [0.7, 0.8, -1.3]
    affine[:3, 3] = [3, 4, 5]
    header = nib.load(save_volume(Volume(values(), affine), tmp_path / "x.nii.gz")).header
    assert header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(header.get_sform(), affine, atol=1e-5)
    np.testing.assert_allclose(header.get_qform(), affine, atol=1e-3)
    np.testing.assert_allclose(header.get_zooms(), [0.7, 0.8, 1.3], atol=1e-6)
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)


def test_a_failed_write_leaves_the_old_file_and_no_half_one(tmp_path):
    path = save_volume(Volume(values(), AFFINE), tmp_path / "x.nii.gz")
    before = path.read_bytes()
    with pytest.raises(Exception, match="not supported"):
        save_volume(Volume(values().astype(object), AFFINE), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.nii.gz"]


def test_volumes_refuse_what_is_not_three_dimensional_or_has_no_place():
    with pytest.raises(ImageError, match="expected a 3D image, found 2 dimensions"):
        Volume(np.zeros((3, 3)), np.eye(4))
    for affine in (np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3)):
        with pytest.raises(ImageError, match="affine is not usable"):
            Volume(np.zeros((3, 3, 3)), affine)


def test_geometry_of_a_volume():
    volume = Volume(values(), AFFINE)
    assert volume.voxel_volume == pytest.approx(0.82 * 1.2)
    np.testing.assert_allclose(volume.spacing, [np.sqrt(0.82), np.sqrt(0.82), 1.2])
    np.testing.assert_allclose(volume.center, (AFFINE @ [3, 3.5, 4, 1])[:3])


def test_same_grid_compares_corners_in_millimetres():
    volume = Volume(values(), AFFINE)
    tilt = AFFINE.copy()
    tilt[:3, :3] = Rigid.from_rotvec([0, 0, 1e-3]).rotation @ tilt[:3, :3]
    assert volume.same_grid(Volume(values() > 3, AFFINE + 1e-5 * np.eye(4)))
    assert not volume.same_grid(Volume(values(), tilt))
    assert volume.same_grid(Volume(values(), tilt), tolerance=0.1)
    assert not volume.same_grid(Volume(values(8, 7, 9), AFFINE))


def test_moving_a_volume_moves_its_points_and_not_its_voxels():
    volume = Volume(values(), AFFINE)
    pose = Rigid.from_rotvec([0.3, 1, -2], [10, 20, 30])
    moved = volume.moved(pose)
    assert moved.data is volume.data
    np.testing.assert_allclose(moved.center, pose.apply(volume.center))
    assert moved.moved(~pose).same_grid(volume)
