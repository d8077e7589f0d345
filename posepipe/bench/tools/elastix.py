"""elastix, the program (Debian's package ``elastix``)."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ...geometry.so3 import Array
from .base import Options, Registered, Tool, ToolError, from_lps, run_program, started

PARAMETERS = """(FixedInternalImagePixelType "float")
(MovingInternalImagePixelType "float")
(UseDirectionCosines "true")
(Registration "MultiResolutionRegistration")
(FixedImagePyramid "FixedSmoothingImagePyramid")
(MovingImagePyramid "MovingSmoothingImagePyramid")
(NumberOfResolutions 4)
(Transform "EulerTransform")
(AutomaticTransformInitialization "true")
(AutomaticTransformInitializationMethod "CenterOfGravity")
(AutomaticScalesEstimation "true")
(HowToCombineTransforms "Compose")
(Metric "AdvancedMattesMutualInformation")
(NumberOfHistogramBins 32)
(ImageSampler "RandomCoordinate")
(NumberOfSpatialSamples 2048)
(NewSamplesEveryIteration "true")
(CheckNumberOfSamples "false")
(Interpolator "LinearInterpolator")
(ResampleInterpolator "FinalBSplineInterpolator")
(Resampler "DefaultResampler")
(Optimizer "AdaptiveStochasticGradientDescent")
(MaximumNumberOfIterations 250)
(WriteResultImage "false")
"""
"""Rigid registration with the settings of elastix's manual; samples beside the image are allowed, as brains are small in their grids."""


class Elastix(Tool):
    """Centres of gravity, then rigid registration on four levels."""

    about = "`elastix` with the rigid settings of its manual"

    def __init__(self) -> None:
        self._threads, self._start = 1, 0.0

    def missing(self, options: Options) -> str:
        return "" if shutil.which("elastix") else "the program elastix is not on the PATH (Debian: apt install elastix)"

    def start(self, options: Options) -> float:
        self._threads = options.threads
        self._start = started(["elastix", "--version"])
        return self._start

    def register(self, image: Path, template: Path, folder: Path) -> Registered:
        (folder / "rigid.txt").write_text(PARAMETERS, encoding="ascii")
        command = ["elastix", "-f", template, "-m", image, "-p", folder / "rigid.txt", "-out", folder, "-threads", self._threads]
        log = folder / "elastix.out"
        wall, peak = run_program([str(word) for word in command], log, self._threads)
        told = re.search(r"Reading images took ([\d.]+) ms", log.read_text(encoding="utf-8", errors="replace"))
        read = float(told[1]) / 1000 if told else float("nan")
        seconds = wall - self._start - (read if told else 0.0)
        return Registered(euler_matrix(folder / "TransformParameters.0.txt"), seconds, read, peak_mb=peak)


def euler_matrix(path: Path) -> Array:
    """The RAS matrix (4, 4) of elastix's ``EulerTransform``, R = Rz Rx Ry about its centre. Raises :class:`ToolError` if there is none."""
    if not path.is_file():
        msg = f"elastix wrote no {path.name}"
        raise ToolError(msg)
    found = dict(re.findall(r"^\((\w+) ([^)]*)\)", path.read_text(encoding="ascii"), flags=re.MULTILINE))
    if found.get("ComputeZYX") != '"false"':
        msg = f"{path.name}: another order of angles than z, x, y"
        raise ToolError(msg)
    x, y, z, *shift = (float(v) for v in found["TransformParameters"].split())
    center = np.array(found["CenterOfRotationPoint"].split(), dtype=float)
    return from_lps(Rotation.from_euler("ZXY", [z, x, y]).as_matrix(), np.array(shift), center)
