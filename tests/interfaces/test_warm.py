"""What a process keeps between nodes: the same results as with nothing kept, and never an old file's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posepipe.bids import read_json
from posepipe.imaging.volume import load_volume, save_volume
from posepipe.interfaces import warm
from posepipe.interfaces.pose import InitialPose, PoseQuality, RefinePose
from posepipe.interfaces.template import template_inputs
from posepipe.matching.brain import Brain
from posepipe.models.calibration import NAME as CALIBRATION
from posepipe.models.weights import PACKAGED
from posepipe.pose.coordinate_networks import PoseNetworks

TIMES = ("seconds", "peak_memory_mb")


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    forget()


def forget() -> None:
    """As in a new process."""
    warm._brains.clear()
    for kept in (warm._comparison, warm._pose_networks, warm._brain_finder):
        kept.cache_clear()


def stages(case: dict[str, Any], results: dict[str, Any], folder: Path, *, between: Any) -> list[Any]:
    """Pose files and records of three stages of one image; ``between`` is called before each."""
    image, template = str(case["folder"] / "image.nii.gz"), template_inputs(case["template"])
    mask, found = results["mask"], []
    common = {"in_file": image, "in_mask": mask.out_mask}
    compute = {**template, **common, "device": "cpu"}

    def run(interface: Any, name: str) -> Any:
        between()
        place = folder / name
        place.mkdir()
        out = interface.run(cwd=str(place)).outputs
        record = {k: v for k, v in read_json(out.out_record).items() if k not in TIMES}
        found.extend([record, Path(out.out_pose).read_bytes()] if hasattr(out, "out_pose") else [record])
        return out

    first = run(InitialPose(method="auto", **compute), "initial")
    then = run(RefinePose(in_pose=first.out_pose, method="torch", **compute), "refined")
    run(PoseQuality(
        mask_record=mask.out_record, initial_pose=first.out_pose, initial_record=first.out_record, refined_pose=then.out_pose,
        refined_record=then.out_record, age=28.0, contrast="T2w", **common, **template,
    ), "quality")  # fmt: skip
    return found


@pytest.mark.slow
def test_shared_and_alone_are_the_same_bits(
    case: dict[str, Any], results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    prepare, load = Brain.prepare.__func__, PoseNetworks.__init__  # type: ignore[attr-defined]
    monkeypatch.setattr(Brain, "prepare", classmethod(lambda cls, v, *a: (made.append("brain"), prepare(cls, v, *a))[1]))
    monkeypatch.setattr(PoseNetworks, "__init__", lambda self, *a, **k: (made.append("networks"), load(self, *a, **k))[1])
    for name in ("apart", "shared"):
        (tmp_path / name).mkdir()
    stages(case, results, tmp_path / "apart", between=forget)  # the template's own brain is prepared by now
    forget()
    made.clear()
    shared = stages(case, results, tmp_path / "shared", between=lambda: None)
    assert sorted(made) == ["brain", "networks"]  # once for three stages
    made.clear()
    (tmp_path / "again").mkdir()
    apart = stages(case, results, tmp_path / "again", between=forget)
    assert sorted(made) == ["brain", "brain", "brain", "networks"]
    assert shared == apart


def test_a_changed_image_or_mask_is_prepared_again(case: dict[str, Any], tmp_path: Path) -> None:
    files = (str(tmp_path / "image.nii"), str(tmp_path / "mask.nii"))
    image, mask = (load_volume(case["folder"] / f"{name}.nii.gz") for name in ("image", "mask"))
    for volume, path in zip((image, mask), files, strict=True):
        save_volume(volume, path, np.float32)
    first = warm.brain_of(image, mask, files)
    assert warm.brain_of(image, mask, files) is first
    for path in files:
        about = Path(path).stat()
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1_000_000))
        other = warm.brain_of(image, mask, files)
        assert other is not first
        first = other


def test_no_more_than_two_brains_are_kept(case: dict[str, Any], tmp_path: Path) -> None:
    image, mask = (load_volume(case["folder"] / f"{name}.nii.gz") for name in ("image", "mask"))
    files = []
    for k in range(3):
        path = save_volume(mask, tmp_path / f"{k}.nii", np.uint8)
        files.append((str(path), str(path)))
    kept = [warm.brain_of(image, mask, pair) for pair in files]
    assert len(warm._brains) == 2
    assert warm.brain_of(image, mask, files[2]) is kept[2] and warm.brain_of(image, mask, files[1]) is kept[1]


def test_networks_are_loaded_anew_for_other_weights(tmp_path: Path) -> None:
    one = warm.pose_networks(None, "cpu")
    assert warm.pose_networks(None, "cpu") is one
    folder = tmp_path / "weights"
    shutil.copytree(PACKAGED, folder)
    other = warm.pose_networks(folder, "cpu")
    assert other is not one and warm.pose_networks(folder, "cpu") is other
    (folder / CALIBRATION).unlink()  # so that nothing is calibrated
    assert warm.pose_networks(folder, "cpu") is not other
