"""Job-array scripts for Slurm, SGE and PBS: an array with one task per participant, the group level, and a script that submits both.

Shell lines are quoted by :func:`shlex.quote`. Paths in the scheduler's directives (``#SBATCH`` and so on), which no shell reads, are quoted
by the scheduler's rules, or rejected if it has none.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .._version import __version__
from ..errors import UsageError

MEMORY_GB = 5.0
"""Memory per core of a task, GB: the maximum of the measured sessions, 3.6 GB for images of 320³ voxels, plus a quarter, in whole GB
(docs/tutorials/hpc.md)."""
TIME = "01:00:00"
"""Time that a task may take: over ten times what the slowest measured session took on a busy core, 310 s (docs/tutorials/hpc.md)."""
SCHEDULERS = ("slurm", "sge", "pbs")
_INDEX = {"slurm": "${SLURM_ARRAY_TASK_ID:-}", "sge": "${SGE_TASK_ID:-}", "pbs": "${PBS_ARRAY_INDEX:-1}"}
_PREFIX = {"slurm": "#SBATCH", "sge": "#$", "pbs": "#PBS"}
_UNSAFE = {"slurm": "\\", "sge": " \t\\\"'$:,`", "pbs": " \t\\\"'$:,`"}
"""Characters that the path of a log file cannot contain; Slurm interprets a backslash as an escape."""
_NAME = "posepipe"


@dataclass(frozen=True)
class Task:
    """One task of the array: a participant, or one session of it (labels without prefix)."""

    participant: str
    session: str | None = None


@dataclass(frozen=True)
class Container:
    """An Apptainer (Singularity) image; ``binds`` are the folders that are mounted in it."""

    image: Path
    binds: tuple[Path, ...]


@dataclass(frozen=True)
class Jobs:
    """The parameters of the scripts.

    ``program`` is the posepipe executable, or a container with it; ``options`` are passed to it. ``folder`` is the working folder for
    relative paths in them, ``logs`` the folder of the tasks' output, ``command`` the command that wrote the scripts. ``environment`` is set
    for posepipe; ``setup`` are shell lines, and ``directives`` scheduler options, both unmodified. ``running`` limits the number of tasks
    that run at the same time.
    """

    scheduler: str
    tasks: tuple[Task, ...]
    program: Path | Container
    bids_dir: Path
    out_dir: Path
    work_dir: Path
    logs: Path
    folder: Path
    options: tuple[str, ...] = ()
    cpus: int = 1
    memory_gb: float = MEMORY_GB
    time: str = TIME
    running: int | None = None
    setup: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    command: str = ""

    def __post_init__(self) -> None:
        bad = sorted(sign for sign in set(str(self.logs)) if sign in _UNSAFE[self.scheduler] or not sign.isprintable())
        if bad:
            signs = " ".join(map(repr, bad))
            msg = f"{self.logs}: {self.scheduler} cannot write logs to a folder with {signs} in its path; give another, -o"
            raise UsageError(msg)
        if isinstance(self.program, Container):
            for path in (self.program.image, *self.program.binds):
                if set(",:") & set(str(path)):
                    msg = f"{path}: a container cannot be given a path with a comma or a colon in it; rename the folder, or use a link"
                    raise UsageError(msg)
        for line in (*self.setup, *self.directives):
            if not line.isprintable():
                msg = f"{line!r}: one line, please; give the option again for each"
                raise UsageError(msg)

    @property
    def by_session(self) -> bool:
        """Whether some task is of one session alone."""
        return any(task.session is not None for task in self.tasks)


def array_script(jobs: Jobs) -> str:
    """The script of the array: it selects the participant by the task number and replaces itself by posepipe (``exec``)."""
    index, most = _INDEX[jobs.scheduler], len(jobs.tasks)
    lines = [
        "#!/bin/bash",
        *_directives(jobs, array=True),
        f"# {_NAME} {__version__}: {most} tasks, one a {'session' if jobs.by_session else 'participant'}; written by",
        f"#   {_printable(jobs.command)}",
        "",
        f"participants=({_words(task.participant for task in jobs.tasks)})",
        *([f"sessions=({_words(task.session or '' for task in jobs.tasks)})"] if jobs.by_session else []),
        f"task={index}",
        f'if ! [[ $task =~ ^[1-9][0-9]*$ ]] || (( task > {most} )); then',
        f'    echo "no task of the array (number: ${{task:-none}} of {most}); submit this script as a job array" >&2',
        "    exit 2",
        "fi",
        "participant=${participants[task - 1]}",
        *(["session=${sessions[task - 1]}"] if jobs.by_session else []),
        f'echo "task $task of {most}: sub-$participant{"${session:+ ses-$session}" if jobs.by_session else ""} on $(hostname), $(date)"',
        *_prelude(jobs),
        _start(jobs, "participant", ['--participant-label "$participant"', *_session_option(jobs), f"--nprocs {jobs.cpus}", _work(jobs)]),
    ]
    return "\n".join(lines) + "\n"


def group_script(jobs: Jobs) -> str:
    """The script of the group level, which runs after the array."""
    lines = [
        "#!/bin/bash",
        *_directives(jobs, array=False),
        f"# {_NAME} {__version__}: the group level of all tasks",
        "",
        *_prelude(jobs),
        _start(jobs, "group", [f"--nprocs {jobs.cpus}", _work(jobs)]),
    ]
    return "\n".join(lines) + "\n"


def submit_script(jobs: Jobs, array: Path, group: Path) -> str:
    """The script that submits ``array``, and ``group`` to begin when all its tasks have ended, however they end."""
    submit, cut, after = {
        "slurm": ("sbatch --parsable", ";", '--dependency=afterany:"$array"'),
        "sge": ("qsub -terse", ".", '-hold_jid "$array"'),
        "pbs": ("qsub", "", '-W depend=afterany:"$array"'),
    }[jobs.scheduler]
    lines = [
        "#!/bin/bash",
        "# Submits the array, and the group level to begin when all its tasks have ended, however they end.",
        "set -eu",
        f"logs={shlex.quote(str(jobs.logs))}",
        f"array=$({submit} {shlex.quote(str(array))})",
        *([f"array=${{array%%{cut}*}}"] if cut else []),
        f"group=$({submit} {after} {shlex.quote(str(group))})",
        f'echo "submitted: array $array ({len(jobs.tasks)} tasks), then the group level $group; what they print goes to $logs"',
    ]
    return "\n".join(lines) + "\n"


def _directives(jobs: Jobs, *, array: bool) -> list[str]:
    """The scheduler's own lines."""
    number = len(jobs.tasks)
    made = {"slurm": _slurm, "sge": _sge, "pbs": _pbs}[jobs.scheduler](jobs, number if array else 0)
    return [f"{_PREFIX[jobs.scheduler]} {line}" for line in (*made, *jobs.directives)]


def _slurm(jobs: Jobs, number: int) -> list[str]:
    log = str(jobs.logs).replace("%", "%%") + ("/array-%A_%a.log" if number else "/group-%j.log")
    limit = f"%{jobs.running}" if jobs.running else ""
    return [
        f"--job-name={_NAME}",
        *([f"--array=1-{number}{limit}"] if number else []),
        f"--cpus-per-task={jobs.cpus}",
        f"--mem={_megabytes(jobs)}M",
        f"--time={jobs.time}",
        '--output="{}"'.format(log.replace('"', '\\"')),
    ]


def _sge(jobs: Jobs, number: int) -> list[str]:
    return [
        "-S /bin/bash",
        f"-N {_NAME}",
        *([f"-t 1-{number}"] if number else []),
        *([f"-tc {jobs.running}"] if number and jobs.running else []),
        *([f"-pe smp {jobs.cpus}"] if jobs.cpus > 1 else []),
        f"-l mem_free={_megabytes(jobs)}M",
        f"-l h_rt={jobs.time}",
        "-j y",
        f"-o {jobs.logs}",
    ]


def _pbs(jobs: Jobs, number: int) -> list[str]:
    limit = f"%{jobs.running}" if jobs.running else ""
    return [
        f"-N {_NAME}",
        *([f"-J 1-{number}{limit}"] if number > 1 else []),  # PBS takes no array of one
        f"-l select=1:ncpus={jobs.cpus}:mem={_megabytes(jobs)}mb",
        f"-l walltime={jobs.time}",
        "-j oe",
        f"-o {jobs.logs}/",
    ]


def _megabytes(jobs: Jobs) -> int:
    return round(1000 * jobs.memory_gb)


def _prelude(jobs: Jobs) -> list[str]:
    """Lines before the posepipe command: working folder, environment, and the user's setup lines."""
    exports = [] if isinstance(jobs.program, Container) else [f"export {k}={shlex.quote(v)}" for k, v in jobs.environment.items()]
    lines = [f"cd -- {shlex.quote(str(jobs.folder))} || exit", *exports, *jobs.setup]
    if isinstance(jobs.program, Container):
        lines += [
            f"mkdir -p -- {shlex.quote(str(jobs.out_dir))} {shlex.quote(str(jobs.work_dir))} || exit",
            "runtime=$(command -v apptainer || command -v singularity) || {",
            '    echo "neither apptainer nor singularity is to be found on $(hostname); see --setup" >&2',
            "    exit 127",
            "}",
        ]
    return lines


def _start(jobs: Jobs, level: str, own: Sequence[str]) -> str:
    """The command line, run by ``exec``, so that posepipe receives signals and its exit code is the task's."""
    if isinstance(jobs.program, Container):
        seen = [f"--bind {shlex.quote(str(path))}" for path in jobs.program.binds]
        known = [f"--env {shlex.quote(f'{name}={value}')}" for name, value in jobs.environment.items()]
        start = ['exec "$runtime" run --cleanenv', *seen, *known, shlex.quote(str(jobs.program.image))]
    else:
        start = [f"exec {shlex.quote(str(jobs.program))}"]
    parts = [*start, _words([str(jobs.bids_dir), str(jobs.out_dir), level]), *own, *([_words(jobs.options)] if jobs.options else [])]
    return " \\\n    ".join(parts)


def _session_option(jobs: Jobs) -> list[str]:
    return ['${session:+--session-label "$session"}'] if jobs.by_session else []


def _work(jobs: Jobs) -> str:
    return f"-w {shlex.quote(str(jobs.work_dir))}"


def _words(texts: Iterable[str]) -> str:
    return " ".join(map(shlex.quote, texts))


def _printable(text: str) -> str:
    """``text`` on one line, for a comment."""
    return re.sub(r"[^ -~\u00a0-\uffff]", lambda found: found[0].encode("unicode_escape").decode(), text)
