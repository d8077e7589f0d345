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
from ..matching.channels import LIFT

if TYPE_CHECKING:
    from ..matching.brain import Brain

DIGITS = 4
"""What torch computes differs in the last bits by its number of threads, and ANTs makes up to 0.1° of that; so its start (radians, mm) is
rounded to so many digits after the point, 0.005° at most."""
_LPS = np.diag([-1.0, -1.0, 1.0])
THREADS_VARIABLE = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"


def ants_rigid(image: Brain, template: Brain, start: Rigid, *, seed: int = 0, source: str = "image") -> Rigid:
    """``antsRegistration``'s rigid stage from ``start`` (template → image): Mattes mutual information at two resolutions.

    ANTs gets the prepared brains, 0 outside their masks, instead of images and masks: the brain's edge then counts, and there is
    nothing large for antspyx to warp afterwards, which it always does. Grid, levels and sampling were chosen by measurement
    (docs/experiments.md, 4 and 8). The same ``seed`` gives the same bits: ITK gets one thread, since with two the same call ended up to
    0.7° away from itself, as sums are added up in the order in which the threads end (docs/experiments-precision.md, 6). Raises
    :class:`~posepipe.errors.TransformError`, which names ``source``, if ANTs fails.
    """
    import ants

    with tempfile.TemporaryDirectory(prefix="posepipe-ants-") as folder, one_thread(), _seeded(seed + 1):
        # turned about the brain, wherever the world's origin lies: about a point 200 mm away ANTs ended up to 6° off
        first = write_itk(_rounded(start), Path(folder) / "start.txt", template.center)
        try:
            result = ants.registration(
                fixed=_ants_image(template),
                moving=_ants_image(image),
                type_of_transform="Rigid",
                initial_transform=[str(first)],
                outprefix=f"{folder}/out_",
                grad_step=0.1,
                aff_metric="mattes",
                aff_sampling=32,
                aff_random_sampling_rate=0.5,
                aff_iterations=(100, 50),
                aff_shrink_factors=(3, 2),
                aff_smoothing_sigmas=(1.5, 0.7),
                random_seed=seed + 1,  # antspyx up to 0.6.1; later ones pass over it, see _seeded
            )
            return read_itk(result["fwdtransforms"][0])
        except (RuntimeError, ValueError, IndexError, TransformError) as error:
            msg = f"{source}: ANTs could not register this image ({error}); try --refine torch"
            raise TransformError(msg) from error


def _rounded(pose: Rigid) -> Rigid:
    """``pose`` to :data:`DIGITS` digits after the point of radians and mm."""
    return Rigid.from_rotvec(np.round(pose.rotvec, DIGITS), np.round(pose.translation, DIGITS))


def _ants_image(brain: Brain) -> Any:
    """``brain`` in ITK's frame; brightness lifted, as in the outline channel, so that the background is darker than any tissue."""
    import ants

    lifted = ((brain.image + LIFT) * brain.mask).clamp_min(0).cpu().numpy()
    return ants.from_numpy(
        np.ascontiguousarray(lifted), origin=tuple(_LPS @ brain.origin), spacing=(brain.spacing,) * 3, direction=_LPS
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """ITK reads its thread count from the environment, and keeps to that of the first registration of a process; put back after."""
    old = os.environ.get(THREADS_VARIABLE)
    os.environ[THREADS_VARIABLE] = "1"
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
