"""One answer of the scan network: where in a crop the brain is, how it lies, and how much speaks for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..geometry.so3 import Array
from ..imaging.mask import MIN_MILLILITRES, largest_piece
from ..imaging.moments import Moments, moments
from ..imaging.volume import Volume
from ..models.coordinates import HALF_SIDE
from ..models.layers import ready
from ..models.precision import answering
from ..models.scans import ScanNet, scaled
from ..models.weights import LoadedNetwork
from .scan import Frame, Scan

DIVISOR = 16
"""The network halves a grid four times."""


@dataclass(frozen=True, eq=False)
class Detection:
    """A brain in a crop on ``frame``: ``likely`` (X, Y, Z), probabilities of brain; ``about``, what of it is seen; ``rotation`` (3, 3)
    from the canonical frame to the grid's axes, ``origin`` (3,) of the canonical frame and its unit, ``radius``, in mm.

    ``features``: ``sure``, the mean probability of what is seen; ``expected_error`` of its coordinates and ``residual`` of their fit, in
    brain radii.
    """

    frame: Frame
    likely: Tensor
    about: Moments
    rotation: Array
    origin: Array
    radius: float
    features: dict[str, float] = field(default_factory=dict)


class ScanNetwork:
    """The network ready to be shown crops of a scan."""

    def __init__(self, loaded: LoadedNetwork) -> None:
        self._module: ScanNet = ready(loaded.module)  # type: ignore[assignment]
        self.name, self.sha256, self.size = loaded.name, loaded.sha256, int(loaded.options["size"])

    def overview(self, scan: Scan, step: float) -> tuple[Frame, Tensor]:
        """Probabilities of brain (X, Y, Z) on a grid ``step`` mm apart over the whole scan."""
        counts = np.maximum(np.ceil((scan.size + step) / step / DIVISOR).astype(int) * DIVISOR, 2 * DIVISOR)
        frame = Frame(scan.size / 2, step, (int(counts[0]), int(counts[1]), int(counts[2])), np.eye(3))
        crop = scan.crop(frame)
        with answering(crop.device):
            return frame, torch.sigmoid(self._module(_last(scaled(crop))).foreground[0, 0])

    def detect(self, scan: Scan, frames: list[Frame]) -> list[Detection | None]:
        """What is seen on each of the ``frames``, cubes of one number of voxels; None: less than any brain holds."""
        crops = torch.cat([scan.crop(frame) for frame in frames])
        with answering(crops.device):
            found = self._module(_last(scaled(crops)))
            solved = found.coordinates.solve()
            likely = torch.sigmoid(found.foreground[:, 0])
            share = found.coordinates.foreground.sigmoid().flatten(1)
            error = (found.log_error.flatten(1).exp() * share).sum(1) / share.sum(1).clamp_min(1e-6)
        out: list[Detection | None] = []
        for i, frame in enumerate(frames):
            about = _seen(likely[i], frame)
            if about is None:
                out.append(None)
                continue
            unit = frame.step * frame.counts[0] / 2 / HALF_SIDE
            inside = likely[i][likely[i] > 0.5]
            out.append(Detection(
                frame,
                likely[i],
                about,
                frame.axes @ solved.rotation[i].double().cpu().numpy(),
                frame.center + unit * frame.axes @ solved.translation[i].double().cpu().numpy(),
                unit * float(solved.scale[i]),
                {"sure": float(inside.mean()), "expected_error": float(error[i]), "residual": float(solved.residual[i])},
            ))  # fmt: skip
        return out


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _seen(likely: Tensor, frame: Frame) -> Moments | None:
    """Moments of the largest piece that is likely brain; None where that holds less than any brain."""
    p = likely.cpu().numpy()
    piece, count = largest_piece(p > 0.5)
    if not count:
        return None
    about = moments(Volume(np.where(piece, p, 0), frame.affine))
    return None if about.millilitres < MIN_MILLILITRES else about
