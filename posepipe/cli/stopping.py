"""The end of a run, whoever ends it: signals become an exception, and no process is left behind."""

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
"""How long to wait for a process that was killed to be gone; it can do nothing about it, so that it is a matter of the system's load."""


_told: list[int] = []
"""The signal that has told this process to stop, if one has: a library may catch the exception and go on."""


class Stopped(KeyboardInterrupt):
    """The process was told to stop, by the signal ``number``. No :class:`Exception`: it is not one image's error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @classmethod
    def of(cls, interrupt: KeyboardInterrupt) -> Stopped:
        """``interrupt`` with its signal, which is that of Ctrl-C where none is told."""
        return interrupt if isinstance(interrupt, Stopped) else cls(signal.SIGINT)

    @classmethod
    def check(cls) -> None:
        """Raise it if the process was told to stop: once more, where something has caught it."""
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
    """Within, the first of :data:`SIGNALS` raises :class:`Stopped`, and those after it are passed over; at the end, however it is
    reached, every child process started within is ended.

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
    """What :mod:`multiprocessing` has started in this process and is still there."""
    if "multiprocessing" not in sys.modules:
        return []
    import multiprocessing

    return list(multiprocessing.active_children())


def end_children(others: Sequence[BaseProcess] = ()) -> None:
    """Kill the child processes of this one, but for ``others``, which whoever called has started."""
    mine = [child for child in children() if child not in others]
    for child in mine:
        child.kill()
    for child in mine:
        child.join(_JOIN_SECONDS)
