"""A small phantom, and the interfaces run on it one after another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from posepipe.atlas import Template
from posepipe.geometry import Rigid
from posepipe.imaging.volume import save_volume
from posepipe.interfaces.apply import ApplyPose
from posepipe.interfaces.figure import PoseFigure
from posepipe.interfaces.mask import BrainMask
from posepipe.interfaces.pose import InitialPose, PoseQuality, RefinePose
from posepipe.interfaces.template import template_inputs
from posepipe.phantom import brain_labels, brain_mask, render, subject

WEEK, SPACING = 28.0, 2.0


@pytest.fixture(scope="module", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from posepipe.workflows.plugin import quiet_nipype

    quiet_nipype("CRITICAL")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A template and a subject turned by a known pose, on disk."""
    folder = tmp_path_factory.mktemp("case")
    labels = brain_labels(WEEK, SPACING)
    save_volume(render(labels, WEEK, "T2w"), folder / "template.nii.gz", np.int16)
    save_volume(brain_mask(labels), folder / "template_mask.nii.gz")
    pose = Rigid.from_rotvec([0.4, -1.1, 0.7], [5.0, -8.0, 3.0])
    image, mask, _ = subject(WEEK, rng=np.random.default_rng(3), pose=pose, contrast="T2w", spacing=SPACING, surroundings=False)
    save_volume(image, folder / "image.nii.gz", np.int16)
    save_volume(mask, folder / "mask.nii.gz")
    canonical = np.eye(3)[[1, 0, 2]] * [1, 1, -1]
    template = Template("Phantom", "28", WEEK, "T2w", folder / "template.nii.gz", folder / "template_mask.nii.gz", None, canonical)
    return {"folder": folder, "pose": pose, "template": template}


@pytest.fixture(scope="module")
def results(case: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Outputs of each stage, each run in a folder of its own on what the stages before it gave."""
    image = str(case["folder"] / "image.nii.gz")
    template = template_inputs(case["template"])

    def run(interface: Any) -> Any:
        return interface.run(cwd=str(tmp_path_factory.mktemp("node"))).outputs

    compute = {**template, "in_file": image, "device": "cpu"}
    mask = run(BrainMask(in_file=image, in_mask=str(case["folder"] / "mask.nii.gz")))
    initial = run(InitialPose(in_mask=mask.out_mask, method="search", **compute))
    refined = run(RefinePose(in_mask=mask.out_mask, in_pose=initial.out_pose, method="torch", **compute))
    quality = run(
        PoseQuality(
            in_mask=mask.out_mask, mask_record=mask.out_record, initial_pose=initial.out_pose,
            initial_record=initial.out_record, refined_pose=refined.out_pose, refined_record=refined.out_record,
            age=WEEK, **template,
        )
    )  # fmt: skip
    applied = run(ApplyPose(in_file=image, template=template["template"], in_pose=refined.out_pose))
    figure = run(PoseFigure(in_file=image, in_mask=mask.out_mask, in_pose=refined.out_pose, **template))
    found = {"mask": mask, "initial": initial, "refined": refined, "quality": quality}
    return {**found, "apply": applied, "figure": figure}
