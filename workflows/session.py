"""The workflow of one session: its images side by side, and its own log folder."""

from __future__ import annotations

from copy import deepcopy

from posepipe.plan import SessionPlan
from posepipe.settings import Settings

from .engine import Workflow, execution_config
from .image import init_image_wf


def init_session_wf(*, plan: SessionPlan, settings: Settings) -> Workflow:
    """Build the workflow of the pending images of one participant and session.

    The images are independent: a failure does not affect the others. The session's page is not a node, as it must also be
    written if an image has failed (:mod:`posepipe.cli.progress`).

    Workflow Graph
        one image workflow for each image, unconnected

    Parameters
    ----------
    plan : :class:`~posepipe.plan.SessionPlan`
        the session's images
    settings : :class:`~posepipe.settings.Settings`
        of the run; crash files go to ``log/<run id>`` of the session

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
    workflow.add_nodes(
        [init_image_wf(plan=image, settings=settings) for image in plan.pending]
    )
    for node in workflow._get_all_nodes():
        node.config = deepcopy(workflow.config)
    return workflow


def session_wf_name(plan: SessionPlan) -> str:
    """Name of the workflow of a session, with the characters that Nipype allows."""
    return plan.label.replace("-", "_").replace("+", "_") + "_wf"
