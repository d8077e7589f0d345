"""Resources of a stage: duration, and peak memory of its process."""

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
"""Sampling interval of the memory, seconds. The kernel provides new pages at 1 to 4 GB/s, so that a peak between two samples is missed by
at most 40 MB. A sample takes 20 µs."""


@contextmanager
def measured(record: dict[str, Any]) -> Iterator[None]:
    """Record the duration of the block as ``seconds`` and, on Linux, the peak resident set (10⁶ bytes) of the process during the block as
    ``peak_memory_mb``, including libraries, data of earlier stages, and shared pages.

    The kernel only provides the peak over the whole life of the process. If it has increased during the block, it is the exact peak of the
    block; else the peak is estimated by a sampling thread. The kernel's counter is not reset, so that other tools (``time -v``, a batch
    system) report correct values.
    """
    before, start = _highest(), time.perf_counter()
    with _Watch() as watch:
        yield
    record["seconds"] = round(time.perf_counter() - start, 3)
    after = _highest()
    if before is not None and after is not None:
        record["peak_memory_mb"] = round(after if after > before else min(watch.peak, after), 1)


class _Watch(threading.Thread):
    """Samples the resident set of this process until the block ends; ``peak`` is the maximum (MB)."""

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
    """Current resident set of this process (10⁶ bytes); None if the system does not provide it."""
    try:
        pages = int((_SELF / "statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _highest() -> float | None:
    """Peak resident set of this process since its start (10⁶ bytes); None if the system does not provide it."""
    try:
        lines = (_SELF / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), None)
