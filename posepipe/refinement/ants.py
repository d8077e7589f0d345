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
from ..models.inputs import FOREGROUND_OFFSET

if TYPE_CHECKING:
    from ..matching.brain import Brain

DIGITS = 4
"""Decimal places to which the start (radians, mm) is rounded, 0.005° at most. The last bits of torch's results depend on the number of
threads, and ANTs amplifies such differences to up to 0.1°."""
_LPS = np.diag([-1.0, -1.0, 1.0])
THREADS_VARIABLE = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"


def ants_rigid(image: Brain, template: Brain, start: Rigid, *, seed: int = 0, source: str = "image") -> Rigid:
    """``antsRegistration``'s rigid stage from ``start`` (template → image): Mattes mutual information at two resolutions.

    The inputs are the prepared brains, 0 outside their masks, instead of images and masks. The brain's edge then contributes to the metric,
    and the images that antspyx always warps afterwards are small. Grid, levels and sampling were chosen by measurement
    (docs/decisions/004). The same ``seed`` gives the same bits. For that, ITK runs with one thread: with two, repeated calls
    differed by up to 0.7°, as the order of summation depends on the threads (docs/decisions/006). Raises
    :class:`~posepipe.errors.TransformError`, which names ``source``, if ANTs fails.
    """
    import ants

    with tempfile.TemporaryDirectory(prefix="posepipe-ants-") as folder, one_thread(), _seeded(seed + 1):
        # the centre of rotation is the brain, not the world's origin: with a centre 200 mm away, ANTs ended up to 6° off
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
                random_seed=seed + 1,  # antspyx up to 0.6.1; later versions ignore it, see _seeded
            )
            return read_itk(result["fwdtransforms"][0])
        except (RuntimeError, ValueError, IndexError, TransformError) as error:
            msg = f"{source}: ANTs could not register this image ({error}); try --refine torch"
            raise TransformError(msg) from error


def _rounded(pose: Rigid) -> Rigid:
    """``pose`` with radians and mm rounded to :data:`DIGITS` decimal places."""
    return Rigid.from_rotvec(np.round(pose.rotvec, DIGITS), np.round(pose.translation, DIGITS))


def _ants_image(brain: Brain) -> Any:
    """``brain`` in ITK's frame; with the foreground offset of the outline channel, so that the background is darker than any tissue."""
    import ants

    shifted = ((brain.image + FOREGROUND_OFFSET) * brain.mask).clamp_min(0).cpu().numpy()
    return ants.from_numpy(
        np.ascontiguousarray(shifted), origin=tuple(_LPS @ brain.origin), spacing=(brain.spacing,) * 3, direction=_LPS
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Run ITK with one thread. ITK reads the number from the environment at the first registration of a process; the variable is
    restored."""
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
    """Set the seed in antspyx's configuration, from which versions from 0.6.2 take it (without it ANTs seeds from the clock); restored
    after.

    ``set_ants_deterministic`` is not used: it also seeds numpy's and Python's generators and sets ITK's number of threads.
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
