"""The workflow of one image: mask, pose, refinement, quality, resampling, outputs."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from posepipe.files import name_stem
from posepipe.interfaces.apply import ApplyPose
from posepipe.interfaces.base import DigestInputSpec
from posepipe.interfaces.contrast import ContrastConvert
from posepipe.interfaces.derivatives import Derivatives
from posepipe.interfaces.figure import PoseFigure
from posepipe.interfaces.mask import BrainMask
from posepipe.interfaces.pose import InitialPose, PoseQuality, RefinePose
from posepipe.interfaces.slices import SlicePoses
from posepipe.interfaces.template import template_inputs
from posepipe.models.listing import LISTING
from posepipe.models.weights import PACKAGED
from posepipe.plan import ImagePlan, planned_mask, uses_mask_network
from posepipe.settings import Settings

from .engine import Workflow
from .memory import memory_gb
from .methods import Methods, image_methods


def init_image_wf(*, plan: ImagePlan, settings: Settings) -> Workflow:
    """Build the workflow that aligns one image to its template.

    Workflow Graph
        inputnode → mask (→ conversion) → initial → refined (→ slices) → quality, apply, figure → derivatives

    For a stack, ``slices`` estimates a pose for each slice, which may change the stack's pose. A T1w image may be converted to T2-like
    contrast for the alignment; the resampled output is the image itself.

    Parameters
    ----------
    plan : :class:`~posepipe.plan.ImagePlan`
        the image, its age, its template and where its outputs go
    settings : :class:`~posepipe.settings.Settings`
        methods, device and seed

    Inputs
    ------
    image
        the image file
    mask
        a brain mask on its grid; left undefined where there is none

    Outputs
    -------
    sidecar
        sidecar of the forward transform, the last file written
    out_files
        every file written
    figure
        picture (WebP) of the image before and after
    """
    workflow = Workflow(name=image_wf_name(plan))
    workflow.__desc__, workflow.references = image_methods(Methods.planned(plan, settings))
    inputnode = pe.Node(IdentityInterface(fields=["image", "mask"]), name="inputnode")
    inputnode.inputs.image = str(plan.image.path)
    if plan.image.mask is not None and planned_mask(plan.image, settings.mask) == "given":
        inputnode.inputs.mask = str(plan.image.mask)
    outputnode = pe.Node(IdentityInterface(fields=["sidecar", "out_files", "figure"]), name="outputnode")

    _connect(workflow, inputnode, outputnode, _stages(plan, settings))
    for node in workflow._get_all_nodes():
        if isinstance(node.inputs, DigestInputSpec):
            node.inputs.digest = plan.parameters_hash
    return workflow


def _stages(plan: ImagePlan, settings: Settings) -> dict[str, pe.Node]:
    """The nodes of the stages by name; ``conversion`` and ``slices`` only if the image has them."""
    threads = settings.omp_nthreads or 1
    template = {**template_inputs(plan.choice.template), "torch_threads": threads}
    compute = {**template, "device": settings.device}
    networks = {"weights": str((settings.weights or PACKAGED) / LISTING)}
    finding: dict[str, Any] = {}
    if uses_mask_network(plan.image, settings.mask):
        finding = {"device": settings.device, "torch_threads": threads, **networks}
    sizes: dict[str, Any] = {} if plan.volumes is None else {"volumes": asdict(plan.volumes)}
    about = {"age": plan.age.weeks, "estimated": plan.age.error is not None, "contrast": plan.contrast, "doubts": list(plan.doubts)}
    stages: dict[str, Any] = {
        "mask": BrainMask(mode=settings.mask, **finding),
        "initial_pose": InitialPose(method=settings.init, **networks, **compute),
        "refinement": RefinePose(method=settings.refine, seed=settings.random_seed, **compute),
        "quality": PoseQuality(**about, **sizes, **networks, **template),
        "resampling": ApplyPose(template=template["template"]),
        "figure": PoseFigure(**template),
        "outputs": Derivatives(**_derivatives_inputs(plan, settings)),
    }
    if plan.converted:
        stages["conversion"] = ContrastConvert(device=settings.device, torch_threads=threads, **networks)
    if plan.timing is not None:
        stages["slices"] = SlicePoses(timing=dict(plan.timing), **networks, **compute)
    # the same number of threads for every stage, as linear algebra libraries use it too
    return {
        name: pe.Node(interface, name=name, n_procs=threads, mem_gb=memory_gb(name, plan.voxels)) for name, interface in stages.items()
    }


def _connect(workflow: Workflow, inputnode: pe.Node, outputnode: pe.Node, stages: dict[str, pe.Node]) -> None:
    """Connect the stages from the image to its pose, then the outputs."""
    mask, initial, refined = stages["mask"], stages["initial_pose"], stages["refinement"]
    figure, derivatives = stages["figure"], stages["outputs"]
    given: list[Any] = [("image", "in_file")]
    aligned: tuple[Any, list[Any]] = (inputnode, given)
    convert = stages.get("conversion")
    if convert is not None:
        aligned = (convert, [("out_file", "in_file")])
        workflow.connect([
            (inputnode, convert, given),
            (mask, convert, [("out_mask", "in_mask")]),
            (convert, figure, [("out_file", "in_synth")]),
            (convert, derivatives, [("out_file", "in_synth"), ("out_record", "convert_record")]),
        ])  # fmt: skip
    final = refined
    slices = stages.get("slices")
    if slices is not None:
        workflow.connect([
            (aligned[0], slices, aligned[1]),
            (mask, slices, [("out_mask", "in_mask")]),
            (refined, slices, [("out_pose", "in_pose"), ("out_record", "in_record")]),
            (slices, derivatives, [("out_table", "slices"), ("slices_record", "slices_record")]),
        ])  # fmt: skip
        final = slices
    workflow.connect([
        (inputnode, mask, [*given, ("mask", "in_mask")]),
        (aligned[0], initial, aligned[1]),
        (aligned[0], refined, aligned[1]),
        (mask, initial, [("out_mask", "in_mask"), ("out_record", "mask_record")]),
        (mask, refined, [("out_mask", "in_mask")]),
        (initial, refined, [("out_pose", "in_pose")]),
    ])  # fmt: skip
    _connect_outputs(workflow, inputnode, outputnode, stages, final)


def _connect_outputs(
    workflow: Workflow, inputnode: pe.Node, outputnode: pe.Node, stages: dict[str, pe.Node], final: pe.Node
) -> None:
    """Connect verdict, resampling, figure and outputs; ``final`` is the node whose pose they use."""
    mask, initial, quality = stages["mask"], stages["initial_pose"], stages["quality"]
    apply, figure, derivatives = stages["resampling"], stages["figure"], stages["outputs"]
    given = [("image", "in_file")]
    workflow.connect([
        (inputnode, quality, given),
        (inputnode, apply, given),
        (inputnode, figure, given),
        (mask, quality, [("out_mask", "in_mask"), ("out_record", "mask_record")]),
        (initial, quality, [("out_pose", "initial_pose"), ("out_record", "initial_record")]),
        (final, quality, [("out_pose", "refined_pose"), ("out_record", "refined_record")]),
        (final, apply, [("out_pose", "in_pose")]),
        (mask, figure, [("out_mask", "in_mask")]),
        (final, figure, [("out_pose", "in_pose")]),
        (mask, derivatives, [("out_mask", "in_mask"), ("out_record", "mask_record")]),
        (initial, derivatives, [("out_record", "initial_record")]),
        (final, derivatives, [("out_pose", "in_pose"), ("out_record", "refined_record")]),
        (apply, derivatives, [
            ("resampled", "resampled"), ("reoriented", "reoriented"), ("out_record", "apply_record"),
        ]),
        (quality, derivatives, [("out_record", "quality_record")]),
        # the figure is an input of the last node: the page can be written as soon as the outputs exist
        (figure, derivatives, [("out_figure", "figure"), ("out_record", "figure_record")]),
        (derivatives, outputnode, [("sidecar", "sidecar"), ("out_files", "out_files"), ("figure", "figure")]),
    ])  # fmt: skip


def image_wf_name(plan: ImagePlan) -> str:
    """Name of the workflow of an image: its file name with the characters that Nipype allows."""
    stem = name_stem(plan.image.path)
    return re.sub(r"\W", "_", stem) + "_wf"


def _derivatives_inputs(plan: ImagePlan, settings: Settings) -> dict[str, Any]:
    template, names = plan.choice.template, plan.names
    outputs = (
        "forward",
        "backward",
        "resampled",
        "reoriented",
        "mask",
        *(("synth",) if plan.converted else ()),
        *(("slices",) if plan.timing is not None else ()),
    )
    labels = {
        one.kind: {"file": str(one.path), "names": one.table() if one.names else "", "request": dict(plan.label_request[one.kind])}
        for one in plan.labels
    }
    return {
        "out_dir": str(settings.out_dir),
        "out_files": {name: str(getattr(names, name)) for name in outputs} | {kind: str(names.labels(kind)) for kind in labels},
        "image": str(plan.image.path),
        "template": str(template.image),
        "xfm_formats": list(plan.formats),
        "labels": labels,
        "known": {
            "Sources": list(plan.sources),
            "Age": plan.age.weeks,
            "AgeSource": plan.age.source,
            **({} if plan.age.error is None else {"AgeStandardError": plan.age.error}),
            "Atlas": template.atlas,
            "Cohort": template.cohort,
            "Contrast": plan.contrast,
            "ParametersHash": plan.parameters_hash,
            "SpatialReference": template.bids_uri,
            "TemplateContrast": template.contrast,
            "TemplateChoice": plan.choice.reason,
            "TemplateFiles": dict(plan.template_files),
            "Warnings": list(plan.warnings),
        },
    }
