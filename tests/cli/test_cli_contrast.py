"""The app and T1w images: which are converted to T2-like contrast, and how this is reported."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posepipe.bids import read_json
from posepipe.cli.parser import parse_settings
from posepipe.cli.plan import make_plan
from posepipe.cli.tools import main as tools
from posepipe.imaging.volume import load_volume
from posepipe.models.weights import hashes

FAST = ("--participant-label", "03", "--init", "center", "--refine", "none")


@pytest.fixture
def study(raw_study: Any, tmp_path: Path) -> Any:
    """Outputs and work of its own; nothing is written to the dataset."""
    return replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")


@pytest.fixture
def t2w_only(study: Any, tmp_path: Path) -> Any:
    """The same with an atlas that has no T1w."""
    shutil.copytree(study.demo.atlas_dir, tmp_path / "atlas", ignore=shutil.ignore_patterns("*_T1w*"))
    return replace(study, demo=replace(study.demo, atlas_dir=tmp_path / "atlas"))


def plan_of(study: Any, *options: str) -> dict[str, Any]:
    """The plans of participant 03, a newborn with a T1w and a T2w image, by suffix."""
    return {image.image.suffix: image for image in make_plan(parse_settings(study.command(*FAST, *options))).images}


@pytest.mark.parametrize(
    ("mode", "only_t2w", "template", "converted"),
    [
        ("auto", False, "T1w", False), ("always", False, "T2w", True), ("never", False, "T1w", False),
        ("auto", True, "T2w", True), ("always", True, "T2w", True), ("never", True, "T2w", False),
    ],
)  # fmt: skip
def test_modes(
    study: Any, t2w_only: Any, contrast_weights: Any, mode: str, only_t2w: bool, template: str, converted: bool
) -> None:
    plans = plan_of(t2w_only if only_t2w else study, "--convert", mode, "--weights", str(contrast_weights()))
    assert (plans["T1w"].choice.contrast, plans["T1w"].converted) == (template, converted)
    assert (plans["T1w"].names.synth in plans["T1w"].files) is converted
    assert ("contrast" in plans["T1w"].parameters["weights"]) is converted
    assert (plans["T2w"].choice.contrast, plans["T2w"].converted) == ("T2w", False)


def test_the_option_contrast_overrides_the_name(t2w_only: Any, tmp_path: Path, contrast_weights: Any) -> None:
    weights = ("--weights", str(contrast_weights()))
    assert not any(plan.converted for plan in plan_of(t2w_only, "--contrast", "T2w", *weights).values())
    only_one = tmp_path / "filter.json"
    only_one.write_text('{"t1w": null}')  # both would be converted, and to one name
    (plan,) = plan_of(t2w_only, "--contrast", "T1w", "--bids-filter-file", str(only_one), *weights).values()
    assert plan.converted and plan.image.suffix == "T2w"


def test_other_weights_are_another_result(t2w_only: Any, contrast_weights: Any) -> None:
    one, other = (plan_of(t2w_only, "--weights", str(contrast_weights(gain))) for gain in (3.0, 5.0))
    assert one["T1w"].parameters_hash != other["T1w"].parameters_hash
    assert one["T2w"].parameters_hash == other["T2w"].parameters_hash
    never = plan_of(t2w_only, "--convert", "never", "--weights", str(contrast_weights(3.0)))
    assert one["T1w"].parameters_hash != never["T1w"].parameters_hash


@pytest.mark.slow
def test_run_dry_wet_again_and_with_other_weights(t2w_only: Any, contrast_weights: Any) -> None:
    weights, study = contrast_weights(), t2w_only
    options = (*FAST, "--weights", str(weights))
    code, output = study.main(*options, "--dry-run")
    assert code == 0 and output.count("contrast  T1w, converted to T2-like by network") == 1
    assert "sub-03_desc-synth_T2w.nii.gz" in output and "sub-03_desc-synth_T2w.json" in output
    code, output = study.main(*options)
    assert code == 0, output
    _check_outputs(study, hashes(("contrast",), weights))
    synth = study.out / "sub-03/anat/sub-03_desc-synth_T2w.nii.gz"
    before = synth.stat().st_mtime_ns
    assert "0 aligned, 2 done before" in study.main(*options)[1] and synth.stat().st_mtime_ns == before
    others = contrast_weights(6.0)
    code, output = study.main(*FAST, "--weights", str(others))
    assert code == 0 and "1 aligned, 1 done before" in output
    assert read_json(synth.with_name("sub-03_desc-synth_T2w.json"))["Weights"] == hashes(("contrast",), others)
    synth.unlink()
    assert "1 aligned, 1 done before" in study.main(*FAST, "--weights", str(others))[1] and synth.is_file()


def _check_outputs(study: Any, used: dict[str, str]) -> None:
    anat = study.out / "sub-03/anat"
    sidecar = read_json(anat / "sub-03_desc-synth_T2w.json")
    assert (sidecar["Synthetic"], sidecar["SkullStripped"], sidecar["Model"], sidecar["Weights"]) == (True, True, "contrast", used)
    assert sidecar["Sources"] == ["bids:raw:sub-03/anat/sub-03_T1w.nii.gz"]
    assert "not for diagnosis and not for measurements" in sidecar["Description"]
    forward = read_json(anat / "sub-03_from-T1w_to-Phantom+39_mode-image_xfm.json")
    assert (forward["Contrast"], forward["ContrastConversion"]) == ("T1w", "contrast")
    assert forward["Weights"].items() >= used.items() and forward["Seconds"]["Conversion"] > 0
    other = read_json(anat / "sub-03_from-T2w_to-Phantom+39_mode-image_xfm.json")
    assert "ContrastConversion" not in other and "Conversion" not in other["Seconds"]
    image, synth, turned = (
        load_volume(path) for path in (
            study.bids / "sub-03/anat/sub-03_T1w.nii.gz", anat / "sub-03_desc-synth_T2w.nii.gz", anat / "sub-03_desc-reoriented_T1w.nii.gz"
        )
    )  # fmt: skip
    mask = load_volume(anat / "sub-03_mod-T1w_desc-brain_mask.nii.gz").data > 0
    assert synth.same_grid(image) and not synth.data[~mask].any()
    assert np.corrcoef(image.data[mask], synth.data[mask])[0, 1] < -0.9  # what this network does
    np.testing.assert_array_equal(turned.data, image.data)  # and the image stays what it was
    html = (study.out / "sub-03.html").read_text(encoding="utf-8")
    assert "T1w image on a T2w template, aligned by a synthetic T2w image" in html and "After, synthetic T2w" in html
    assert f"SHA-256 {used['contrast']}" in html
    text = (study.out / "logs" / "CITATION.md").read_text(encoding="utf-8")
    assert text.count("converted to T2-like contrast") == 1 and "doi:10.1109/CVPR.2017.632" in text


@pytest.mark.slow
def test_one_image(t2w_only: Any, contrast_weights: Any, tmp_path: Path, capsys: Any) -> None:
    image = t2w_only.bids / "sub-03/anat/sub-03_T1w.nii.gz"
    command = [
        "align", str(image), "--age", "39", "--atlas", "Phantom", "--atlas-dir", str(t2w_only.demo.atlas_dir), "--init", "center",
        "--refine", "none", "--weights", str(contrast_weights()),
    ]  # fmt: skip
    assert tools([*command, "-o", str(tmp_path / "one")]) == 0
    assert "sub-03_T1w_desc-synth_T2w.nii.gz" in capsys.readouterr().out
    assert read_json(tmp_path / "one/sub-03_T1w_desc-synth_T2w.json")["Model"] == "contrast"
    assert "After, synthetic T2w" in (tmp_path / "one/sub-03_T1w.html").read_text(encoding="utf-8")
    assert tools([*command, "-o", str(tmp_path / "two"), "--convert", "never"]) == 0
    assert not list((tmp_path / "two").glob("*synth*"))
