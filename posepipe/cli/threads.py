"""Number of threads of a run: as requested, in every library, and at most the number of cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..settings import Settings
from .parser import cores

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Environment variables with the number of threads of OpenMP (torch) and of the linear algebra libraries of numpy, scipy and torch
(OpenBLAS, MKL, Accelerate). For ANTs see :mod:`posepipe.refinement.ants`."""


@contextmanager
def library_threads(n: int) -> Iterator[None]:
    """Context in which libraries loaded in this process and in its children use ``n`` threads each.

    The variables are read once, when a library is loaded: enter before numpy is imported. Otherwise the OpenBLAS of numpy and of scipy
    start one thread per core in every worker, regardless of ``--omp-nthreads``. The environment is restored at the end.
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
    """``settings`` with at most as many threads per image as the run has cores (``--nprocs``); a reduction is printed."""
    most = settings.nprocs or cores()
    if (settings.omp_nthreads or 1) <= most:
        return settings
    found = f"{_counted(most, 'core')} to use, so an image gets {_counted(most, 'thread')}"
    print(f"--omp-nthreads {settings.omp_nthreads}: {found}", flush=True)
    return replace(settings, omp_nthreads=most)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
