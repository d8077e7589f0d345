"""Termination of a run: signals raise an exception, and all child processes are ended."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C; the end of the time on a cluster, ``scancel`` and ``docker stop``; the end of a terminal."""
_JOIN_SECONDS = 5.0
"""Time to wait for a killed process to end, seconds; it depends on the system's load only."""


_told: list[int] = []
"""The signal that stopped this process, if any; kept because a library may catch the exception and continue."""


class Stopped(KeyboardInterrupt):
    """The process was stopped by the signal ``number``. Not an :class:`Exception`, as it is not the error of one image."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @classmethod
    def of(cls, interrupt: KeyboardInterrupt) -> Stopped:
        """``interrupt`` with its signal; SIGINT for a plain KeyboardInterrupt."""
        return interrupt if isinstance(interrupt, Stopped) else cls(signal.SIGINT)

    @classmethod
    def check(cls) -> None:
        """Raise the exception again if the process was stopped and a library has caught the first one."""
        if _told:
            raise cls(_told[0])

    @property
    def code(self) -> int:
        """The exit code, as shells have it.

        >>> Stopped(15).code, str(Stopped(15))
        (143, 'SIGTERM')
        """
        return 128 + self.number

    def __str__(self) -> str:
        return signal.Signals(self.number).name


@contextmanager
def stoppable() -> Iterator[None]:
    """Context in which the first of :data:`SIGNALS` raises :class:`Stopped` and later ones are ignored. At the end, for any reason, all
    child processes started within are ended.

    A signal that was ignored before (``nohup``) still is. Outside the main thread signals stay as they are.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        for one in SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        _told.append(number)
        raise Stopped(number)

    others = children()
    in_main = threading.current_thread() is threading.main_thread()
    before = {one: signal.getsignal(one) for one in SIGNALS} if in_main else {}
    for one, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(one, stop)
    try:
        yield
    finally:
        _told.clear()
        end_children(others)
        for one, handler in before.items():
            signal.signal(one, handler if handler is not None else signal.SIG_DFL)


def children() -> list[BaseProcess]:
    """Running child processes that :mod:`multiprocessing` has started in this process."""
    if "multiprocessing" not in sys.modules:
        return []
    import multiprocessing

    return list(multiprocessing.active_children())


def end_children(others: Sequence[BaseProcess] = ()) -> None:
    """Kill the child processes of this process, except ``others``, which the caller had started before."""
    mine = [child for child in children() if child not in others]
    for child in mine:
        child.kill()
    for child in mine:
        child.join(_JOIN_SECONDS)
