"""Files as dcm2niix writes them: what is aligned, what is passed over, and what is said of it.

Names and keys are what dcm2niix v1.0.20260724 wrote of DICOM slices made for this: 12 slices in two interleaves with their acquisition
times; the same with one slice missing (``_Eq_1``, without a JSON file); with an overlay (``_ROI1``); and a volume with ``-x y``.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest

from posepipe.bids.converted import converter_advice, converter_doubts
from posepipe.cli.parser import parse_settings
from posepipe.cli.plan import describe, make_plan
from posepipe.plan import Plan
from posepipe.slices.acquisition import from_sidecar

TIMES = [0, 8.39844, 1.39844, 9.79688, 2.79688, 11.2031, 4.20312, 12.6016, 5.60156, 14, 7, 15.3984]
ORDER = [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]
SIDECAR = {
    "Modality": "MR", "Manufacturer": "Siemens", "MRAcquisitionType": "2D", "SliceThickness": 3, "SpacingBetweenSlices": 3,
    "RepetitionTime": 1.4, "SliceTiming": TIMES, "ImageOrientationPatientDICOM": [1, 0, 0, 0, 1, 0], "ConversionSoftware": "dcm2niix",
}  # fmt: skip


def write_stack(path: Path, n: int = 12) -> None:
    """A stack as dcm2niix writes slices that were acquired upwards: axes L, A, S, so a left-handed grid; int16; both codes 1."""
    affine = np.array([[-1.1, 0, 0, 35], [0, 1.1, 0, -34.3], [0, 0, 3, 0], [0, 0, 0, 1]], dtype=float)
    image = nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 50, (64, 64, n)).astype(np.int16), affine)
    image.header.set_slope_inter(None, None)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """sub-01: an image and its JSON; sub-02: slices missing; sub-03: with an overlay, a crop, a phase, and a second series of its name."""
    root = tmp_path / "bids"
    for label, names in {
        "01": ["T2w"],
        "02": ["T2w", "T2w_Eq_1"],
        "03": ["T2w", "T2w_ROI1", "T2w_Crop_1", "T2w_ph", "T2wa", "T2w_Tilt_1"],
    }.items():
        for name in names:
            write_stack(root / f"sub-{label}" / "anat" / f"sub-{label}_{name}.nii.gz", 13 if "Eq" in name else 12)
    (root / "sub-01" / "anat" / "sub-01_T2w.json").write_text(json.dumps(SIDECAR))
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    return root


@pytest.fixture
def planned(dataset: Path, small_atlas: Path, tmp_path: Path) -> Any:
    command = [str(dataset), str(tmp_path / "out"), "participant", "--age", "29", "--atlas", "Phantom", "--atlas-dir", str(small_atlas)]
    command += ["--age-policy", "nearest", "-w", str(tmp_path / "work")]
    settings = parse_settings(command)
    plan = make_plan(settings)
    return SimpleNamespace(plan=plan, told="\n".join(describe(plan, settings)))


def by_name(plan: Plan) -> dict[str, Any]:
    return {image.image.path.name: image for image in plan.images}


def test_only_images_are_aligned_and_the_others_are_told(planned: Any) -> None:
    assert sorted(by_name(planned.plan)) == [f"sub-{n}_T2w.nii.gz" for n in ("01", "02", "03")]
    told = dict(line.split(": ", 1) for line in planned.plan.left_out)
    for name, what in {
        "02/anat/sub-02_T2w_Eq_1": "evenly spaced slices", "03/anat/sub-03_T2w_ROI1": "an overlay", "03/anat/sub-03_T2w_Crop_1": "the neck",
        "03/anat/sub-03_T2w_ph": "part of a complex image", "03/anat/sub-03_T2wa": "adds a letter", "03/anat/sub-03_T2w_Tilt_1": "a tilt",
    }.items():  # fmt: skip
        assert what in told[f"sub-{name}.nii.gz"], name
        assert ": " in told[f"sub-{name}.nii.gz"] and "; " in told[f"sub-{name}.nii.gz"], name  # what it is, and what to do
        assert f"sub-{name}.nii.gz" in planned.told
    assert len(told) == 6


def test_an_image_whose_slices_nifti_cannot_place_is_for_review(planned: Any) -> None:
    images = by_name(planned.plan)
    assert images["sub-01_T2w.nii.gz"].doubts == ()
    (uneven,), (tilted,) = images["sub-02_T2w.nii.gz"].doubts, images["sub-03_T2w.nii.gz"].doubts
    assert uneven.startswith("sub-02_T2w_Eq_1.nii.gz lies beside it: its slices are unevenly spaced or some are missing")
    assert tilted.startswith("sub-03_T2w_Tilt_1.nii.gz lies beside it: its slices are tilted")
    assert "converter_doubts" in images["sub-02_T2w.nii.gz"].parameters["settings"]
    assert f"review    {uneven}" in planned.told


def test_the_slice_times_that_the_converter_wrote_are_used(planned: Any) -> None:
    images = by_name(planned.plan)
    timing = images["sub-01_T2w.nii.gz"].timing
    assert timing == {"SliceTiming": TIMES, "SliceThickness": 3}
    assert from_sidecar(timing, 12).source == "SliceTiming" and from_sidecar(timing, 12).order.tolist() == ORDER
    assert images["sub-02_T2w.nii.gz"].timing == {}  # a stack all the same; its order is guessed, and that is said
    assert from_sidecar({}, 12).source == "guessed"


@pytest.mark.parametrize("name", ["sub-01_T2w.nii.gz", "sub-01_acq-Eq1_T2w.nii.gz", "sub-01_run-1_T1w.nii", "sub-01_rec-ROI1_T2w.nii.gz"])
def test_names_of_bids_have_no_mark(name: str) -> None:
    assert converter_advice(name) is None


def test_neighbours_of_another_image_tell_nothing(tmp_path: Path) -> None:
    for name in ("sub-01_run-1_T2w.nii.gz", "sub-01_run-2_T2w.nii.gz", "sub-01_run-1_T2w_Eq_1.nii.gz", "sub-01_run-2_T2w_Equal.nii.gz"):
        (tmp_path / name).touch()
    assert len(converter_doubts(tmp_path / "sub-01_run-1_T2w.nii.gz")) == 1
    assert converter_doubts(tmp_path / "sub-01_run-2_T2w.nii.gz") == ()
