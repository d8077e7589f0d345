"""The workflow of one image as a piece of other workflows: files in, files out, no BIDS needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from posepipe.interfaces.aligned import AlignedFiles, ConvertIfAsked, SlicesIfAsked
from posepipe.interfaces.apply import ApplyPose
from posepipe.interfaces.choice import ChooseTemplate
from posepipe.interfaces.figure import PoseFigure
from posepipe.interfaces.mask import BrainMask
from posepipe.interfaces.pose import InitialPose, PoseQuality, RefinePose
from posepipe.models.listing import LISTING
from posepipe.models.weights import PACKAGED

from .engine import Workflow
from .memory import memory_gb
from .methods import intro

INPUTS = ("image", "mask", "age", "contrast", "timing")
OUTPUTS = (
    "image2atlas_xfm", "atlas2image_xfm", "aligned", "reoriented", "mask", "synth", "slices", "template", "template_mask", "space",
    "sidecar", "qc", "qc_reasons", "confidence", "report", "out_files",
)  # fmt: skip
_TEMPLATE = ("template", "template_mask", "atlas", "cohort", "template_age", "template_contrast", "to_canonical")
VOXELS = 200**3
"""Voxels of an image that nodes ask memory for, where the caller does not say: a reconstruction of 16 cm a side at 0.8 mm."""


def init_single_image_align_wf(
    *,
    atlas: str = "auto",
    atlas_dirs: Sequence[str | Path] = (),
    mask: str = "auto",
    init: str = "auto",
    refine: str = "ants",
    convert: str = "auto",
    slices: str = "auto",
    age_policy: str = "error",
    weights: str | Path | None = None,
    device: str = "auto",
    omp_nthreads: int = 1,
    random_seed: int = 0,
    voxels: int = VOXELS,
    name: str = "single_image_align_wf",
) -> Workflow:
    """Build a workflow that aligns one image, for use inside another workflow.

    Age and contrast are inputs of a node: they may come from the nodes of another workflow, and the template is chosen when they are
    there. All files stay in the folders of the nodes, as Nipype has it; a data sink of the other workflow takes them from ``outputnode``.

    Workflow Graph
        inputnode → mask → template (→ conversion) → initial → refined (→ slices) → quality, apply, figure → files → outputnode

    Parameters
    ----------
    atlas : :obj:`str`
        name of an atlas, or ``auto``: by age and contrast
    atlas_dirs : :obj:`list`
        folders of atlases (TemplateFlow's layout), looked in first
    mask, init, refine, convert, slices, age_policy, device : :obj:`str`
        as the options of ``posepipe`` of these names
    weights : :class:`~pathlib.Path`
        folder of network weights that come before the package's
    omp_nthreads : :obj:`int`
        threads of a node
    random_seed : :obj:`int`
        seed of the voxels that the refinement samples
    voxels : :obj:`int`
        voxels of the largest image, from which the memory of the nodes is estimated
    name : :obj:`str`
        of the workflow

    Inputs
    ------
    image
        the image file (NIfTI or MGH)
    mask
        a brain mask on its grid; left undefined where there is none
    age
        weeks since the last menstrual period: a number, a text such as ``29+3``, or ``estimate``
    contrast
        ``T2w``, ``T1w`` or ``auto`` (by the file's name, else T2w); may be left undefined
    timing
        of a stack: ``SliceTiming``, ``SliceEncodingDirection``, ``SliceThickness`` of its JSON file; may be left undefined

    Outputs
    -------
    image2atlas_xfm
        ITK transform that resamples the image onto the atlas's grid: it maps points of the atlas to points of the image
    atlas2image_xfm
        its inverse, for what lies on the atlas's grid
    aligned
        the image on the template's grid, interpolated once
    reoriented
        the image's own voxels under a new affine, upright; not interpolated
    mask
        the brain mask that was used, on the image's grid
    synth, slices
        the T2-like image that stood in for a T1w image; poses of the slices of a stack (TSV); undefined where there are none
    template, template_mask, space
        the template, its mask, and the name of its space (``CRL+29``)
    sidecar
        JSON of the forward transform: pose, age, template, similarity, verdict, weights, versions
    qc, qc_reasons, confidence
        ``pass``, ``review`` or ``fail``; why; the estimated probability that the pose is within 15° (0 to 1)
    report
        fragment of HTML with the verdict and pictures, for a page
    out_files
        every file that was written

    Examples
    --------
    >>> workflow = init_single_image_align_wf(atlas="CRL", refine="torch")
    >>> workflow.inputs.inputnode.image = "recon.nii.gz"
    >>> workflow.inputs.inputnode.age = 29.4
    >>> sorted(node for node in workflow.list_node_names() if "node" not in node)  # doctest: +NORMALIZE_WHITESPACE
    ['conversion', 'figure', 'files', 'initial_pose', 'mask', 'quality', 'refinement', 'resampling', 'slices', 'template']
    """
    workflow = Workflow(name=name)
    workflow.__desc__, workflow.references = intro()
    networks = {"weights": str((Path(weights) if weights else PACKAGED) / LISTING)}
    torch = {"device": device, "torch_threads": omp_nthreads}

    def stage(interface: Any, name: str, like: str = "") -> pe.Node:
        return pe.Node(interface, name=name, n_procs=omp_nthreads, mem_gb=memory_gb(like or name, voxels))

    folders = [str(Path(folder).absolute()) for folder in atlas_dirs]
    choosing = {"atlas": atlas, "atlas_dirs": folders, "age_policy": age_policy, "convert": convert, "slices": slices}
    nodes = {
        "inputnode": pe.Node(IdentityInterface(fields=list(INPUTS)), name="inputnode"),
        "outputnode": pe.Node(IdentityInterface(fields=list(OUTPUTS)), name="outputnode"),
        "mask": stage(BrainMask(mode=mask, **networks, **torch), "mask"),
        "template": stage(ChooseTemplate(**choosing, **networks, **torch), "template", "initial_pose"),
        "conversion": stage(ConvertIfAsked(**networks, **torch), "conversion"),
        "initial": stage(InitialPose(method=init, **networks, **torch), "initial_pose"),
        "refined": stage(RefinePose(method=refine, seed=random_seed, **torch), "refinement"),
        "slices": stage(SlicesIfAsked(**networks, **torch), "slices"),
        "quality": stage(PoseQuality(**networks, torch_threads=omp_nthreads), "quality"),
        "apply": stage(ApplyPose(), "resampling"),
        "figure": stage(PoseFigure(torch_threads=omp_nthreads), "figure"),
        "files": stage(AlignedFiles(), "files", "outputs"),
    }
    workflow.connect([(nodes[a], nodes[b], fields) for a, b, fields in _edges()])
    return workflow


def _edges() -> list[tuple[str, str, list[Any]]]:
    """From which node to which, and what."""
    of_template = [(field, field) for field in _TEMPLATE]
    image, compared, mask = ("image", "in_file"), ("out_file", "in_file"), ("out_mask", "in_mask")
    made = [name for name in OUTPUTS if name not in {"template", "template_mask", "space"}]
    return [
        ("inputnode", "mask", [image, ("mask", "in_mask")]),
        ("inputnode", "template", [image, ("mask", "given_mask"), ("age", "age"), ("contrast", "contrast")]),
        ("mask", "template", [mask]),
        ("inputnode", "conversion", [image]),
        ("mask", "conversion", [mask]),
        ("template", "conversion", [("converted", "asked")]),
        ("template", "initial", of_template),
        ("conversion", "initial", [compared]),
        ("mask", "initial", [mask, ("out_record", "mask_record")]),
        ("template", "refined", of_template),
        ("conversion", "refined", [compared]),
        ("mask", "refined", [mask]),
        ("initial", "refined", [("out_pose", "in_pose")]),
        ("inputnode", "slices", [("timing", "timing")]),
        ("template", "slices", [*of_template, ("by_slices", "asked")]),
        ("conversion", "slices", [compared]),
        ("mask", "slices", [mask]),
        ("refined", "slices", [("out_pose", "in_pose"), ("out_record", "in_record")]),
        ("inputnode", "quality", [image]),
        ("template", "quality", [*of_template, *((f, f) for f in ("age", "estimated", "contrast", "volumes", "doubts"))]),
        ("mask", "quality", [mask, ("out_record", "mask_record")]),
        ("initial", "quality", [("out_pose", "initial_pose"), ("out_record", "initial_record")]),
        ("slices", "quality", [("out_pose", "refined_pose"), ("out_record", "refined_record")]),
        ("inputnode", "apply", [image]),
        ("template", "apply", [("template", "template")]),
        ("slices", "apply", [("out_pose", "in_pose")]),
        ("inputnode", "figure", [image]),
        ("template", "figure", of_template),
        ("mask", "figure", [mask]),
        ("conversion", "figure", [("out_synth", "in_synth")]),
        ("slices", "figure", [("out_pose", "in_pose")]),
        ("inputnode", "files", [("image", "image")]),
        ("template", "files", [("template", "template"), ("space", "space"), ("known", "known")]),
        ("mask", "files", [mask, ("out_record", "mask_record")]),
        ("conversion", "files", [("out_synth", "in_synth"), ("out_record", "convert_record")]),
        ("initial", "files", [("out_record", "initial_record")]),
        ("slices", "files", [
            ("out_pose", "in_pose"), ("out_record", "refined_record"), ("out_table", "slices"), ("slices_record", "slices_record"),
        ]),
        ("apply", "files", [("resampled", "resampled"), ("reoriented", "reoriented"), ("out_record", "apply_record")]),
        ("quality", "files", [("out_record", "quality_record")]),
        ("figure", "files", [("out_figure", "figure"), ("out_record", "figure_record")]),
        ("template", "outputnode", [(name, name) for name in ("template", "template_mask", "space")]),
        ("files", "outputnode", [(name, name) for name in made]),
    ]  # fmt: skip
