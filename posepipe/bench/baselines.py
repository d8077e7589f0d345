"""The paper's volume-to-volume registrations with ANTs: VVR-GC, VVR-PAA and VVR-Deep.

Salehi et al. 2018, section 3.2: rigid, normalised mutual information, gradient descent, three levels; started from the geometric centre,
from moments and principal axes, or from a network with a lower learning rate. The result of ANTs is used as it is, without posepipe's own
acceptance criteria, and with one template. Details that the paper does not give, or that differ here:

- ANTs has no normalised mutual information. Mattes mutual information is used in its place, and tables say so (:data:`METRIC`).
- Levels, iterations, bins, sampling and learning rate are those of the rigid stage of ANTs' own script ``antsRegistrationSyNQuick.sh``,
  which has three levels; none was chosen by results. ANTs' optimiser is a conjugate gradient descent with a line search.
- The lower learning rate is not given. A quarter is used, as for slices (:mod:`posepipe.bench.slice_baselines`).
- Image and template are the brain-extracted volumes on their own grids, 0 outside their masks, with non-negative intensities.
- The paper does not give the direction of the principal axes. Here each axis points to the positive side of the RAS axis along which its
  component is largest, and the third completes a right-handed frame. The other three proper rotations are not tried.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TransformError
from ..geometry import Rigid, read_itk, write_itk
from ..geometry.so3 import Array
from ..imaging.moments import moments
from ..imaging.volume import Volume
from ..refinement.ants import one_thread

if TYPE_CHECKING:
    from ..matching.target import Target

METRIC = "Mattes mutual information"
ITERATIONS, SHRINK, SIGMAS = "1000x500x250", "8x4x2", "3x2x1vox"
"""Maximum number of iterations, shrink factors and smoothing (standard deviations in voxels) of the three levels:
``antsRegistrationSyNQuick.sh``."""
CONVERGENCE = "1e-6,10"
"""A level ends when the slope of the metric over 10 iterations is below 1e-6: ``antsRegistrationSyNQuick.sh``."""
BINS, SAMPLED = 32, 0.25
"""Bins of the joint histogram, and share of voxels sampled on a regular grid: ``antsRegistrationSyNQuick.sh``."""
RATE = 0.1
"""Learning rate of ANTs' ``Rigid[...]``: ``antsRegistrationSyNQuick.sh``. It is only the first step of a line search along each gradient,
so results hardly depend on it: on the phantom, 30° off, they are equal from 1 to 0.001; with 0.00001 ANTs stops near its start."""
DEEP_RATE = 0.25
"""Learning rate when started from a network, as a share of :data:`RATE`: "a lower learning rate" (section 3.2)."""
UNMOVED_DEGREES, UNMOVED_MM = 1e-4, 1e-3
"""A result within these limits of its start counts as no step at all. The start is written and read in single precision, and then differs
by 3e-7° and 3e-5 mm."""
SEED = 1
"""Seed of ANTs' sampling, which shifts the regular points at random."""


def brain_of(image: Volume, mask: Volume) -> Volume:
    """``image``, 0 outside ``mask`` (same grid): the input of all methods here."""
    return image.with_data(np.where(np.asarray(mask.data) > 0, image.data, 0).astype(np.float32))


def geometric_center(image: Volume, template: Volume) -> Rigid:
    """Pose template → image that maps the centre of the template's grid to the centre of the image's grid, without rotation, as ITK's
    ``CenteredTransformInitializer`` by geometry."""
    return Rigid.about(np.eye(3), template.center, image.center)


def principal_axes(image: Volume, template: Volume) -> Rigid:
    """Pose template → image, both brain-extracted, that maps centre of mass to centre of mass and principal axes of intensity to
    principal axes."""
    here, there = moments(image), moments(template)
    return Rigid.about(_pointed(here.axes) @ _pointed(there.axes).T, there.center, here.center)


def _pointed(axes: Array) -> Array:
    """``axes`` (3, 3), as columns, with signs chosen so that the largest component of each is positive; the third completes a
    right-handed frame."""
    first, second = (axis * np.sign(axis[np.abs(axis).argmax()]) for axis in axes.T[:2])
    return np.stack([first, second, np.cross(first, second)], 1)


def vvr(image: Volume, mask: Volume, target: Target, start: Rigid, *, rate: float = RATE) -> Rigid:
    """Pose template → image (RAS mm) by ``antsRegistration`` from ``start``.

    ``image`` and its brain ``mask`` share one grid. With one thread and a fixed seed the result is reproducible bit by bit. Raises
    :class:`~posepipe.errors.TransformError`, which names the image, if ANTs fails or returns its start: ANTs does so silently where its
    metric cannot be computed.
    """
    try:
        found = _by_ants(image, mask, target, start, rate)
    except (RuntimeError, ValueError, IndexError, TransformError) as error:
        msg = f"{image.source}: ANTs could not register this image ({error}); look at image and mask"
        raise TransformError(msg) from error
    if found.is_close(start, UNMOVED_DEGREES, UNMOVED_MM):
        msg = f"{image.source}: ANTs could not register this image (it took no step from its start); look at image and mask"
        raise TransformError(msg)
    return found


def _by_ants(image: Volume, mask: Volume, target: Target, start: Rigid, rate: float) -> Rigid:
    """The pose by ANTs, unchanged."""
    import ants

    with tempfile.TemporaryDirectory(prefix="posepipe-vvr-") as folder, one_thread():
        # ITK counts its threads when it makes its first image
        fixed, moving = (_ants_image(brain_of(*both)) for both in ((target.volume, target.mask), (image, mask)))
        first = write_itk(start, Path(folder) / "start.txt", target.volume.center)
        ants.registration(_arguments(fixed, moving, f"{first}", f"{folder}/out_", rate), None)
        return read_itk(f"{folder}/out_0GenericAffine.mat")


def _arguments(fixed: Any, moving: Any, start: str, prefix: str, rate: float) -> list[str]:
    """The command line of ``antsRegistration``. ``start``: a transform file, or two images and how to align one with the other."""
    from ants.internal import get_pointer_string

    pair = f"{get_pointer_string(fixed)},{get_pointer_string(moving)}"
    return [
        "--dimensionality", "3", "--float", "1", "--random-seed", f"{SEED}", "--output", prefix,
        "--initial-moving-transform", start.format(pair=pair),
        "--metric", f"Mattes[{pair},1,{BINS},Regular,{SAMPLED}]", "--transform", f"Rigid[{rate}]",
        "--convergence", f"[{ITERATIONS},{CONVERGENCE}]", "--shrink-factors", SHRINK, "--smoothing-sigmas", SIGMAS,
    ]  # fmt: skip


def _ants_image(volume: Volume) -> Any:
    """``volume`` as an ANTs image on the same grid, in ITK's frame (LPS)."""
    import ants

    lps = np.diag([-1.0, -1.0, 1.0])
    direction = lps @ volume.affine[:3, :3] / volume.spacing
    return ants.from_numpy(
        np.ascontiguousarray(volume.data, np.float32),
        origin=tuple(lps @ volume.affine[:3, 3]), spacing=tuple(volume.spacing), direction=direction,
    )  # fmt: skip
