"""Digests of the data that the calibration was fitted on."""

from __future__ import annotations

from pathlib import Path

from posepipe.bench.data_digests import DATASETS, data_digests, other_data
from posepipe.models.calibration import load_calibration


def test_names_and_contents_count_and_other_folders_do_not(tmp_path: Path) -> None:
    for name in ("ds-epi/sub-E01/a.nii.gz", "ds-scans/b.json", "ds-negative/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("content")
    before = data_digests(tmp_path)
    assert set(before) == {"ds-epi", "ds-scans"} and other_data(before, data_digests(tmp_path)) == ""
    (tmp_path / "ds-epi/sub-E01/a.nii.gz").write_text("other")
    assert other_data(before, data_digests(tmp_path)).endswith(": ds-epi.")
    (tmp_path / "ds-scans/b.json").rename(tmp_path / "ds-scans/c.json")
    assert other_data(before, data_digests(tmp_path)).endswith(": ds-epi, ds-scans.")
    assert other_data({}, before) == ""  # a calibration without digests


def test_the_packaged_calibration_names_its_data() -> None:
    assert set(load_calibration().data) == set(DATASETS) and all(len(digest) == 64 for digest in load_calibration().data.values())
