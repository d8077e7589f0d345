"""The workflow of an image at several atlases, and at lower levels: what is made once, and what is not made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from posepipe.workflows.image import image_wf_name
from posepipe.workflows.session import init_session_wf

from posepipe.atlas import Choice, Template
from posepipe.bids import Age, InputImage, OutputNames
from posepipe.plan import ImagePlan, SessionPlan
from posepipe.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "bids", tmp_path / "out", tmp_path / "work", "run1", refine="torch", atlas=("CRL", "Serag", "BCP"))


def make_image(folder: Path, name: str, *, suffix: str = "T2w", done: bool = False) -> ImagePlan:
    """A planned image at its first atlas; its files are there, but hold nothing."""
    relative = Path(f"sub-{name}/anat/sub-{name}_{suffix}.nii.gz")
    files = [folder / "bids" / relative, folder / "template.nii.gz", folder / "mask.nii.gz"]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    image = InputImage(files[0], relative, {"sub": name}, suffix)
    choice = Choice(Template("CRL", "29", 29.0, "T2w", *files[1:]), "T2w", "near")
    names = OutputNames(folder / "out", image, ("CRL", "29"))
    return ImagePlan(image, names, Age(29.1, "--age"), choice, suffix, (image.source_uri,), {}, "hash", done)


def at(plan: ImagePlan, atlas: str) -> ImagePlan:
    """The same image at a further atlas."""
    template = replace(plan.choice.template, atlas=atlas)
    names = replace(plan.names, template_space=(atlas, "29"), further=True)
    return replace(plan, choice=Choice(template, "T2w", "near"), names=names, first=plan.choice.template)


def working(plan: SessionPlan, settings: Settings, node: str) -> list[str]:
    """Names of the image workflows in which the node of this name does work, in order."""
    found = []
    for one in init_session_wf(plan=plan, settings=settings)._graph.nodes():
        inner = one.get_node(node)
        if inner is not None and type(inner.interface).__name__ != "IdentityInterface":
            found.append(one.name)
    return found


def test_mask_and_conversion_are_made_once_and_poses_at_each_atlas(tmp_path: Path, settings: Settings) -> None:
    plain = make_image(tmp_path, "01", suffix="T1w")
    plans = (plain, replace(at(plain, "Serag"), converted=True), replace(at(plain, "BCP"), converted=True))
    first, second, third = (image_wf_name(plan) for plan in plans)
    session = SessionPlan("01", None, plans)
    assert working(session, settings, "mask") == [first]
    assert working(session, settings, "conversion") == [second]
    assert working(session, settings, "initial_pose") == working(session, settings, "outputs") == [first, second, third]
    graph = init_session_wf(plan=session, settings=settings)._graph
    joined = {(one.name, two.name): data["connect"] for one, two, data in graph.edges(data=True)}
    masks = [("mask.out_mask", "mask.out_mask"), ("mask.out_record", "mask.out_record")]
    assert joined == {
        (first, second): masks, (first, third): masks,
        (second, third): [("conversion.out_file", "conversion.out_file"), ("conversion.out_record", "conversion.out_record")],
    }  # fmt: skip


def test_what_is_done_at_one_atlas_does_no_work_for_another(tmp_path: Path, settings: Settings) -> None:
    plain = make_image(tmp_path, "01", done=True)
    further = replace(at(plain, "Serag"), done=False)
    assert working(SessionPlan("01", None, (plain, further)), settings, "mask") == [image_wf_name(further)]


def test_images_with_masks_of_their_own_share_none(tmp_path: Path, settings: Settings) -> None:
    """As where the mask at one atlas is that of an earlier run."""
    plain = make_image(tmp_path, "01")
    further = replace(at(plain, "Serag"), image=replace(plain.image, mask=tmp_path / "mask.nii.gz"))
    others = make_image(tmp_path, "02")
    plans = (plain, further, others)
    assert working(SessionPlan("01", None, plans), settings, "mask") == [image_wf_name(plan) for plan in plans]


@pytest.mark.parametrize(("level", "made"), [("transforms", set()), ("header", {"reoriented"}), ("full", {"reoriented", "resampled"})])
def test_images_that_are_not_written_are_not_made(tmp_path: Path, settings: Settings, level: str, made: set[str]) -> None:
    plan = make_image(tmp_path, "01")
    (workflow,) = init_session_wf(plan=SessionPlan("01", None, (plan,)), settings=replace(settings, level=level))._graph.nodes()
    into = {edge for one, two, data in workflow._graph.edges(data=True) if two.name == "outputs" for _, edge in data["connect"]}
    assert into & {"reoriented", "resampled"} == made
    node = workflow.get_node("resampling")
    assert (node is not None) == bool(made) and (node is None or node.inputs.resample == (level == "full"))
    written = set(workflow.get_node("outputs").inputs.out_files)
    assert written == {"forward", "backward"} | made | ({"mask"} if level == "full" else set())
