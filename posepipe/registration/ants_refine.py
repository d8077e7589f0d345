"""Rigid refinement with ANTs, in process by way of antspyx."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ..errors import TransformError
from ..geometry import Rigid, read_itk, write_itk
from ..imaging.volume import Volume

if TYPE_CHECKING:
    from .target import Target

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SPACING_MM = 1.2
"""Images finer than this are registered at about this spacing: a rigid pose gains nothing below it."""
THREADS_VARIABLE = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"


def ants_rigid(
    image: Volume, mask: Volume, target: Target, start: Rigid, *, threads: int = 1, seed: int = 0, well_started: bool = True
) -> Rigid:
    """``antsRegistration``'s rigid stage from ``start`` (template → image): Mattes mutual information, two resolutions, both masks.

    The masks are dilated by about 4 mm so that the outline counts too. Where the start is good a small gradient step keeps
    its basin. Raises :class:`~posepipe.errors.TransformError` if ANTs fails.
    """
    import ants

    fixed, fixed_mask = _cropped(target.volume, target.mask)
    moving, moving_mask = _cropped(image, mask)
    with tempfile.TemporaryDirectory(prefix="posepipe-ants-") as folder, _threads(threads):
        first = write_itk(start, Path(folder) / "start.txt")
        try:
            result = ants.registration(
                fixed=_ants_image(fixed),
                moving=_ants_image(moving),
                type_of_transform="Rigid",
                initial_transform=[str(first)],
                outprefix=f"{folder}/out_",
                mask=_ants_image(fixed_mask),
                moving_mask=_ants_image(moving_mask),
                mask_all_stages=True,
                grad_step=0.05 if well_started else 0.2,
                aff_metric="mattes",
                aff_sampling=32,
                aff_random_sampling_rate=0.3,
                aff_iterations=(100, 50),
                aff_shrink_factors=(3, 2) if min(fixed.spacing) < SPACING_MM else (2, 1),
                aff_smoothing_sigmas=(2, 1),
                random_seed=seed + 1,
            )
            return read_itk(result["fwdtransforms"][0])
        except (RuntimeError, IndexError, TransformError) as error:
            msg = f"{image.source}: ANTs could not register this image ({error}); try --refine torch"
            raise TransformError(msg) from error


def _cropped(volume: Volume, mask: Volume, margin_mm: float = 10.0) -> tuple[Volume, Volume]:
    """Brain-extracted ``volume`` and its dilated mask, cut to the brain with a margin."""
    margin = np.ceil(margin_mm / volume.spacing).astype(int)
    hit = [np.flatnonzero(mask.data.any(axis=tuple(b for b in range(3) if b != a))) for a in range(3)]
    box = tuple(slice(max(int(h[0]) - m, 0), int(h[-1]) + m + 1) for h, m in zip(hit, margin, strict=True))
    inside = mask.data[box].astype(bool)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    distance = ndimage.distance_transform_edt(~inside, sampling=volume.spacing)
    data = np.where(inside, volume.data[box], 0).astype(np.float32)
    return Volume(data, affine, volume.source), Volume((distance < 4).astype(np.float32), affine, mask.source)


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
