from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from posepipe.bids import (
    HASH_KEY,
    Failures,
    Metadata,
    OutputNames,
    find_images,
    is_done,
    parameters_hash,
    read_json,
    record_hashes,
    write_bidsignore,
    write_dataset_description,
    write_json,
)
from posepipe.errors import BidsError


def test_json_of_numpy_paths_and_not_a_number(tmp_path):
    obj = {
        "matrix": np.eye(2),
        "count": np.int64(3),
        "single": np.float32(0.5),
        "flag": np.bool_(True),
        "bad": [float("nan"), np.float64("inf"), np.array([1.0, np.nan])],
        "path": Path("a") / "b",
        "set": {2, 1},
        3: "ü",
    }
    path = write_json(tmp_path / "new" / "x.json", obj)
    assert read_json(path) == {
        "matrix": [[1.0, 0.0], [0.0, 1.0]],
        "count": 3,
        "single": 0.5,
        "flag": True,
        "bad": [None, None, [1.0, None]],
        "path": "a/b",
        "set": [1, 2],
        "3": "ü",
    }


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    blocked = tmp_path / "folder"
    blocked.mkdir()
    with pytest.raises(OSError):
        write_json(blocked, {"a": 1})
    assert read_json(path) == {"a": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "x.json"]


def test_reading_json_names_the_file(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(BidsError, match=r"x\.json: cannot be read"):
        read_json(path)
    path.write_text("[1]")
    with pytest.raises(BidsError, match=r"x\.json: expected a JSON object, found list"):
        read_json(path)


def test_metadata_is_inherited(make_dataset):
    root = make_dataset(
        "sub-01_ses-1_run-1_T2w.nii.gz",
        texts={
            "T2w.json": '{"a": "root", "b": "root", "c": "root"}',
            "run-2_T2w.json": '{"b": "run 2"}',
            "T1w.json": '{"b": "T1w"}',
            "sub-01/sub-01_T2w.json": '{"b": "subject", "c": "subject"}',
            "sub-01/ses-1/anat/sub-01_ses-1_T2w.json": '{"c": "session"}',
            "sub-01/ses-1/anat/sub-01_ses-1_run-1_T2w.json": '{"d": "file"}',
        },
    )
    (image,) = find_images(root)
    assert Metadata().of(image) == {"a": "root", "b": "subject", "c": "session", "d": "file"}


def test_metadata_lists_each_folder_once(make_dataset, watch_folders):
    root = make_dataset(*(f"sub-{n:02d}_T2w.nii.gz" for n in range(10)))
    images = find_images(root)
    metadata = Metadata()
    with watch_folders() as listed:
        assert [metadata.of(image) for image in images] == [{}] * 10
    assert len(listed) == len(set(listed)) == 21


def test_description_of_a_new_dataset(make_dataset, tmp_path):
    source = make_dataset("sub-01_T2w.nii.gz", description={"Name": "x", "DatasetDOI": "doi:10.1/x"})
    masks = make_dataset("sub-01_desc-brain_mask.nii.gz", folder="masks")
    path = write_dataset_description(tmp_path / "out", version="1.2", source=source, derivatives=[f"m={masks}"])
    content = read_json(path)
    assert content["DatasetType"] == "derivative"
    assert content["GeneratedBy"] == [{"Name": "posepipe", "Version": "1.2"}]
    assert content["SourceDatasets"] == [{"URL": source.as_uri(), "DOI": "doi:10.1/x"}, {"URL": masks.as_uri()}]
    assert content["DatasetLinks"] == {"raw": source.as_uri(), "m": masks.as_uri()}
    assert {"Name", "BIDSVersion"} <= content.keys()


def test_hashes_are_recorded_and_kept(make_dataset, tmp_path):
    source, out = make_dataset("sub-01_T2w.nii.gz"), tmp_path / "out"
    path = write_dataset_description(out, version="1.2", source=source)
    record_hashes(out, atlases={"b.nii.gz": "1", "a.nii.gz": "2"}, weights={})
    ours = {"Name": "posepipe", "Version": "1.2", "AtlasFiles": {"a.nii.gz": "2", "b.nii.gz": "1"}}
    assert read_json(path)["GeneratedBy"] == [ours]
    write_dataset_description(out, version="1.3", source=source)  # the next run begins
    assert read_json(path)["GeneratedBy"] == [ours | {"Version": "1.3"}]
    record_hashes(out, atlases={}, weights={"pose": "3"})
    assert read_json(path)["GeneratedBy"] == [{"Name": "posepipe", "Version": "1.3", "Weights": {"pose": "3"}}]
    before = path.stat().st_mtime_ns
    record_hashes(out, atlases={}, weights={"pose": "3"})
    assert path.stat().st_mtime_ns == before
    path.write_text(json.dumps({"GeneratedBy": [{"Name": "other"}]}))
    record_hashes(out, atlases={"a": "1"}, weights={})
    assert read_json(path)["GeneratedBy"] == [{"Name": "other"}, {"Name": "posepipe", "AtlasFiles": {"a": "1"}}]
    path.unlink()
    with pytest.raises(BidsError, match="dataset_description"):
        record_hashes(out, atlases={}, weights={})


def test_a_broken_failure_record_is_reported(make_dataset, tmp_path):
    failures = Failures(tmp_path / "out")
    assert failures.broken() == []
    records = tmp_path / "out" / "logs" / "failures"
    records.mkdir(parents=True)
    (records / "sub-01_T2w.json").write_text("{")
    (error,) = failures.broken()
    assert "sub-01_T2w.json" in str(error)


def test_description_is_merged(make_dataset, tmp_path):
    source = make_dataset("sub-01_T2w.nii.gz")
    other = {"Name": "other", "Version": "3"}
    old = {
        "Name": "Our study",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "Authors": ["A"],
        "GeneratedBy": [other, {"Name": "posepipe", "Version": "0.1"}],
        "DatasetLinks": {"x": "file:///x"},
    }
    out = make_dataset(folder="out", description=old)
    for _ in range(2):
        content = read_json(
            write_dataset_description(out, version="1.2", source=source, url="https://example.org/code")
        )
    assert (content["Name"], content["BIDSVersion"], content["Authors"]) == ("Our study", "1.9.0", ["A"])
    ours = {"Name": "posepipe", "Version": "1.2", "CodeURL": "https://example.org/code"}
    assert content["GeneratedBy"] == [other, ours]
    assert len(content["SourceDatasets"]) == 1
    assert content["DatasetLinks"].keys() == {"x", "raw"}


def _describe(out: Path, source: Path, number: int) -> None:
    for k in range(20):
        write_dataset_description(out, version="1", source=source, links={f"tpl-{number}-{k}": source})


def test_runs_that_describe_a_dataset_at_once_lose_nothing_of_each_other(make_dataset, tmp_path):
    source = make_dataset("sub-01_T2w.nii.gz")
    runs = [get_context("fork").Process(target=_describe, args=(tmp_path / "out", source, number)) for number in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    links = read_json(tmp_path / "out" / "dataset_description.json")["DatasetLinks"]
    assert len(links) == 81 and [run.exitcode for run in runs] == [0] * 4


def test_an_input_dataset_is_never_described_as_results(make_dataset):
    source = make_dataset("sub-01_T2w.nii.gz")
    before = (source / "dataset_description.json").read_bytes()
    for out in (source, make_dataset("sub-01_T2w.nii.gz", folder="raw2")):
        with pytest.raises(BidsError, match="is an input dataset"):
            write_dataset_description(out, version="1", source=source)
    assert (source / "dataset_description.json").read_bytes() == before
    broken = make_dataset(folder="broken", description={"DatasetType": "derivative", "GeneratedBy": "x"})
    with pytest.raises(BidsError, match="GeneratedBy must be a list"):
        write_dataset_description(broken, version="1", source=source)


def test_bidsignore_keeps_the_lines_that_are_there(tmp_path):
    path = tmp_path / ".bidsignore"
    path.write_text("mine/\nlogs/")
    write_bidsignore(tmp_path)
    first = path.read_text()
    lines = first.splitlines()
    assert lines[:2] == ["mine/", "logs/"]
    assert {"*.html", "failures.tsv", "group_*", "*_xfm.*", "*_cohort-*"} <= set(lines)
    assert len(lines) == len(set(lines))
    write_bidsignore(tmp_path)
    assert path.read_text() == first


@pytest.fixture
def finished(make_dataset, tmp_path):
    """An image, its names, its settings, and all of its outputs."""
    root = make_dataset("sub-01_T2w.nii.gz", texts={"sub-01/anat/sub-01_T2w.nii.gz": "voxels"})
    (image,) = find_images(root)
    names = OutputNames(tmp_path / "out", image, ("CRL", "29"))
    settings = {"age": 29.0, "init": "deep", "omp": np.int64(2)}
    for path in names.files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    write_json(names.sidecar(names.forward), {HASH_KEY: parameters_hash(settings, image)})
    return names, settings


def test_a_finished_image_is_done(finished):
    names, settings = finished
    assert is_done(names, settings)
    assert is_done(names, dict(reversed(settings.items())))
    assert not is_done(names, {**settings, "age": 30.0})
    assert not is_done(names, settings, synth=True)


def test_result_of_a_further_atlas_is_done_as_that_alone(finished):
    """Transforms have the same names at the first atlas and at a further one; slices and label maps have not."""
    names, settings = finished
    assert is_done(names, settings, level="transforms")
    assert not is_done(replace(names, further=True), settings, level="transforms")
    path = names.sidecar(names.forward)
    write_json(path, {**read_json(path), "NamedBySpace": True})
    assert is_done(replace(names, further=True), settings, level="transforms")
    assert not is_done(names, settings, level="transforms")


def test_every_output_must_be_there(finished):
    names, settings = finished
    for path in names.files():
        content = path.read_bytes()
        path.unlink()
        assert not is_done(names, settings), path
        path.write_bytes(content)
    assert is_done(names, settings)


def test_changed_contents_are_processed_again(finished, tmp_path):
    names, settings = finished
    os.utime(names.image.path, (1, 1))
    assert is_done(names, settings)  # copying a dataset changes times only
    mask = tmp_path / "mask.nii.gz"
    mask.touch()
    assert not is_done(replace(names, image=replace(names.image, mask=mask)), settings)
    names.image.path.write_text("voxelz")
    assert not is_done(names, settings)


def test_a_broken_sidecar_is_processed_again(finished, caplog):
    names, settings = finished
    names.sidecar(names.forward).write_text("{")
    assert not is_done(names, settings)
    assert "processed again" in caplog.text
    write_json(names.sidecar(names.forward), {})
    assert not is_done(names, settings)


def table(out):
    return [line.split("\t") for line in (out / "failures.tsv").read_text().splitlines()]


def test_failures_are_recorded_and_cleared(tmp_path, image_of):
    out = tmp_path / "out"
    failures = Failures(out)
    one = image_of(tmp_path, "sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz")
    two = image_of(tmp_path, "sub-02/anat/sub-02_T2w.nii.gz")
    failures.record(two, "init", "first try")
    failures.record(two, "refine", BidsError("a\tb\nc"), log=out / "sub-02" / "log" / "crash-1.txt")
    failures.record(one, "load", OSError("gone"))
    assert table(out) == [
        ["subject", "session", "image", "stage", "error", "log"],
        ["sub-01", "ses-1", "sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz", "load", "OSError: gone", "n/a"],
        ["sub-02", "n/a", "sub-02/anat/sub-02_T2w.nii.gz", "refine", "BidsError: a b c", "sub-02/log/crash-1.txt"],
    ]
    again = Failures(out)
    assert [row["image"] for row in again.rows()] == [one.relative.as_posix(), two.relative.as_posix()]
    again.clear(one)
    again.clear(one)
    assert [row["image"] for row in again.rows()] == [two.relative.as_posix()]
    assert len(table(out)) == 2
    again.clear(two)
    assert table(out) == [["subject", "session", "image", "stage", "error", "log"]]


def test_failures_of_another_dataset_stay(tmp_path, image_of):
    """Two sites, one output folder: what is no longer in the one dataset is no matter of the other's failures."""
    out = tmp_path / "out"
    failures = Failures(out)
    here, gone, there = (
        image_of(tmp_path / site, f"sub-{label}/anat/sub-{label}_T2w.nii.gz") for site, label in (("A", "01"), ("A", "02"), ("B", "03"))
    )
    for image in (here, gone, there):
        image.path.parent.mkdir(parents=True, exist_ok=True)
        image.path.touch()
        failures.record(image, "age", "no age")
    gone.path.unlink()
    failures.forget_removed(tmp_path / "B")
    assert [row[0] for row in table(out)[1:]] == ["sub-01", "sub-02", "sub-03"]
    (tmp_path / "link").symlink_to(tmp_path / "A")
    failures.forget_removed(tmp_path / "link")
    assert [row[0] for row in table(out)[1:]] == ["sub-01", "sub-03"]


def test_a_broken_record_is_said_and_left_out(tmp_path, image_of, caplog):
    failures = Failures(tmp_path)
    failures.record(image_of(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz"), "load", "x")
    (tmp_path / "logs" / "failures" / "sub-02_T2w.json").write_text("{")
    failures.merge()
    assert len(table(tmp_path)) == 2
    assert "left out of failures.tsv" in caplog.text


TASK = """
import sys
from pathlib import Path
from posepipe.bids import Failures, InputImage
out, task = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()
for n in range(12):
    name = f"sub-{task}{n:02d}/anat/sub-{task}{n:02d}_T2w.nii.gz"
    image = InputImage(out / name, Path(name), {"sub": f"{task}{n:02d}"}, "T2w")
    Failures(out).record(image, "load", "x")
    if n % 3 == 0:
        Failures(out).clear(image)
"""


def test_tasks_of_a_job_array_lose_no_failure(tmp_path):
    command = [sys.executable, "-c", TASK, str(tmp_path)]
    tasks = [subprocess.Popen([*command, name], stdin=subprocess.PIPE) for name in "abcd"]
    starts = [task.stdin for task in tasks if task.stdin is not None]
    for start in starts:
        start.write(b"go\n")
        start.flush()
    assert [task.wait(60) for task in tasks] == [0] * 4
    for start in starts:
        start.close()
    expected = [f"sub-{task}{n:02d}" for task in "abcd" for n in range(12) if n % 3]
    assert [row[0] for row in table(tmp_path)[1:]] == expected
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("links", [[], "raw", 5])
def test_links_of_a_description_that_are_no_object(tmp_path, make_dataset, links):
    root = make_dataset("sub-01_T2w.nii.gz")
    write_json(tmp_path / "out" / "dataset_description.json", {"DatasetType": "derivative", "DatasetLinks": links})
    with pytest.raises(BidsError, match=r"dataset_description\.json: DatasetLinks must be an object; correct it"):
        write_dataset_description(tmp_path / "out", version="1", source=root)


def test_bidsignore_in_another_encoding_is_kept(tmp_path):
    (tmp_path / ".bidsignore").write_bytes(b"M\xfcller\n")
    write_bidsignore(tmp_path)
    assert (tmp_path / ".bidsignore").read_bytes().startswith(b"M\xfcller\n*.html\n")


def test_a_failure_of_an_image_with_the_longest_name_is_recorded(tmp_path, image_of):
    failures = Failures(tmp_path)
    image = image_of(tmp_path, f"sub-01/anat/sub-01_acq-{'A' * 235}_T2w.nii")
    failures.record(image, "image", "too long")
    assert [row["error"] for row in failures.rows()] == ["too long"]
    failures.clear(image)
    assert not failures.rows()


def test_failures_at_atlases_are_told_apart_and_go_when_they_are_mended_or_no_longer_asked_for(tmp_path, image_of):
    failures = Failures(tmp_path)
    image, other = (image_of(tmp_path, f"sub-{label}/anat/sub-{label}_T2w.nii") for label in ("01", "02"))
    for one, atlas in ((image, "CRL"), (image, "Serag"), (other, "Serag")):
        failures.record(one, "refinement", "diverged", atlas=atlas)
    assert [row["stage"] for row in failures.rows()] == ["refinement at CRL", "refinement at Serag", "refinement at Serag"]
    failures.clear(image, "CRL", ("CRL", "Serag"))
    assert [(row["image"][4:6], row["atlas"]) for row in failures.rows()] == [("01", "Serag"), ("02", "Serag")]
    failures.clear(image, "CRL", ("CRL",))
    assert [row["image"][4:6] for row in failures.rows()] == ["02"]
    assert failures.table.read_text().count("refinement at Serag") == 1


def test_importing_the_package_is_light():
    code = "import sys, posepipe.bids; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.split())
    assert "posepipe.bids.walk" in loaded
    assert not loaded & {"torch", "nibabel", "nipype", "bids", "pandas", "scipy"}
