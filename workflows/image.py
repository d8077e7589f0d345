"""The workflow of one image: mask, pose, refinement, quality, resampling, outputs."""

from __future__ import annotations

import re
from collections.abc import Collection
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
from posepipe.settings import FULL, TRANSFORMS, Settings

from .engine import Workflow
from .memory import memory_gb
from .methods import Methods, image_methods

FROM_ANOTHER = {"mask": ("out_mask", "out_record"), "conversion": ("out_file", "out_record")}
"""Nodes whose results do not depend on the atlas → their outputs. At a further atlas of the same image, nodes of these names hand on what
the first workflow has made (:func:`~posepipe.workflows.session.init_session_wf` connects them)."""


def init_image_wf(*, plan: ImagePlan, settings: Settings, given: Collection[str] = ()) -> Workflow:
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
    given
        names of nodes (:data:`FROM_ANOTHER`) that do no work, as the workflow of the same image at another atlas does it

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
    stages = _Stages(plan, settings, given=given)
    stages.find()
    stages.judge()
    stages.write()
    return stages.workflow


def init_alone_wf(*, plan: ImagePlan, settings: Settings, given: Collection[str] = ()) -> Workflow:
    """Build the workflow that finds the pose which an image has alone, and writes nothing: the first part of :func:`init_image_wf`.

    Its name, and with it the folder of its work, is that of the whole workflow.

    Workflow Graph
        inputnode → mask (→ conversion) → initial → refined (→ slices) → quality

    Parameters
    ----------
    As for :func:`init_image_wf`.

    Inputs
    ------
    As for :func:`init_image_wf`.

    Outputs
    -------
    Of ``foundnode``, :data:`FOUND_FIELDS`: image, as it was aligned, mask, initial pose, pose, conversion and slices if there are any, and
    the records of these stages; of ``quality``, its record.
    """
    stages = _Stages(plan, settings, digest=plan.alone_hash, given=given)
    stages.find()
    stages.judge()
    return stages.workflow


def init_written_wf(*, plan: ImagePlan, settings: Settings) -> Workflow:
    """Build the workflow that judges and writes an image at a pose that it shares with others of its session.

    Workflow Graph
        foundnode → quality, apply, figure → derivatives

    Parameters
    ----------
    As for :func:`init_image_wf`.

    Inputs
    ------
    Of ``foundnode``, :data:`FOUND_FIELDS`; ``pose`` and ``pose_record`` are the session's, ``session_record`` is its record.

    Outputs
    -------
    As for :func:`init_image_wf`.
    """
    stages = _Stages(plan, settings, name=written_wf_name(plan))
    stages.judge()
    stages.write()
    return stages.workflow


FOUND_FIELDS = (
    "image", "aligned", "mask", "mask_record", "initial_pose", "initial_record", "pose", "pose_record", "synth", "convert_record", "slices",
    "slices_record", "session_record",
)  # fmt: skip
"""What is known of an image when its pose is found: fields of ``foundnode``."""


class _Stages:
    """Adds the nodes of an image to its ``workflow``: those that :meth:`find` a pose, that :meth:`judge` it, and that :meth:`write` the
    outputs. The latter two take what they need from ``foundnode``."""

    def __init__(
        self, plan: ImagePlan, settings: Settings, *, name: str = "", digest: str = "", given: Collection[str] = ()
    ) -> None:
        self._given = given
        self._plan, self._settings, self._digest = plan, settings, digest or plan.parameters_hash
        self.workflow = Workflow(name=name or image_wf_name(plan))
        self.workflow.__desc__, self.workflow.references = image_methods(Methods.planned(plan, settings))
        self._found = pe.Node(IdentityInterface(fields=list(FOUND_FIELDS)), name="foundnode")
        self._threads = settings.omp_nthreads or 1
        self._torch = {"device": settings.device, "torch_threads": self._threads}
        self._template = {**template_inputs(plan.choice.template), "torch_threads": self._threads}
        self._networks = {"weights": str((settings.weights or PACKAGED) / LISTING)}

    def _stage(self, interface: Any, name: str) -> pe.Node:
        if name in self._given:
            return pe.Node(IdentityInterface(fields=list(FROM_ANOTHER[name])), name=name)
        if isinstance(interface.inputs, DigestInputSpec):
            interface.inputs.digest = self._digest
        # the same number for every stage, as linear algebra libraries use it too
        return pe.Node(interface, name=name, n_procs=self._threads, mem_gb=memory_gb(name, self._plan.voxels))

    def find(self) -> None:
        """Mask to pose."""
        plan, settings, compute = self._plan, self._settings, {**self._template, **self._torch}
        inputnode = pe.Node(IdentityInterface(fields=["image", "mask"]), name="inputnode")
        inputnode.inputs.image = str(plan.image.path)
        if plan.image.mask is not None and planned_mask(plan.image, settings.mask) == "given":
            inputnode.inputs.mask = str(plan.image.mask)
        finding = {**self._torch, **self._networks} if uses_mask_network(plan.image, settings.mask) else {}
        mask = self._stage(BrainMask(mode=settings.mask, **finding), "mask")
        initial = self._stage(InitialPose(method=settings.init, **self._networks, **compute), "initial_pose")
        refined = self._stage(RefinePose(method=settings.refine, seed=settings.random_seed, **compute), "refinement")
        aligned, image = inputnode, "image"
        if plan.converted:
            aligned, image = self._stage(ContrastConvert(**self._torch, **self._networks), "conversion"), "out_file"
            made = [(inputnode, aligned, [("image", "in_file")]), (mask, aligned, [("out_mask", "in_mask")])]
            self.workflow.connect([
                *([] if "conversion" in self._given else made),
                (aligned, self._found, [("out_file", "synth"), ("out_record", "convert_record")]),
            ])  # fmt: skip
        final = refined
        if plan.timing is not None:
            final = self._stage(SlicePoses(timing=dict(plan.timing), **self._networks, **compute), "slices")
            self.workflow.connect([
                (aligned, final, [(image, "in_file")]),
                (mask, final, [("out_mask", "in_mask")]),
                (refined, final, [("out_pose", "in_pose"), ("out_record", "in_record")]),
                (final, self._found, [("out_table", "slices"), ("slices_record", "slices_record")]),
            ])  # fmt: skip
        self.workflow.connect([
            *([] if "mask" in self._given else [(inputnode, mask, [("image", "in_file"), ("mask", "in_mask")])]),
            (aligned, initial, [(image, "in_file")]),
            (aligned, refined, [(image, "in_file")]),
            (mask, initial, [("out_mask", "in_mask"), ("out_record", "mask_record")]),
            (mask, refined, [("out_mask", "in_mask")]),
            (initial, refined, [("out_pose", "in_pose")]),
            (inputnode, self._found, [("image", "image")]),
            (aligned, self._found, [(image, "aligned")]),
            (mask, self._found, [("out_mask", "mask"), ("out_record", "mask_record")]),
            (initial, self._found, [("out_pose", "initial_pose"), ("out_record", "initial_record")]),
            (final, self._found, [("out_pose", "pose"), ("out_record", "pose_record")]),
        ])  # fmt: skip

    def judge(self) -> None:
        """The verdict on the pose."""
        plan = self._plan
        sizes: dict[str, Any] = {} if plan.volumes is None else {"volumes": asdict(plan.volumes)}
        about = {"age": plan.age.weeks, "estimated": plan.age.error is not None, "contrast": plan.contrast, "doubts": list(plan.doubts)}
        self._quality = self._stage(PoseQuality(**about, **sizes, **self._networks, **self._template), "quality")
        self.workflow.connect([
            (self._found, self._quality, [
                ("image", "in_file"), ("mask", "in_mask"), ("mask_record", "mask_record"), ("initial_pose", "initial_pose"),
                ("initial_record", "initial_record"), ("pose", "refined_pose"), ("pose_record", "refined_record"),
            ]),
        ])  # fmt: skip

    def write(self) -> None:
        """Resampling to outputs."""
        plan, level = self._plan, self._settings.level
        outputnode = pe.Node(IdentityInterface(fields=["sidecar", "out_files", "figure"]), name="outputnode")
        figure = self._stage(PoseFigure(**self._template), "figure")
        derivatives = self._stage(Derivatives(**_derivatives_inputs(plan, self._settings)), "outputs")
        more = [
            *([("synth", "in_synth"), ("convert_record", "convert_record")] if plan.converted else []),
            *([("slices", "slices"), ("slices_record", "slices_record")] if plan.timing is not None else []),
            *([("session_record", "session_record")] if plan.alone_hash else []),
        ]
        if level != TRANSFORMS:
            apply = self._stage(ApplyPose(template=self._template["template"], resample=level == FULL), "resampling")
            made = ["resampled", "reoriented"] if level == FULL else ["reoriented"]
            self.workflow.connect([
                (self._found, apply, [("image", "in_file"), ("pose", "in_pose")]),
                (apply, derivatives, [*((name, name) for name in made), ("out_record", "apply_record")]),
            ])  # fmt: skip
        self.workflow.connect([
            (self._found, figure, [
                ("image", "in_file"), ("mask", "in_mask"), ("pose", "in_pose"), *([("synth", "in_synth")] if plan.converted else []),
            ]),
            (self._found, derivatives, [
                ("pose", "in_pose"), ("mask", "in_mask"), ("mask_record", "mask_record"), ("initial_record", "initial_record"),
                ("pose_record", "refined_record"), *more,
            ]),
            (self._quality, derivatives, [("out_record", "quality_record")]),
            # the figure is an input of the last node: the page can be written as soon as the outputs exist
            (figure, derivatives, [("out_figure", "figure"), ("out_record", "figure_record")]),
            (derivatives, outputnode, [("sidecar", "sidecar"), ("out_files", "out_files"), ("figure", "figure")]),
        ])  # fmt: skip


def image_wf_name(plan: ImagePlan) -> str:
    """Name of the workflow of an image: its file name, and the space of a further atlas, with the characters that Nipype allows."""
    stem = name_stem(plan.image.path) + (f"_to_{plan.space}" if plan.names.further else "")
    return re.sub(r"\W", "_", stem) + "_wf"


def written_wf_name(plan: ImagePlan) -> str:
    """Name of the workflow that writes an image whose pose is its session's."""
    return image_wf_name(plan) + "_written"


def _derivatives_inputs(plan: ImagePlan, settings: Settings) -> dict[str, Any]:
    template, names = plan.choice.template, plan.names
    full = settings.level == FULL
    outputs = (
        "forward",
        "backward",
        *(("resampled",) if full else ()),
        *(() if settings.level == TRANSFORMS else ("reoriented",)),
        *(("mask",) if full else ()),
        *(("synth",) if plan.converted and full else ()),
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
        "level": settings.level,
        "further": names.further,
        **({"first": template_inputs(plan.first)} if plan.first is not None else {}),
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
