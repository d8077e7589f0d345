"""The participant level, from settings to exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PosepipeError
from ..paths import check_writable
from ..plan import ImagePlan, Plan, SessionPlan
from ..settings import Settings
from .batch_plugins import GRAPH, LOCAL
from .parser import cores
from .provenance import write_provenance
from .stopping import children, end_children
from .threads import library_threads, within_cores

if TYPE_CHECKING:
    from .claims import Claims
    from .progress import Monitor

logger = logging.getLogger(__name__)

LEAST_GB = 0.1
"""Memory for nodes if this process already uses all of ``--mem-gb``: less than any node needs, so that nodes run one at a time."""
_OTHER_WORK = "name another folder for intermediate files with -w"


def run_app(settings: Settings) -> int:
    """Run the participant level; the exit code: 0 if every requested image was processed, 1 if any failed.

    Raises :class:`~posepipe.errors.PosepipeError` for errors that affect the whole run.
    """
    settings = within_cores(settings)
    with library_threads(settings.omp_nthreads or 1):
        return _run_level(settings)


def _run_level(settings: Settings) -> int:
    from .claims import Claims
    from .plan import describe, make_plan

    if settings.reports_only:
        return _write_reports(settings)
    if not settings.dry_run:
        _check_writable(settings.out_dir, "give another output folder")
        _check_writable(settings.out_dir / "logs")
        _check_writable(settings.work_dir, _OTHER_WORK)
    plan = make_plan(settings)
    if settings.dry_run:
        print("\n".join(describe(plan, settings)))
        return 1 if plan.failures or plan.lacking else 0
    _prepare_output(settings, plan)
    if settings.boilerplate_only:
        print(_plan_citation(_build(plan, settings), settings, replace=True))
        return 0
    with Claims(settings.out_dir) as claims:
        rest = _claimed(plan, claims)
        return _run(rest, settings, claims, left=len(plan.pending) - len(rest.pending))


def _claimed(plan: Plan, claims: Claims) -> Plan:
    """The plan of the images that no other run is working on. Images that get one pose are left to one run together."""
    refused = []
    for session in plan.sessions:
        rest = Plan((session,))
        for image in session.pending:
            if image in rest.pending and not claims.take(image.image):
                refused.append(image)
                rest = rest.without([image])
    rest = plan.without(refused)
    kept = {image.image.path for image in rest.pending}
    for path in dict.fromkeys(image.image.path for image in plan.pending if image.image.path not in kept):
        print(f"{path.name}: another run is working on it, left to that run")
    return rest


def _check_writable(folder: Path, remedy: str = "make it writable") -> None:
    """Check before processing that ``folder`` is writable. Raises :class:`~posepipe.errors.PosepipeError`."""
    try:
        check_writable(folder)
    except OSError as error:
        msg = f"{folder}: cannot be written to ({error.strerror}); {remedy}"
        raise PosepipeError(msg) from error


def _prepare_output(settings: Settings, plan: Plan) -> None:
    from .._version import __version__
    from ..bids import write_bidsignore, write_dataset_description
    from .origin import code_url, container

    settings.out_dir.mkdir(parents=True, exist_ok=True)
    templates = [image.choice.template for image in plan.images]
    write_dataset_description(
        settings.out_dir,
        version=__version__,
        source=settings.bids_dir,
        derivatives=settings.derivatives,
        url=code_url(),
        container=container(),
        links={f"tpl-{template.atlas}": template.folder for template in templates},
    )
    write_bidsignore(settings.out_dir)


def _run(plan: Plan, settings: Settings, claims: Claims, *, left: int) -> int:
    """Align the pending images of ``plan``; ``left`` is the number of images left to other runs."""
    from ..bids import Failures

    if settings.device == "cuda":  # report a missing device once, not for every image
        from ..models.device import pick_device

        pick_device(settings.device)
    failures = Failures(settings.out_dir)
    _say_what_is_not_done(plan)
    done = [image for image in plan.images if image.done]
    plan, copied = _take_earlier(plan)
    pending = plan.pending
    nprocs = settings.nprocs or cores()
    threads = settings.omp_nthreads or 1
    workflow = _build(plan, settings)
    _check_writable(settings.work_dir / workflow.name, _OTHER_WORK)
    for folder in {image.names.folder for image in pending}:
        _check_writable(folder)
    text = _plan_citation(workflow, settings)
    monitor = _monitor(plan, settings, text)
    for image in [*done, *copied]:
        if image in done:
            at = f" at {image.space}" if len(settings.atlas) > 1 else ""
            print(f"{image.image.path.name}: done already with these settings{at}, left as it is")
        failures.clear(image.image, image.choice.template.atlas, settings.atlas)
        if claims.take(image.image):
            monitor.supersede(image)
        else:
            monitor.others.add(image.image.path)
    failures.forget_removed(settings.bids_dir)
    monitor.refuse(plan.failures)
    try:
        if pending and not (settings.stop_on_first_crash and plan.failures):
            images = len({image.image.path for image in pending})
            poses = f", {len(pending)} poses" if images < len(pending) else ""
            print(f"{images} images to align{poses}; {nprocs} cores, threads for each image: {threads}", flush=True)
            _execute(workflow, plan, settings, monitor, nprocs)
            if monitor.found and not (settings.stop_on_first_crash and monitor.failed):
                _execute(_build(plan, settings, monitor.found), plan, settings, monitor, nprocs)
        monitor.finish()
        write_provenance(settings.out_dir)
    except KeyboardInterrupt:
        monitor.stop()
        with contextlib.suppress(OSError):  # the terminal may have been closed
            _summary(plan, settings, monitor, left, len(copied))
        raise
    return _summary(plan, settings, monitor, left, len(copied))


def _say_what_is_not_done(plan: Plan) -> None:
    """Print at which atlases images get no pose, and what is taken of an earlier run and what not."""
    for image in plan.images:
        for line in image.lacks:
            print(f"{image.image.path.name}: {line}")
        if image.reuse:
            print(f"{image.image.path.name}: {image.reuse}")


def _take_earlier(plan: Plan) -> tuple[Plan, list[ImagePlan]]:
    """Copy the results of an earlier run that are taken; the plan with these done, and these. What cannot be copied is computed."""
    from .reuse import take

    copied: list[ImagePlan] = []
    for image in plan.pending:
        if image.earlier is not None:
            try:
                take(image)
            except (PosepipeError, OSError) as error:
                print(f"{image.image.path.name}: the result at {image.space} cannot be taken ({error}), so it is computed")
            else:
                copied.append(image)
    return plan.with_done(copied), copied


def _build(plan: Plan, settings: Settings, found: set[Path] | None = None) -> Any:
    """The workflow of the run; with ``found`` that of the second round, of images that get one pose."""
    from posepipe.workflows.base import init_posepipe_wf  # type: ignore[import-not-found]
    from posepipe.workflows.plugin import quiet_nipype  # type: ignore[import-not-found]

    quiet_nipype(_nipype_level(settings))
    return init_posepipe_wf(plan=plan, settings=settings, found=found)


def _nipype_level(settings: Settings) -> str:
    """Log level of Nipype; errors are reported by posepipe."""
    return {0: "CRITICAL", 1: "INFO"}.get(settings.verbose, "DEBUG")


def _plan_citation(workflow: Any, settings: Settings, *, replace: bool = False) -> str:
    """The methods text of the plan, written if there is none yet; at the end of the run it is replaced by the text of what ran."""
    from posepipe.workflows.base import planned_citation

    citation = planned_citation(workflow, settings)
    folder = settings.out_dir / "logs"
    if replace or not (folder / "CITATION.md").exists():
        citation.write(folder)
    return str(citation.markdown)


def _monitor(plan: Plan, settings: Settings, text: str) -> Monitor:
    from posepipe.workflows.image import image_wf_name, written_wf_name  # type: ignore[import-not-found]
    from posepipe.workflows.session import session_wf_name, together_name  # type: ignore[import-not-found]

    from .progress import Monitor

    pairs = {
        name(image): (session, image)
        for session in plan.sessions for image in session.pending for name in (image_wf_name, written_wf_name)
    }  # fmt: skip
    together = {
        (session_wf_name(session), together_name(space)): (session, images)
        for session in plan.sessions for space, images in session.together.items()
    }  # fmt: skip
    return Monitor(plan, settings, text, pairs, together, say=lambda line: print(line, flush=True))


def _write_records(plan: Plan, settings: Settings) -> None:
    """``posepipe.toml`` for each session that is worked on."""
    from ..files import write_text
    from ..interfaces.sidecars import software_versions

    text = settings.to_toml(software_versions())
    for session in plan.sessions:
        if session.pending:
            write_text(session.log_dir(settings.out_dir, settings.run_id) / "posepipe.toml", text)


def _execute(workflow: Any, plan: Plan, settings: Settings, monitor: Monitor, nprocs: int) -> None:
    from posepipe.workflows.plugin import ImageByImagePlugin, SafeMultiProcPlugin, no_workers, reporting_plugin

    from .batch_plugins import prepare_plugin, submission_error
    from .config_file import read_plugin_args

    args: dict[str, Any] = {"status_callback": monitor}
    if settings.plugin_args is not None:
        args |= read_plugin_args(settings.plugin_args)
    name = settings.nipype_plugin or ("Linear" if nprocs == 1 or len(plan.pending) == 1 else "MultiProc")
    if name == "MultiProc" and (why := no_workers()):
        logger.warning("%s: images are aligned one after another, in one process; mount /dev/shm writable for --nprocs to count", why)
        name = "Linear"
    if name not in LOCAL:
        prepare_plugin(name, workflow, settings)
    if not monitor.found:  # in the second round pages may be there already, which settings written now would make look unfinished
        _write_records(plan, settings)
    if settings.write_graph:
        _write_graph(workflow)
    if name not in LOCAL:
        plugin: Any = reporting_plugin(name, args)
    elif name == "Linear":
        plugin = ImageByImagePlugin(args)
    else:
        limits: dict[str, Any] = {"n_procs": nprocs, "raise_insufficient": False}
        if settings.mem_gb is not None:
            limits["memory_gb"] = left_for_nodes(settings.mem_gb)
        plugin = SafeMultiProcPlugin({**limits, "nipype_level": _nipype_level(settings), **args})
    others = children()
    try:
        workflow.run(plugin=plugin, plugin_args=args)
    except Exception as error:  # raised by the engine when any node failed
        if name not in LOCAL and not monitor.failed:
            raise submission_error(name, error) from error
        if not monitor.failed:
            raise
        logger.debug("the workflow ended with %s", error)
    finally:
        end_children(others)  # immediately: there may be little time left, and no worker may run during the following steps


def left_for_nodes(mem_gb: float) -> float:
    """Memory (GB) for the nodes: ``mem_gb`` of the whole run minus the resident memory of this process."""
    from ..interfaces.resources import resident_mb

    return max(mem_gb - (resident_mb() or 0.0) / 1000, LEAST_GB)


def _write_graph(workflow: Any) -> None:
    try:
        print(f"graph of the workflow: {workflow.write_graph(graph2use='colored', format='svg', simple_form=True)}")
    except OSError as error:  # the drawing is done by Graphviz, a program of its own
        logger.warning("--write-graph: only graph.dot was written, in %s (%s)", workflow.base_dir, error)


def _summary(plan: Plan, settings: Settings, monitor: Monitor, left: int, copied: int = 0) -> int:
    """Print a summary; the exit code. ``copied``: number of results taken from an earlier run, which count as done in the ``plan``."""
    done = sum(image.done for image in plan.images) - copied
    ended = monitor.failed.keys() | monitor.finished
    lost = dict.fromkeys(image.image.path for image in plan.pending if image.names.forward not in ended)
    handed = settings.nipype_plugin in GRAPH
    print(
        f"\n{len(monitor.finished)} aligned, {done} done before, {len(monitor.failed)} failed"
        + (f", {copied} taken from an earlier run" if copied else "")
        + (f", {len(lost)} {'handed to the scheduler' if handed else 'not reached'}" if lost else "")
        + (f", {left} left to another run; see what it says" if left else "")
    )
    for path in lost:
        print(f"{'handed over' if handed else 'not reached'}: {path}")
    if lost and handed:
        print("nothing waits for these jobs: when they have ended, run the same command without --nipype-plugin, for pages and what failed")
    if monitor.failed:
        print(f"failures: {settings.out_dir / 'failures.tsv'} (run the same command again to do only these)")
    for page in monitor.pages:
        print(f"report: {page}")
    for line in plan.lacking:
        print(f"LACKING: {line}")
    return 1 if monitor.failed or lost or left or monitor.page_errors or plan.lacking else 0


def _write_reports(settings: Settings) -> int:
    """Write the pages again from the outputs."""
    from posepipe.workflows.plugin import quiet_nipype

    from ..bids.entities import bare_label
    from ..interfaces.finished import sessions_of
    from .progress import write_page

    quiet_nipype(_nipype_level(settings))
    citation = settings.out_dir / "logs" / "CITATION.md"
    methods = citation.read_text(encoding="utf-8") if citation.is_file() else ""
    subjects = {bare_label(label, "sub") for label in settings.participant_label}
    wanted = {bare_label(label, "ses") for label in settings.session_label}
    units = [
        (subject, session)
        for subject, session in sessions_of(settings.out_dir)
        if (not subjects or subject in subjects) and (not wanted or session in wanted)
    ]
    if not units:
        msg = f"{settings.out_dir}: no outputs of the selected participants; run without --reports-only first"
        raise PosepipeError(msg)
    failed = False
    for subject, session in units:
        try:
            made_by = dataclasses.replace(settings, command=_recorded_command(settings, subject, session))
            print(f"report: {write_page(made_by, subject, session, {}, methods)}", flush=True)
        except (PosepipeError, OSError, ValueError) as error:
            failed = True
            name = f"sub-{subject}" + (f"_ses-{session}" if session else "")
            print(f"{name}: no page ({error})", flush=True)
    return 1 if failed else 0


def _recorded_command(settings: Settings, subject: str, session: str | None) -> str:
    """The command of the last run that worked on a session, from its log; empty where there is none."""
    from .config_file import read_toml

    logs = SessionPlan(subject, session).log_dir(settings.out_dir, "").glob("*/posepipe.toml")
    newest = max(logs, key=lambda path: path.stat().st_mtime_ns, default=None)
    return str(read_toml(newest).get("run", {}).get("command", "")) if newest else ""
