"""What is written (``--level``), and results that are taken from the outputs of an earlier run (``-d posepipe=DIR``)."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atlas_runs import OTHER, PHANTOM, TIMES, Runs, content, names, stem, write_other

from posepipe.bids import read_json, write_json
from posepipe.imaging.volume import load_volume, save_volume
from posepipe.phantom.demo_data import write_demo

XFM = {
    f"sub-01_rec-svr_from-{a}_to-{b}_mode-image_xfm.{kind}"
    for a, b in (("T2w", "Phantom+24"), ("Phantom+24", "T2w"))
    for kind in ("txt", "json")
}
REORIENTED = {f"sub-01_rec-svr_desc-reoriented_T2w.{kind}" for kind in ("nii.gz", "json")}
FORWARD = "_from-T2w_to-Phantom+24_mode-image_xfm.json"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, home: Path, run_posepipe: Any) -> Runs:
    folder = tmp_path_factory.mktemp("levels")
    demo = write_demo(folder, spacing=2.0, n_subjects=1, weeks=[24])
    return Runs(folder, demo.bids_dir, (demo.atlas_dir, write_other(demo.atlas_dir, folder / "other", ("24",))), run_posepipe)


@pytest.fixture(scope="module")
def full(runs: Runs) -> Path:
    """The output folder of a run at the level full."""
    code, told = runs("full", "--atlas", PHANTOM)
    assert code == 0, told
    return runs.folder / "full"


@pytest.fixture(scope="module")
def transforms(runs: Runs) -> Path:
    """That of a run with transforms alone, in the same work folder."""
    code, told = runs("transforms", "--atlas", PHANTOM, "--level", "transforms")
    assert code == 0, told
    return runs.folder / "transforms"


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "group_pose.tsv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.mark.slow
def test_transforms_alone_are_written_with_all_that_is_known_of_them(runs: Runs, full: Path, transforms: Path) -> None:
    assert names(runs.anat("transforms", "01")) == XFM
    low, high = (read_json(f"{stem(runs, out)}{FORWARD}") for out in ("transforms", "full"))
    assert {key: value for key, value in high.items() if key not in TIMES}.items() <= low.items()
    assert low["Level"] == "transforms" and "Level" not in high
    grid, mask = (read_json(f"{stem(runs, 'full')}_{name}.json") for name in ("space-Phantom_cohort-24_T2w", "desc-brain_mask"))
    assert all(low[key] == grid[key] for key in ("TemplateContrast", "TemplateChoice", "TemplateFiles"))
    assert all(low["BrainMask"][key] == mask[key] for key in ("Voxels", "Millilitres", "ExpectedMillilitres", "VolumeRatio"))
    for out in (full, transforms):
        assert runs(out.name, level="group")[0] == 0
    (few,), (many,) = rows(transforms), rows(full)
    same = set(few) - {"seconds", "peak_memory", "file", "transform"} - {key for key in few if "second" in key}
    assert {key: few[key] for key in same} == {key: many[key] for key in same}
    pages = [(out / "sub-01.html").read_text(encoding="utf-8") for out in (full, transforms)]
    assert all(f"{mask['Millilitres']:.0f} ml" in page and grid["TemplateChoice"] in page for page in pages)
    citation = (transforms / "logs/CITATION.md").read_text(encoding="utf-8")
    assert "no image was interpolated" in citation and "resampled once" not in citation


@pytest.mark.slow
def test_header_writes_the_reoriented_image_too_and_more_is_written_by_a_later_run(runs: Runs, full: Path, transforms: Path) -> None:
    shutil.copytree(transforms, runs.folder / "more")
    assert "1 done before" in runs("more", "--atlas", PHANTOM, "--level", "transforms")[1]
    code, told = runs("more", "--atlas", PHANTOM, "--level", "header")
    assert code == 0 and "1 aligned" in told and names(runs.anat("more", "01")) == XFM | REORIENTED
    code, told = runs("more", "--atlas", PHANTOM)
    assert code == 0 and "1 aligned" in told
    assert names(runs.anat("more", "01")) == names(runs.anat("full", "01"))
    for path in runs.anat("more", "01").iterdir():
        assert content(path) == content(runs.anat("full", "01") / path.name), path.name
    code, told = runs("more", "--atlas", PHANTOM, "--level", "transforms")
    assert "1 done before" in told and names(runs.anat("more", "01")) == names(runs.anat("full", "01"))  # nothing is taken away
    (runs.folder / "more/sub-01.html").write_text("", encoding="utf-8")
    assert runs("more", "--atlas", PHANTOM, "--level", "transforms", "--random-seed", "3")[0] == 0  # of another pose it would be wrong
    assert names(runs.anat("more", "01")) == XFM


@pytest.mark.slow
def test_page_says_why_it_has_no_pictures(runs: Runs, transforms: Path) -> None:
    shutil.copytree(transforms, runs.folder / "pages")
    assert runs("pages", "--atlas", PHANTOM, "--reports-only")[0] == 0
    assert "written with --level transforms, without the images" in (runs.folder / "pages/sub-01.html").read_text("utf-8")


@pytest.mark.slow
def test_result_of_an_earlier_run_is_taken_whole(runs: Runs, full: Path) -> None:
    code, told = runs("taken", "--atlas", PHANTOM, "-d", f"posepipe={full}", work="work-taken")
    assert code == 0 and "0 aligned, 0 done before, 0 failed, 1 taken from an earlier run" in told, told
    assert f"sub-01_rec-svr_T2w.nii.gz: the result at Phantom+24 is taken from {full}" in told
    assert names(runs.anat("taken", "01")) == names(runs.anat("full", "01"))
    for path in runs.anat("taken", "01").iterdir():
        if not path.name.endswith(FORWARD):
            assert path.read_bytes() == (runs.anat("full", "01") / path.name).read_bytes(), path.name
    here, there = (read_json(f"{stem(runs, out)}{FORWARD}") for out in ("taken", "full"))
    assert here == there | {"TakenFrom": f"bids:posepipe:sub-01/anat/sub-01_rec-svr{FORWARD}"}
    description = read_json(runs.folder / "taken/dataset_description.json")
    assert description["DatasetLinks"]["posepipe"] == full.resolve().as_uri()
    assert "Phantom, cohort 24" in (runs.folder / "taken/sub-01.html").read_text(encoding="utf-8")
    assert "1 done before" in runs("taken", "--atlas", PHANTOM, "-d", f"posepipe={full}")[1]
    told = runs("dry", "--atlas", PHANTOM, "-d", f"posepipe={full}", "--dry-run")[1]
    assert f"reuse     the result at Phantom+24 is taken from {full}" in told and "1 of those to do are taken from an earlier run" in told
    assert not (runs.folder / "dry").exists()


@pytest.mark.slow
def test_what_is_taken_has_the_names_and_the_level_of_now(runs: Runs, full: Path) -> None:
    """As the further atlas of two, of which the first is computed, and without images."""
    code, told = runs("second", "--atlas", OTHER, PHANTOM, "-d", f"posepipe={full}")
    assert code == 0 and "1 aligned, 0 done before, 0 failed, 1 taken from an earlier run" in told, told
    assert f"the result at Other+24 is not taken from {full}: there is none; only its brain mask is taken" in told
    base = stem(runs, "second")
    assert read_json(f"{base}{FORWARD}")["NamedBySpace"] is True
    assert Path(f"{base}_space-Phantom_cohort-24_desc-reoriented_T2w.nii.gz").is_file()
    assert read_json(f"{base}_desc-reoriented_T2w.json")["Transform"].endswith("to-Other+24_mode-image_xfm.txt")
    assert read_json(f"{base}_from-T2w_to-Other+24_mode-image_xfm.json")["Mask"] == "given"
    assert "2 done before" in runs("second", "--atlas", OTHER, PHANTOM, "-d", f"posepipe={full}")[1]
    code, told = runs("few", "--atlas", PHANTOM, "--level", "transforms", "-d", f"posepipe={full}")
    assert code == 0 and "1 taken from an earlier run" in told and names(runs.anat("few", "01")) == XFM
    few, low = read_json(f"{stem(runs, 'few')}{FORWARD}"), read_json(f"{stem(runs, 'full')}{FORWARD}")
    assert few["Level"] == "transforms" and few["BrainMask"]["Voxels"] > 0 and low.items() <= few.items()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "options", "why"),
    [
        ("version", (), "it was made by posepipe 0.0.1, this is "),
        ("settings", ("--refine", "torch"), "--refine was none, and is torch"),
        ("age", ("--age", "24"), "the age was 24.3 weeks, and is 24"),
        ("image", (), "it is of another image of this name"),
        ("mask", (), "its brain mask was changed since; only its brain mask is taken"),
        ("file", (), "files that are asked for now are not there"),
        ("broken", (), "cannot be read as JSON"),
        ("level", ("--level", "full"), "files that are asked for now are not there (it was written with --level transforms)"),
    ],
)
def test_result_that_is_not_the_one_of_now_is_not_taken_and_the_reason_is_printed(
    runs: Runs, full: Path, transforms: Path, tmp_path: Path, fault: str, options: tuple[str, ...], why: str
) -> None:
    there = tmp_path / "there"
    shutil.copytree(transforms if fault == "level" else full, there)
    base = str(there / "sub-01/anat/sub-01_rec-svr")
    forward = Path(base + FORWARD)
    if fault == "version":
        sidecar = read_json(forward)
        write_json(forward, {**sidecar, "SoftwareVersions": {"posepipe": "0.0.1"}, "ParametersHash": "other"})
    elif fault in {"image", "mask"}:
        path = Path(f"{base}_desc-{'reoriented_T2w' if fault == 'image' else 'brain_mask'}.nii.gz")
        volume = load_volume(path, None)
        data = volume.data.copy()
        inside = tuple(np.argwhere(data > 0)[0])
        data[inside] = 0
        save_volume(volume.with_data(data), path, data.dtype)
    elif fault == "file":
        Path(f"{base}_space-Phantom_cohort-24_T2w.nii.gz").unlink()
    elif fault == "broken":
        forward.write_text("{", encoding="utf-8")
    code, told = runs("dry", "--atlas", PHANTOM, "-d", f"posepipe={there}", *options, "--dry-run")
    assert code == 0 and f"the result at Phantom+24 is not taken from {there}: " in told and why in told, told
    assert ("given: " in told) == (fault not in {"image", "level"})  # a mask of another image is not used either


def test_the_output_folder_is_no_earlier_run(runs: Runs, full: Path) -> None:
    told = runs("full", "--atlas", PHANTOM, "-d", f"posepipe={full}", "--dry-run")[1]
    assert "reuse" not in told


def test_records_of_runs_hold_the_level(full: Path, transforms: Path) -> None:
    found = ["".join(path.read_text("utf-8") for path in out.glob("sub-01/log/*/posepipe.toml")) for out in (full, transforms)]
    assert 'level = "full"' in found[0] and 'level = "transforms"' in found[1]
