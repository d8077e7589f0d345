"""The BIDS App from the command line to its outputs."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import ants
import nibabel as nib
import numpy as np
import pytest

from posepipe.bids import HASH_KEY, read_json, write_json
from posepipe.cli.config_file import read_toml
from posepipe.cli.parser import parse_settings
from posepipe.cli.plan import make_plan
from posepipe.geometry import Rigid, read_itk
from posepipe.imaging.volume import load_volume

KEYS = (
    "Sources", "Age", "AgeSource", "Atlas", "Cohort", "Contrast", "Mask", "InitMethod", "RefineMethod", "RefineTemplate",
    "RotationMatrix", "RotationVector", "RotationAngleDegrees", "TranslationMM", "BrainCenterMM", "Similarity", "Confidence", "QC",
    "QCReasons", "Seconds", "PeakMemoryMB", "Weights", "SoftwareVersions", HASH_KEY,
)  # fmt: skip

STAGES = ("Mask", "InitialPose", "Refinement", "Quality", "Resampling", "Figure", "Outputs")


def outputs_of(stem: str, contrast: str, cohort: str, mod: str = "") -> set[str]:
    """The files of one image, as the design promises them."""
    space = f"Phantom+{cohort}"
    images = {
        f"{stem}_space-Phantom_cohort-{cohort}_{contrast}",
        f"{stem}_desc-reoriented_{contrast}",
        f"{stem}{mod}_desc-brain_mask",
    }
    transforms = {
        f"{stem}_from-{contrast}_to-{space}_mode-image_xfm",
        f"{stem}_from-{space}_to-{contrast}_mode-image_xfm",
    }
    return (
        {f"{name}.nii.gz" for name in images}
        | {f"{name}.txt" for name in transforms}
        | {f"{name}.json" for name in images | transforms}
    )


EXPECTED = {
    "sub-01": outputs_of("sub-01_rec-svr", "T2w", "24"),
    "sub-02/ses-1": outputs_of("sub-02_ses-1_rec-svr", "T2w", "27"),
    "sub-02/ses-2": outputs_of("sub-02_ses-2_rec-svr", "T2w", "32"),
    "sub-03": outputs_of("sub-03", "T1w", "39", "_mod-T1w") | outputs_of("sub-03", "T2w", "39"),
    "sub-04": outputs_of("sub-04_rec-svr", "T2w", "34"),
}


def forward_of(out: Path) -> dict[str, Path]:
    """Forward transform of each image, by the image's path in its dataset."""
    found = {}
    for path in sorted(out.rglob("*_mode-image_xfm.json")):
        sidecar = read_json(path)
        if "RotationMatrix" in sidecar:
            found[sidecar["Sources"][0].removeprefix("bids:raw:")] = path.with_suffix(".txt")
    return found


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def stamps(folder: Path) -> dict[str, int]:
    """When each output below an anat folder was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.glob("sub-*/**/anat/*"))}


def test_tree_is_what_the_design_promises(first_run: Any) -> None:
    out = first_run.study.out
    top = {"dataset_description.json", ".bidsignore", "logs", "failures.tsv"}
    pages = {"sub-01.html", "sub-02_ses-1.html", "sub-02_ses-2.html", *(f"sub-{n:02d}.html" for n in range(3, 8))}
    assert {p.name for p in out.iterdir() if not p.is_dir() or p.name == "logs"} == top | pages
    for unit, files in EXPECTED.items():
        assert {p.name for p in (out / unit / "anat").iterdir()} == files
        (log,) = (out / unit / "log").iterdir()
        assert [p.name for p in log.iterdir()] == ["posepipe.toml"]
    assert (out / "logs" / "CITATION.md").is_file()
    assert read_json(out / "dataset_description.json")["DatasetType"] == "derivative"


def test_failures_are_reported_and_stop_nothing(first_run: Any) -> None:
    assert first_run.code == 1
    rows = {row["image"]: row for row in table(first_run.study.out / "failures.tsv")}
    assert {name: row["stage"] for name, row in rows.items()} == {
        "sub-05/anat/sub-05_T2w.nii.gz": "age",
        "sub-06/anat/sub-06_T2w.nii.gz": "mask",
        "sub-07/anat/sub-07_T2w.nii.gz": "image",
    }
    assert rows["sub-05/anat/sub-05_T2w.nii.gz"]["error"].startswith("AgeError: ")
    cut = rows["sub-06/anat/sub-06_T2w.nii.gz"]
    assert cut["error"].startswith("ImageError: ") and "complete NIfTI file" in cut["error"]
    log = first_run.study.out / cut["log"]
    assert log.name.startswith("crash-") and log.suffix == ".txt" and "Traceback" in log.read_text()
    assert "6 aligned, 0 done before, 3 failed" in first_run.output


@pytest.mark.parametrize(
    ("label", "words"), [("05", "no usable age"), ("06", "complete NIfTI file"), ("07", "cannot be read")]
)
def test_page_of_a_failed_image_says_why(first_run: Any, label: str, words: str) -> None:
    html = (first_run.study.out / f"sub-{label}.html").read_text(encoding="utf-8")
    assert words in html and f"sub-{label}_T2w.nii.gz" in html


def test_page_shows_both_contrasts(first_run: Any) -> None:
    html = (first_run.study.out / "sub-03.html").read_text(encoding="utf-8")
    assert "sub-03_T1w.nii.gz" in html and "sub-03_T2w.nii.gz" in html
    assert html.count("data:image/") == 2 * 3 * 3  # before, after and template of two images in three planes
    assert "participants.tsv:ga_weeks" in html and "Salehi" in html


def test_poses_are_the_true_ones(first_run: Any) -> None:
    found = forward_of(first_run.study.out)
    truth = table(first_run.study.demo.truth_tsv)
    assert len(truth) == len(found) == 6
    for row in truth:
        rotvec = [float(row[k]) for k in ("rx", "ry", "rz")]
        true = Rigid.from_rotvec(rotvec, [float(row[k]) for k in ("tx", "ty", "tz")])
        assert read_itk(found[row["file"]]).degrees_from(true) < 5, row["file"]


def test_forward_sidecar(first_run: Any) -> None:
    for name, path in forward_of(first_run.study.out).items():
        sidecar = read_json(path.with_suffix(".json"))
        spread = ("SessionSpread", "SessionSpreadMM", "SessionSpreadImages") if "sub-03" in name else ()  # it has two images
        assert tuple(sidecar) == KEYS + spread, name
        pose = read_itk(path)
        assert np.allclose(pose.rotation, sidecar["RotationMatrix"], atol=1e-6)
        assert np.allclose(pose.rotvec, sidecar["RotationVector"], atol=1e-5)
        assert np.allclose(pose.translation, sidecar["TranslationMM"], atol=1e-4)
        assert sidecar["RotationAngleDegrees"] == pytest.approx(pose.angle_degrees, abs=1e-3)
        assert sidecar["QC"] in {"pass", "review", "fail"}
        assert sidecar["InitMethod"] == "search" and sidecar["RefineMethod"] == "torch"
        assert set(sidecar["SoftwareVersions"]) >= {"posepipe", "torch", "nipype"}
        assert all(seconds >= 0 for seconds in sidecar["Seconds"].values()) and tuple(sidecar["Seconds"]) == STAGES


def test_peak_memory_of_each_stage_is_reported(first_run: Any) -> None:
    for name, path in forward_of(first_run.study.out).items():
        peaks = read_json(path.with_suffix(".json"))["PeakMemoryMB"]
        assert tuple(peaks) == STAGES, name
        assert all(peak > 50 for peak in peaks.values()), peaks  # Python and numpy alone have as much


def test_what_stages_took_makes_no_result_out_of_date(first_run: Any, tmp_path: Path) -> None:
    study = first_run.study.copy(tmp_path)
    for path in forward_of(study.out).values():
        sidecar = read_json(path.with_suffix(".json"))
        other = {"Seconds": dict.fromkeys(STAGES, 1.0), "PeakMemoryMB": dict.fromkeys(STAGES, 1.0)}
        write_json(path.with_suffix(".json"), sidecar | other)
    images = make_plan(parse_settings(study.command())).images
    assert [image.done for image in images if image.image.subject != "06"] == [True] * 6  # 06 is damaged


def test_sidecars_name_ages_masks_and_sources(first_run: Any) -> None:
    found = {name: read_json(path.with_suffix(".json")) for name, path in forward_of(first_run.study.out).items()}
    session = found["sub-02/ses-1/anat/sub-02_ses-1_rec-svr_T2w.nii.gz"]
    assert session["AgeSource"] == "sub-02/sub-02_sessions.tsv:pma_weeks" and session["Age"] == 27.1
    head = found["sub-04/anat/sub-04_rec-svr_T2w.nii.gz"]
    assert head["Mask"] == "given"
    assert head["Sources"] == [
        "bids:raw:sub-04/anat/sub-04_rec-svr_T2w.nii.gz",
        "bids:masks:sub-04/anat/sub-04_rec-svr_desc-brain_mask.nii.gz",
    ]
    assert found["sub-03/anat/sub-03_T1w.nii.gz"]["Mask"] == "nonzero"
    assert found["sub-03/anat/sub-03_T1w.nii.gz"]["Contrast"] == "T1w"
    links = read_json(first_run.study.out / "dataset_description.json")["DatasetLinks"]
    assert set(links) == {"raw", "masks", "tpl-Phantom"}


def test_every_sidecar_names_what_it_was_made_from(first_run: Any) -> None:
    out = first_run.study.out
    for path in out.glob("sub-*/**/anat/*.json"):
        for source in read_json(path)["Sources"]:
            dataset, name = source.removeprefix("bids:").split(":", 1)
            root = {"": out, "raw": first_run.study.bids, "masks": first_run.study.demo.masks_dir}[dataset]
            assert (root / name).is_file(), (path.name, source)


def test_transforms_are_inverse_to_each_other(first_run: Any) -> None:
    for path in forward_of(first_run.study.out).values():
        there = re.search(r"from-(T[12]w)_to-(Phantom\+\d+)", path.name)
        assert there
        back = path.with_name(path.name.replace(there[0], f"from-{there[2]}_to-{there[1]}"))
        assert (read_itk(path) @ read_itk(back)).is_close(Rigid.identity(), degrees=1e-4, mm=1e-3)


def test_ants_makes_the_same_image_of_the_written_transform(first_run: Any) -> None:
    study = first_run.study
    xfm = forward_of(study.out)["sub-01/anat/sub-01_rec-svr_T2w.nii.gz"]
    cohort = study.demo.atlas_dir / "tpl-Phantom" / "cohort-24"
    moved = ants.apply_transforms(
        fixed=ants.image_read(str(cohort / "tpl-Phantom_cohort-24_T2w.nii.gz")),
        moving=ants.image_read(str(study.bids / "sub-01/anat/sub-01_rec-svr_T2w.nii.gz")),
        transformlist=[str(xfm)],
        interpolator="bSpline",
    )
    ours = load_volume(xfm.parent / "sub-01_rec-svr_space-Phantom_cohort-24_T2w.nii.gz")
    assert moved.numpy().shape == ours.shape
    inside = moved.numpy() > 0
    assert inside.sum() > 10_000
    # both interpolate by cubic splines, but differ at the edges of the grid
    assert np.corrcoef(moved.numpy()[inside], ours.data[inside])[0, 1] > 0.998


def test_resampled_image_lies_on_the_template_and_the_reoriented_one_keeps_its_voxels(first_run: Any) -> None:
    study = first_run.study
    anat = study.out / "sub-01" / "anat"
    template = study.demo.atlas_dir / "tpl-Phantom" / "cohort-24" / "tpl-Phantom_cohort-24_T2w.nii.gz"
    assert load_volume(anat / "sub-01_rec-svr_space-Phantom_cohort-24_T2w.nii.gz").same_grid(load_volume(template))
    before = nib.load(study.bids / "sub-01/anat/sub-01_rec-svr_T2w.nii.gz")
    after = nib.load(anat / "sub-01_rec-svr_desc-reoriented_T2w.nii.gz")
    assert after.get_data_dtype() == before.get_data_dtype()
    assert np.array_equal(np.asanyarray(after.dataobj), np.asanyarray(before.dataobj))
    pose = read_itk(anat / "sub-01_rec-svr_from-T2w_to-Phantom+24_mode-image_xfm.txt")
    assert np.allclose(pose.matrix @ after.affine, before.affine, atol=1e-3)


def test_settings_are_recorded_and_can_be_used_again(first_run: Any, run_posepipe: Any) -> None:
    (record,) = (first_run.study.out / "sub-01" / "log").glob("*/posepipe.toml")
    content = read_toml(record)
    assert content["refine"] == "torch" and content["init"] == "search"
    assert content["run"]["command"].startswith("posepipe ") and content["versions"]["posepipe"]
    command = [str(first_run.study.bids), str(first_run.study.out), "participant", "--config-file", str(record)]
    code, output = run_posepipe([*command, "--dry-run"])
    assert code == 1
    assert output.splitlines()[-1] == "1 to do, 6 done already, 2 that cannot be processed"


@pytest.mark.slow
def test_rerun_does_only_what_failed(first_run: Any, tmp_path: Path) -> None:
    study = first_run.study.copy(tmp_path)
    before = stamps(study.out)
    code, output = study.main()
    assert code == 1 and stamps(study.out) == before
    assert output.count("done already with these settings") == 6
    assert "0 aligned, 6 done before, 3 failed" in output
    good = study.bids / "sub-01" / "anat" / "sub-01_rec-svr_T2w.nii.gz"
    for label in ("06", "07"):
        shutil.copy(good, study.bids / f"sub-{label}" / "anat" / f"sub-{label}_T2w.nii.gz")
    shutil.rmtree(study.bids / "sub-05")
    code, output = study.main("--nprocs", "2")  # two images: in processes of their own
    assert code == 0, output
    assert "2 aligned, 6 done before, 0 failed" in output
    assert table(study.out / "failures.tsv") == []
    assert {name: stamp for name, stamp in stamps(study.out).items() if name in before} == before
    assert "Failed" not in (study.out / "sub-06.html").read_text(encoding="utf-8")


def test_change_of_one_image_redoes_that_image(first_run: Any, tmp_path: Path) -> None:
    study = first_run.study.copy(tmp_path)
    before = stamps(study.out)
    changed = study.bids / "sub-02/ses-1/anat/sub-02_ses-1_rec-svr_T2w.nii.gz"
    (study.bids / "sub-01/anat/sub-01_rec-svr_T2w.nii.gz").touch()
    image = nib.load(changed)
    half = np.asanyarray(image.dataobj) // 2
    image = nib.Nifti1Image(half, image.affine, image.header)
    nib.save(image, changed)
    _, output = study.main("--participant-label", "01", "02")
    assert "1 aligned, 2 done before, 0 failed" in output
    redone = {name for name, stamp in stamps(study.out).items() if before[name] != stamp}
    assert {name.rsplit("/", 1)[0] for name in redone} == {"sub-02/ses-1/anat"} and len(redone) == 10


def test_lost_output_comes_back_without_computing_again(first_run: Any, tmp_path: Path) -> None:
    study = replace(first_run.study, out=tmp_path / "out", work=tmp_path / "work")
    options = ("--participant-label", "01", "--init", "center", "--refine", "none")
    assert study.main(*options)[0] == 0
    lost = study.out / "sub-01" / "anat" / "sub-01_rec-svr_desc-reoriented_T2w.nii.gz"
    content = lost.read_bytes()
    lost.unlink()
    (study.bids / "sub-01/anat/sub-01_rec-svr_T2w.nii.gz").touch()
    (computed,) = study.work.rglob("refined.txt")
    stamp = computed.stat().st_mtime_ns
    code, output = study.main(*options)
    assert code == 0 and "1 aligned" in output
    assert lost.read_bytes() == content
    assert computed.stat().st_mtime_ns == stamp
    first, second = ({row["node"]: row for row in table(path)} for path in sorted(study.out.glob("logs/runs/*/resources.tsv"), key=_age))
    assert {row["status"] for row in first.values()} == {"done"}
    assert {node for node, row in second.items() if row["status"] == "done"} == {"outputs"}  # it always runs
    assert {row["status"] for row in second.values()} == {"done", "cached"} and first["mask"]["seconds"] == second["mask"]["seconds"]


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


@pytest.mark.slow
def test_reports_only_makes_the_pages_from_the_outputs(first_run: Any, tmp_path: Path) -> None:
    study = first_run.study.copy(tmp_path)
    shutil.rmtree(study.work)
    made = study.out / "sub-03.html"
    before = made.read_text(encoding="utf-8")
    for page in study.out.glob("*.html"):
        page.unlink()
    stamp = stamps(study.out)
    code, output = study.main("--reports-only", "--participant-label", "03", "06")
    assert code == 0, output
    assert {p.name for p in study.out.glob("*.html")} == {"sub-03.html", "sub-06.html"}
    assert stamps(study.out) == stamp
    after = made.read_text(encoding="utf-8")
    assert after.count("data:image/") == 18
    assert [line for line in after.splitlines() if "°" in line] == [line for line in before.splitlines() if "°" in line]
    assert "complete NIfTI file" in (study.out / "sub-06.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_stop_on_first_crash(raw_study: Any, tmp_path: Path) -> None:
    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")
    code, output = study.main("--stop-on-first-crash", "--participant-label", "06", "01", "--init", "center")
    assert code == 1 and "1 failed" in output
    (row,) = table(study.out / "failures.tsv")
    assert row["subject"] == "sub-06" and "complete NIfTI file" in row["error"]


@pytest.mark.slow
def test_two_atlases_in_one_folder_do_not_mix(first_run: Any, tmp_path: Path) -> None:
    study = first_run.study.copy(tmp_path)
    options = ("--participant-label", "01", "--init", "center", "--refine", "none")
    shutil.copytree(study.demo.atlas_dir, tmp_path / "atlas")
    shutil.move(tmp_path / "atlas" / "tpl-Phantom", tmp_path / "atlas" / "tpl-Other")
    for path in sorted((tmp_path / "atlas").rglob("*Phantom*")):
        path.rename(path.with_name(path.name.replace("Phantom", "Other")))
    code, output = study.main(*options, "--atlas-dir", str(tmp_path / "atlas"), "--atlas", "Other")
    assert code == 0, output
    anat = study.out / "sub-01" / "anat"
    assert {p.name for p in anat.glob("*_xfm.txt") if "_to-T2w" not in p.name} == {
        "sub-01_rec-svr_from-T2w_to-Phantom+24_mode-image_xfm.txt",
        "sub-01_rec-svr_from-T2w_to-Other+24_mode-image_xfm.txt",
    }
    # the reoriented image is now of the other atlas, so the first is not done any more
    _, output = study.main("--participant-label", "01", "--dry-run")
    assert "1 to do" in output


def test_other_settings_are_another_result(first_run: Any, tmp_path: Path) -> None:
    study = first_run.study.copy(tmp_path)
    code, output = study.main("--participant-label", "01", "--age", "25.2")
    assert code == 0 and "1 aligned" in output
    sidecar = read_json(study.out / "sub-01/anat/sub-01_rec-svr_from-T2w_to-Phantom+24_mode-image_xfm.json")
    assert sidecar["Age"] == 25.2 and sidecar["AgeSource"] == "--age"


@pytest.mark.slow
def test_two_runs_at_once_share_an_output_folder(raw_study: Any, tmp_path: Path) -> None:
    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")
    fast = ("--init", "center", "--refine", "none")
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _APP, *study.command(*fast, "--participant-label", *labels)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for labels in (("01", "05"), ("02", "06"))
    ]  # fmt: skip
    output = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [1, 1], output
    assert {row["subject"] for row in table(study.out / "failures.tsv")} == {"sub-05", "sub-06"}
    assert len(forward_of(study.out)) == 3
    assert not list(study.out.rglob(".*.tmp*"))


_APP = "import sys; from posepipe.cli.app import main; sys.exit(main())"
