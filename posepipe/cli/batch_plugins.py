"""Nipype's plugins that submit nodes to a scheduler (``--nipype-plugin SLURM``), and their requirements."""

from __future__ import annotations

import getpass
import os
import re
from typing import Any

from ..errors import PosepipeError, UsageError
from ..settings import Settings

LOCAL = ("Linear", "MultiProc")
"""Plugins for which posepipe has its own subclass; all others are Nipype's."""
GRAPH = ("SLURMGraph", "SGEGraph", "PBSGraph", "CondorDAGMan")
"""Plugins that submit the whole graph at once and do not wait for it."""
BATCH = ("SLURM", "SGE", "PBS", "LSF", "OAR", "Condor", *GRAPH)
"""All plugins that submit jobs."""
POLL_SECONDS = 2.0
"""Interval of status queries to the scheduler, seconds: Nipype's default. posepipe's default is for local processes."""


def prepare_plugin(name: str, workflow: Any, settings: Settings) -> None:
    """Configure ``workflow`` and the environment for Nipype's plugin ``name``.

    Raises :class:`~posepipe.errors.UsageError` for an unknown plugin, and for folders whose paths the plugin cannot pass to its jobs: it
    does not quote paths in shell commands, and Nipype reads them in the job as in a configuration file.
    """
    from nipype.pipeline import plugins

    if not hasattr(plugins, f"{name}Plugin"):
        known = sorted(one.removesuffix("Plugin") for one in vars(plugins) if one.endswith("Plugin"))
        msg = f"--nipype-plugin {name}: Nipype has no such plugin; it has {', '.join(known)}"
        raise UsageError(msg)
    if name not in BATCH:
        return
    if not re.fullmatch(r"[\w./+@%=:,-]+", str(settings.work_dir), re.ASCII):
        msg = f"{settings.work_dir}: --nipype-plugin {name} passes this path to a shell unquoted; give a plainer working folder with -w"
        raise UsageError(msg)
    if "%" in str(settings.out_dir):
        msg = f"{settings.out_dir}: --nipype-plugin {name} cannot pass a path with a % in it to its jobs; give another output folder"
        raise UsageError(msg)
    workflow.config["execution"]["poll_sleep_duration"] = str(POLL_SECONDS)
    if "LOGNAME" not in os.environ:  # part of the jobs' names in these plugins; often not set in containers
        os.environ["LOGNAME"] = _user()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number that no user has
        return str(os.getuid())


def submission_error(name: str, error: Exception) -> PosepipeError:
    """The error for a failed submission by the plugin ``name``, because of ``error``."""
    words = " ".join(str(error).split()) or type(error).__name__
    return PosepipeError(
        f"--nipype-plugin {name}: a job could not be handed to the scheduler ({words}); submit one by hand to see what it says, and look "
        "at --plugin-args"
    )
