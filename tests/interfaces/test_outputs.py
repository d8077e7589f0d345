"""What the interfaces write: derivatives, records and the page of a subject."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from posepipe.bids import Failures, InputImage, OutputNames, read_json, write_json
from posepipe.errors import MaskError
from posepipe.imaging.volume import load_volume
from posepipe.interfaces.derivatives import Derivatives
from posepipe.interfaces.finished import finished_images, sessions_of
from posepipe.interfaces.page import SubjectPage
from posepipe.interfaces.records import write_record
from posepipe.reports.views import read_views


@pytest.fixture
def names(case: dict[str, Any], tmp_path: Path) -> OutputNames:
    relative = Path("sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz")
    image = InputImage(tmp_path / "bids" / relative, relative, {"sub": "01", "ses": "a"}, "T2w")
    return OutputNames(tmp_path / "out", image, ("Phantom", "28"))


def derivatives(results: dict[str, Any], names: OutputNames) -> Derivatives:
    outputs = ("forward", "backward", "resampled", "reoriented", "mask")
    stages = ("mask", "initial", "refined", "apply", "quality")
    records = {f"{stage}_record": results[stage].out_record for stage in (*stages, "figure")}
    return Derivatives(
        in_pose=results["refined"].out_pose, in_mask=results["mask"].out_mask, resampled=results["apply"].resampled,
        reoriented=results["apply"].reoriented, figure=results["figure"].out_figure, out_dir=str(names.out_dir),
        out_files={name: str(getattr(names, name)) for name in outputs}, **records,
        known={
            "Sources": [names.image.source_uri], "Age": 28.0, "AgeSource": "--age", "Atlas": "Phantom", "Cohort": "28",
            "Contrast": "T2w", "ParametersHash": "abc", "TemplateContrast": "T2w", "TemplateChoice": "near",
            "TemplateFiles": {"t.nii.gz": "0f"},
            "Warnings": ["a thing to know"],
        },
    )  # fmt: skip


@pytest.mark.slow
def test_all_derivatives_exist_and_are_listed(results: dict[str, Any], names: OutputNames, case: dict[str, Any], tmp_path: Path) -> None:
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


def test_weights_of_the_mask_are_reported_with_those_of_the_pose(results: dict[str, Any], names: OutputNames, tmp_path: Path) -> None:
    interface = derivatives(results, names)
    record = read_json(results["mask"].out_record) | {"source": "network", "weights": {"scan": "0f"}}
    interface.inputs.mask_record = write_record(tmp_path, "networks", record)
    interface.run(cwd=str(tmp_path))
    (found,) = finished_images(names.out_dir, tmp_path / "bids", "01", "a")
    assert found.mask["Weights"] == {"scan": "0f"} and found.mask["Mask"] == found.sidecar["Mask"] == "network"
    seen = (read_json(results["initial"].out_record)["witness"] or {}).get("weights", {})
    assert seen and found.sidecar["Weights"] == {"scan": "0f", **seen}
    html = Path(page_of(names).run(cwd=str(tmp_path)).outputs.out_file).read_text(encoding="utf-8")
    assert f"network, {found.mask['Millilitres']:.0f} ml ({found.mask['VolumeRatio']:.2f} times the template)" in html


def test_image_that_lost_a_file_is_shown_with_what_is_left(results: dict[str, Any], names: OutputNames, tmp_path: Path) -> None:
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


def test_page_shows_an_image_that_failed_as_failed(results: dict[str, Any], names: OutputNames, tmp_path: Path) -> None:
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
