"""Subclasses of Nipype's plugins: Linear image by image, MultiProc robust to torch and dying workers, others robust to killed jobs."""

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
"""Start method of workers. With ``fork``, the copy of a process with threads of torch or ITK may deadlock. ``forkserver`` needs a socket in
the temporary folder, whose path may exceed the limit of sockets (107 characters)."""


def no_workers() -> str:
    """Reason why this machine cannot run a pool of Python processes; empty if it can."""
    try:
        multiprocessing.get_context(START_METHOD).Lock()
    except OSError as error:  # semaphores are files in /dev/shm, which some containers and clusters leave out or do not let users write
        return f"/dev/shm: no semaphore can be made there ({error.strerror})"
    return ""


def start_worker(cwd: str, nipype_level: str) -> None:
    """Initialise a worker: the log level of the main process, and no check for newer versions.

    The worker ignores Ctrl-C and the end of the terminal, which the main process handles; it exits when the main process is gone.
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
    """Set Nipype's log level, and disable its check for newer versions, as users may be offline."""
    import nipype

    for name in ("workflow_level", "utils_level", "interface_level"):
        nipype.config.set("logging", name, level)
    nipype.config.set("execution", "check_version", "false")
    nipype.logging.update_logging(nipype.config)


class ImageByImagePlugin(LinearPlugin):
    """Linear plugin that finishes one image before it starts the next. Nipype's own runs the first nodes of all images, then the
    second ones, so that an interrupted run would have finished none."""

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
    """Error handling for plugins with jobs or workers: the traceback is passed to the status callback, and the other jobs continue.

    Nipype's plugins do not pass it on. For a job without a result, for example a killed one, they have the traceback as a string where a
    list of lines is expected, which raises an error and ends the run with all other images.
    """

    def _clean_queue(self, jobid: int, graph: Any, result: dict[str, Any] | None = None) -> Any:
        if result is None:  # it is the exception that is being handled
            result = {"result": None, "traceback": format_exception(*sys.exc_info())}
        elif isinstance(result["traceback"], str):
            result["traceback"] = result["traceback"].splitlines(keepends=True)
        self.procs[jobid]._traceback = result["traceback"]
        return super()._clean_queue(jobid, graph, result=result)


def reporting_plugin(name: str, plugin_args: dict[str, Any]) -> Any:
    """Nipype's plugin ``name`` as a :class:`ReportingPlugin` if it distributes nodes; else only its name."""
    found = getattr(nipype.pipeline.plugins, f"{name}Plugin")
    if not issubclass(found, DistributedPluginBase):
        return name
    return type(f"Reporting{name}Plugin", (ReportingPlugin, found), {})(plugin_args=plugin_args)


class SafeMultiProcPlugin(ReportingPlugin, MultiProcPlugin):
    """MultiProc plugin that processes images in order, starts workers by ``spawn``, survives their death, and accounts for idle workers.

    An idle worker keeps its loaded data, which reduces the memory for running nodes (``memory_gb``). When a worker dies (out of
    memory, a crash in a library), Nipype's own plugin waits forever. Here the running tasks fail with an error message, and the
    others continue in new workers.
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
