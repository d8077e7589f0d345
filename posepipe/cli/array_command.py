"""``posepipe-tools array``: scripts that run a dataset as a job array, one task a participant."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..paths import absolute_path, split_derivative
from .job_scripts import MEMORY_GB, SCHEDULERS, TIME, Container, Jobs, Task, array_script, group_script, submit_script
from .parser import command_line, gigabytes, parse_settings, whole_number

if TYPE_CHECKING:
    from ..settings import Settings

_FROM_ARRAY = {
    "participant_label": "--participant-label before the --",
    "session_label": "--session-label before the --",
    "nprocs": "--cpus",
}
_NOT_IN_ARRAYS = ("dry_run", "reports_only", "boilerplate_only", "write_graph", "nipype_plugin", "ratings", "blind")
_PASSED_VARIABLES = ("POSEPIPE_ATLAS_PATH", "TEMPLATEFLOW_HOME", "XDG_CACHE_HOME", "POSEPIPE_PRECISION")


def add_arguments(subparsers: Any) -> None:
    """Add the ``array`` command to the subparsers of ``posepipe-tools``."""
    parser = subparsers.add_parser(
        "array",
        help="write job-array scripts for Slurm, SGE or PBS",
        description="Write the scripts of a job array with one task per participant, and of the group level after it, and a script that "
        "submits both. Options after -- are passed to posepipe.",
        usage="%(prog)s BIDS_DIR OUT_DIR --scheduler {slurm,sge,pbs} [options] [-- options of posepipe]",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("bids_dir", type=absolute_path, metavar="BIDS_DIR", help="the dataset, as for posepipe")
    parser.add_argument("out_dir", type=absolute_path, metavar="OUT_DIR", help="the output folder, as for posepipe")
    parser.add_argument("--scheduler", choices=SCHEDULERS, required=True, help="scheduler that the scripts are for")
    parser.add_argument(
        "-o", "--jobs-dir", type=absolute_path, metavar="DIR", default=absolute_path("posepipe_jobs"),
        help="folder for the scripts and for the output of the jobs (default: ./posepipe_jobs)",
    )  # fmt: skip
    which = parser.add_argument_group("which tasks")
    which.add_argument("--participant-label", nargs="+", metavar="LABEL", default=[], help="only these (with or without sub-)")
    which.add_argument("--session-label", nargs="+", metavar="LABEL", default=[], help="only these, one task per session")
    which.add_argument("--by-session", action="store_true", default=False, help="one task per session instead of per participant")
    which.add_argument(
        "--only-failed", action="store_true", default=False,
        help="only those whose last run failed or was stopped, and those without outputs",
    )  # fmt: skip
    which.add_argument("--max-running", type=whole_number, metavar="N", help="maximum number of tasks that run at the same time")
    asks = parser.add_argument_group("resources of a task")
    asks.add_argument("--cpus", type=whole_number, metavar="N", default=1, help="cores (default: 1)")
    asks.add_argument("--mem-gb", type=gigabytes, metavar="GB", help=f"memory (default: {MEMORY_GB:g} for each core)")
    asks.add_argument("--time", type=_duration, metavar="HH:MM:SS", default=TIME, help=f"time (default: {TIME})")
    asks.add_argument(
        "--scheduler-option", action="append", metavar="TEXT", default=[],
        help="an additional option for the scheduler (repeatable): --scheduler-option=--partition=short",
    )  # fmt: skip
    how = parser.add_argument_group("which posepipe")
    one = how.add_mutually_exclusive_group()
    one.add_argument("--container", type=absolute_path, metavar="FILE.sif", help="Apptainer (Singularity) image")
    one.add_argument("--venv", type=absolute_path, metavar="DIR", help="virtual environment (default: the one of this command)")
    how.add_argument(
        "--setup", action="append", metavar="LINE", default=[],
        help="a shell command to run before posepipe (repeatable): --setup 'module load apptainer'",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the scripts; 0, also where nothing is left to do and none is written. Raises :class:`~posepipe.errors.PosepipeError`."""
    rest = tuple(args.rest)
    settings = _settings(args, rest)
    tasks = _tasks(args, settings)
    if not tasks:
        print(f"{args.out_dir}: nothing failed and nothing is missing; no scripts were written")
        return 0
    given = vars(args)
    jobs = Jobs(
        scheduler=args.scheduler, tasks=tasks, program=_program(given, settings), bids_dir=args.bids_dir, out_dir=args.out_dir,
        work_dir=settings.work_dir, logs=args.jobs_dir / "logs", folder=Path.cwd(), options=rest, cpus=args.cpus,
        memory_gb=given.get("mem_gb", MEMORY_GB * args.cpus), time=args.time, running=given.get("max_running"),
        setup=tuple(args.setup), directives=tuple(args.scheduler_option),
        environment=_environment(given, settings), command=command_line("posepipe-tools", args.argv),
    )  # fmt: skip
    return _write(jobs, args.jobs_dir)


def _settings(args: argparse.Namespace, rest: Sequence[str]) -> Settings:
    """posepipe's settings from its options; invalid options raise here, before the scripts are written."""
    both = [parse_settings([str(args.bids_dir), str(args.out_dir), level, *rest]) for level in ("group", "participant")]
    settings = both[-1]
    for name, instead in _FROM_ARRAY.items():
        if getattr(settings, name):
            msg = f"--{name.replace('_', '-')} is set by the array for each task; give {instead} instead"
            raise UsageError(msg)
    for name in _NOT_IN_ARRAYS:
        if getattr(settings, name):
            msg = f"--{name.replace('_', '-')} cannot be used in a job array; leave it out"
            raise UsageError(msg)
    return settings


def _tasks(args: argparse.Namespace, settings: Settings) -> tuple[Task, ...]:
    """The tasks, in the order of the dataset; participants without images are printed."""
    from ..atlas import AtlasLibrary
    from ..bids import list_subjects, read_filter_file, survey_images
    from .plan import check_atlases
    from .unfinished import unfinished

    library = AtlasLibrary.default(settings.atlas_dir)
    if "container" not in vars(args):  # which may hold atlases of its own
        check_atlases(library, settings.atlas)
    filters = read_filter_file(settings.bids_filter_file) if settings.bids_filter_file else None
    survey = survey_images(
        args.bids_dir, participants=args.participant_label, sessions=args.session_label, filters=filters,
        derivatives=settings.derivatives, validate=not settings.skip_bids_validation,
    )  # fmt: skip
    for line in survey.lacking:
        print(f"LACKING: {line}")
    units = list(dict.fromkeys((image.subject, image.session) for image in survey.images))
    if not args.participant_label:
        without = sorted(set(list_subjects(args.bids_dir)) - {subject for subject, _ in units})
        if without:
            print(f"no task, because they have no selected T1w or T2w image: {', '.join(f'sub-{label}' for label in without)}")
    if args.only_failed:
        left = unfinished(args.out_dir, survey.images)
        units = [unit for unit in units if unit in left]
    if args.by_session or args.session_label:
        return tuple(Task(*unit) for unit in units)
    return tuple(Task(subject) for subject in dict.fromkeys(subject for subject, _ in units))


def _program(given: dict[str, Any], settings: Settings) -> Path | Container:
    if "container" in given:
        image: Path = given["container"]
        if not image.exists():
            msg = f"{image}: no such container image; build it from the Dockerfile (docs/tutorials/hpc.md)"
            raise UsageError(msg)
        return Container(image, _binds(given, settings))
    beside = (given["venv"] / "bin" if "venv" in given else Path(sys.executable).parent) / "posepipe"
    if beside.is_file():
        return beside
    found = None if "venv" in given else shutil.which("posepipe")
    if found is None:
        msg = f"{beside}: no posepipe there; name its virtual environment (--venv) or a container (--container)"
        raise UsageError(msg)
    return absolute_path(found)


def _binds(given: dict[str, Any], settings: Settings) -> tuple[Path, ...]:
    """The folders to be mounted in a container, each once, none inside another."""
    named = [settings.bids_filter_file, settings.weights, settings.config_file, settings.plugin_args]
    atlases = [absolute_path(part) for part in os.environ.get("POSEPIPE_ATLAS_PATH", "").split(os.pathsep) if part]
    wanted = [
        given["bids_dir"], given["out_dir"], settings.work_dir, Path.cwd(), *settings.atlas_dir, *atlases,
        *(split_derivative(spec)[1] for spec in settings.derivatives), *(path for path in named if path is not None),
    ]  # fmt: skip
    folders = dict.fromkeys(path.parent if path.is_file() else path for path in wanted)
    return tuple(path for path in folders if not any(other != path and path.is_relative_to(other) for other in folders))


def _environment(given: dict[str, Any], settings: Settings) -> dict[str, str]:
    """Environment variables for the jobs, as not every scheduler passes the environment on."""
    known = {"PYTHONUNBUFFERED": "1", **{name: os.environ[name] for name in _PASSED_VARIABLES if os.environ.get(name)}}
    if "container" in given:  # its own file system cannot be written to
        cache = settings.work_dir / "cache"
        known |= {"XDG_CACHE_HOME": str(cache), "MPLCONFIGDIR": str(cache / "matplotlib")}
        known.pop("TEMPLATEFLOW_HOME", None)
    return known


def _write(jobs: Jobs, folder: Path) -> int:
    from ..errors import PosepipeError
    from ..files import write_text

    array, group, submit = (folder / f"{name}.sh" for name in ("array", "group", "submit"))
    texts = {array: array_script(jobs), group: group_script(jobs), submit: submit_script(jobs, array, group)}
    try:
        jobs.logs.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_text(path, text)
            path.chmod(0o755)
    except OSError as error:
        msg = f"{folder}: cannot be written to ({error.strerror}); give another folder, -o"
        raise PosepipeError(msg) from error
    each = "sessions" if jobs.by_session else "participants"
    cores = f"{jobs.cpus} core{'s' * (jobs.cpus > 1)}"
    count = f"{len(jobs.tasks)} task{'s' * (len(jobs.tasks) > 1)}"
    print(f"{count} ({each}), each {cores}, {jobs.memory_gb:g} GB and at most {jobs.time}:")
    for path in texts:
        print(f"  {path}")
    print(f"submit them: bash {command_line(str(submit), [])}")
    return 0


def _duration(text: str) -> str:
    if not re.fullmatch(r"\d+:[0-5]\d:[0-5]\d", text):
        msg = f"{text!r} is no time; give hours, minutes and seconds, such as 01:30:00"
        raise argparse.ArgumentTypeError(msg)
    return text
