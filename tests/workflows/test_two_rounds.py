"""The workflows of a session whose images get one pose: poses alone first, then what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from planned_images import make_image
from posepipe.workflows.base import init_posepipe_wf

from posepipe.plan import Plan, SessionPlan
from posepipe.settings import Settings


def test_images_that_get_one_pose_are_found_first_and_written_in_a_second_round(tmp_path: Path, settings: Settings) -> None:
    both = [replace(make_image(tmp_path, "01", suffix=suffix), parameters_hash=suffix, alone_hash="alone") for suffix in ("T1w", "T2w")]
    plan = Plan((SessionPlan("01", None, tuple(both)), SessionPlan("02", None, (make_image(tmp_path, "02"),))))
    first, second = (init_posepipe_wf(plan=plan, settings=settings, found=found) for found in (None, {one.names.forward for one in both}))
    writes = {name for name in first.list_node_names() if name.endswith(".outputs")}
    assert writes == {"sub_02_wf.sub_02_T2w_wf.outputs"}
    nodes = {name: second.get_node(name) for name in second.list_node_names()}
    assert all(name.startswith("sub_01_wf.") for name in nodes)
    for suffix in ("T1w", "T2w"):
        found, written = (f"sub_01_wf.sub_01_{suffix}_wf{ending}." for ending in ("", "_written"))
        assert nodes[f"{found}quality"].inputs.digest == "alone" and nodes[f"{written}quality"].inputs.digest == suffix
        assert nodes[f"{written}outputs"].inputs.digest == suffix and f"{found}outputs" not in nodes
        # what was computed in the first round is computed in the same folder
        assert first.get_node(f"{found}refinement").inputs.get_hashval()[1] == nodes[f"{found}refinement"].inputs.get_hashval()[1]
    assert nodes["sub_01_wf.together_CRL_29"].inputs.names == [one.image.source_uri for one in both]
    alone = init_posepipe_wf(plan=plan, settings=settings, found={both[0].names.forward})
    assert not any("T2w" in name for name in alone.list_node_names())
    assert "given one pose" in first.visit_desc() and "given one pose" in second.visit_desc()
