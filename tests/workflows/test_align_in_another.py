"""The workflow of one image inside another workflow: real files in, real nodes before and after."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from nipype.interfaces.utility import Function, IdentityInterface
from nipype.pipeline import engine as pe
from posepipe.workflows.align import INPUTS, OUTPUTS, init_single_image_align_wf
from posepipe.workflows.plugin import quiet_nipype

from posepipe.errors import AgeError, AtlasError
from posepipe.geometry import Rigid, read_itk
from posepipe.imaging.volume import load_volume, save_volume
from posepipe.interfaces.aligned import ConvertIfAsked, SlicesIfAsked
from posepipe.interfaces.choice import ChooseTemplate
from posepipe.interfaces.template import TemplateInputSpec
from posepipe.phantom import subject
from posepipe.phantom.demo_data import DemoDataset, write_demo

WEEKS, TURN = 24.3, Rigid.from_rotvec([0.4, -1.9, 0.7], [5.0, -8.0, 3.0])


@pytest.fixture(scope="module", autouse=True)
def _alone(home: Path, one_thread_no_cache: None) -> None:
    quiet_nipype("CRITICAL")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoDataset:
    """An atlas of one week."""
    return write_demo(tmp_path_factory.mktemp("demo"), n_subjects=1, spacing=2.0)


def write_image(folder: Path, name: str, contrast: str = "T2w", spacing: Any = 2.0) -> Path:
    """A brain without surroundings, turned by ``TURN``."""
    image, _, _ = subject(WEEKS, rng=np.random.default_rng(3), pose=TURN, contrast=contrast, spacing=spacing, surroundings=False)
    return save_volume(image, folder / name, np.int16)


def _denoise(image: str) -> str:
    """Stands for the step before: it writes a file of its own."""
    from pathlib import Path

    import nibabel as nib
    import numpy as np

    loaded = nib.load(image)
    data = np.asanyarray(loaded.dataobj)
    out = Path("recon_T2w.nii.gz").absolute()
    nib.Nifti1Image(np.where(data > 0, data + 1, 0).astype(np.int16), loaded.affine).to_filename(out)
    return str(out)


def _by_ants(image: str, template: str, transform: str) -> str:
    """Stands for the step after: ANTs resamples with the transform as it is."""
    from pathlib import Path

    import ants

    out = Path("by_ants.nii.gz").absolute()
    moved = ants.apply_transforms(ants.image_read(template), ants.image_read(image), [transform], interpolator="linear")
    ants.image_write(moved, str(out))
    return str(out)


def _keep(**found: str) -> dict[str, str]:
    """Stands for a data sink."""
    return found


@pytest.mark.slow
def test_between_a_node_that_makes_the_image_and_one_that_uses_the_transform(demo: DemoDataset, tmp_path: Path) -> None:
    parent = pe.Workflow("others_wf", base_dir=str(tmp_path / "work"))
    before = pe.Node(Function(["image"], ["out"], _denoise), "denoise")
    before.inputs.image = str(write_image(tmp_path, "scan.nii.gz"))
    ages = pe.Node(IdentityInterface(["age"], age="24+2"), "ages")
    align = init_single_image_align_wf(atlas="Phantom", atlas_dirs=[demo.atlas_dir], refine="torch", device="cpu")
    after = pe.Node(Function(["image", "template", "transform"], ["out"], _by_ants), "ants")
    sink = pe.Node(Function([*OUTPUTS, "by_ants"], ["out"], _keep), "sink")
    parent.connect([
        (before, align, [("out", "inputnode.image")]),
        (ages, align, [("age", "inputnode.age")]),
        (before, after, [("out", "image")]),
        (align, after, [("outputnode.template", "template"), ("outputnode.image2atlas_xfm", "transform")]),
        (align, sink, [(f"outputnode.{name}", name) for name in OUTPUTS]),
        (after, sink, [("out", "by_ants")]),
    ])  # fmt: skip
    found = next(n for n in parent.run().nodes() if n.name == "sink").result.outputs.out

    forward, backward = read_itk(found["image2atlas_xfm"]), read_itk(found["atlas2image_xfm"])
    assert forward.degrees_from(TURN) < 5 and (~forward).is_close(backward, 1e-4, 1e-4)
    ours, theirs = load_volume(found["aligned"]), load_volume(found["by_ants"])
    assert ours.same_grid(theirs) and ours.same_grid(load_volume(found["template"]))
    assert np.corrcoef(ours.data.ravel(), theirs.data.ravel())[0, 1] > 0.98  # by ANTs, with the transform as it is
    image, upright = load_volume(tmp_path / "work/others_wf/denoise/recon_T2w.nii.gz", None), load_volume(found["reoriented"], None)
    assert np.array_equal(image.data, upright.data) and np.allclose(forward.matrix @ upright.affine, image.affine, atol=1e-3)
    assert np.array_equal(load_volume(found["mask"]).data > 0, image.data > 0)

    told = json.loads(Path(found["sidecar"]).read_text(encoding="utf-8"))
    assert told["QC"] == found["qc"] and told["Confidence"] == found["confidence"] and told["QCReasons"] == found["qc_reasons"]
    assert (told["Age"], told["AgeSource"], told["Mask"]) == (pytest.approx(24 + 2 / 7), "given", "nonzero")
    assert found["space"] == "Phantom+24" and told["Sources"] == [str(image.source)]
    assert [Path(found[name]).name for name in ("image2atlas_xfm", "aligned", "report")] == [
        "recon_T2w_from-T2w_to-Phantom+24_mode-image_xfm.txt", "recon_T2w_space-Phantom_cohort-24_T2w.nii.gz", "recon_T2w_pose.html",
    ]  # fmt: skip
    inverse = json.loads(Path(found["atlas2image_xfm"]).with_suffix(".json").read_text(encoding="utf-8"))
    assert inverse["InverseOf"] == Path(found["image2atlas_xfm"]).name
    assert set(OUTPUTS) - set(found) == {"synth", "slices"} and all(Path(path).is_file() for path in found["out_files"])
    _check_report(Path(found["report"]).read_text(encoding="utf-8"), told)


def _check_report(html: str, told: dict[str, Any]) -> None:
    assert html.startswith("<section") and html.rstrip().endswith("</section>") and f'data-verdict="{told["QC"]}"' in html
    assert html.count("<image href=\"data:image/webp;base64,") == 9 and "<script" not in html and "http" not in html
    assert all(f"<li>{reason}</li>" in html.replace("&#39;", "'") for reason in told["QCReasons"])
    assert len(re.findall(r'<path d="M[^"]{40,}"', html)) == 9  # an outline over each
    assert f"{told['RotationAngleDegrees']:.1f}°" in html and re.search(r"24\.2\d* weeks", html)


@pytest.mark.slow
def test_t1w_stack_with_a_mask_has_its_conversion_and_its_slices(demo: DemoDataset, contrast_weights: Any, tmp_path: Path) -> None:
    image = write_image(tmp_path, "a_T1w.nii.gz", "T1w", (3.0, 3.0, 9.0))
    workflow = init_single_image_align_wf(
        atlas="Phantom", atlas_dirs=[demo.atlas_dir], init="axes", refine="none", convert="always", device="cpu", name="t1w"
    )
    workflow.base_dir = str(tmp_path / "work")
    workflow.inputs.inputnode.trait_set(image=str(image), age=WEEKS, contrast="T1w", timing={"SliceThickness": 9.0})
    nodes = {node.name: node for node in workflow.run().nodes()}
    out = nodes["files"].result.outputs
    assert Path(out.synth).name == "a_T1w_desc-synth_T2w.nii.gz" and Path(out.slices).name == "a_T1w_desc-slices_pose.tsv"
    told = json.loads(Path(out.sidecar).read_text(encoding="utf-8"))
    assert told["Contrast"] == "T1w" and told["ContrastConversion"] == "contrast" and told["Slices"]
    assert "from-T1w_to-Phantom+24" in out.image2atlas_xfm
    assert Path(out.report).read_text(encoding="utf-8").count("<image ") == 12


def run_choice(demo: DemoDataset, image: Path, folder: Path, **inputs: Any) -> Any:
    """What the node that chooses the template says of ``image``, which is its own mask."""
    atlas = {"atlas": "Phantom", "atlas_dirs": [str(demo.atlas_dir)], "device": "cpu"}
    folder.mkdir()
    return ChooseTemplate(in_file=str(image), in_mask=str(image), **{**atlas, **inputs}).run(cwd=str(folder)).outputs


@pytest.mark.parametrize("age", [WEEKS, "24.3", "24+2"])
def test_an_age_is_a_number_or_weeks_and_days(demo: DemoDataset, tmp_path: Path, age: Any) -> None:
    found = run_choice(demo, write_image(tmp_path, "a_T1w.nii.gz"), tmp_path / "node", age=age)
    assert found.age == pytest.approx(WEEKS, abs=0.02) and not found.estimated and found.known["AgeSource"] == "given"
    assert (found.contrast, found.template_contrast, found.converted, found.by_slices) == ("T1w", "T1w", False, False)
    assert found.space == "Phantom+24" and set(found.known["TemplateFiles"]) == {Path(found.template).name, Path(found.template_mask).name}


def test_what_cannot_be_chosen_is_told(demo: DemoDataset, tmp_path: Path) -> None:
    image = write_image(tmp_path, "a.nii.gz")
    for number, (wrong, error, says) in enumerate((
        ({"age": "soon"}, AgeError, "'soon' is no number of weeks; give 29.4, 29"), ({"age": 39.0}, AgeError, "39"),
        ({"age": WEEKS, "atlas": "NoSuch"}, AtlasError, "NoSuch"),
    )):  # fmt: skip
        with pytest.raises(error, match=says):
            run_choice(demo, image, tmp_path / str(number), **wrong)


@pytest.mark.slow
def test_an_age_is_estimated_where_that_is_asked_for(demo: DemoDataset, tmp_path: Path) -> None:
    found = run_choice(demo, write_image(tmp_path, "a.nii.gz"), tmp_path / "node", age="estimate")
    assert found.estimated and found.known["AgeSource"] == "estimated" and found.known["AgeStandardError"] > 0
    assert found.contrast == "T2w" and found.age == found.known["Age"]


def test_an_image_that_the_dicom_converter_resampled_beside_it_is_in_doubt(demo: DemoDataset, tmp_path: Path) -> None:
    image = write_image(tmp_path, "a.nii.gz")
    assert run_choice(demo, image, tmp_path / "alone", age=WEEKS).doubts == []
    write_image(tmp_path, "a_Tilt_1.nii.gz")
    (doubt,) = run_choice(demo, image, tmp_path / "beside", age=WEEKS).doubts
    assert doubt.startswith("a_Tilt_1.nii.gz lies beside it")


def test_every_input_and_output_is_documented_and_led_somewhere() -> None:
    workflow = init_single_image_align_wf(atlas="CRL", weights=None, name="mine", omp_nthreads=2, random_seed=5)
    text = str(init_single_image_align_wf.__doc__)
    for names, heading, end in ((INPUTS, "Inputs\n", "Outputs\n"), (OUTPUTS, "Outputs\n", "Examples\n")):
        lines = re.findall(r"^    (\w[\w, ]*)$", text[text.index(heading) : text.index(end)], re.M)
        assert {word for line in lines for word in line.split(", ")} - {"Inputs", "Outputs"} == set(names)
    edges = [(a.name, f, b.name, g) for a, b, edge in workflow._graph.edges(data=True) for f, g in edge["connect"]]
    assert {f for a, f, _, _ in edges if a == "inputnode"} == set(INPUTS)
    assert {g for _, _, b, g in edges if b == "outputnode"} == set(OUTPUTS)
    assert workflow.name == "mine" and workflow.get_node("template").inputs.atlas == "CRL"
    assert workflow.get_node("refinement").inputs.seed == 5 and workflow.get_node("refinement").n_procs == 2
    assert "posepipe" in workflow.visit_desc() and any("Salehi" in str(one) for one in workflow.visit_references())


def test_what_is_not_asked_for_is_handed_on(demo: DemoDataset, tmp_path: Path) -> None:
    image = str(write_image(tmp_path, "a.nii.gz"))
    passed = ConvertIfAsked(in_file=image, in_mask=image, asked=False).run(cwd=str(tmp_path)).outputs
    assert passed.out_file == image and not isdefined(passed.out_synth) and not isdefined(passed.out_record)
    template = run_choice(demo, Path(image), tmp_path / "node", age=WEEKS).get()
    like = {k: v for k, v in template.items() if k in TemplateInputSpec().get() and isdefined(v)}
    node = SlicesIfAsked(in_file=image, in_mask=image, in_pose=image, in_record=image, asked=False, **like)
    kept = node.run(cwd=str(tmp_path)).outputs
    assert (kept.out_pose, kept.out_record) == (image, image) and not isdefined(kept.out_table)
