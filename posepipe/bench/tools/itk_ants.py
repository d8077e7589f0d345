"""ANTs by antspyx, as its users call it: ``ants.registration(type_of_transform="Rigid")``, alone and from two searches."""

from __future__ import annotations

import itertools
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...geometry import Rigid, write_itk
from ...geometry.so3 import Array
from ...imaging.moments import moments
from ...imaging.volume import load_volume
from .base import Options, Registered, Tool, ToolError, from_lps, mirrored, rigid_part

COARSE_MM = 4.0
"""Voxels on which starts are sought: those of ANTs' own ``antsBrainExtraction.sh``. On the images' own grids ``affine_initializer`` over
all rotations did not end within minutes."""
SEARCH_DEGREES = 20
"""Step of the search over rotations: the default of ``affine_initializer``."""
COARSE_ITERATIONS = 50
"""Iterations from each of four starts on the coarse grid: the last level of posepipe's own call of ANTs (decision 004)."""


class AntsRigid(Tool):
    """ANTs' rigid registration; it begins with the centres of mass."""

    about = '`ants.registration(type_of_transform="Rigid")`'

    def missing(self, options: Options) -> str:
        return "" if find_spec("ants") else "antspyx is not installed (pip install antspyx)"

    def start(self, options: Options) -> float:
        import ants  # noqa: F401

        return 0.0

    def register(self, image: Path, template: Path, folder: Path) -> Registered:
        import ants

        begun = time.perf_counter()
        fixed, moving = ants.image_read(str(template)), ants.image_read(str(image))
        read = time.perf_counter() - begun
        begun = time.perf_counter()
        try:
            first = self.first(fixed, moving, image, template, folder)
            found = ants.registration(fixed, moving, "Rigid", initial_transform=first, outprefix=f"{folder}/out_", random_seed=1)
        except (RuntimeError, ValueError, IndexError) as error:
            msg = f"ANTs: {error}"
            raise ToolError(msg) from error
        seconds = time.perf_counter() - begun
        return Registered(matrix_of(found["fwdtransforms"][0]), seconds, read)

    def first(self, fixed: Any, moving: Any, image: Path, template: Path, folder: Path) -> list[str] | None:
        """Transform file to begin with; None: ANTs' own choice."""
        return None


class AntsSearch(AntsRigid):
    """ANTs' multi-start search over all rotations, on a coarse grid as in ANTs' own scripts, then its rigid registration from the nearest
    rotation: the search also scales and shears, which rigid registration would keep."""

    about = f"`ants.affine_initializer(radian_fraction=1)` at {COARSE_MM:g} mm, its nearest rotation, then as `ants`"

    def first(self, fixed: Any, moving: Any, image: Path, template: Path, folder: Path) -> list[str]:
        import ants

        pair = map(coarse, (fixed, moving))
        path = ants.affine_initializer(*pair, search_factor=SEARCH_DEGREES, radian_fraction=1, txfn=f"{folder}/first.mat")
        matrix = matrix_of(path)
        if why := mirrored(matrix):
            msg = f"affine_initializer {why}"
            raise ToolError(msg)
        center = load_volume(template).center
        return [str(write_itk(rigid_part(matrix, center), folder / "first.txt", center))]


class AntsAxes(AntsRigid):
    """Principal axes of brightness in all four proper signs; each is registered on a coarse grid, the best goes on."""

    about = f"principal axes, four signs, each registered at {COARSE_MM:g} mm; the best goes on as `ants`"

    def first(self, fixed: Any, moving: Any, image: Path, template: Path, folder: Path) -> list[str]:
        import ants

        small, other = coarse(fixed), coarse(moving)
        scored: list[tuple[float, str]] = []
        for k, pose in enumerate(four_axes(image, template)):
            start = write_itk(pose, folder / f"axes{k}.txt", load_volume(template).center)
            found = ants.registration(
                small, other, "Rigid", initial_transform=[str(start)], outprefix=f"{folder}/axes{k}_", random_seed=1,
                aff_iterations=(COARSE_ITERATIONS,), aff_shrink_factors=(1,), aff_smoothing_sigmas=(0,),
            )  # fmt: skip
            scored.append((ants.image_mutual_information(small, found["warpedmovout"]), found["fwdtransforms"][0]))
        return [min(scored)[1]]  # ANTs' mutual information is negative


def coarse(image: Any) -> Any:
    """``image`` smoothed and resampled to :data:`COARSE_MM`."""
    import ants

    smooth = ants.smooth_image(image, COARSE_MM / 2, sigma_in_physical_coordinates=True)
    return ants.resample_image(smooth, (COARSE_MM,) * 3, use_voxels=False, interp_type=0)


def four_axes(image: Path, template: Path) -> list[Rigid]:
    """Poses template → image that map centre of mass and principal axes of brightness onto each other, in the four proper signs."""
    here, there = moments(load_volume(image)), moments(load_volume(template))
    signs = [np.array(s) for s in itertools.product((1.0, -1.0), repeat=3) if np.prod(s) > 0]
    return [Rigid.about(here.axes * s @ there.axes.T, there.center, here.center) for s in signs]


def matrix_of(path: str) -> Array:
    """The RAS matrix (4, 4) of a linear ANTs transform file."""
    import ants

    transform = ants.read_transform(path)
    parameters, center = np.array(transform.parameters), np.array(transform.fixed_parameters)
    return from_lps(parameters[:9], parameters[9:], center)
