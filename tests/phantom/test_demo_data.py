"""The demonstration on disk: complete, valid, and with correct true poses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from posepipe.errors import UsageError
from posepipe.geometry import Rigid
from posepipe.imaging.volume import Volume, load_volume
from posepipe.phantom.demo_data import DemoDataset, write_demo

SPACING = 2.0


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> DemoDataset:
    return write_demo(tmp_path_factory.mktemp("demo"), spacing=SPACING, progress=lines.append)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def read_at(volume: Volume, points: np.ndarray) -> np.ndarray:
    inverse = np.linalg.inv(volume.affine)
    return ndimage.map_coordinates(volume.data, inverse[:3, :3] @ points.T + inverse[:3, 3:], order=1)


def test_every_json_is_valid_and_the_dataset_describes_itself(demo: DemoDataset) -> None:
    files = list(demo.bids_dir.rglob("*.json")) + list(demo.atlas_dir.rglob("*.json"))
    contents = {f: json.loads(f.read_text()) for f in files}
    description = contents[demo.bids_dir / "dataset_description.json"]
    assert description["DatasetType"] == "raw" and description["BIDSVersion"] and description["Name"]
    assert demo.masks_dir is not None
    masks = contents[demo.masks_dir / "dataset_description.json"]
    assert masks["DatasetType"] == "derivative" and masks["GeneratedBy"]
    assert contents[demo.bids_dir / "participants.json"]["ga_weeks"]["Units"] == "weeks"
    assert (demo.bids_dir / "README").read_text()


def test_no_temporary_file_is_left(demo: DemoDataset) -> None:
    assert not list(demo.bids_dir.parent.rglob(".*"))


def test_images_are_those_promised(demo: DemoDataset) -> None:
    found = {p.relative_to(demo.bids_dir).as_posix() for p in demo.bids_dir.glob("sub-*/**/*.nii.gz")}
    assert found == {
        "sub-01/anat/sub-01_rec-svr_T2w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_rec-svr_T2w.nii.gz",
        "sub-02/ses-2/anat/sub-02_ses-2_rec-svr_T2w.nii.gz",
        "sub-03/anat/sub-03_T1w.nii.gz",
        "sub-03/anat/sub-03_T2w.nii.gz",
        "sub-04/anat/sub-04_rec-svr_T2w.nii.gz",
    }
    for name in found:
        sidecar = demo.bids_dir / name.replace(".nii.gz", ".json")
        image = load_volume(demo.bids_dir / name)
        cut_out = float((image.data == 0).mean()) > 0.3
        assert json.loads(sidecar.read_text())["SkullStripped"] is cut_out, name


def test_the_dataset_walk_and_the_ages_find_all_of_it(demo: DemoDataset) -> None:
    from posepipe.bids import find_images

    assert demo.masks_dir is not None
    images = find_images(demo.bids_dir, derivatives=[str(demo.masks_dir)], validate=True)
    assert len(images) == 6
    masked = [i for i in images if i.mask is not None]
    assert [i.subject for i in masked] == ["04"]
    assert masked[0].mask is not None
    assert load_volume(masked[0].mask).same_grid(load_volume(masked[0].path))


def test_ages_stand_in_participants_and_sessions(demo: DemoDataset) -> None:
    rows = {r["participant_id"]: r["ga_weeks"] for r in table(demo.bids_dir / "participants.tsv")}
    assert rows == {"sub-01": "24.3", "sub-02": "n/a", "sub-03": "39.1", "sub-04": "33.9"}
    sessions = table(demo.bids_dir / "sub-02" / "sub-02_sessions.tsv")
    assert [(r["session_id"], r["pma_weeks"]) for r in sessions] == [("ses-1", "27.1"), ("ses-2", "31.6")]


def test_the_atlas_library_reads_the_atlas(demo: DemoDataset) -> None:
    from posepipe.atlas import AtlasLibrary, choose_template

    library = AtlasLibrary([demo.atlas_dir])
    for scan in demo.scans:
        for contrast in scan.contrasts:
            choice = choose_template(library, age=scan.age, contrast=contrast, atlas="Phantom")
            assert choice.contrast == contrast
            assert abs(choice.template.age - scan.age) <= 0.5
            assert choice.template.mask is not None and choice.template.tissues is not None
    described = json.loads((demo.atlas_dir / "tpl-Phantom" / "template_description.json").read_text())
    assert described["cohort"]["32"] == {"age": [32.0, 32.0], "units": "weeks"}


def test_truth_lies_outside_the_dataset_and_aligns_every_image(demo: DemoDataset) -> None:
    assert demo.masks_dir is not None and demo.bids_dir not in demo.truth_tsv.parents
    rows = table(demo.truth_tsv)
    assert len(rows) == 6
    for row in rows:
        numbers = [float(row[k]) for k in ("rx", "ry", "rz", "tx", "ty", "tz")]
        pose = Rigid.from_rotvec(numbers[:3], numbers[3:])
        assert pose.angle_degrees > 60
        assert pose.angle_degrees == pytest.approx(float(row["angle_degrees"]), abs=0.01)
        image = load_volume(demo.bids_dir / row["file"])
        week, contrast = round(float(row["age_weeks"])), row["file"][-10:-7]
        folder = demo.atlas_dir / "tpl-Phantom" / f"cohort-{week}"
        template = load_volume(folder / f"tpl-Phantom_cohort-{week}_{contrast}.nii.gz")
        if "sub-04" in row["file"]:
            image = image.with_data(image.data * load_volume(next(demo.masks_dir.rglob("*_mask.nii.gz"))).data)
        points = np.argwhere(np.ones(template.shape, bool)) @ template.affine[:3, :3].T + template.affine[:3, 3]
        values = read_at(template, points)
        best = np.corrcoef(values, read_at(image, pose.apply(points)))[0, 1]
        off = pose @ Rigid.from_rotvec([0, 0, np.radians(10)])
        assert best > 0.9, row["file"]
        assert best > np.corrcoef(values, read_at(image, off.apply(points)))[0, 1] + 0.01, row["file"]


def test_progress_names_each_scan(demo: DemoDataset, lines: list[str]) -> None:
    assert lines[0].startswith("atlas: 5 cohorts")
    assert sum(line.startswith("sub-") for line in lines) == len(demo.scans)


def test_the_same_seed_gives_the_same_study(tmp_path: Path) -> None:
    first, again, other = (
        write_demo(tmp_path / folder, n_subjects=1, seed=seed, spacing=3.0)
        for folder, seed in (("a", 7), ("b", 7), ("c", 8))
    )
    name = "sub-01/anat/sub-01_rec-svr_T2w.nii.gz"
    assert first.truth_tsv.read_text() == again.truth_tsv.read_text() != other.truth_tsv.read_text()
    one, two = (load_volume(d.bids_dir / name) for d in (first, again))
    np.testing.assert_array_equal(one.data, two.data)
    assert first.masks_dir is None


def test_more_subjects_and_chosen_weeks(tmp_path: Path) -> None:
    demo = write_demo(tmp_path, n_subjects=6, weeks=[30], spacing=4.0)
    assert [p.name for p in sorted(demo.bids_dir.glob("sub-*"))] == [f"sub-{i:02d}" for i in range(1, 7)]
    assert [p.name for p in (demo.atlas_dir / "tpl-Phantom").glob("cohort-*")] == ["cohort-30"]
    extra = [s.age for s in demo.scans if int(s.participant) > 4]
    assert len(extra) == 2 and all(21 <= a <= 38 for a in extra)


def test_impossible_demonstrations_say_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 to 99 subjects, not 0"):
        write_demo(tmp_path, n_subjects=0)
    with pytest.raises(UsageError, match="at least one week"):
        write_demo(tmp_path, weeks=[])
