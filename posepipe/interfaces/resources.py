"""What a stage takes: seconds, and the most memory that its process held meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SELF = Path("/proc/self")
_EVERY = 0.01
"""Seconds between two looks at the memory. New pages come at 1 to 4 GB/s, as the kernel clears them: what comes and goes between two
looks is 40 MB at most. A look takes 20 µs."""


@contextmanager
def measured(record: dict[str, Any]) -> Iterator[None]:
    """Note under ``seconds`` how long the block took and, where the system tells it (Linux), under ``peak_memory_mb`` the largest resident
    set (10⁶ bytes) of the process while it ran: libraries, what earlier stages left in memory and pages shared with others included.

    A process that does one stage after another has one peak for its kernel, that of all its life. It is the stage's own where it rose
    meanwhile, and then exact; else the stage's is what a thread saw that looked now and then. Nothing is reset, so that what others tell
    of the process (``time -v``, a batch system) stays right.
    """
    before, start = _highest(), time.perf_counter()
    with _Watch() as watch:
        yield
    record["seconds"] = round(time.perf_counter() - start, 3)
    after = _highest()
    if before is not None and after is not None:
        record["peak_memory_mb"] = round(after if after > before else min(watch.peak, after), 1)


class _Watch(threading.Thread):
    """Looks at the resident set of this process until the block is left; ``peak`` is the most that it saw (MB)."""

    def __init__(self) -> None:
        super().__init__(name="posepipe-memory", daemon=True)
        self.peak = 0.0
        self._over = threading.Event()

    def __enter__(self) -> _Watch:
        self._sample()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        self._sample()

    def run(self) -> None:
        while not self._over.wait(_EVERY):
            self._sample()

    def _sample(self) -> None:
        self.peak = max(self.peak, resident_mb() or 0.0)


def resident_mb() -> float | None:
    """The resident set of this process now (10⁶ bytes); None where the system does not tell it."""
    try:
        pages = int((_SELF / "statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _highest() -> float | None:
    """The largest resident set that this process ever had (10⁶ bytes); None where the system does not tell it."""
    try:
        lines = (_SELF / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), None)
