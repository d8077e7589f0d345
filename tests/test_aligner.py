"""All stages in one call, from files to files."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import posepipe
from posepipe import phantom
from posepipe.aligner import Aligner, _timed, align
from posepipe.alignment import Alignment
from posepipe.atlas.add import add
from posepipe.errors import AgeError, AtlasError, ImageError, MaskError, UsageError
from posepipe.geometry import Rigid, read_itk
from posepipe.imaging.apply import resample_to_template
from posepipe.imaging.volume import load_volume, save_volume
from posepipe.matching.target import Target
from posepipe.models.device import pick_device
from posepipe.models.weights import POSE_NETWORKS, SCAN_NETWORKS, hashes

pytestmark = pytest.mark.usefixtures("one_thread_no_cache")

KEYS = {
    "Age", "Atlas", "Cohort", "Contrast", "Mask", "InitMethod", "RefineMethod", "RefineTemplate", "RotationMatrix",
    "RotationVector", "RotationAngleDegrees", "TranslationMM", "Similarity", "Confidence", "QC", "QCReasons", "Seconds",
    "Weights", "SoftwareVersions",
}  # fmt: skip


@dataclass(frozen=True)
class Files:
    """A phantom atlas in TemplateFlow's layout, and a head with its mask."""

    atlases: Path
    cache: Path
    image: Path
    mask: Path

    def aligner(self, **settings: str | int | None) -> Aligner:
        """An aligner that knows only this atlas."""
        chosen = {"atlas": "Phantom", "init": "search", "refine": "torch"} | settings
        return Aligner(atlas_dirs=[self.atlases], cache_dir=self.cache, device="cpu", **chosen)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def files(tmp_path_factory, head) -> Files:
    root = tmp_path_factory.mktemp("study")
    for week in (27, 29):
        labels = phantom.brain_labels(week, 1.5)
        image = save_volume(phantom.render(labels, week), root / f"{week}.nii.gz", np.int16)
        mask = save_volume(phantom.brain_mask(labels), root / f"{week}_mask.nii.gz")
        add("Phantom", image=image, mask=mask, age=week, dest=root / "atlases")
    image = save_volume(head.image, root / "sub-01_T2w.nii.gz")
    mask = save_volume(head.mask, root / "sub-01_mask.nii.gz", np.uint8)
    return Files(root / "atlases", root / "banks", image, mask)


@pytest.fixture(scope="module")
def warm(files) -> Aligner:
    return files.aligner()


@pytest.fixture(scope="module")
def done(files, warm) -> Alignment:
    return warm.align(files.image, 29.2, mask=files.mask)


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@pytest.mark.slow
def test_finds_the_pose_and_says_how(done, head, files):
    assert done.pose.degrees_from(head.pose) < 2
    assert done.pose.mm_from(head.pose, done.target.brain.center) < 1
    assert (done.template.atlas, done.template.cohort, done.contrast, done.age) == ("Phantom", "29", "T2w", 29.2)
    assert "29" in done.choice_reason
    assert (done.initial.method, done.refined.method, done.mask.source) == ("search", "torch", "given")
    assert done.quality.qc == "pass", done.quality.reasons
    assert done.image.source == str(files.image)
    assert list(files.cache.glob("bank-*.npz"))


def test_stages_are_timed(done):
    assert list(done.seconds) == ["read", "mask", "template", "prepare", "init", "refine"]
    assert all(s >= 0 for s in done.seconds.values())
    assert done.seconds["init"] > 0


def test_what_is_done_again_adds_up():
    seconds = {"init": 5.0}
    with _timed(seconds, "init"), _timed(seconds, "refine"):
        pass
    assert seconds["init"] >= 5 and seconds["refine"] >= 0


def test_warm_call_uses_the_same_target_and_gives_the_same_bits(done, warm, files):
    again = warm.align(str(files.image), 28.9, mask=str(files.mask))
    assert again.target is done.target
    np.testing.assert_array_equal(again.pose.matrix, done.pose.matrix)
    assert again.refined.similarity == done.refined.similarity


@pytest.mark.slow
def test_a_new_aligner_gives_the_same_bits_from_the_cache(done, files):
    fresh = files.aligner().align(files.image, 29.2, mask=files.mask)
    assert fresh.target is not done.target
    np.testing.assert_array_equal(fresh.pose.matrix, done.pose.matrix)


def test_volumes_will_do_as_well_as_files(done, warm, files):
    out = warm.align(load_volume(files.image), 29.2, mask=load_volume(files.mask))
    np.testing.assert_array_equal(out.pose.matrix, done.pose.matrix)


def test_brain_extracted_image_needs_no_mask(done, warm, files):
    out = warm.align(files.image, 29.2)
    assert out.mask.source == "nonzero"
    assert out.pose.is_close(done.pose, degrees=1, mm=1)


@pytest.mark.slow
def test_networks_find_the_brain_once_they_are_needed(files, warm, head, scan_weights):
    weights = scan_weights(0.1)
    aligner = files.aligner(mask="network", weights=weights, init="deep", refine="none")
    assert "finder" not in vars(aligner)
    out = aligner.align(files.image, 29.2, mask=files.mask)
    finder = aligner.finder
    assert out.mask.source == out.sidecar()["Mask"] == "network"
    assert out.sidecar()["Weights"] == {**hashes(SCAN_NETWORKS, weights), **hashes(POSE_NETWORKS)}
    assert out.pose.is_close(head.pose, degrees=10, mm=5)
    aligner.align(files.image, 29.2)
    assert aligner.finder is finder and "finder" not in vars(warm)


def test_no_brain_in_the_image(files, scan_weights):
    with pytest.raises(MaskError, match=r"sub-01_T2w\.nii\.gz: no brain was found"):
        files.aligner(mask="network", weights=scan_weights(2.0)).align(files.image, 29.2)


@pytest.mark.slow
def test_age_can_be_estimated(warm, files, done):
    out = warm.align(files.image, "estimate", mask=files.mask)
    assert out.age_error is not None and 27 <= out.age <= 29
    assert out.sidecar()["AgeStandardError"] == out.age_error and "AgeStandardError" not in done.sidecar()
    assert any("the age was estimated" in warning for warning in out.warnings)
    assert "age" in out.seconds
    with pytest.raises(UsageError, match="number of weeks or 'estimate'"):
        warm.align(files.image, "old", mask=files.mask)


@pytest.mark.slow
def test_age_chooses_the_cohort(warm, files):
    out = warm.align(files.image, 27.3, mask=files.mask)
    assert out.template.cohort == "27"
    assert out.initial.scale > 1.03  # a 29-week head against 27 weeks


@pytest.mark.parametrize(("qform", "words"), [(0, "both 0"), (1, "disagree, by 30.0°")])
def test_a_header_that_cannot_be_believed_is_for_review(warm, done, files, tmp_path, qform, words):
    assert done.quality.qc == "pass"  # the same image under a sound header
    image = nib.load(files.image)
    turned = Rigid.from_rotvec([np.radians(30), 0, 0]).matrix @ image.affine
    image.header.set_sform(turned, qform)
    image.header.set_qform(image.affine, qform)
    nib.save(nib.Nifti1Image(image.dataobj, None, image.header), tmp_path / "sub-01_T2w.nii.gz")
    mask = load_volume(files.mask)
    volume = load_volume(tmp_path / "sub-01_T2w.nii.gz")
    found = warm.align(tmp_path / "sub-01_T2w.nii.gz", 29, mask=replace(mask, affine=volume.affine))
    assert found.sidecar()["QC"] in {"review", "fail"}
    assert any(words in reason for reason in found.sidecar()["QCReasons"])


def test_an_image_that_the_dicom_converter_resampled_beside_it_is_for_review(warm, files, tmp_path):
    for name in ("brain.nii.gz", "brain_Eq_1.nii.gz"):
        shutil.copyfile(files.image, tmp_path / name)
    result = warm.align(tmp_path / "brain.nii.gz", 29.2, mask=files.mask)
    assert result.quality.qc == "review"
    assert any(reason.startswith("brain_Eq_1.nii.gz lies beside it") for reason in result.quality.reasons)


@pytest.mark.slow
def test_voxels_that_are_not_finite_are_reported(warm, files):
    volume = load_volume(files.image)
    data = volume.data.copy()
    data[:2, :3, :4] = np.nan
    few = warm.align(volume.with_data(data), 29, mask=files.mask)
    assert few.sidecar()["QC"] == "pass"
    assert few.sidecar()["Warnings"] == [w for w in few.warnings if w.startswith("24 of ")]
    data[data == 0] = np.nan
    many = warm.align(volume.with_data(data), 29, mask=files.mask)
    assert many.sidecar()["QC"] == "review" and "Warnings" not in many.sidecar()
    (reason,) = many.sidecar()["QCReasons"]
    assert "NaN or infinite" in reason


@pytest.mark.slow
def test_so_are_those_of_a_mask_and_of_a_template(warm, files, tmp_path):
    mask = load_volume(files.mask)
    data = np.where(mask.data > 0, 1, np.nan).astype(np.float32)
    given = save_volume(mask.with_data(data), tmp_path / "mask.nii.gz")
    found = warm.align(files.image, 29, mask=given)
    assert found.sidecar()["QC"] == "review"
    (reason,) = found.sidecar()["QCReasons"]
    assert "in the brain mask" in reason and "NaN or infinite" in reason
    for image in sorted(files.atlases.rglob("*_T2w.nii.gz")):  # as somebody put it there, not `atlas add`
        other = tmp_path / image.relative_to(files.atlases)
        brain = image.with_name(image.name.replace("_T2w", "_desc-brain_mask"))
        for source in (image, brain):
            volume = load_volume(source)
            spoilt = np.where(np.indices(volume.shape).sum(0) == 0, np.nan, volume.data).astype(np.float32)
            save_volume(volume.with_data(spoilt), other.with_name(source.name))
        shutil.copyfile(image.parents[1] / "atlas.toml", other.parents[1] / "atlas.toml")
    found = replace(warm, atlas_dirs=[tmp_path]).align(files.image, 29, mask=files.mask)
    notes = found.sidecar()["Warnings"]
    assert found.sidecar()["QC"] == "pass" and set(notes) <= set(found.warnings)
    names = [f"tpl-Phantom_cohort-29_{name}.nii.gz" for name in ("T2w", "desc-brain_mask")]
    assert [note.split(":")[0] for note in notes] == [f"template {name}" for name in names]
    assert all("1 of " in note and "NaN or infinite" in note for note in notes)


def test_one_call(files, done):
    out = align(files.image, 29.2, mask=files.mask, atlas="Phantom", atlas_dirs=[files.atlases], refine="torch", cache_dir=files.cache)
    assert out.initial.method == "deep"  # "auto", although the aligner's setting is search
    assert out.pose.is_close(done.pose, degrees=0.1, mm=0.1)
    assert posepipe.align is align
    # what the method takes, the function takes too
    assert set(inspect.signature(Aligner.align).parameters) - {"self"} <= set(inspect.signature(align).parameters)
    assert posepipe.Aligner is Aligner


@pytest.mark.slow
def test_contrast_is_read_from_the_name_reported_and_can_be_overridden(files, warm, head):
    t1w = save_volume(head.image, files.image.with_name("sub-01_T1w.nii.gz"))
    out = files.aligner(convert="never", slices="on").align(t1w, 29, mask=files.mask)
    assert out.slices is None  # slices are compared with a template of their own contrast alone
    assert out.converted is None and out.quality.qc == "review"
    assert any("named T1w, but its contrast is that of T2w" in reason for reason in out.quality.reasons)
    # the atlas has no T1w, so its T2w is used, and that is reported
    assert out.template.contrast == "T2w"
    assert any("T1w" in w for w in out.warnings)
    overruled = warm.align(t1w, 29, mask=files.mask, contrast="T2w")
    assert overruled.warnings == () and overruled.quality.qc == "pass"


@pytest.mark.slow
def test_a_t1w_image_is_aligned_by_its_conversion(files, head, done, contrast_weights, tmp_path):
    """The network turns brightness over, and so did this image."""
    turned = save_volume(head.image.with_data((1000 - head.image.data).clip(0)), tmp_path / "sub-01_T1w.nii.gz")
    weights = contrast_weights()
    out = files.aligner(weights=str(weights)).align(turned, 29.2, mask=files.mask)
    assert out.pose.degrees_from(head.pose) < 2 and out.contrast == "T1w" and out.template.contrast == "T2w"
    assert not any("its contrast is that of" in reason for reason in out.quality.reasons)
    assert list(out.seconds) == ["read", "mask", "template", "convert", "prepare", "init", "refine"]
    inside = out.mask.volume.data
    assert np.corrcoef(out.converted.data[inside], out.image.data[inside])[0, 1] < -0.9
    sidecar, used = out.sidecar(), hashes(("contrast",), weights)
    assert sidecar.keys() == KEYS | {"ContrastConversion"} and sidecar["ContrastConversion"] == "contrast"
    assert sidecar["Weights"].items() >= used.items()
    paths = out.save(tmp_path / "out", "sub-01")
    assert paths[-1].name == "sub-01_desc-synth_T2w.nii.gz"
    np.testing.assert_allclose(load_volume(paths[-1]).data, out.converted.data, atol=1)
    np.testing.assert_array_equal(load_volume(paths[3]).data, out.image.data)  # the image itself, under a new header


def test_sidecar_has_the_promised_keys_and_is_json(done):
    sidecar = json.loads(json.dumps(done.sidecar()))
    assert set(sidecar) == KEYS
    np.testing.assert_allclose(sidecar["RotationMatrix"], done.pose.rotation)
    np.testing.assert_allclose(sidecar["RotationVector"], done.pose.rotvec)
    assert sidecar["RotationAngleDegrees"] == pytest.approx(np.degrees(np.linalg.norm(sidecar["RotationVector"])))
    assert sidecar["Cohort"] == "29"
    assert sidecar["SoftwareVersions"]["posepipe"] == posepipe.__version__
    assert "antspyx" not in sidecar["SoftwareVersions"]


def test_saved_files_read_back(done, tmp_path, head):
    paths = done.save(tmp_path / "out", "sub-01")
    assert [p.name for p in paths] == [
        "sub-01_from-T2w_to-Phantom+29_mode-image_xfm.txt",
        "sub-01_from-Phantom+29_to-T2w_mode-image_xfm.txt",
        "sub-01_space-Phantom_cohort-29_T2w.nii.gz",
        "sub-01_desc-reoriented_T2w.nii.gz",
        "sub-01_desc-brain_mask.nii.gz",
    ]
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)
    forward, backward = read_itk(paths[0]), read_itk(paths[1])
    assert forward.is_close(done.pose, 1e-5, 1e-4)
    assert (forward @ backward).angle_degrees < 1e-5
    resampled, reoriented, mask = (load_volume(p) for p in paths[2:])
    assert resampled.same_grid(done.target.volume)
    expected = resample_to_template(head.image, done.target.volume, forward)
    np.testing.assert_allclose(resampled.data, expected.data, atol=1)
    np.testing.assert_array_equal(reoriented.data, head.image.data)
    np.testing.assert_allclose(reoriented.affine, (~done.pose).matrix @ head.image.affine, atol=1e-3)
    np.testing.assert_array_equal(mask.data, done.mask.volume.data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "deep9"}, "unknown init 'deep9': choose from auto, deep, posenet, search, axes, center"),
        ({"mask": "drawn"}, "unknown mask 'drawn': choose from auto, given, nonzero, network"),
        ({"refine": "flirt"}, "unknown refine 'flirt': choose from ants, torch, none"),
    ],
)
def test_bad_option(files, settings, message):
    with pytest.raises(UsageError, match=message):
        files.aligner(**settings)


def test_bad_device_and_atlas_folder(files, tmp_path):
    with pytest.raises(UsageError, match="unknown device 'tpu'"):
        pick_device("tpu")
    with pytest.raises(UsageError, match="no tpl-NAME folder"):
        Aligner(atlas_dirs=[tmp_path])
    if not torch.cuda.is_available():
        assert pick_device("auto") == "cpu"
        with pytest.raises(UsageError, match="no CUDA device"):
            pick_device("cuda")


def test_no_age_or_one_that_the_atlas_does_not_cover(files, warm):
    with pytest.raises(AgeError, match="no age is known"):
        warm.align(files.image, mask=files.mask)
    with pytest.raises(AgeError, match="outside what the atlas Phantom covers"):
        warm.align(files.image, 40, mask=files.mask)
    out = files.aligner(age_policy="nearest", init="center", refine="none").align(files.image, 40, mask=files.mask)
    assert out.template.cohort == "29"
    assert any("nearest cohort" in w for w in out.warnings)


def test_missing_atlas_image_and_mask(files, warm, tmp_path):
    with pytest.raises(AtlasError, match="Nowhere"):
        files.aligner(atlas="Nowhere").align(files.image, 29)
    with pytest.raises(ImageError, match=r"gone\.nii\.gz: no such file"):
        warm.align(tmp_path / "gone.nii.gz", 29)
    with pytest.raises(MaskError, match="--mask given"):
        files.aligner(mask="given").align(files.image, 29)


def test_mask_of_another_grid(files, warm, average):
    with pytest.raises(MaskError, match="not on the grid"):
        warm.align(files.image, 29, mask=average[1])


@pytest.mark.slow
def test_threads_are_put_back(files, threads):
    torch.set_num_threads(1)
    files.aligner(threads=2, init="center", refine="none").align(files.image, 29, mask=files.mask)
    assert torch.get_num_threads() == 1


def test_template_whose_mask_does_not_fit_is_named(files, warm, done, tmp_path):
    from dataclasses import replace

    small = done.target.mask.with_data(done.target.mask.data[:-1])
    wrong = replace(done.template, mask=save_volume(small, tmp_path / "wrong_mask.nii.gz", np.uint8))
    with pytest.raises(AtlasError, match=r"wrong_mask\.nii\.gz: this mask is not on the grid"):
        Target.load(wrong, cache_dir=tmp_path)
    bare = Target.load(replace(done.template, mask=None), cache_dir=tmp_path)
    assert bare.mask.data.sum() == pytest.approx(done.target.mask.data.sum(), rel=0.02)
    assert bare.name == "Phantom+29"


def test_what_is_made_of_the_upright_image_comes_back(done):
    labels = done.reoriented().with_data((done.image.data > 300).astype(np.uint8))
    back = done.restore(labels)
    assert np.array_equal(back.data, labels.data) and back.same_grid(done.image)
    image = done.restore(done.resampled())
    assert image.same_grid(done.image) and np.corrcoef(image.data.ravel(), done.image.data.ravel())[0, 1] > 0.97
    assert done.restore(done.resampled(), 0).data.max() <= done.resampled().data.max()
    assert done.labels() == {}  # this atlas has none
