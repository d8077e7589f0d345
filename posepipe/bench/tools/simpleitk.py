"""SimpleITK: centres of mass, the 24 rotations of the cube as starts, then rigid registration."""

from __future__ import annotations

import itertools
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...geometry.so3 import Array
from .base import Options, Registered, Tool, ToolError, from_lps

SHRINK, SIGMAS = (4, 2, 1), (2.0, 1.0, 0.0)
"""Levels as in SimpleITK's own notebooks on registration: shrink factors, and smoothing (mm)."""
BINS, RATE, ITERATIONS = 50, 1.0, 100
"""Histogram bins, learning rate and iterations: SimpleITK's notebooks."""
SAMPLED = (1.0, 0.5, 0.1)
"""Share of voxels sampled on each level. The notebooks take 1 % of each, which leaves a few dozen voxels of a brain on the coarsest."""
COARSE_ITERATIONS = 20
"""Iterations from each of the 24 starts on the coarsest level."""


def cube_rotations() -> list[Array]:
    """The 24 proper rotations of a cube, as matrices (3, 3)."""
    signs, orders = itertools.product((1, -1), repeat=3), list(itertools.permutations(range(3)))
    signed = (np.eye(3)[list(order)] * np.array(sign)[:, None] for sign in signs for order in orders)
    return [m for m in signed if np.linalg.det(m) > 0]


class SimpleItk(Tool):
    """Each of 24 starts on the coarsest level, the best of them to the finest."""

    about = "centres of mass, 24 starts, Mattes mutual information, regular-step descent"

    def __init__(self) -> None:
        self._threads = 1

    def missing(self, options: Options) -> str:
        return "" if find_spec("SimpleITK") else "not installed (pip install SimpleITK)"

    def start(self, options: Options) -> float:
        import SimpleITK as sitk

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(options.threads)
        self._threads = options.threads
        return 0.0

    def register(self, image: Path, template: Path, folder: Path) -> Registered:
        import SimpleITK as sitk

        begun = time.perf_counter()
        fixed, moving = (sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (template, image))
        read = time.perf_counter() - begun
        begun = time.perf_counter()
        try:
            found = self._registered(fixed, moving)
        except RuntimeError as error:
            msg = f"SimpleITK: {error}"
            raise ToolError(msg) from error
        seconds = time.perf_counter() - begun
        return Registered(from_lps(found.GetMatrix(), found.GetTranslation(), found.GetCenter()), seconds, read)

    def _registered(self, fixed: Any, moving: Any) -> Any:
        import SimpleITK as sitk

        first = sitk.CenteredTransformInitializer(
            fixed, moving, sitk.VersorRigid3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
        )
        coarse = [  # once, and not again for each start
            sitk.Shrink(sitk.SmoothingRecursiveGaussian(image, SIGMAS[0]), [SHRINK[0]] * 3) for image in (fixed, moving)
        ]
        best: tuple[float, Any] = (np.inf, None)
        for rotation in cube_rotations():
            start = sitk.VersorRigid3DTransform(first)
            start.SetMatrix(rotation.ravel().tolist())
            method = self._method((1,), (0.0,), COARSE_ITERATIONS)
            method.SetInitialTransform(start, inPlace=True)
            method.Execute(*coarse)
            best = min(best, (method.GetMetricValue(), start), key=lambda one: one[0])
        method = self._method(SHRINK, SIGMAS, ITERATIONS)
        method.SetInitialTransform(best[1], inPlace=True)
        method.Execute(fixed, moving)
        return best[1]

    def _method(self, shrink: tuple[int, ...], sigmas: tuple[float, ...], iterations: int) -> Any:
        import SimpleITK as sitk

        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(self._threads)
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentagePerLevel(SAMPLED[: len(shrink)], 1)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(RATE, 1e-3, iterations)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel(shrink)
        method.SetSmoothingSigmasPerLevel(sigmas)
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        return method
