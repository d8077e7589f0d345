"""Nipype's plugins: Linear image by image, MultiProc safe for torch and for workers that die, the others safe for jobs that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from traceback import format_exception
from typing import Any

import nipype.pipeline.plugins
import numpy as np
from nipype.pipeline.plugins.base import DistributedPluginBase
from nipype.pipeline.plugins.linear import LinearPlugin
from nipype.pipeline.plugins.multiproc import MultiProcPlugin, run_node
from nipype.utils.misc import str2bool

from .memory import IDLE_GB

START_METHOD = "spawn"
"""How workers start. Not by ``fork``: the copy of a process in which torch or ITK has threads may wait for ever. Not by ``forkserver``: it
needs a socket in the temporary folder, whose path may be longer (over 107 characters) than sockets can have."""


def no_workers() -> str:
    """Why this machine cannot run several processes of Python that wait for one another, in words; empty where it can."""
    try:
        multiprocessing.get_context(START_METHOD).Lock()
    except OSError as error:  # semaphores are files in /dev/shm, which some containers and clusters leave out or do not let users write
        return f"/dev/shm: no semaphore can be made there ({error.strerror})"
    return ""


def start_worker(cwd: str, nipype_level: str) -> None:
    """Prepare a worker: quiet as the main process is, and no look for newer versions.

    Its end is the main process's to decide, which gets Ctrl-C and the end of the terminal too; it ends when that process is gone.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(cwd)
    os.environ["NIPYPE_NO_ET"] = "1"
    quiet_nipype(nipype_level)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def quiet_nipype(level: str) -> None:
    """Set how much Nipype logs, and stop it from looking for newer versions: users may be offline."""
    import nipype

    for name in ("workflow_level", "utils_level", "interface_level"):
        nipype.config.set("logging", name, level)
    nipype.config.set("execution", "check_version", "false")
    nipype.logging.update_logging(nipype.config)


class ImageByImagePlugin(LinearPlugin):
    """Linear that finishes one image before it begins the next; Nipype's own runs every image's first node, then every
    second one, so that a run that is stopped would have finished none."""

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Run each connected part of ``graph``; raises the first error once all parts have had their turn."""
        import networkx as nx

        errors = []
        for part in list(nx.weakly_connected_components(graph)):
            try:
                super().run(graph.subgraph(part), config, updatehash=updatehash)
            except Exception as error:
                errors.append(error)
                if str2bool(config["execution"]["stop_on_first_crash"]):
                    break
        if errors:
            raise errors[0]


class ReportingPlugin(DistributedPluginBase):
    """What plugins with jobs or workers do when one fails: the status callback is told the trace, and the others go on.

    Nipype's own tells the callback nothing; and where a job ended without a result, as one that was killed does, it has a text for a trace
    where lines are needed, stumbles over that, and ends the run with all other images.
    """

    def _clean_queue(self, jobid: int, graph: Any, result: dict[str, Any] | None = None) -> Any:
        if result is None:  # it is the exception that is being handled
            result = {"result": None, "traceback": format_exception(*sys.exc_info())}
        elif isinstance(result["traceback"], str):
            result["traceback"] = result["traceback"].splitlines(keepends=True)
        self.procs[jobid]._traceback = result["traceback"]
        return super()._clean_queue(jobid, graph, result=result)


def reporting_plugin(name: str, plugin_args: dict[str, Any]) -> Any:
    """Nipype's plugin ``name``, of those that distribute nodes, as a :class:`ReportingPlugin`; the others by their name alone."""
    found = getattr(nipype.pipeline.plugins, f"{name}Plugin")
    if not issubclass(found, DistributedPluginBase):
        return name
    return type(f"Told{name}Plugin", (ReportingPlugin, found), {})(plugin_args=plugin_args)


class SafeMultiProcPlugin(ReportingPlugin, MultiProcPlugin):
    """MultiProc that takes the images in their order, whose workers start afresh, which survives their death, and counts the idle.

    A worker that has nothing to do keeps what it has loaded; so much less is there for the nodes that run (``memory_gb``).
    When a worker dies (out of memory, a crash in a library), Nipype's own plugin waits for it for ever. Here the tasks
    that were running fail, each with an error that says so, and the others go on in new workers.
    """

    pool: ProcessPoolExecutor

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self.pool.shutdown()  # no worker has started yet
        self.pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        level = self.plugin_args.get("nipype_level", "CRITICAL")
        return ProcessPoolExecutor(
            max_workers=self.processors,
            initializer=start_worker,
            initargs=(self._cwd, level),
            mp_context=multiprocessing.get_context(self.plugin_args.get("mp_context", START_METHOD)),
        )

    def _check_resources(self, running_tasks: Any) -> Any:
        free, *others = super()._check_resources(running_tasks)
        idle = len(self.pool._processes or ()) - len(running_tasks)
        free -= IDLE_GB * max(idle - 1, 0)  # one of them gets the next node
        ready = np.flatnonzero(~self.proc_done & (np.asarray(self.depidx.sum(axis=0)).ravel() == 0))
        least = min((self.procs[job].mem_gb for job in ready), default=0.0)
        if not running_tasks and free < min(least, self.memory_gb):  # waiting would free nothing
            self.pool.shutdown()
            self.pool = self._new_pool()
            free = self.memory_gb
        return max(free, 0.0), *others

    def _sort_jobs(self, jobids: Any, scheduler: str | None = None) -> Any:
        if scheduler not in {None, "tsort"}:
            return super()._sort_jobs(jobids, scheduler=scheduler)
        first: dict[str, int] = {}
        for index, node in enumerate(self.procs):
            first.setdefault(node.fullname.rsplit(".", 1)[0], index)
        return sorted(jobids, key=lambda job: (first[self.procs[job].fullname.rsplit(".", 1)[0]], job))

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        self._taskid += 1
        try:
            future = self.pool.submit(run_node, node, updatehash, self._taskid)
        except BrokenProcessPool:
            self.pool = self._new_pool()
            future = self.pool.submit(run_node, node, updatehash, self._taskid)
        self._task_obj[self._taskid] = future
        future.add_done_callback(partial(self._collect, self._taskid))
        return self._taskid

    def _collect(self, taskid: int, future: Future) -> None:
        error = future.exception()
        if error is None:
            self._taskresult[taskid] = future.result()
            return
        message = (
            f"RuntimeError: a worker process ended before this was done ({error}); often there was too little memory: "
            "run again with fewer --nprocs, or with --mem-gb\n"
        )
        self._taskresult[taskid] = {"result": None, "traceback": [message], "taskid": taskid}
