"""The poses of the slices of an image and, from them, the pose of the stack: the slice path beside the volume path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BidsError
from ..geometry import Rigid
from ..imaging.volume import Volume
from ..registration.calibration import load_calibration
from ..registration.comparison import Comparison
from ..registration.confidence import ConfidenceModel
from ..registration.refine import Refined, refine_pose
from ..registration.target import Target
from ..settings import BY_SLICES
from .acquisition import Acquisition, from_sidecar, guessed, guessed_from_poses
from .frames import MidsagittalPlane, Slice, slice_axis, slices_of
from .fuse import fuse
from .network import SliceNetwork, SlicePose
from .points import SliceBatch, SliceTarget
from .register import ncc_at
from .stack import StackPoses, register_stack
from .table import SliceRow, write_table

LEAST_MM2 = 100.0
"""Slices with less brain have no pose, mm²: a disc 11 mm wide."""
LEAST_SLICES = 3
"""Fewer slices with brain are no stack: two neighbours and one between them."""
WITHIN_DEGREES = 10.0
"""A slice's pose counts as right within this of the truth, degrees; what its confidence is the probability of."""


@dataclass(frozen=True, eq=False)
class StackAlignment:
    """The slices of an image against its template.

    ``rows`` hold a line for each slice, motion against ``pose``. ``pose`` (atlas → image, RAS mm) is the stack's: that of the slices,
    ``by_slices``, or that of the volume, ``by_volume``, as ``kept`` says (``slices`` or ``volume``) and ``reason`` in words.
    """

    rows: tuple[SliceRow, ...]
    pose: Rigid
    by_slices: Rigid
    by_volume: Rigid
    kept: str
    reason: str
    acquisition: Acquisition
    weights: Mapping[str, str]

    def about(self) -> dict[str, Any]:
        """What is told of the stack as a whole, by the keys of the table's data dictionary and of sidecars."""
        known = [r for r in self.rows if r.pose is not None]
        still = [r.motion_deg for r in known if not r.outlier and r.motion_deg is not None]
        return {
            "SlicesWithPose": len(known),
            "Outliers": sum(bool(r.outlier) for r in known),
            "MedianMotionDegrees": float(np.median(still)) if still else None,
            "StackPose": self.kept,
            "StackPoseReason": self.reason,
            "SliceOrder": self.acquisition.source,
            **({"SliceOrderNote": self.acquisition.note} if self.acquisition.note else {}),
            "Weights": dict(self.weights),
        }


    def kept_in(self, refined: Refined, image: Volume, mask: Volume, target: Target, *, compare: Comparison | None = None) -> Refined:
        """``refined``, the pose of the volume, with the pose of the stack and its similarity where that of the slices was kept; else as it
        is."""
        if self.kept != "slices":
            return refined
        measured = refine_pose(image, mask, target, self.pose, method="none", compare=compare).similarity
        both = {name: {"before": values["before"], "after": measured[name]["after"]} for name, values in refined.similarity.items()}
        return replace(refined, pose=self.pose, method=BY_SLICES, similarity=both)

    def save(self, path: str | Path) -> Path:
        """Write the table of the slices' poses to ``path`` (TSV), by atomic replace."""
        return write_table(self.rows, path)


def align_stack(
    volume: Volume, mask: Volume, target: Target, by_volume: Rigid, network: SliceNetwork, *,
    sidecar: Mapping[str, Any] | None = None, model: ConfidenceModel | None = None,
) -> StackAlignment:  # fmt: skip
    """The poses of the slices of ``volume``, whose brain is in ``mask`` (same grid) and whose pose as a whole is ``by_volume``.

    The network proposes a pose of each slice, up to its twin; neighbours choose; all are registered together, also from ``by_volume``.
    ``sidecar`` is the image's: ``SliceTiming``, ``SliceEncodingDirection`` and ``SliceThickness`` are used. Without timing the order of
    acquisition is guessed. The stack's pose is that of the slices where they fit the template better there than at ``by_volume``, by the
    mean of their NCC. ``model`` gives each slice's confidence, and below its ``fail`` the slice is an outlier.

    With fewer than :data:`LEAST_SLICES` slices with brain no slice has a pose, and the volume's is kept; a ``SliceTiming`` that does not
    fit the image counts as none: ``acquisition.note`` says so.
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
        reason = f"only {len(pieces)} slices hold more than {LEAST_MM2:g} mm² of brain; {LEAST_SLICES} are needed"
        none = tuple(SliceRow(s.index, None, float(acquisition.times[s.index])) for s in slices)
        return StackAlignment(none, by_volume, by_volume, by_volume, "volume", reason, acquisition, network.sha256)
    ready = SliceTarget(target)
    plane = MidsagittalPlane.of(np.eye(3) if target.to_canonical is None else target.to_canonical, ready.center)
    batch = SliceBatch(pieces, target.brain.image.device)
    proposed = network.poses(batch, ready, plane)
    starts, trust = [p.pose for p in proposed], np.array([1 / p.expected_error for p in proposed])
    if acquisition.source == "guessed" and "SliceTiming" not in sidecar:
        acquisition = _guessed(len(slices), pieces, proposed, trust, ready, acquisition)
    found = register_stack(pieces, ready, starts, plane, acquisition, weights=trust, guess=by_volume, batch=batch)
    pose, kept, reason = better_pose(batch, ready, found, by_volume)
    confidences = [None if model is None else model.probability(f) for f in slice_features(found, proposed)]
    rows = _rows(slices, pieces, found, pose, confidences, None if model is None else model.fail, ready, acquisition)
    return StackAlignment(rows, pose, found.fused.mean, by_volume, kept, reason, acquisition, network.sha256)


def better_pose(batch: SliceBatch, target: SliceTarget, found: StackPoses, by_volume: Rigid) -> tuple[Rigid, str, str]:
    """The pose of the stack, ``slices`` or ``volume``, and why: at which of the two the slices' NCC with the template is larger on
    average, all of them at that one pose."""
    n = len(batch)
    scores = {
        name: float(ncc_at(batch, target, [pose] * n, found.log_scale).mean())
        for name, pose in (("slices", found.fused.mean), ("volume", by_volume))
    }
    kept = max(scores, key=lambda name: scores[name])
    apart = found.fused.mean.degrees_from(by_volume)
    reason = (
        f"mean NCC of the slices {scores['slices']:.3f} at the pose of the slices, {scores['volume']:.3f} at that of the volume; "
        f"the two are {apart:.1f} degrees apart"
    )
    return (found.fused.mean if kept == "slices" else by_volume), kept, reason


def slice_features(found: StackPoses, proposed: list[SlicePose]) -> list[dict[str, float]]:
    """What the confidence of each slice is estimated from.

    ``ncc`` after registration, ``below``: how far it is under the stack's median; ``apart``: between the poses that it was registered to
    from its starts; ``network``: between its pose and the nearer one of what the network proposed; ``stray``: from its neighbours in time
    (the three as log(1 + degrees)); ``expected_error``: logarithm of what the network expects, mm.
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
    """Aligns the slices of image after image with one network, loaded once: ``weights`` come before those of the package."""

    def __init__(self, weights: str | Path | None = None, device: str = "cpu") -> None:
        self._network = SliceNetwork(weights, device=device)
        calibration = load_calibration(weights)
        self._model = None if calibration.others(self._network.sha256) else calibration.slices

    def align(
        self, volume: Volume, mask: Volume, target: Target, by_volume: Rigid, sidecar: Mapping[str, Any] | None = None
    ) -> StackAlignment:
        """As :func:`align_stack`."""
        return align_stack(volume, mask, target, by_volume, self._network, sidecar=sidecar, model=self._model)


def _thickness(sidecar: Mapping[str, Any], volume: Volume, axis: int) -> float:
    """Thickness of the slices in mm, as the sidecar has it if that can be."""
    try:
        given = float(sidecar.get("SliceThickness", 0))
    except (TypeError, ValueError):
        given = 0.0
    # a thickness in another unit, or of another image, is not to be believed
    step = float(volume.spacing[axis])
    return given if 0.3 * step <= given <= 3 * step else step


def _guessed(
    n: int, pieces: list[Slice], proposed: list[SlicePose], trust: npt.NDArray[np.float64], target: SliceTarget, assumed: Acquisition
) -> Acquisition:
    """The order of ``n`` slices by what the network says of those with brain."""
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
