"""The poses of the slices of an image, and the pose of the stack from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bids.slice_table import SliceRow, write_table
from ..errors import BidsError
from ..geometry import Rigid
from ..imaging.volume import Volume
from ..matching.comparison import Comparison
from ..matching.target import Target
from ..models.calibration import ConfidenceModel, load_calibration
from ..pose.coordinate_networks import PoseNetworks
from ..refinement.refine import Refined, at_pose
from ..settings import BY_SLICES
from .acquisition import Acquisition, from_sidecar, guessed, guessed_from_poses
from .frames import Slice, slice_axis, slices_of
from .fuse import fuse
from .network import SliceNetwork, SlicePose
from .points import SliceBatch, SliceTarget
from .register import ncc_at
from .stack import HEAD, StackPoses, register_stack

LEAST_MM2 = 100.0
"""Least area of brain, mm², for a slice to get a pose: a disc 11 mm wide."""
LEAST_SLICES = 3
"""Least number of slices with brain: one slice and its two neighbours."""
MOVED_DEGREES = 5.0
"""Motion of the slices about their mean, degrees RMS, above which the stack's pose is the mean of the slices' instead of the volume's. The
value from 0 to 12 with the least error on 36 simulated moving stacks of 6 validation brains (2.7° at 5 and 6, 2.9° at 3 and 4, 3.2° with
the slices alone, 9.4° with the volume alone; ``posepipe-tools bench stacks --groups validation``)."""
WITHIN_DEGREES = 10.0
"""A slice's pose is correct within this of the truth, degrees; its confidence is the probability of that."""


@dataclass(frozen=True, eq=False)
class KeptPose:
    """The pose of a stack, chosen between that of the ``slices`` and that of the ``volume`` (``kept``), with the ``reason``.

    ``scores``: mean NCC of all slices at each of the two poses; ``motion``: root mean square angle of the slices about their mean, without
    outliers, degrees.
    """

    pose: Rigid
    kept: str
    reason: str
    scores: Mapping[str, float]
    motion: float

    @classmethod
    def of(cls, batch: SliceBatch, target: SliceTarget, found: StackPoses, by_volume: Rigid) -> KeptPose:
        """The slices' mean pose if the head moved by more than :data:`MOVED_DEGREES` (the stack then has no single pose as a volume); else
        the pose with the higher mean NCC of the slices."""
        by_slices, n = found.fused.mean, len(batch)
        still = [p.degrees_from(by_slices) for p, out in zip(found.poses, found.fused.outlier, strict=True) if not out]
        motion = float(np.sqrt(np.mean(np.square(still)))) if still else 0.0
        scores = {
            name: float(ncc_at(batch, target, [pose] * n, HEAD, found.log_scale).mean())
            for name, pose in (("slices", by_slices), ("volume", by_volume))
        }
        moved = motion > MOVED_DEGREES
        kept = "slices" if moved or scores["slices"] > scores["volume"] else "volume"
        reason = (
            f"the slices' poses differ by {motion:.1f} degrees (RMS), {'more' if moved else 'no more'} than {MOVED_DEGREES:g}; "
            f"mean NCC of the slices {scores['slices']:.3f} at the mean of their poses, {scores['volume']:.3f} at that of the volume, "
            f"{by_slices.degrees_from(by_volume):.1f} degrees from it"
        )
        return cls(by_slices if kept == "slices" else by_volume, kept, reason, scores, motion)


@dataclass(frozen=True, eq=False)
class StackAlignment:
    """The slices of an image aligned to its template.

    ``rows`` has one row per slice, with its motion relative to :attr:`pose`. ``kept`` is the stack's pose: that of the slices
    (``by_slices``) or of the volume (``by_volume``); all atlas → image, RAS mm. ``features`` maps each slice with brain to the features of
    its confidence (:func:`slice_features`).
    """

    rows: tuple[SliceRow, ...]
    kept: KeptPose
    by_slices: Rigid
    by_volume: Rigid
    acquisition: Acquisition
    weights: Mapping[str, str]
    features: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    @property
    def pose(self) -> Rigid:
        """The pose of the stack, atlas → image."""
        return self.kept.pose

    def about(self) -> dict[str, Any]:
        """Summary of the stack, with the keys of the table's data dictionary and of sidecars."""
        known = [r for r in self.rows if r.pose is not None]
        return {
            "SlicesWithPose": len(known),
            "Outliers": sum(bool(r.outlier) for r in known),
            "MotionDegreesRMS": self.kept.motion,
            "StackPose": self.kept.kept,
            "StackPoseReason": self.kept.reason,
            "SliceOrder": self.acquisition.source,
            **({"SliceOrderNote": self.acquisition.note} if self.acquisition.note else {}),
            "Weights": dict(self.weights),
        }

    def applied_to(self, refined: Refined, image: Volume, mask: Volume, target: Target, *, compare: Comparison | None = None) -> Refined:
        """``refined`` (of the volume) with the slices' pose and its similarity if that is the stack's pose; else unchanged."""
        if self.kept.kept != "slices":
            return refined
        compare = compare or Comparison.of(image, mask, target, target.brain.image.device)
        return replace(at_pose(refined, compare, self.pose), method=BY_SLICES)

    def save(self, path: str | Path) -> Path:
        """Write the table of the slices' poses to ``path`` (TSV), by atomic replace."""
        return write_table(self.rows, path)


def align_stack(
    volume: Volume, mask: Volume, target: Target, by_volume: Rigid, network: SliceNetwork, *,
    sidecar: Mapping[str, Any] | None = None, model: ConfidenceModel | None = None,
) -> StackAlignment:  # fmt: skip
    """The poses of the slices of ``volume`` with the brain ``mask`` (same grid), whose pose as a volume is ``by_volume``.

    The network predicts a pose and its twin for each slice; the twin is chosen by comparison with neighbouring slices; then all slices are
    registered together, also with ``by_volume`` as a start. Of the image's ``sidecar``, ``SliceTiming``, ``SliceEncodingDirection`` and
    ``SliceThickness`` are used. Without timing the order of acquisition is estimated. The stack's pose is chosen by :meth:`KeptPose.of`.
    ``model`` gives each slice's confidence; below its ``fail`` the slice is an outlier.

    With fewer than :data:`LEAST_SLICES` slices with brain no slice gets a pose, and the stack's is ``by_volume``. A ``SliceTiming`` that
    does not match the image is ignored, which ``acquisition.note`` states.
    """
    sidecar = sidecar or {}
    axis = slice_axis(volume)
    slices = slices_of(volume, mask, axis=axis, thickness=_thickness(sidecar, volume, axis))
    try:
        acquisition = from_sidecar(sidecar, len(slices), axis)
    except BidsError as error:
        acquisition = guessed(len(slices), str(error))
    pieces = [s for s in slices if s.area > LEAST_MM2]
    if len(pieces) < LEAST_SLICES:
        why = f"only {len(pieces)} slices hold more than {LEAST_MM2:g} mm² of brain; {LEAST_SLICES} are needed"
        none = tuple(SliceRow(s.index, None, float(acquisition.times[s.index])) for s in slices)
        return StackAlignment(none, KeptPose(by_volume, "volume", why, {}, 0.0), by_volume, by_volume, acquisition, network.sha256)
    ready = SliceTarget(target)
    batch = SliceBatch(pieces, target.brain.image.device)
    proposed = network.poses(batch, ready, ready.plane)
    starts, trust = [p.pose for p in proposed], np.array([1 / p.expected_error for p in proposed])
    if acquisition.source == "guessed" and "SliceTiming" not in sidecar:
        acquisition = _guessed(len(slices), pieces, proposed, trust, ready, acquisition)
    found = register_stack(pieces, ready, starts, ready.plane, acquisition, weights=trust, guess=by_volume, batch=batch)
    kept = KeptPose.of(batch, ready, found, by_volume)
    features = slice_features(found, proposed)
    confidences = [None if model is None else model.probability(f) for f in features]
    rows = _rows(slices, pieces, found, kept.pose, confidences, None if model is None else model.fail, ready, acquisition)
    known = {piece.index: f for piece, f in zip(pieces, features, strict=True)}
    return StackAlignment(rows, kept, found.fused.mean, by_volume, acquisition, network.sha256, known)


def slice_features(found: StackPoses, proposed: list[SlicePose]) -> list[dict[str, float]]:
    """The features of the confidence of each slice.

    ``ncc`` after registration; ``below``: its difference to the stack's median, if lower; ``apart``: largest angle between the poses
    registered from different starts; ``network``: angle to the nearer one of the network's pose and twin; ``stray``: angle to the path of
    its neighbours in time (these three as log(1 + degrees)); ``expected_error``: logarithm of the error that the network expects, mm.
    """
    middle = float(np.median(found.ncc))
    out = []
    for i, (pose, p) in enumerate(zip(found.poses, proposed, strict=True)):
        near = min(pose.degrees_from(p.pose), pose.degrees_from(p.twin))
        out.append({
            "ncc": float(found.ncc[i]),
            "below": max(middle - float(found.ncc[i]), 0.0),
            "apart": math.log1p(float(found.apart[i])),
            "network": math.log1p(near),
            "stray": math.log1p(float(found.fused.stray[i])),
            "expected_error": math.log(max(p.expected_error, 1e-3)),
        })  # fmt: skip
    return out


class StackAligner:
    """Aligns the slices of any number of images with one network, loaded once. ``weights`` (a folder) take precedence over the
    package's."""

    def __init__(self, weights: str | Path | None = None, device: str = "cpu") -> None:
        self._weights, self._device = weights, device
        self._network = SliceNetwork(weights, device=device)
        calibration = load_calibration(weights)
        self._model = None if calibration.others(self._network.sha256) else calibration.slices

    def align(
        self, volume: Volume, mask: Volume, target: Target, by_volume: Rigid, sidecar: Mapping[str, Any] | None = None
    ) -> StackAlignment:
        """As :func:`align_stack`. If the template's rotation to the canonical frame is not known, the pose networks estimate it first."""
        if target.to_canonical is None:
            target.to_canonical = PoseNetworks(self._weights, device=self._device).canonical(target)
        return align_stack(volume, mask, target, by_volume, self._network, sidecar=sidecar, model=self._model)


def _thickness(sidecar: Mapping[str, Any], volume: Volume, axis: int) -> float:
    """Slice thickness, mm: from the sidecar if plausible, else the slice spacing."""
    try:
        given = float(sidecar.get("SliceThickness", 0))
    except (TypeError, ValueError):
        given = 0.0
    # implausible values may be in another unit, or of another image
    step = float(volume.spacing[axis])
    return given if 0.3 * step <= given <= 3 * step else step


def _guessed(
    n: int, pieces: list[Slice], proposed: list[SlicePose], trust: npt.NDArray[np.float64], target: SliceTarget, assumed: Acquisition
) -> Acquisition:
    """The acquisition order of ``n`` slices, from the network's poses of those with brain."""
    order = np.argsort(assumed.times[[s.index for s in pieces]], kind="stable")
    first = fuse([p.pose for p in proposed], target.center, twins=[p.twin for p in proposed], weights=trust, order=order)
    poses: list[Rigid | None] = [None] * n
    for piece, pose, out in zip(pieces, first.poses, first.outlier, strict=True):
        poses[piece.index] = None if out else pose
    return guessed_from_poses(poses, target.center)


def _rows(
    slices: list[Slice], pieces: list[Slice], found: StackPoses, pose: Rigid, confidences: list[float | None], fail: float | None,
    target: SliceTarget, acquisition: Acquisition,
) -> tuple[SliceRow, ...]:  # fmt: skip
    at, place = {piece.index: i for i, piece in enumerate(pieces)}, pose.apply(target.center)
    rows = []
    for piece in slices:
        time = float(acquisition.times[piece.index] - acquisition.times.min())
        i = at.get(piece.index)
        if i is None:
            rows.append(SliceRow(piece.index, None, time))
            continue
        own, confidence = found.poses[i], confidences[i]
        outlier = bool(found.fused.outlier[i]) if confidence is None or fail is None else confidence < fail
        moved = float(np.linalg.norm(own.apply(target.center) - place))
        rows.append(SliceRow(piece.index, own, time, confidence, outlier, own.degrees_from(pose), moved))
    return tuple(rows)
