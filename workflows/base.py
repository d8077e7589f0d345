"""The workflow of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from posepipe.plan import Plan
from posepipe.settings import Settings

from .citation import Citation
from .engine import Workflow, execution_config
from .methods import Methods, image_methods, intro, libraries
from .session import init_session_wf


def init_posepipe_wf(*, plan: Plan, settings: Settings, found: Collection[Path] | None = None) -> Workflow:
    """Build the workflow of all pending images.

    Workflow Graph
        one session workflow for each session with pending images, unconnected

    Parameters
    ----------
    plan : :class:`~posepipe.plan.Plan`
        the plan of the run
    settings : :class:`~posepipe.settings.Settings`
        of the run
    found
        as for :func:`~posepipe.workflows.session.init_session_wf`

    Inputs
    ------
    None; every image workflow has its files set.

    Outputs
    -------
    None; the files are written to the output dataset.
    """
    workflow = Workflow(name=f"posepipe_{_place(settings)}_wf")
    workflow.base_dir = str(settings.work_dir)
    workflow.config = execution_config(stop_on_first_crash=settings.stop_on_first_crash)
    # the text also covers images that were done by an earlier run
    texts = [intro(), *(image_methods(Methods.planned(image, settings)) for image in plan.images if image.done)]
    workflow.__desc__ = "\n\n".join(text for text, _ in texts)
    workflow.references = tuple(reference for _, references in texts for reference in references)
    sessions = [session for session in plan.sessions if session.pending]
    parts = [init_session_wf(plan=session, settings=settings, found=found) for session in sessions]
    workflow.add_nodes([part for part in parts if part._get_all_nodes()])
    return workflow


def planned_citation(workflow: Workflow, settings: Settings) -> Citation:
    """The methods text of a workflow and its references."""
    text, references = libraries(ants=settings.refine == "ants")
    return Citation.of([(workflow.visit_desc(), workflow.visit_references()), (text, references)])


def _place(settings: Settings) -> str:
    """Hash of the input and output folders, so that runs on different datasets can share a work folder."""
    return hashlib.sha256(f"{settings.bids_dir}\0{settings.out_dir}".encode()).hexdigest()[:8]
