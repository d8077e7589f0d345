"""The app in a separate process, and the processes that it starts."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

_APP = """
import signal, sys
from posepipe.cli.app import main
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # as a shell starts it, whatever started the tests
    signal.signal(one, signal.SIG_DFL)
sys.exit(main())
"""


def start(study: Any, *options: str) -> subprocess.Popen[str]:
    """The app in a session of its own, at work on images."""
    run = subprocess.Popen(
        [sys.executable, "-c", _APP, *study.command(*options)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert run.stdout is not None
    for line in run.stdout:
        if "images to align" in line:
            return run
    raise AssertionError(f"ended with {run.wait()} before it had begun")


def alive(session: int) -> list[str]:
    """Processes of a session, but for those that are only waited for."""
    shown = subprocess.run(["ps", "-eo", "sid=,stat=,pid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 3) for line in shown.splitlines()]
    return [row[-1] for row in rows if row[0] == str(session) and "Z" not in row[1]]
