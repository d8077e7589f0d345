"""The workflow of one session: its images side by side, and its own log folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from copy import deepcopy
from pathlib import Path

from nipype.interfaces.utility import Merge
from nipype.pipeline import engine as pe

from posepipe.interfaces.session import SessionPose
from posepipe.interfaces.template import template_inputs
from posepipe.plan import ImagePlan, SessionPlan
from posepipe.settings import Settings

from .engine import Workflow, execution_config
from .image import FOUND_FIELDS, FROM_ANOTHER, init_alone_wf, init_image_wf, init_written_wf
from .memory import memory_gb


def init_session_wf(*, plan: SessionPlan, settings: Settings, found: Collection[Path] | None = None) -> Workflow:
    """Build the workflow of the pending images of one participant and session.

    The images are independent: a failure does not affect the others. Of an image that is aligned to several atlases, the workflow of the
    first masks and converts it for all. The session's page is not a node, as it must also be
    written if an image has failed (:mod:`posepipe.cli.progress`). For the same reason images that get one pose (``--session-pose
    consistent``) take two rounds, each a workflow of its own: the first finds the pose of each image alone; the second has only those for
    which that succeeded, takes these poses from the work folder, and goes on to the outputs.

    Workflow Graph
        one image workflow for each image, unconnected, or several, one for each atlas, the first connected to the others; in the second
        round a node ``together_SPACE`` between the images of a template

    Parameters
    ----------
    plan : :class:`~posepipe.plan.SessionPlan`
        the session's images
    settings : :class:`~posepipe.settings.Settings`
        of the run; crash files go to ``log/<run id>`` of the session
    found
        for the second round: the images whose pose alone was found; None for the first

    Inputs
    ------
    None; every image workflow has its files set.

    Outputs
    -------
    None; the files are written to the output dataset.
    """
    workflow = Workflow(name=session_wf_name(plan))
    workflow.config = execution_config(
        crashdump_dir=plan.log_dir(settings.out_dir, settings.run_id),
        stop_on_first_crash=settings.stop_on_first_crash,
    )
    parts = _Parts(workflow, settings)
    if found is None:
        for image in plan.pending:
            parts.add(init_alone_wf if image.alone_hash else init_image_wf, image)
    else:
        for space, images in plan.together.items():
            some = [image for image in images if image.names.forward in found]
            if some:
                _connect_together(workflow, together_name(space), some, settings, parts)
    for node in workflow._get_all_nodes():
        node.config = deepcopy(workflow.config)
    return workflow


class _Parts:
    """Adds the workflows of images to that of their session; what does not depend on the atlas is done once for each image and mask."""

    def __init__(self, workflow: Workflow, settings: Settings) -> None:
        self._workflow, self._settings = workflow, settings
        self._makers: dict[tuple[Path, Path | None, str], Workflow] = {}

    def add(self, build: Callable[..., Workflow], image: ImagePlan) -> Workflow:
        """The workflow that ``build`` makes of ``image``."""
        shared = [name for name in FROM_ANOTHER if name == "mask" or image.converted]
        key = (image.image.path, image.image.mask)
        given = [name for name in shared if (*key, name) in self._makers]
        one = build(plan=image, settings=self._settings, given=given)
        self._workflow.add_nodes([one])
        for name in shared:
            maker = self._makers.setdefault((*key, name), one)
            if name in given:
                self._workflow.connect([(maker, one, [(f"{name}.{out}", f"{name}.{out}") for out in FROM_ANOTHER[name]])])
        return one


_LISTS = {
    "foundnode.aligned": "in_files",
    "foundnode.mask": "in_masks",
    "foundnode.pose": "in_poses",
    "foundnode.pose_record": "in_records",
    "quality.out_record": "quality_records",
}
"""Output of the workflow that finds an image's pose → input of :class:`~posepipe.interfaces.session.SessionPose`."""
_RESULTS = {"out_poses": "pose", "out_records": "pose_record", "session_records": "session_record"}
"""Output of it → field of ``foundnode`` of the workflow that writes an image."""


def _connect_together(workflow: Workflow, name: str, images: Sequence[ImagePlan], settings: Settings, found: _Parts) -> None:
    """Add ``images`` with a node of this ``name`` between finding their poses and writing them."""
    threads = settings.omp_nthreads or 1
    interface = SessionPose(
        names=[image.sources[0] for image in images], templates=[template_inputs(image.choice.template) for image in images],
        device=settings.device, torch_threads=threads, digest=_digest(images),
    )  # fmt: skip
    need = memory_gb("refinement", max(image.voxels for image in images))  # the images are read one after another
    node = pe.Node(interface, name=name, n_procs=threads, mem_gb=need)
    parts = [found.add(init_alone_wf, image) for image in images]
    for number, (out, field) in enumerate(_LISTS.items()):
        merge = pe.Node(Merge(len(parts)), name=f"{name}_of_{number}", run_without_submitting=True)
        for place, part in enumerate(parts, start=1):
            workflow.connect(part, out, merge, f"in{place}")
        workflow.connect(merge, "out", node, field)
    for place, (part, image) in enumerate(zip(parts, images, strict=True)):
        written = init_written_wf(plan=image, settings=settings)
        kept = [field for field in FOUND_FIELDS if field not in _RESULTS.values()]
        workflow.connect([
            (part, written, [(f"foundnode.{field}", f"foundnode.{field}") for field in kept]),
            (node, written, [((out, _element, place), f"foundnode.{field}") for out, field in _RESULTS.items()]),
        ])  # fmt: skip


def _element(some, number):  # Nipype runs it from its source, where no type is known
    """Element ``number`` of a list of files; Nipype hands over a list of one as the file."""
    return some[number] if isinstance(some, (list, tuple)) else some


def _digest(images: Iterable[ImagePlan]) -> str:
    return hashlib.sha256("".join(image.parameters_hash for image in images).encode()).hexdigest()


def together_name(space: str) -> str:
    """Name of the node that gives the images at ``space`` one pose; those that collect its inputs have names that begin with it."""
    return f"together_{re.sub(r'[^A-Za-z0-9]', '_', space)}"


def session_wf_name(plan: SessionPlan) -> str:
    """Name of the workflow of a session, with the characters that Nipype allows."""
    return plan.label.replace("-", "_").replace("+", "_") + "_wf"
