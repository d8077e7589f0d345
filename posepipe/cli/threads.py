"""How many threads a run has: those that were asked for, in every library, and no more than cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..settings import Settings
from .parser import cores

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Where OpenMP (torch) and the linear algebra under numpy, scipy and torch (OpenBLAS, MKL, Apple's) read how many threads to make. ANTs
sees to its own (:mod:`posepipe.refinement.ants`)."""


@contextmanager
def library_threads(n: int) -> Iterator[None]:
    """A context in which libraries that are loaded, here and in processes that are started, make ``n`` threads each.

    Each reads it once, when it is loaded: enter before numpy is imported. Without it numpy's OpenBLAS and scipy's make one
    for each core of the machine, in every worker, whatever ``--omp-nthreads`` says. The environment is put back at the end.
    """
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(dict.fromkeys(VARIABLES, str(n)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def within_cores(settings: Settings) -> Settings:
    """``settings`` with no more threads for an image than the run has cores (``--nprocs``); a smaller number is told."""
    most = settings.nprocs or cores()
    if (settings.omp_nthreads or 1) <= most:
        return settings
    found = f"{_counted(most, 'core')} to use, so an image gets {_counted(most, 'thread')}"
    print(f"--omp-nthreads {settings.omp_nthreads}: {found}", flush=True)
    return replace(settings, omp_nthreads=most)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
