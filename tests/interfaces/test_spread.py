"""``SessionSpread``: how far the poses of a session's images are apart, and what the node that gives them one pose tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posepipe.bids import read_json, write_json
from posepipe.geometry import Rigid
from posepipe.imaging.header import UNKNOWN
from posepipe.interfaces.session import _excluded, about_session
from posepipe.interfaces.spread import pose_alone, record_spread
from posepipe.refinement.refine import Refined

CENTER = [0.0, -20.0, 10.0]


def turned(degrees: float, mm: float = 0.0) -> Rigid:
    return Rigid.about(Rigid.from_rotvec([0, 0, np.radians(degrees)]).rotation, CENTER, np.add(CENTER, [mm, 0, 0]))


@pytest.fixture
def write(tmp_path: Path):
    """A function that writes the sidecar of an image of the session; its path."""

    def one(name: str, pose: Rigid, **more: Any) -> Path:
        known = {
            "Sources": [f"bids:raw:{name}"], "Atlas": "CRL", "Cohort": "29", "RotationMatrix": pose.rotation,
            "TranslationMM": pose.translation, "BrainCenterMM": CENTER, "QC": "pass", "QCReasons": [], "ParametersHash": "x",
        }  # fmt: skip
        return write_json(tmp_path / f"{name}.json", known | more)

    return one


def spreads(*paths: Path) -> list[tuple[float, float, list[str]] | None]:
    found = [read_json(path) for path in paths]
    keys = ("SessionSpread", "SessionSpreadMM", "SessionSpreadImages")
    return [tuple(one[key] for key in keys) if "SessionSpread" in one else None for one in found]


def test_each_image_has_the_largest_difference_to_any_other(write):
    paths = [write("a", turned(0)), write("b", turned(2, 1)), write("c", turned(7))]
    assert record_spread(paths) == paths
    a, b, c = spreads(*paths)
    assert a[:2] == pytest.approx((7, 1)) and b[:2] == pytest.approx((5, 1)) and c[:2] == pytest.approx((7, 1))
    assert a[2] == ["bids:raw:b", "bids:raw:c"]
    assert list(read_json(paths[0]))[-4:] == ["ParametersHash", "SessionSpread", "SessionSpreadMM", "SessionSpreadImages"]


def test_a_second_time_nothing_is_written(write):
    paths = [write("a", turned(0)), write("b", turned(2.3456789, 1.1))]
    record_spread(paths)
    before = [path.read_bytes() for path in paths]
    assert record_spread(paths) == []
    assert [path.read_bytes() for path in paths] == before


def test_failed_poses_and_other_frames_are_not_compared_with(write):
    paths = [
        write("a", turned(0)), write("b", turned(3)), write("failed", turned(90), QC="fail"), write("older", turned(50), Cohort="30"),
        write("nowhere", turned(60), QC="review", QCReasons=[UNKNOWN]), write("former", turned(70), BrainCenterMM=None),
    ]  # fmt: skip
    record_spread(paths)
    a, b, failed, *others = spreads(*paths)
    assert a[0] == pytest.approx(3) and b[0] == pytest.approx(3)
    assert failed[0] == pytest.approx(90)  # it is told how far off it is
    assert others == [None, None, None]


def test_it_is_of_the_poses_found_alone(write):
    before = {"RotationMatrix": turned(4).rotation, "TranslationMM": turned(4).translation}
    paths = [write("a", turned(2), SessionPose={"PoseBefore": before}), write("b", turned(2))]
    assert pose_alone(read_json(paths[0])).is_close(turned(4))
    record_spread(paths)
    assert spreads(*paths)[0][0] == pytest.approx(2)


def test_one_image_is_left_as_it_is_and_a_value_that_no_longer_holds_is_taken_away(write):
    paths = [write("a", turned(0)), write("b", turned(3))]
    record_spread(paths)
    assert record_spread(paths[:1]) == [] and spreads(paths[0])[0] is not None  # a run of this image alone
    write("b", turned(3), QC="fail")
    assert paths[0] in record_spread(paths)
    assert spreads(paths[0]) == [None]


def test_sidecars_that_are_gone_or_broken_do_not_stop_the_others(write, tmp_path):
    paths = [write("a", turned(0)), write("b", turned(3)), tmp_path / "gone.json", write("c", turned(1), RotationMatrix="?")]
    assert record_spread(paths[:3]) == paths[:2]
    (tmp_path / "broken.json").write_text("{")
    record_spread([*paths, tmp_path / "broken.json"])
    assert read_json(paths[3])["RotationMatrix"] == "?"


def refined(pose: Rigid, method: str = "torch") -> Refined:
    return Refined(pose, method, {})


def test_what_keeps_an_image_apart():
    good = {"qc": "pass", "reasons": []}
    assert _excluded(refined(turned(0)), good) == ""
    assert _excluded(refined(turned(0)), {"qc": "fail", "reasons": []}) == "verdict fail"
    assert "header" in _excluded(refined(turned(0)), {"qc": "review", "reasons": [UNKNOWN]})
    assert "slices" in _excluded(refined(turned(0), "slices"), good)
    assert _excluded(refined(turned(0)), {"qc": "review", "reasons": ["other"]}) == ""


def test_what_a_sidecar_tells_of_the_session():
    names = ["a", "b", "turned", "failed"]
    alone = [refined(turned(d)) for d in (0, 2, 30, 1)]
    final = [refined(turned(1)), refined(turned(1)), alone[2], alone[3]]
    group, excluded = {0: 0, 1: 0, 2: 1}, {3: "verdict fail"}
    told = [about_session(i, names, alone, final, group, excluded, CENTER) for i in range(4)]
    assert [one["SharedBy"] for one in told] == [["a", "b"], ["a", "b"], ["turned"], ["failed"]]
    assert [(one["Image"], one["Reason"]) for one in told[0]["NotSharedBy"]] == [
        ("turned", "the head turned or moved between them"), ("failed", "verdict fail"),
    ]  # fmt: skip
    assert told[0]["NotSharedBy"][0]["Degrees"] == pytest.approx(30)
    assert {one["Reason"] for one in told[3]["NotSharedBy"]} == {"this image: verdict fail"}
    assert told[1]["MovedDegrees"] == pytest.approx(1) and told[2]["MovedDegrees"] == 0
    np.testing.assert_allclose(told[1]["PoseBefore"]["RotationMatrix"], turned(2).rotation)
