"""Selection of the device (CPU or CUDA) and of the number of threads for networks and registration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import UsageError


def pick_device(name: str) -> str:
    """``cpu`` or ``cuda`` for the option ``auto``, ``cpu`` or ``cuda``; raises UsageError for ``cuda`` on a machine without CUDA."""
    if name not in {"auto", "cpu", "cuda"}:
        msg = f"unknown device {name!r}: choose auto, cpu or cuda"
        raise UsageError(msg)
    if name == "cuda" and not torch.cuda.is_available():
        msg = "--device cuda: torch finds no CUDA device on this machine; use --device cpu"
        raise UsageError(msg)
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


@contextmanager
def threads_of_torch(n: int | None) -> Iterator[None]:
    """Context in which torch uses ``n`` threads (None: the number is not changed)."""
    before = torch.get_num_threads()
    if n:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
