"""The interfaces, one after another, on a small phantom."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nipype.interfaces.base import BaseInterface
from nipype.pipeline import engine as pe
from posepipe.workflows.engine import execution_config

from posepipe._version import __version__
from posepipe.atlas import Template, VolumeRange
from posepipe.bids import read_json
from posepipe.errors import MaskError
from posepipe.geometry import Rigid, read_itk, write_itk
from posepipe.imaging.header import UNKNOWN
from posepipe.imaging.volume import Volume, load_volume, save_volume
from posepipe.interfaces.apply import ApplyPose
from posepipe.interfaces.contrast import ContrastConvert
from posepipe.interfaces.figure import PoseFigure
from posepipe.interfaces.mask import BrainMask
from posepipe.interfaces.pose import PoseQuality
from posepipe.interfaces.records import initial_of, initial_to_record, mask_of, refined_of
from posepipe.interfaces.template import template_inputs, template_of
from posepipe.models.listing import LISTING
from posepipe.models.weights import SCAN_NETWORKS, hashes
from posepipe.reports.views import read_views

WEEK = 28.0
MODULES = ("apply", "contrast", "derivatives", "figure", "mask", "page", "pose")
SPACING = 2.0


@pytest.mark.parametrize("module", MODULES)
def test_every_trait_says_what_it_is(module: str) -> None:
    content = importlib.import_module(f"posepipe.interfaces.{module}")
    found = [c for _, c in inspect.getmembers(content, inspect.isclass) if issubclass(c, BaseInterface)]
    own = [c for c in found if c.__module__ == content.__name__]
    assert own
    for interface in own:
        assert interface.__doc__
        assert __version__ in interface.input_spec().digest  # a new one makes all anew
        for spec in (interface.input_spec, interface.output_spec):
            for name, trait in spec().traits(transient=None).items():
                assert trait.desc, f"{interface.__name__}.{name}"


def test_template_survives_the_traits(case: dict[str, Any]) -> None:
    interface = PoseFigure(**template_inputs(case["template"]))
    again = template_of(interface.inputs)
    assert again == case["template"]
    assert np.array_equal(again.to_canonical, case["template"].to_canonical)
    bare = Template("A", "1", 1.0, "T1w", case["template"].image)
    again = template_of(PoseFigure(**template_inputs(bare)).inputs)
    assert again == bare and again.to_canonical is None


@pytest.mark.slow
def test_torch_is_held_to_its_threads_by_all_that_use_it(results: dict[str, Any], case: dict[str, Any], tmp_path: Path) -> None:
    template, before = template_inputs(case["template"]), torch.get_num_threads()
    mask, initial, refined = (results[stage] for stage in ("mask", "initial", "refined"))
    judged = PoseQuality(
        in_mask=mask.out_mask, mask_record=mask.out_record, initial_pose=initial.out_pose, initial_record=initial.out_record,
        refined_pose=refined.out_pose, refined_record=refined.out_record, age=28.0, torch_threads=1, **template,
    )  # fmt: skip
    pictured = PoseFigure(
        in_file=str(case["folder"] / "image.nii.gz"), in_mask=mask.out_mask, in_pose=refined.out_pose, torch_threads=1, **template
    )
    try:
        for interface in (judged, pictured):
            torch.set_num_threads(3)
            interface.run(cwd=str(tmp_path))
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_given_mask(results: dict[str, Any], case: dict[str, Any]) -> None:
    mask = results["mask"]
    assert mask.source == "given" and 100 < mask.millilitres < 500 and mask.warnings == []
    record = read_json(mask.out_record)
    assert record["millilitres"] == pytest.approx(mask.millilitres) and record["seconds"] > 0
    again = mask_of(mask.out_mask, mask.out_record)
    assert again.source == "given" and again.millilitres == pytest.approx(mask.millilitres)
    assert record["weights"] == {} and record["voxels"] == again.voxels


def test_nonzero_mask_where_none_is_given_or_wanted(case: dict[str, Any], tmp_path: Path) -> None:
    image, mask = str(case["folder"] / "image.nii.gz"), str(case["folder"] / "mask.nii.gz")
    for options in ({}, {"mode": "nonzero", "in_mask": mask}):
        found = BrainMask(in_file=image, **options).run(cwd=str(tmp_path)).outputs
        assert found.source == "nonzero"


def test_mask_by_networks_tells_which(case: dict[str, Any], results: dict[str, Any], tmp_path: Path, scan_weights: Any) -> None:
    files, weights = {"in_file": str(case["folder"] / "image.nii.gz")}, scan_weights(0.4)
    given = str(case["folder"] / "mask.nii.gz")  # not wanted
    found = BrainMask(mode="network", weights=str(weights / LISTING), in_mask=given, **files).run(cwd=str(tmp_path)).outputs
    record = read_json(found.out_record)
    assert found.source == record["source"] == "network"
    assert record["weights"] == hashes(SCAN_NETWORKS, weights) == mask_of(found.out_mask, found.out_record).weights
    pose = mask_of(found.out_mask, found.out_record).found
    assert pose is not None and pose.rotation.tolist() == record["found"]["rotation"] and pose.features == record["found"]["features"]
    assert record["voxels"] * SPACING**3 / 1000 == pytest.approx(record["millilitres"]) and record["seconds"] > 0
    assert 0.8 < record["millilitres"] / read_json(results["mask"].out_record)["millilitres"] < 1.2
    with pytest.raises(MaskError, match=r"image\.nii\.gz: no brain was found"):
        BrainMask(mode="network", weights=str(scan_weights(2.0) / LISTING), **files).run(cwd=str(tmp_path))


def test_mask_is_made_again_with_other_weights_only(case: dict[str, Any], tmp_path: Path, scan_weights: Any) -> None:
    one, other = scan_weights(0.1), scan_weights(0.2)

    def node(weights: Path, **options: Any) -> pe.Node:
        finding = BrainMask(in_file=str(case["folder"] / "image.nii.gz"), mode="network", weights=str(weights / LISTING), **options)
        made = pe.Node(finding, name="mask", base_dir=str(tmp_path / "work"))
        made.config = execution_config()
        return made

    node(one).run()
    shutil.copytree(one, tmp_path / "copy")
    assert node(tmp_path / "copy", torch_threads=2, device="cpu").is_cached() == (True, True)
    assert node(other).is_cached()[1] is False


def test_conversion_keeps_the_grid_and_tells_the_network(
    case: dict[str, Any], results: dict[str, Any], tmp_path: Path, contrast_weights: Any
) -> None:
    weights = contrast_weights()
    image, mask = case["folder"] / "image.nii.gz", results["mask"].out_mask
    done = ContrastConvert(in_file=str(image), in_mask=mask, weights=str(weights / LISTING), device="cpu").run(cwd=str(tmp_path)).outputs
    before, after, inside = load_volume(image), load_volume(done.out_file), load_volume(mask).data > 0
    assert after.same_grid(before) and not after.data[~inside].any()
    assert np.corrcoef(before.data[inside], after.data[inside])[0, 1] < -0.9
    record = read_json(done.out_record)
    assert (record["network"], record["weights"]) == ("contrast", hashes(("contrast",), weights)) and record["seconds"] > 0


@pytest.mark.slow
def test_conversion_is_made_again_with_other_weights_only(
    case: dict[str, Any], results: dict[str, Any], tmp_path: Path, contrast_weights: Any
) -> None:
    one, other = contrast_weights(3.0), contrast_weights(5.0)

    def node(weights: Path, **options: Any) -> pe.Node:
        given = {"in_file": str(case["folder"] / "image.nii.gz"), "in_mask": results["mask"].out_mask, "weights": str(weights / LISTING)}
        made = pe.Node(ContrastConvert(**given, **options), name="conversion", base_dir=str(tmp_path))
        made.config = execution_config()
        return made

    first = node(one, device="cpu")
    first.run()
    assert node(one, device="auto", torch_threads=2).is_cached() == (True, True)
    assert node(other).is_cached()[1] is False


def test_mask_that_is_missing_is_an_error(case: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="--mask given"):
        BrainMask(in_file=str(case["folder"] / "image.nii.gz"), mode="given").run(cwd=str(tmp_path))


def test_initial_pose_is_near_the_truth(results: dict[str, Any], case: dict[str, Any]) -> None:
    initial = results["initial"]
    assert read_itk(initial.out_pose).degrees_from(case["pose"]) < 15
    record = read_json(initial.out_record)
    assert record["method"] == "search" and len(record["hypotheses"]) >= 1
    again = initial_of(initial.out_record, initial.out_pose)
    for one, other in zip(initial_to_record(again)["hypotheses"], record["hypotheses"], strict=True):
        assert one.keys() == other.keys()
        assert all(one[key] is other[key] is None or np.allclose(one[key], other[key]) for key in one)
    assert (again.method, again.scale, again.found.by) == (record["method"], record["scale"], record["ranked_by"])
    assert again.best.criterion is not None and again.best.coarse is not None and again.best.votes is not None
    assert again.prediction is not None and again.prediction.reliable is record["witness"]["sure"]


def test_what_another_version_left_in_the_work_folder_is_made_again(case: dict[str, Any], tmp_path: Path) -> None:
    def node(**options: Any) -> pe.Node:
        made = pe.Node(BrainMask(in_file=str(case["folder"] / "image.nii.gz"), **options), name="mask", base_dir=str(tmp_path))
        made.config = execution_config()
        return made

    node(digest="0.0.1").run()
    assert node(digest="0.0.1").is_cached() == (True, True)
    assert node().is_cached()[1] is False


def test_refined_pose_is_nearer(results: dict[str, Any], case: dict[str, Any]) -> None:
    refined = refined_of(results["refined"].out_record, results["refined"].out_pose)
    assert refined.pose.degrees_from(case["pose"]) < 5
    assert (refined.method, refined.template) == ("torch", "whole")
    assert all({"before", "after"} <= set(values) for values in refined.similarity.values())


def test_a_record_of_before_templates_had_two_forms_is_read(results: dict[str, Any], tmp_path: Path) -> None:
    record = read_json(results["refined"].out_record)
    del record["template"]
    (tmp_path / "old.json").write_text(json.dumps(record), encoding="utf-8")
    assert refined_of(tmp_path / "old.json", results["refined"].out_pose).template == "whole"


def test_quality_has_a_verdict(results: dict[str, Any]) -> None:
    record = read_json(results["quality"].out_record)
    assert record["qc"] == results["quality"].qc in {"pass", "review", "fail"}
    assert isinstance(record["reasons"], list)


@pytest.mark.parametrize(
    ("options", "qc", "word"),
    [
        ({"volumes": asdict(VolumeRange(9.0, "A+20", 20.0, "A+21")), "estimated": True}, "fail", "largest of the atlas (A+21"),
        ({"doubts": ["the age cannot be determined"], "estimated": True}, "review", "the age cannot be determined"),
    ],
)  # fmt: skip
def test_the_verdict_knows_sizes_and_doubts_of_age(
    results: dict[str, Any], case: dict[str, Any], tmp_path: Path, options: dict[str, Any], qc: str, word: str
) -> None:
    mask, initial, refined = (results[name] for name in ("mask", "initial", "refined"))
    judged = PoseQuality(
        in_mask=mask.out_mask, mask_record=mask.out_record, initial_pose=initial.out_pose, initial_record=initial.out_record,
        refined_pose=refined.out_pose, refined_record=refined.out_record, age=28.0, **options, **template_inputs(case["template"]),
    ).run(cwd=str(tmp_path))  # fmt: skip
    assert judged.outputs.qc in {qc, "fail"} and any(word in reason for reason in read_json(judged.outputs.out_record)["reasons"])
def test_doubts_about_image_and_age_are_reasons_for_review(results: dict[str, Any], case: dict[str, Any], tmp_path: Path) -> None:
    volume = load_volume(case["folder"] / "image.nii.gz")
    data = volume.data.copy()
    data[:3, :5, :7] = np.nan
    image = nib.Nifti1Image(data, volume.affine)
    image.set_sform(volume.affine, code=0)
    image.set_qform(volume.affine, code=0)
    nib.save(image, tmp_path / "image.nii.gz")
    done = {name: results[name] for name in ("mask", "initial", "refined")}
    inputs = {
        "in_mask": done["mask"].out_mask, "mask_record": done["mask"].out_record, "initial_pose": done["initial"].out_pose,
        "initial_record": done["initial"].out_record, "refined_pose": done["refined"].out_pose,
        "refined_record": done["refined"].out_record, "age": WEEK, **template_inputs(case["template"]),
    }  # fmt: skip
    found = PoseQuality(in_file=str(tmp_path / "image.nii.gz"), doubts=["its age is odd", UNKNOWN], **inputs).run(cwd=str(tmp_path)).outputs
    record = read_json(found.out_record)
    assert found.qc in {"review", "fail"}
    assert record["reasons"][-2:] == ["its age is odd", UNKNOWN]
    (note,) = record["notes"]
    assert note.startswith("105 of ")


def test_applied_pose_lands_on_the_template(results: dict[str, Any], case: dict[str, Any]) -> None:
    template = load_volume(case["template"].image)
    resampled = load_volume(results["apply"].resampled)
    assert resampled.same_grid(template)
    inside = load_volume(case["template"].mask).data > 0
    assert np.corrcoef(resampled.data[inside], template.data[inside])[0, 1] > 0.4  # unaligned: below 0
    before = load_volume(case["folder"] / "image.nii.gz", None)
    after = load_volume(results["apply"].reoriented, None)
    assert after.data.dtype == before.data.dtype and np.array_equal(after.data, before.data)
    pose = read_itk(results["refined"].out_pose)
    assert np.allclose(pose.matrix @ after.affine, before.affine, atol=1e-3)


@pytest.mark.parametrize(("stored", "kept"), [(np.float64, np.float32), (np.uint8, np.uint8), (np.int32, np.int32)])
def test_types_of_voxels(case: dict[str, Any], tmp_path: Path, stored: Any, kept: Any) -> None:
    small = Volume(np.arange(27, dtype=stored).reshape(3, 3, 3), np.eye(4))
    image = save_volume(small, tmp_path / "small.nii.gz", stored)
    pose = write_itk(Rigid.identity(), tmp_path / "pose.txt")
    done = ApplyPose(in_file=str(image), template=str(image), in_pose=str(pose)).run(cwd=str(tmp_path)).outputs
    after = load_volume(done.reoriented, None)
    assert after.data.dtype == kept and np.array_equal(after.data, small.data)


def test_figure_holds_pictures(results: dict[str, Any]) -> None:
    views = read_views(results["figure"].out_figure)
    assert list(views.layers) == ["before", "after", "atlas"]
    assert all(sheet.startswith(b"RIFF") for layer in views.layers.values() for sheet in layer)
