"""Nipype's plugins that hand the nodes of a run to a scheduler (``--nipype-plugin SLURM``), and what they need."""

from __future__ import annotations

import getpass
import os
import re
from typing import Any

from ..errors import PosepipeError, UsageError
from ..settings import Settings

LOCAL = ("Linear", "MultiProc")
"""The plugins that posepipe has its own of; all others are Nipype's."""
GRAPH = ("SLURMGraph", "SGEGraph", "PBSGraph", "CondorDAGMan")
"""Those that hand over the whole graph at once and do not wait for it."""
BATCH = ("SLURM", "SGE", "PBS", "LSF", "OAR", "Condor", *GRAPH)
"""All those that submit jobs."""
POLL_SECONDS = 2.0
"""How often the scheduler is asked whether a job has ended: Nipype's own default. posepipe's own is for processes of this machine."""


def prepare_plugin(name: str, workflow: Any, settings: Settings) -> None:
    """Make ``workflow`` and the environment ready for the plugin ``name``, one of Nipype's.

    Raises :class:`~posepipe.errors.UsageError` for a plugin that is not known, and for folders that such a plugin cannot name to its jobs:
    it does not quote what it hands to the shell, and what it hands to Nipype in a job is read as a configuration file is.
    """
    from nipype.pipeline import plugins

    if not hasattr(plugins, f"{name}Plugin"):
        known = sorted(one.removesuffix("Plugin") for one in vars(plugins) if one.endswith("Plugin"))
        msg = f"--nipype-plugin {name}: Nipype has no such plugin; it has {', '.join(known)}"
        raise UsageError(msg)
    if name not in BATCH:
        return
    if not re.fullmatch(r"[\w./+@%=:,-]+", str(settings.work_dir), re.ASCII):
        msg = f"{settings.work_dir}: --nipype-plugin {name} hands this path to a shell as it stands; name a plain one for the work with -w"
        raise UsageError(msg)
    if "%" in str(settings.out_dir):
        msg = f"{settings.out_dir}: --nipype-plugin {name} cannot tell its jobs of a path with a % in it; give another output folder"
        raise UsageError(msg)
    workflow.config["execution"]["poll_sleep_duration"] = str(POLL_SECONDS)
    if "LOGNAME" not in os.environ:  # by which these plugins name their jobs, and which containers often lack
        os.environ["LOGNAME"] = _user()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number that no user has
        return str(os.getuid())


def submission_error(name: str, error: Exception) -> PosepipeError:
    """The error for a plugin that could not do its part, because of ``error``."""
    words = " ".join(str(error).split()) or type(error).__name__
    return PosepipeError(
        f"--nipype-plugin {name}: a job could not be handed to the scheduler ({words}); submit one by hand to see what it says, and look "
        "at --plugin-args"
    )
