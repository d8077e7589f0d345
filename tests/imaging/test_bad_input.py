"""Hundreds of broken and unusual image files: each gives a usable image, or one error that names the file and what to do."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posepipe.errors import ImageError, PosepipeError
from posepipe.imaging.header import check_header
from posepipe.imaging.mask import given_mask, is_extracted, nonzero_mask
from posepipe.imaging.volume import Volume, load_volume

SHAPE = (9, 8, 7)
DATA = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
AFFINE = np.array([[0, -2.0, 0, 30], [2, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
MANY = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def good() -> bytes:
    image = nib.Nifti1Image(DATA, AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    return image.to_bytes()


GOOD = good()


def outcome(folder: Path, content: bytes, name: str = "sub-01_T2w.nii") -> str:
    """What becomes of a file: an error in words, or that it was read."""
    path = folder / name
    path.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    return outcome_of(path)


def outcome_of(path: Path) -> str:
    said = set()
    for look in (check_header, load_volume):  # what a dry run sees, and what a run does
        try:
            found = look(path)
        except ImageError as error:
            text = str(error)
            assert text.startswith(f"{path}: ") and len(text) > len(str(path)) + 20, text
            said.add(text)
            continue
        if isinstance(found, Volume):
            assert not said, "a dry run refuses what a run takes"
            assert found.data.ndim == 3 and np.isfinite(found.data).all() and np.isfinite(found.affine).all()
            axes = found.affine[:3, :3] / found.spacing
            assert (found.spacing >= 0.02).all() and (found.spacing <= 50).all() and np.allclose(axes.T @ axes, np.eye(3), atol=1e-5)
            for made in (is_extracted, nonzero_mask):
                try:
                    made(found)
                except PosepipeError as error:
                    assert str(path) in str(error)
            return "read"
    return " | ".join(sorted(said))


@MANY
@given(keep=st.integers(0, len(GOOD)), packed=st.booleans())
def test_files_cut_short(tmp_path: Path, keep: int, packed: bool) -> None:
    said = outcome(tmp_path, GOOD[:keep], "a_T2w.nii.gz" if packed else "a_T2w.nii")
    assert (said == "read") is (keep == len(GOOD))


@MANY
@given(cut=st.integers(1, 400))
def test_compressed_files_cut_short(tmp_path: Path, cut: int) -> None:
    packed = gzip.compress(GOOD, 1)
    path = tmp_path / "a_T2w.nii.gz"
    path.write_bytes(packed[:-cut])
    assert outcome_of(path) != "read"


@MANY
@given(at=st.integers(0, 351), value=st.integers(0, 255), packed=st.booleans())
def test_one_byte_of_the_header_is_another(tmp_path: Path, at: int, value: int, packed: bool) -> None:
    outcome(tmp_path, GOOD[:at] + bytes([value]) + GOOD[at + 1 :], "a_T2w.nii.gz" if packed else "a_T2w.nii")


NUMBERS = st.one_of(st.floats(width=32), st.sampled_from([0.0, -1.0, float("nan"), float("inf"), 1e-30, 1e30]))
FIELDS = {"pixdim": (76, 8), "vox_offset": (108, 1), "scl_slope": (112, 1), "scl_inter": (116, 1), "quatern": (256, 6), "srow": (280, 12)}


@MANY
@given(
    field=st.sampled_from(sorted(FIELDS)),
    values=st.lists(NUMBERS, min_size=12, max_size=12),
    codes=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_numbers_of_the_header_are_any(tmp_path: Path, field: str, values: list[float], codes: tuple[int, int]) -> None:
    at, n = FIELDS[field]
    content = bytearray(GOOD)
    content[at : at + 4 * n] = struct.pack(f"<{n}f", *values[:n])
    content[252:256] = struct.pack("<2h", *codes)
    outcome(tmp_path, bytes(content))


@MANY
@given(dims=st.lists(st.one_of(st.integers(-2, 10), st.sampled_from([1000, 32767, -32768])), min_size=8, max_size=8))
def test_sizes_of_the_header_are_any(tmp_path: Path, dims: list[int]) -> None:
    content = bytearray(GOOD)
    content[40:56] = struct.pack("<8h", *dims)
    outcome(tmp_path, bytes(content))


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_kind_of_number_is_read(tmp_path: Path, kind: str, packed: bool) -> None:
    path = tmp_path / ("a_T2w.nii.gz" if packed else "a_T2w.nii")
    data = (DATA % 100).astype(kind)
    nib.save(nib.Nifti1Image(data, AFFINE, dtype=data.dtype), path)
    assert outcome_of(path) == "read"
    np.testing.assert_array_equal(load_volume(path).data, data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "real numbers"),
        (DATA.astype(np.complex64), "real numbers"),
        (np.zeros(SHAPE, np.float32), "every voxel"),
        (np.full(SHAPE, np.nan, np.float32), "every voxel"),
        (DATA[:, :, 0], "3D image"),
        (DATA[:, :, :1], "3D image"),
        (np.stack([DATA, DATA], -1), "single volumes"),
        (np.zeros((0, 4, 4), np.int16), ""),
    ],
    ids=["colours", "complex", "zero", "nan", "2d", "one slice", "4d", "empty"],
)
def test_what_is_no_image_is_refused_with_the_reason(tmp_path: Path, data: np.ndarray, words: str) -> None:
    path = tmp_path / "a_T2w.nii.gz"
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    said = outcome_of(path)
    assert said != "read" and words in said


@pytest.mark.parametrize("name", ["sub-01 T2w.nii.gz", "sub-ä日本_T2w.nii", "a'b\"c_T2w.nii.gz", "%s{}_T2w.nii"])
def test_names_are_any(tmp_path: Path, name: str) -> None:
    assert outcome(tmp_path, GOOD, name) == "read"


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_a_header_in_metres_or_micrometres_is_reported(tmp_path: Path, unit: float) -> None:
    path = tmp_path / "a_T2w.nii"
    nib.save(nib.Nifti1Image(DATA, np.diag([0.8 * unit, 0.8 * unit, 3 * unit, 1])), path)
    assert "check the header and its units" in outcome_of(path)


@pytest.mark.parametrize("scale", [0.05, 20.0])
def test_voxels_are_as_small_or_large_as_they_are(tmp_path: Path, scale: float) -> None:
    path = tmp_path / "a_T2w.nii"
    nib.save(nib.Nifti1Image(DATA, np.diag([scale, scale, scale, 1])), path)
    assert outcome_of(path) == "read" and load_volume(path).spacing == pytest.approx(scale)


def test_negative_images_are_images(tmp_path: Path) -> None:
    path = tmp_path / "a_T2w.nii"
    nib.save(nib.Nifti1Image((DATA - 2000).astype(np.int16), AFFINE), path)
    assert outcome_of(path) == "read"


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_claims_to_be_huge_is_refused_before_its_voxels_are_read(tmp_path: Path, packed: bool) -> None:
    """1,000³ voxels of zeros are 4 MB when packed."""
    import resource

    content = bytearray(GOOD[:352])
    content[40:56] = struct.pack("<8h", 3, 1000, 1000, 1000, 1, 1, 1, 1)
    content[70:74] = struct.pack("<2h", 2, 8)
    path = tmp_path / ("a_T2w.nii.gz" if packed else "a_T2w.nii")
    if packed:
        with gzip.open(path, "wb", 1) as stream:
            stream.write(bytes(content))
            for _ in range(1000):
                stream.write(bytes(1000 * 1000))
    else:
        with path.open("wb") as stream:
            stream.write(bytes(content))
            stream.truncate(352 + 1000**3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = outcome_of(path)
    assert "1000" in said and said != "read"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize("kind", ["empty", "nan", "negative", "elsewhere", "other shape"])
def test_masks_that_are_none_are_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    image = Volume(np.random.default_rng(1).random((20, 20, 20)).astype(np.float32), np.diag([3.0, 3, 3, 1]), "a_T2w.nii.gz")
    data = np.zeros((20, 20, 20), np.float32)
    data[5:15, 5:15, 5:15] = {"nan": np.nan, "negative": -1.0}.get(kind, 1.0)
    if kind == "empty":
        data[:] = 0
    affine = image.affine.copy()
    affine[:3, 3] += 9.0 if kind == "elsewhere" else 0.0
    mask = Volume(data[:15] if kind == "other shape" else np.nan_to_num(data), affine, "m.nii.gz")
    with pytest.raises(PosepipeError, match=r"m\.nii\.gz"):
        given_mask(mask, image)
