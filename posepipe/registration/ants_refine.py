"""Rigid refinement with ANTs, in process by way of antspyx."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TransformError
from ..geometry import Rigid, read_itk, write_itk
from ..imaging.volume import Volume

if TYPE_CHECKING:
    from .target import Target

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SPACING_MM = 1.2
"""Images finer than this are registered at about this spacing: a rigid pose gains nothing below it."""
THREADS_VARIABLE = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"


def ants_rigid(image: Volume, mask: Volume, target: Target, start: Rigid, *, threads: int = 1, seed: int = 0) -> Rigid:
    """``antsRegistration``'s rigid stage from ``start`` (template → image): Mattes mutual information at two resolutions.

    Both images are cut out by their masks instead of handing ANTs the masks, so that the brain's edge counts: measured
    better (docs/experiments.md, 4). The gradient step is half of ANTs' default, which keeps a good start's basin.
    The same ``seed`` gives the same bits on one thread. ITK takes its thread count at the first registration of a process, so the
    first ``threads`` counts for all. Raises :class:`~posepipe.errors.TransformError` if ANTs fails.
    """
    import ants

    fixed, moving = _brain(target.volume, target.mask), _brain(image, mask)
    with tempfile.TemporaryDirectory(prefix="posepipe-ants-") as folder, _threads(threads), _seeded(seed + 1):
        first = write_itk(start, Path(folder) / "start.txt")
        try:
            result = ants.registration(
                fixed=_ants_image(fixed),
                moving=_ants_image(moving),
                type_of_transform="Rigid",
                initial_transform=[str(first)],
                outprefix=f"{folder}/out_",
                grad_step=0.1,
                aff_metric="mattes",
                aff_sampling=32,
                aff_random_sampling_rate=0.2,
                aff_iterations=(100, 50),
                aff_shrink_factors=(3, 2) if min(fixed.spacing) < SPACING_MM else (2, 1),
                aff_smoothing_sigmas=(2, 1),
                random_seed=seed + 1,  # antspyx up to 0.6.1; later ones pass over it, see _seeded
            )
            return read_itk(result["fwdtransforms"][0])
        except (RuntimeError, ValueError, IndexError, TransformError) as error:
            msg = f"{image.source}: ANTs could not register this image ({error}); try --refine torch"
            raise TransformError(msg) from error


def _brain(volume: Volume, mask: Volume, margin_mm: float = 6.0) -> Volume:
    """``volume`` inside ``mask``, 0 outside, cut to the brain with a margin that shows its edge."""
    margin = np.ceil(margin_mm / volume.spacing).astype(int)
    hit = [np.flatnonzero(mask.data.any(axis=tuple(b for b in range(3) if b != a))) for a in range(3)]
    box = tuple(slice(max(int(h[0]) - m, 0), int(h[-1]) + m + 1) for h, m in zip(hit, margin, strict=True))
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    return Volume(np.where(mask.data[box], volume.data[box], 0).astype(np.float32), affine, volume.source)


def _ants_image(volume: Volume) -> Any:
    import ants

    affine = _LPS @ volume.affine
    spacing = volume.spacing
    return ants.from_numpy(
        np.ascontiguousarray(volume.data, dtype=np.float32),
        origin=tuple(affine[:3, 3]),
        spacing=tuple(spacing),
        direction=affine[:3, :3] / spacing,
    )


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """ITK reads its thread count from the environment at each registration; put back after."""
    old = os.environ.get(THREADS_VARIABLE)
    os.environ[THREADS_VARIABLE] = str(max(n, 1))
    try:
        yield
    finally:
        if old is None:
            os.environ.pop(THREADS_VARIABLE, None)
        else:
            os.environ[THREADS_VARIABLE] = old


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """antspyx from 0.6.2 on takes the seed from its own settings, and without one ANTs samples by the clock; put back after.

    Its ``set_ants_deterministic`` will not do: that also seeds numpy's and Python's generators and ties ITK to one thread.
    """
    import ants

    config: Any = getattr(ants, "config", None)
    before = getattr(config, "_random_seed", None)
    if hasattr(config, "_random_seed"):
        config._random_seed = seed
    try:
        yield
    finally:
        if hasattr(config, "_random_seed"):
            config._random_seed = before
