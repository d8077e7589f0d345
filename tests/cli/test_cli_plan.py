"""The plan of a run and what a dry run prints; nothing is aligned here."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from posepipe.cli.parser import parse_settings
from posepipe.cli.plan import make_plan
from posepipe.errors import AtlasError, ImageError
from posepipe.imaging.header import UNKNOWN, check_header


def plan_of(study: Any, *options: str) -> Any:
    return make_plan(parse_settings(study.command(*options)))


def test_plan_holds_sessions_in_order(raw_study: Any) -> None:
    plan = plan_of(raw_study)
    labels = ["sub-01", "sub-02_ses-1", "sub-02_ses-2", "sub-03", "sub-04", "sub-05", "sub-06", "sub-07"]
    assert [session.label for session in plan.sessions] == labels
    assert [image.space for image in plan.images] == [
        "Phantom+24", "Phantom+27", "Phantom+32", "Phantom+39", "Phantom+39", "Phantom+34", "Phantom+24",
    ]  # fmt: skip
    assert [(failure.image.subject, failure.stage) for failure in plan.failures] == [("05", "age"), ("07", "image")]


def test_parameters_follow_what_changes_the_result(raw_study: Any) -> None:
    first = next(plan_of(raw_study).images)
    same = next(plan_of(raw_study, "--nprocs", "2", "--device", "cpu", "-v").images)
    assert same.parameters_hash == first.parameters_hash
    for options in (("--refine", "none"), ("--init", "axes"), ("--age", "24.4"), ("--random-seed", "1")):
        assert next(plan_of(raw_study, *options).images).parameters_hash != first.parameters_hash, options


def test_contrast_can_be_overruled(raw_study: Any) -> None:
    image = next(plan_of(raw_study, "--contrast", "T1w").images)
    assert image.contrast == "T1w" and image.choice.template.contrast == "T1w"
    assert "from-T2w" in image.names.forward.name


def test_mask_that_must_be_given(raw_study: Any) -> None:
    plan = plan_of(raw_study, "--mask", "given")
    assert [image.image.subject for image in plan.images] == ["04"]
    messages = {failure.image.subject: str(failure.error) for failure in plan.failures if failure.stage == "mask"}
    assert "sub-01_rec-svr_T2w.nii.gz: --mask given" in messages["01"] and "-d" in messages["01"]


def test_networks_count_for_the_images_they_may_mask(raw_study: Any, scan_weights: Any) -> None:
    """Other weights are another result, but not of an image whose mask is given or its nonzero voxels."""
    ours, one, other = ("--participant-label", "01", "04"), scan_weights(0.1), scan_weights(0.2)

    def digests(*options: str) -> list[tuple[str, ...]]:
        plans = [plan_of(raw_study, *ours, *options, "--weights", str(weights)) for weights in (one, other)]
        return list(zip(*([image.parameters_hash for image in plan.images] for plan in plans), strict=True))

    extracted, masked = digests()
    assert extracted[0] != extracted[1] and masked[0] == masked[1]
    extracted, masked = digests("--mask", "nonzero")
    assert extracted[0] == extracted[1] and masked[0] == masked[1]
    extracted, masked = digests("--mask", "network")
    assert extracted[0] != extracted[1] and masked[0] != masked[1]
    (image,) = plan_of(raw_study, "--participant-label", "04", "--mask", "network").images
    assert len(image.sources) == 1 and image.parameters["weights"].keys() >= {"scan", "pose-fine"}


def test_age_outside_the_atlas(raw_study: Any) -> None:
    assert "--age-policy nearest" in str(plan_of(raw_study, "--age", "45").failures[0].error)
    image = next(plan_of(raw_study, "--age", "45", "--age-policy", "nearest").images)
    assert image.space == "Phantom+39" and any("outside" in warning for warning in image.warnings)


def test_dry_run_prints_and_writes_nothing(raw_study: Any, tmp_path: Path) -> None:
    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")
    code, output = study.main("--dry-run")
    assert code == 1 and not study.out.exists() and not study.work.exists()
    assert "27.10 weeks (sub-02/sub-02_sessions.tsv:pma_weeks)" in output
    assert "Phantom+24: given by name; cohort 24 (24 weeks) is the nearest to 24.3 weeks" in output
    assert f"given: {study.demo.masks_dir}/sub-04" in output and "nonzero voxels" in output
    assert "mask      the image's nonzero voxels if it is brain-extracted, else network" in output
    assert "sub-01_rec-svr_space-Phantom_cohort-24_T2w.nii.gz" in output
    assert "CANNOT BE PROCESSED (age)" in output
    assert output.splitlines()[-1] == "7 to do, 0 done already, 2 that cannot be processed"
    code, output = study.main("--dry-run", "--participant-label", "01", "04", "--mask", "network")
    assert code == 0 and output.count("mask      network: found in the image") == 2 and "given:" not in output


def test_boilerplate_only_cites_what_would_run(raw_study: Any, tmp_path: Path) -> None:
    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")
    code, output = study.main("--boilerplate-only", "--refine", "ants", "--participant-label", "01")
    text = (study.out / "logs" / "CITATION.md").read_text(encoding="utf-8")
    assert code == 0 and text in output
    assert "Salehi" in text and "Avants" in text and "Gorgolewski" in text and "Phantom" in text
    assert not (study.out / "sub-01").exists()
    study.main("--boilerplate-only", "--participant-label", "01")
    assert "Avants" not in (study.out / "logs" / "CITATION.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--atlas", "CRL"], "the atlas CRL is not on this machine"),
        (["--atlas", "Phantm"], "no atlas named 'Phantm'"),
        (["--participant-label", "99"], "no sub-99"),
        (["--session-label", "9"], "no ses-9"),
        (["-d", "/nowhere"], "no such folder"),
        (["--bids-filter-file", "/nowhere.json"], "cannot be read"),
        (["--atlas-dir", "/nowhere"], "--atlas-dir takes a folder"),
        (["--age", "400"], "no age of a fetus"),
    ],
)
def test_what_makes_every_image_impossible_is_a_usage_error(raw_study: Any, options: list[str], words: str) -> None:
    code, output = raw_study.main("--dry-run", *options)
    assert code == 2 and output.startswith("posepipe: error: ") and words in output


def test_no_atlas_at_all(raw_study: Any, tmp_path: Path, run_posepipe: Any) -> None:
    code, output = run_posepipe([str(raw_study.bids), str(tmp_path / "out"), "participant", "--dry-run"])
    assert code == 2 and "no atlas was found on this machine" in output and "--atlas-dir" in output


def test_output_folder_that_is_the_dataset(raw_study: Any, run_posepipe: Any) -> None:
    code, output = run_posepipe([str(raw_study.bids), str(raw_study.bids), "participant"])
    assert code == 2 and "the output folder would be the dataset itself" in output


@pytest.mark.slow
@pytest.mark.parametrize("content", ["the same", "broken"])
def test_an_image_in_two_files_fails_alone(raw_study: Any, tmp_path: Path, content: str) -> None:
    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work", demo=raw_study.copy(tmp_path).demo)
    anat = study.bids / "sub-01" / "anat"
    packed, plain = anat / "sub-01_rec-svr_T2w.nii.gz", anat / "sub-01_rec-svr_T2w.nii"
    if content == "broken":
        plain.write_bytes(b"no image")
    else:
        nib.save(nib.load(packed), plain)
    fast = ("--participant-label", "01", "04", "--init", "center", "--refine", "none")
    words = f"{plain} and {packed} are one image by their name"
    code, output = study.main("--dry-run", *fast)
    assert code == 1 and words in output and "remove one of them" in output
    assert "1 to do, 0 done already, 1 that cannot be processed" in output
    code, output = study.main(*fast)
    assert code == 1 and words in output and "1 aligned, 0 done before, 1 failed" in output
    with (study.out / "failures.tsv").open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream, delimiter="\t")
    assert row["subject"] == "sub-01" and words in row["error"]
    assert not (study.out / "sub-01" / "anat").exists() and (study.out / "sub-04" / "anat").is_dir()
    plain.unlink()
    code, output = study.main(*fast)
    assert code == 0 and "1 aligned, 1 done before, 0 failed" in output
    assert (study.out / "failures.tsv").read_text(encoding="utf-8").count("\n") == 1


def test_images_of_two_names_for_one_output_fail_alone(raw_study: Any, tmp_path: Path) -> None:
    study = raw_study.copy(tmp_path)
    anat = study.bids / "sub-01" / "anat"
    (anat / "sub-01_rec-svr_T2w.nii.gz").rename(anat / "sub-01_res-05_T2w.nii.gz")
    shutil.copyfile(anat / "sub-01_res-05_T2w.nii.gz", anat / "sub-01_desc-res05_T2w.nii.gz")
    plan = plan_of(study, "--participant-label", "01", "04", "--skip-bids-validation")
    assert [image.image.subject for image in plan.images] == ["04"]
    assert [failure.stage for failure in plan.failures] == ["image", "image"]
    assert all("would both be written to" in str(failure.error) for failure in plan.failures)


def test_two_masks_for_one_image_are_a_failure_of_that_image(raw_study: Any, tmp_path: Path) -> None:
    study = raw_study.copy(tmp_path)
    (mask,) = study.demo.masks_dir.rglob("*_mask.nii.gz")
    nib.save(nib.load(mask), mask.with_suffix(""))
    plan = plan_of(study, "--participant-label", "04", "01")
    assert [(f.image.subject, f.stage) for f in plan.failures] == [("04", "mask")]
    assert all(str(path) in str(plan.failures[0].error) for path in (mask, mask.with_suffix("")))
    assert not plan_of(study, "--participant-label", "04", "--mask", "nonzero").failures


def test_broken_mask_is_a_failure_of_its_image(raw_study: Any, tmp_path: Path) -> None:
    study = raw_study.copy(tmp_path)
    (mask,) = study.demo.masks_dir.rglob("*_mask.nii.gz")
    mask.write_bytes(b"no mask")
    plan = plan_of(study, "--participant-label", "04", "01")
    assert [(f.image.subject, f.stage) for f in plan.failures] == [("04", "mask")]
    assert str(mask) in str(plan.failures[0].error)
    assert not plan_of(study, "--participant-label", "04", "--mask", "nonzero").failures


@pytest.mark.parametrize(
    ("shape", "affine", "words"),
    [
        ((4, 4, 4, 3), np.eye(4), "3D"),
        ((4, 4), np.eye(4), "3D"),
        ((4, 4, 4), np.diag([1.0, 1.0, 0.0, 1.0]), "affine is not usable"),
    ],
)
def test_headers_that_are_unusable(tmp_path: Path, shape: tuple[int, ...], affine: Any, words: str) -> None:
    path = tmp_path / "image.nii.gz"
    image = nib.Nifti1Image(np.zeros(shape, np.int16), None)
    image.header.set_sform(affine, code=2)
    nib.save(image, path)
    with pytest.raises(ImageError, match=words):
        check_header(path)


def test_images_that_no_run_could_use_are_seen_by_the_plan(raw_study: Any, tmp_path: Path) -> None:
    study = replace(raw_study.copy(tmp_path), out=tmp_path / "new")
    good = study.bids / "sub-01/anat/sub-01_rec-svr_T2w.nii.gz"
    image = nib.load(good)
    data = np.asanyarray(image.dataobj)
    nib.save(nib.Nifti1Image(np.stack([data] * 2, -1), image.affine), study.bids / "sub-01/anat/sub-01_acq-4d_T2w.nii.gz")
    nib.save(nib.Nifti1Image(data[:, :, 9:10], image.affine), study.bids / "sub-01/anat/sub-01_acq-slice_T2w.nii.gz")
    (study.bids / "sub-01/anat/sub-01_acq-cut_T2w.nii.gz").write_bytes(good.read_bytes()[:-5000])
    code, output = study.main("--dry-run", "--participant-label", "01")
    assert code == 1 and output.count("CANNOT BE PROCESSED (image)") == 3
    assert output.splitlines()[-1] == "1 to do, 0 done already, 3 that cannot be processed"


def test_doubts_about_a_header_are_in_the_plan_and_in_the_verdict(raw_study: Any, tmp_path: Path) -> None:
    from posepipe.workflows.image import init_image_wf

    study = raw_study.copy(tmp_path)
    path = study.bids / "sub-01/anat/sub-01_rec-svr_T2w.nii.gz"
    image = nib.load(path)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), path)
    _, output = study.main("--dry-run", "--participant-label", "01")
    assert f"    review    {UNKNOWN}" in output
    settings = parse_settings(study.command("--participant-label", "01", "04"))
    first, second = make_plan(settings).images
    assert (first.doubts, second.doubts) == ((UNKNOWN,), ())
    assert init_image_wf(plan=first, settings=settings).get_node("quality").inputs.doubts == [UNKNOWN]


def test_a_selected_participant_without_usable_image_is_reported_and_never_a_success(first_run: Any, tmp_path: Path) -> None:
    study = first_run.study.copy(tmp_path)
    lost = study.bids / "sub-08/anat/sub-08_T2w.NII.GZ"
    lost.parent.mkdir(parents=True)
    shutil.copy(study.bids / "sub-01/anat/sub-01_rec-svr_T2w.nii.gz", lost)
    listed = "  sub-08/anat/sub-08_T2w.NII.GZ: its extension is .NII.GZ"
    code, output = study.main("--dry-run", "--participant-label", "01", "08")
    assert code == 1 and listed in output and "LACKING: sub-08 was selected" in output
    code, output = study.main("--participant-label", "01", "08")  # 01 is done already
    assert code == 1 and "LACKING: sub-08 was selected" in output
    code, output = study.main("--dry-run", "--participant-label", "01")
    assert code == 0 and "LACKING" not in output


def test_one_age_for_two_sessions_is_for_review(raw_study: Any, tmp_path: Path) -> None:
    study = raw_study.copy(tmp_path)
    (study.bids / "sub-02/sub-02_sessions.tsv").unlink()
    with (study.bids / "participants.tsv").open("a") as table:
        table.write("sub-02\t27.1\n")
    text = (study.bids / "participants.tsv").read_text().splitlines()
    kept = [line for line in text if not line.startswith("sub-02\t") or line.endswith("\t27.1")]
    (study.bids / "participants.tsv").write_text("\n".join(kept) + "\n")
    plans = list(plan_of(study, "--participant-label", "02").images)
    assert len(plans) == 2 and all("used for all its sessions (1, 2)" in image.doubts[0] for image in plans)
    _, output = study.main("--dry-run", "--participant-label", "02")
    assert output.count("    review    the one age of sub-02") == 2


def test_header_of_a_4d_file_with_one_volume_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 1), np.int16), np.eye(4)), path)
    check_header(path)


def test_atlas_that_changed_under_its_name_is_another(raw_study: Any, tmp_path: Path) -> None:
    first = next(plan_of(raw_study).images)
    shutil.copytree(raw_study.demo.atlas_dir, tmp_path / "atlas")
    with (tmp_path / "atlas/tpl-Phantom/cohort-24/tpl-Phantom_cohort-24_T2w.nii.gz").open("ab") as stream:
        stream.write(b"x")
    other = next(plan_of(raw_study, "--atlas-dir", str(tmp_path / "atlas")).images)
    assert other.choice.template.image == first.choice.template.image  # the first folder wins
    (tmp_path / "moved").mkdir()
    settings = replace(parse_settings(raw_study.command()), atlas_dir=(tmp_path / "atlas",))
    assert next(make_plan(settings).images).parameters_hash != first.parameters_hash


def test_unknown_atlas_is_not_looked_for_again_and_again(raw_study: Any) -> None:
    with pytest.raises(AtlasError, match="did you mean CRL"):
        plan_of(raw_study, "--atlas", "crl")


def copy_atlas(study: Any, folder: Path, name: str, cohort: str) -> None:
    """The phantom of 34 weeks as a cohort of another atlas."""
    target = folder / f"tpl-{name}" / f"cohort-{cohort}"
    target.mkdir(parents=True)
    for path in (study.demo.atlas_dir / "tpl-Phantom" / "cohort-34").iterdir():
        shutil.copy(path, target / path.name.replace("Phantom_cohort-34", f"{name}_cohort-{cohort}"))


def test_contrasts_of_one_newborn_go_to_one_atlas(raw_study: Any, tmp_path: Path) -> None:
    for name in ("CRL", "Serag"):
        copy_atlas(raw_study, tmp_path / "atlas", name, "34")
    options = ("--atlas", "auto", "--age", "34", "--atlas-dir", str(tmp_path / "atlas"))
    spaces = {image.image.path.name: image.space for image in plan_of(raw_study, *options).images}
    assert spaces["sub-03_T1w.nii.gz"] == spaces["sub-03_T2w.nii.gz"] == "Serag+34"
    assert spaces["sub-01_rec-svr_T2w.nii.gz"] == "CRL+34"
    (tmp_path / "filter.json").write_text('{"t1w": null}')
    alone = plan_of(raw_study, *options, "--bids-filter-file", str(tmp_path / "filter.json"))
    (image,) = (i for i in alone.images if i.image.subject == "03")
    assert image.space == "Serag+34" and "its session has a T1w image too" in image.choice.reason
