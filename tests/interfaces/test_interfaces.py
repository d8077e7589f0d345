"""The interfaces, one after another, on a small phantom."""

from __future__ import annotations

import importlib
import inspect
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nipype.interfaces.base import BaseInterface
from nipype.pipeline import engine as pe
from PIL import Image
from posepipe.workflows.engine import execution_config

from posepipe.atlas import Template
from posepipe.bids import Failures, InputImage, OutputNames, read_json, write_json
from posepipe.errors import MaskError
from posepipe.geometry import Rigid, read_itk, write_itk
from posepipe.imaging.phantom import brain_labels, brain_mask, render, subject
from posepipe.imaging.volume import Volume, load_volume, save_volume
from posepipe.interfaces.apply import ApplyPose
from posepipe.interfaces.contrast import ContrastConvert
from posepipe.interfaces.derivatives import Derivatives
from posepipe.interfaces.figure import PoseFigure
from posepipe.interfaces.finished import finished_images, sessions_of
from posepipe.interfaces.mask import BrainMask
from posepipe.interfaces.page import SubjectPage
from posepipe.interfaces.pose import InitialPose, PoseQuality, RefinePose
from posepipe.interfaces.records import initial_of, initial_to_record, mask_of, refined_of, write_record
from posepipe.interfaces.template import template_inputs, template_of
from posepipe.models.listing import LISTING
from posepipe.models.weights import MASK_NETWORKS, hashes
from posepipe.reports.views import read_views

MODULES = ("apply", "contrast", "derivatives", "figure", "mask", "page", "pose")
WEEK, SPACING = 28.0, 2.0


@pytest.fixture(scope="module", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from posepipe.workflows.plugin import quiet_nipype

    quiet_nipype("CRITICAL")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A template and a subject turned by a known pose, on disk."""
    folder = tmp_path_factory.mktemp("case")
    labels = brain_labels(WEEK, SPACING)
    save_volume(render(labels, WEEK, "T2w"), folder / "template.nii.gz", np.int16)
    save_volume(brain_mask(labels), folder / "template_mask.nii.gz")
    pose = Rigid.from_rotvec([0.4, -1.1, 0.7], [5.0, -8.0, 3.0])
    image, mask, _ = subject(
        WEEK, rng=np.random.default_rng(3), pose=pose, contrast="T2w", spacing=SPACING, surroundings=False
    )
    save_volume(image, folder / "image.nii.gz", np.int16)
    save_volume(mask, folder / "mask.nii.gz")
    canonical = np.eye(3)[[1, 0, 2]] * [1, 1, -1]
    template = Template(
        "Phantom", "28", WEEK, "T2w", folder / "template.nii.gz", folder / "template_mask.nii.gz", None, canonical
    )
    return {"folder": folder, "pose": pose, "template": template}


@pytest.fixture(scope="module")
def results(case: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Outputs of each stage, each run in a folder of its own on what the stages before it gave."""
    image = str(case["folder"] / "image.nii.gz")
    template = template_inputs(case["template"])

    def run(interface: Any) -> Any:
        return interface.run(cwd=str(tmp_path_factory.mktemp("node"))).outputs

    compute = {**template, "in_file": image, "device": "cpu", "num_threads": 1}
    mask = run(BrainMask(in_file=image, in_mask=str(case["folder"] / "mask.nii.gz")))
    initial = run(InitialPose(in_mask=mask.out_mask, method="search", **compute))
    refined = run(RefinePose(in_mask=mask.out_mask, in_pose=initial.out_pose, method="torch", **compute))
    quality = run(
        PoseQuality(
            in_mask=mask.out_mask, mask_record=mask.out_record, initial_pose=initial.out_pose,
            initial_record=initial.out_record, refined_pose=refined.out_pose, refined_record=refined.out_record,
            age=WEEK, **template,
        )
    )  # fmt: skip
    applied = run(ApplyPose(in_file=image, template=template["template"], in_pose=refined.out_pose))
    figure = run(PoseFigure(in_file=image, in_mask=mask.out_mask, in_pose=refined.out_pose, **template))
    found = {"mask": mask, "initial": initial, "refined": refined, "quality": quality}
    return {**found, "apply": applied, "figure": figure}


@pytest.mark.parametrize("module", MODULES)
def test_every_trait_says_what_it_is(module: str) -> None:
    content = importlib.import_module(f"posepipe.interfaces.{module}")
    found = [c for _, c in inspect.getmembers(content, inspect.isclass) if issubclass(c, BaseInterface)]
    own = [c for c in found if c.__module__ == content.__name__]
    assert own
    for interface in own:
        assert interface.__doc__
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


def test_mask_by_networks_tells_which(case: dict[str, Any], results: dict[str, Any], tmp_path: Path, mask_weights: Any) -> None:
    files, weights = {"in_file": str(case["folder"] / "image.nii.gz")}, mask_weights(0.4)
    given = str(case["folder"] / "mask.nii.gz")  # not wanted
    found = BrainMask(mode="network", weights=str(weights / LISTING), in_mask=given, **files).run(cwd=str(tmp_path)).outputs
    record = read_json(found.out_record)
    assert found.source == record["source"] == "network"
    assert record["weights"] == hashes(MASK_NETWORKS, weights) == mask_of(found.out_mask, found.out_record).weights
    assert record["voxels"] * SPACING**3 / 1000 == pytest.approx(record["millilitres"]) and record["seconds"] > 0
    assert 0.8 < record["millilitres"] / read_json(results["mask"].out_record)["millilitres"] < 1.2
    with pytest.raises(MaskError, match=r"image\.nii\.gz: no brain was found"):
        BrainMask(mode="network", weights=str(mask_weights(2.0) / LISTING), **files).run(cwd=str(tmp_path))


def test_mask_is_made_anew_with_other_weights_only(case: dict[str, Any], tmp_path: Path, mask_weights: Any) -> None:
    one, other = mask_weights(0.1), mask_weights(0.2)

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


def test_conversion_is_made_anew_with_other_weights_only(
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
        assert all(np.allclose(one[key], other[key]) for key in one)
    assert (again.method, again.scale, again.margin) == (record["method"], record["scale"], record["margin"])


def test_refined_pose_is_nearer(results: dict[str, Any], case: dict[str, Any]) -> None:
    refined = refined_of(results["refined"].out_record, results["refined"].out_pose)
    assert refined.pose.degrees_from(case["pose"]) < 5
    assert refined.method == "torch"
    assert all({"before", "after"} <= set(values) for values in refined.similarity.values())


def test_quality_has_a_verdict(results: dict[str, Any]) -> None:
    record = read_json(results["quality"].out_record)
    assert record["qc"] == results["quality"].qc in {"pass", "review", "fail"}
    assert isinstance(record["reasons"], list)


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


@pytest.fixture
def names(case: dict[str, Any], tmp_path: Path) -> OutputNames:
    relative = Path("sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz")
    image = InputImage(tmp_path / "bids" / relative, relative, {"sub": "01", "ses": "a"}, "T2w")
    return OutputNames(tmp_path / "out", image, ("Phantom", "28"))


def derivatives(results: dict[str, Any], names: OutputNames) -> Derivatives:
    outputs = ("forward", "backward", "resampled", "reoriented", "mask")
    stages = ("mask", "initial", "refined", "apply", "quality")
    records = {f"{stage}_record": results[stage].out_record for stage in stages}
    return Derivatives(
        in_pose=results["refined"].out_pose, in_mask=results["mask"].out_mask, resampled=results["apply"].resampled,
        reoriented=results["apply"].reoriented, figure=results["figure"].out_figure, out_dir=str(names.out_dir),
        out_files={name: str(getattr(names, name)) for name in outputs}, **records,
        known={
            "Sources": [names.image.source_uri], "Age": WEEK, "AgeSource": "--age", "Atlas": "Phantom", "Cohort": "28",
            "Contrast": "T2w", "ParametersHash": "abc", "TemplateContrast": "T2w", "TemplateChoice": "near",
            "TemplateFiles": {"t.nii.gz": "0f"},
            "Warnings": ["a thing to know"],
        },
    )  # fmt: skip


def test_derivatives_are_all_there_and_told_of(
    results: dict[str, Any], names: OutputNames, case: dict[str, Any], tmp_path: Path
) -> None:
    done = derivatives(results, names).run(cwd=str(tmp_path)).outputs
    there = set(names.folder.iterdir())
    assert {Path(p) for p in done.out_files} == there
    assert there == set(names.files()) | {names.sidecar(names.backward)}
    assert done.figure == results["figure"].out_figure
    (found,) = finished_images(names.out_dir, tmp_path / "bids", "01", "a")
    assert found.names == names and found.sidecar["ParametersHash"] == "abc"
    assert found.warnings == ["a thing to know"]
    made, quality = (read_json(results[stage].out_record) for stage in ("mask", "quality"))
    expected = load_volume(case["template"].mask)
    millilitres = float((expected.data > 0).sum()) * expected.voxel_volume / 1000
    assert quality["expected_millilitres"] == pytest.approx(millilitres, rel=0.05)
    assert found.mask == {
        "Type": "Brain",
        "Sources": [names.image.source_uri],
        "Mask": "given",
        "Voxels": made["voxels"],
        "Millilitres": made["millilitres"],
        "ExpectedMillilitres": quality["expected_millilitres"],
        "VolumeRatio": pytest.approx(made["millilitres"] / quality["expected_millilitres"]),
        "Warnings": [],
    }
    assert sessions_of(names.out_dir) == [("01", "a")]


def test_weights_of_the_mask_are_told_with_those_of_the_pose(results: dict[str, Any], names: OutputNames, tmp_path: Path) -> None:
    interface = derivatives(results, names)
    record = read_json(results["mask"].out_record) | {"source": "network", "weights": {"mask-fine": "0f"}}
    interface.inputs.mask_record = write_record(tmp_path, "networks", record)
    interface.run(cwd=str(tmp_path))
    (found,) = finished_images(names.out_dir, tmp_path / "bids", "01", "a")
    assert found.mask["Weights"] == {"mask-fine": "0f"} and found.mask["Mask"] == found.sidecar["Mask"] == "network"
    seen = (read_json(results["initial"].out_record)["witness"] or {}).get("weights", {})
    assert seen and found.sidecar["Weights"] == {"mask-fine": "0f", **seen}
    html = Path(page_of(names).run(cwd=str(tmp_path)).outputs.out_file).read_text(encoding="utf-8")
    assert f"network, {found.mask['Millilitres']:.0f} ml ({found.mask['VolumeRatio']:.2f} times the template)" in html


def test_image_that_lost_a_file_is_shown_with_what_is_left(
    results: dict[str, Any], names: OutputNames, tmp_path: Path
) -> None:
    derivatives(results, names).run(cwd=str(tmp_path))
    names.reoriented.unlink()
    (found,) = finished_images(names.out_dir, tmp_path / "bids", "01", "a")
    assert found.missing() == [names.reoriented]
    assert not any(name.endswith("desc-reoriented_T2w.nii.gz") for name in found.outputs())
    html = Path(page_of(names).run(cwd=str(tmp_path)).outputs.out_file).read_text(encoding="utf-8")
    assert "desc-reoriented_T2w.nii.gz is gone: run posepipe again for this image" in html
    assert "No picture of this image" in html and "data:image/" not in html.replace("img-src data:", "")


def page_of(names: OutputNames, **options: Any) -> SubjectPage:
    bids = names.image.path.parents[3]
    return SubjectPage(out_dir=str(names.out_dir), bids_dir=str(bids), subject="01", session="a", **options)


def test_page_shows_finished_images(results: dict[str, Any], names: OutputNames, tmp_path: Path) -> None:
    derivatives(results, names).run(cwd=str(tmp_path))
    figures = {names.forward.name: results["figure"].out_figure}
    page = Path(page_of(names, figures=figures, methods="We did this.").run(cwd=str(tmp_path)).outputs.out_file)
    html = page.read_text(encoding="utf-8")
    assert page == names.subject_page and html.count("data:image/webp") == 9
    assert "sub-01_ses-a_T2w.nii.gz" in html and "a thing to know" in html and "We did this." in html


def test_page_is_made_again_from_the_outputs_alone(
    results: dict[str, Any], names: OutputNames, case: dict[str, Any], tmp_path: Path
) -> None:
    derivatives(results, names).run(cwd=str(tmp_path))
    (found,) = finished_images(names.out_dir, tmp_path / "bids", "01", "a")
    library = SimpleNamespace(template=lambda atlas, cohort, contrast: case["template"])
    made, again = read_views(results["figure"].out_figure), found.views(library)
    assert again.planes == made.planes and again.layers["atlas"] == made.layers["atlas"]
    sizes = [sum(len(sheet) for sheet in views.layers["before"]) for views in (made, again)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)  # the affine's way through a file costs its last digits


def test_page_shows_a_synthetic_contrast_where_the_file_is(
    results: dict[str, Any], names: OutputNames, case: dict[str, Any], tmp_path: Path
) -> None:
    image = replace(names.image, suffix="T1w", relative=Path("sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"))
    t1 = OutputNames(names.out_dir, image, names.template_space)
    derivatives(results, t1).run(cwd=str(tmp_path))
    library = SimpleNamespace(template=lambda atlas, cohort, contrast: case["template"])
    (before,) = finished_images(t1.out_dir, tmp_path / "bids", "01", "a")
    assert before.synth is None and "synth" not in before.views(library).layers and before.missing() == []
    sidecar = t1.sidecar(t1.forward)
    write_json(sidecar, read_json(sidecar) | {"ContrastConversion": "contrast"})
    (gone,) = finished_images(t1.out_dir, tmp_path / "bids", "01", "a")
    assert gone.synth is None and gone.missing() == [t1.synth, t1.sidecar(t1.synth)]
    shutil.copyfile(case["folder"] / "image.nii.gz", t1.synth)
    (after,) = finished_images(t1.out_dir, tmp_path / "bids", "01", "a")
    views = after.views(library)
    assert after.synth == t1.synth
    for sheets in zip(views.layers["synth"], views.layers["after"], strict=True):
        one, other = (np.asarray(Image.open(io.BytesIO(sheet)).convert("L"), float) for sheet in sheets)
        assert np.abs(one - other).mean() < 3
    assert any(name.endswith("_desc-synth_T2w.nii.gz") for name in after.outputs())


def test_page_links_the_other_sessions(results: dict[str, Any], names: OutputNames, tmp_path: Path) -> None:
    derivatives(results, names).run(cwd=str(tmp_path))
    (names.out_dir / "sub-01" / "ses-b" / "anat").mkdir(parents=True)
    (names.out_dir / "sub-02" / "ses-x" / "anat").mkdir(parents=True)
    html = Path(page_of(names, sessions=["a", "c"]).run(cwd=str(tmp_path)).outputs.out_file).read_text(encoding="utf-8")
    assert re.findall(r'href="(sub-[^"/]*\.html)"', html) == ["sub-01_ses-b.html", "sub-01_ses-c.html"]


def test_page_shows_an_image_that_failed_as_failed(
    results: dict[str, Any], names: OutputNames, tmp_path: Path
) -> None:
    derivatives(results, names).run(cwd=str(tmp_path))
    log = names.log_dir("r1") / "crash-x.txt"
    log.parent.mkdir(parents=True)
    log.write_text("Node: x\nTraceback (most recent call last):\nthe whole story")
    Failures(names.out_dir).record(names.image, "refinement", RuntimeError("diverged"), log)
    html = Path(page_of(names).run(cwd=str(tmp_path)).outputs.out_file).read_text(encoding="utf-8")
    assert "diverged" in html and "the whole story" in html and "data:image/" not in html
    Failures(names.out_dir).record(names.image, "mask", MaskError("no mask"), log)
    html = Path(page_of(names).run(cwd=str(tmp_path)).outputs.out_file).read_text(encoding="utf-8")
    assert "no mask" in html and "the whole story" not in html


def test_records_hold_what_json_cannot(tmp_path: Path) -> None:
    path = write_record(tmp_path, "x", {"a": np.float32(1.5), "b": float("nan")})
    assert read_json(path) == {"a": 1.5, "b": None}
