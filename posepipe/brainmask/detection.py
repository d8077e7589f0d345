"""Predictions of the masking networks: candidate brain positions in a scan and, in crops, the segmentation, the pose and its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import WeightsError
from ..geometry.so3 import Array
from ..imaging.mask import MIN_MILLILITRES, largest_piece
from ..imaging.moments import Moments, moments
from ..imaging.sampling import sample, tensor
from ..imaging.volume import Volume
from ..models.coordinates import HALF_SIDE
from ..models.layers import for_inference
from ..models.precision import inference_context
from ..models.scans import Located, LocatorNet, OutlineNet, ScanNet, scaled
from ..models.weights import SCAN_NETWORKS, LoadedNetwork, load_network
from .scan import Frame, Scan

DIVISOR = 16
"""Grid sizes are multiples of this, as the networks downsample four times by 2."""
LEAST_P = 0.3
"""Brain probability below which a cell's offset vote is ignored."""
PEAK, PEAKS = 5, 8
"""A density peak is the maximum of a cube of this many cells (of two voxels) a side; at most this many peaks are evaluated."""
SAME = 0.6
"""Cells whose votes lie within this distance of a centre, in brain radii, belong to that brain."""
LARGEST_RADIUS_MM = 66.0
"""Upper limit of a brain's radius, mm: a fifth more than the oldest template's (Serag, 44 weeks: 54 mm)."""


@dataclass(frozen=True, eq=False)
class BrainProbability:
    """Brain probabilities ``p`` (X, Y, Z), 0 to 1, on the grid ``frame``."""

    p: Tensor
    frame: Frame

    def largest(self) -> BrainProbability:
        """The probabilities inside the largest connected component above 0.5, 0 elsewhere."""
        piece, _ = largest_piece(self.p.cpu().numpy() > 0.5)
        return BrainProbability(self.p * torch.as_tensor(piece, device=self.p.device), self.frame)

    def about(self) -> Moments | None:
        """Moments of :meth:`largest`; None if its volume is below that of any brain."""
        p = self.largest().p.cpu().numpy()
        if not p.any():
            return None
        about = moments(Volume(p, self.frame.affine))
        return None if about.millilitres < MIN_MILLILITRES else about

    def on(self, frame: Frame) -> Tensor:
        """The probabilities resampled to another frame (1, 1, X, Y, Z); 0 outside."""
        to_voxel = tensor(np.linalg.inv(self.frame.affine), self.p.device)
        return sample(self.p[None], to_voxel, frame.points(self.p.device))[None]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A candidate brain: ``center`` (3,) and ``radius`` in mm, and ``share``: the volume of the cells that vote for it, relative to a ball
    of that radius."""

    center: Array
    radius: float
    share: float


@dataclass(frozen=True, eq=False)
class Detection:
    """The prediction for one crop: ``probability`` and its moments ``about``; ``rotation`` (3, 3) from the canonical frame to the grid's
    axes, ``origin`` (3,) of the canonical frame and the brain's ``radius``, its unit, in mm.

    ``features``: ``sure``, the mean probability of the segmented voxels; ``expected_error`` of the predicted coordinates and ``residual``
    of their Procrustes fit, in brain radii.
    """

    probability: BrainProbability
    about: Moments
    rotation: Array
    origin: Array
    radius: float
    features: dict[str, float] = field(default_factory=dict)


class ScanNetworks:
    """Three networks: the locator, whose input is the whole scan, one for the pose in crops, and one for the segmentation in finer crops.

    Weights in ``weights_dir`` take precedence over the package's. Raises :class:`~posepipe.errors.WeightsError`.
    """

    def __init__(self, weights_dir: str | Path | None = None, device: str = "cpu") -> None:
        locator, crops, outline = (load_network(name, weights_dir=weights_dir, device=device) for name in SCAN_NETWORKS)
        self._locator: LocatorNet = for_inference(_checked(locator, LocatorNet))  # type: ignore[assignment]
        self._crops: ScanNet = for_inference(_checked(crops, ScanNet))  # type: ignore[assignment]
        self._outline: OutlineNet = for_inference(_checked(outline, OutlineNet))  # type: ignore[assignment]
        self.weights = {n.name: n.sha256 for n in (locator, crops, outline)}
        """Name → SHA-256."""
        self.size, self.outline_size = (int(n.options["size"]) for n in (crops, outline))
        """Voxels a side of the crops."""

    def overview(self, scan: Scan, step: float) -> tuple[Candidate, ...]:
        """Candidate brains in the whole scan, by decreasing ``share``, from the locator at a spacing of ``step`` mm."""
        counts = np.maximum(np.ceil((scan.size + step) / step / DIVISOR).astype(int) * DIVISOR, 2 * DIVISOR)
        frame = Frame(scan.size / 2, step, (int(counts[0]), int(counts[1]), int(counts[2])), np.eye(3))
        crop = scan.crop(frame)
        with inference_context(crop.device):
            return candidates_from_offsets(self._locator(_last(scaled(crop))), frame)

    def outline(self, scan: Scan, center: Array, half: float) -> BrainProbability:
        """Segmentation of the brain in a cubic crop about ``center`` (3,), mm, with half the edge ``half``, mm."""
        frame = Frame.about(center, half, self.outline_size)
        crop = scan.crop(frame)
        with inference_context(crop.device):
            logits = self._outline(_last(scaled(crop)))
        return BrainProbability(torch.sigmoid(logits[0, 0]), frame)

    def detect(self, scan: Scan, frames: Sequence[Frame], before: BrainProbability) -> list[Detection | None]:
        """Pose and segmentation on each of the ``frames`` (cubes with the same number of voxels). ``before`` is the earlier segmentation,
        the second input channel. None for a crop with less than the volume of any brain."""
        crops = torch.cat([scan.crop(frame) for frame in frames])
        guess = torch.cat([before.on(frame) for frame in frames])
        with inference_context(crops.device):
            found = self._crops(_last(torch.cat([scaled(crops), guess], 1)))
            solved = found.coordinates.solve()
            likely = torch.sigmoid(found.foreground[:, 0])
            share = found.coordinates.foreground.sigmoid().flatten(1)
            error = (found.log_error.flatten(1).exp() * share).sum(1) / share.sum(1).clamp_min(1e-6)
        out: list[Detection | None] = []
        for i, frame in enumerate(frames):
            mine = BrainProbability(likely[i], frame)
            about = mine.about()
            if about is None:
                out.append(None)
                continue
            unit = frame.step * frame.counts[0] / 2 / HALF_SIDE
            out.append(Detection(
                mine,
                about,
                frame.axes @ solved.rotation[i].double().cpu().numpy(),
                frame.center + unit * frame.axes @ solved.translation[i].double().cpu().numpy(),
                unit * float(solved.scale[i]),
                {
                    "sure": float(likely[i][likely[i] > 0.5].mean()),
                    "expected_error": float(error[i]), "residual": float(solved.residual[i]),
                },
            ))  # fmt: skip
        return out


def candidates_from_offsets(found: Located, frame: Frame) -> tuple[Candidate, ...]:
    """Candidate brains from the locator's output on ``frame``: each brain voxel votes for a centre by its predicted offset, and each
    density peak of the votes gives a candidate. By decreasing ``share``."""
    p = torch.sigmoid(found.foreground[0, 0])
    cells = F.avg_pool3d(p[None], 2)[0]
    shape = torch.tensor(cells.shape, device=p.device)
    at = torch.stack(torch.meshgrid(*(torch.arange(n, device=p.device) for n in cells.shape), indexing="ij"), -1).reshape(-1, 3)
    # in cells, two voxels a side
    to = at + found.offset[0].reshape(3, -1).T / 2
    weight, radius = cells.flatten(), found.log_radius.flatten().exp() / 2
    sure = weight > LEAST_P
    to, weight, radius = to[sure], weight[sure], radius[sure]
    index = to.round().long()
    inside = ((index >= 0) & (index < shape)).all(1)
    to, weight, radius, index = (x[inside] for x in (to, weight, radius, index))
    density = torch.zeros_like(cells)
    density.index_put_(tuple(index.T), weight, accumulate=True)
    density = F.avg_pool3d(F.avg_pool3d(density[None], 3, 1, 1), 3, 1, 1)[0]
    peaks = torch.nonzero((density > 0) & (density == F.max_pool3d(density[None], PEAK, 1, PEAK // 2)[0]))
    places = []
    side = 2 * frame.step
    origin = frame.center - side * frame.axes @ ((np.array(cells.shape) - 1) / 2)
    for peak in peaks[density[tuple(peaks.T)].argsort(descending=True)][:PEAKS].double():
        center, size = peak.to(to.dtype), float("nan")
        for _ in range(2):
            # first pass: votes near the peak; second pass: votes within SAME radii, with the radius from the first pass
            near = (to - center).norm(dim=1) < (PEAK / 2 if size != size else SAME * size)
            if not near.any():
                break
            w = weight[near] / weight[near].sum()
            center, size = (w[:, None] * to[near]).sum(0), float((w * radius[near].log()).sum().exp())
        if not near.any():
            continue
        share = float(weight[near].sum()) / (4 / 3 * np.pi * size**3)
        places.append(Candidate(origin + side * frame.axes @ center.double().cpu().numpy(), side * size, share))
    return tuple(sorted(places, key=lambda one: -one.share))


def _checked(loaded: LoadedNetwork, kind: type[torch.nn.Module]) -> torch.nn.Module:
    if not isinstance(loaded.module, kind):
        is_a = type(loaded.module).__name__
        msg = f"{loaded.path}: {loaded.name} must be a {kind.__name__}, not a {is_a}; give other weights with --weights"
        raise WeightsError(msg)
    return loaded.module


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)
