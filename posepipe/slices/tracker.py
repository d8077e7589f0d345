"""Real-time tracking of the head's pose from slices or navigator volumes, one at a time in order of acquisition."""

from __future__ import annotations

import logging
import time as clock
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..atlas import AtlasLibrary, Choice, choose_template
from ..errors import ImageError, UsageError
from ..geometry import Rigid
from ..geometry.so3 import Array
from ..imaging.inside import inside_of
from ..imaging.sampling import sample, tensor
from ..imaging.volume import Volume, checked, finite
from ..matching.target import Target
from ..models.device import pick_device, threads_of_torch
from ..pose.coordinate_networks import PoseNetworks
from .align import LEAST_MM2
from .frames import MidsagittalPlane, Slice, SliceGrid, twin_pose
from .fuse import DEGREES, FARTHEST, MM
from .head import HeadEstimate
from .navigator import NavigatorFollower
from .network import SliceNetwork, SlicePose
from .points import SliceTarget
from .register import register_slices, stack_weights
from .stack import SINGLE

logger = logging.getLogger(__name__)

MIN_CONFIDENCE = 0.5
"""Confidence below which the last reliable head pose is held: the other hypotheses together are then more likely than the best one."""
SVR_STEPS = (6, 5, 4)
"""Steps of registration at each level, half of those for stacks: on sub-A04 and CRL+27 (12 slices each, from 10° off) the median error is
6.8 and 2.4°, compared with 6.7 and 2.0°, in 60 % of the time."""
LOCALISATION_PASSES = 3
"""Number of forward passes on a slice without mask if the head's position is not known: one crop at the image's centre, then two at the
brain found in the previous pass."""
RECENT = 16
"""Number of recent slices with which the NCC of a new slice is compared: about as many as contribute to the head's pose
(:mod:`posepipe.slices.head`)."""


class SlicePoser(Protocol):
    """Predicts pose and twin of slices: a :class:`~posepipe.slices.network.SliceNetwork`, or any class with the same method."""

    def poses(
        self, slices: Sequence[Slice], target: SliceTarget, plane: MidsagittalPlane, *,
        centers: npt.ArrayLike | None = None, masked: bool = True,
    ) -> list[SlicePose]: ...  # fmt: skip


@dataclass(frozen=True, eq=False)
class TrackedPose:
    """The result for one slice or volume.

    ``pose`` is that of the brain in it, atlas → image, RAS mm, and ``twin`` the alternative pose of a slice (None for volumes); both None
    if no brain is detected. ``head``: the tracked pose of the head, None before the first detection. ``confidence`` in [0, 1] of the
    estimate (:attr:`posepipe.slices.head.HeadEstimate.confidence`). ``hold``: the estimate is not reliable, and ``head`` is the last
    reliable pose (or the current estimate if there is none); ``reason`` says why, empty otherwise. ``ncc``: of the registered slice, in
    [−1, 1]. ``seconds``: computing time.
    """

    pose: Rigid | None
    twin: Rigid | None
    head: Rigid | None
    confidence: float
    hold: bool
    reason: str
    seconds: float
    ncc: float | None = None


class SliceTracker:
    """Tracks a head from slices (:meth:`add`) or navigator volumes (:meth:`add_volume`) in order of acquisition; causal.

    ``age`` (weeks), ``atlas`` (a name or ``auto``), ``atlas_dirs`` (searched first) and ``contrast`` (T2w or T1w, that of the images)
    choose the template as in :class:`~posepipe.aligner.Aligner`; ``target`` is a loaded template instead. ``weights``: a folder of weights
    that take precedence over the package's; ``network`` and ``volumes`` are loaded networks instead. ``register``: register slices to the
    template after the network's prediction. ``device`` and ``threads`` as in Aligner; ``seed`` too, though the tracker is deterministic.
    All poses are atlas → image, RAS mm of the images' affines.

    Networks and templates are loaded on first use, or before the scan by :meth:`warm`. Raises :class:`~posepipe.errors.AgeError`,
    :class:`~posepipe.errors.AtlasError` or :class:`~posepipe.errors.UsageError` if no template can be chosen.
    """

    def __init__(
        self, age: float | None = None, *, atlas: str = "auto", atlas_dirs: Sequence[str | Path] = (), contrast: str = "T2w",
        weights: str | Path | None = None, register: bool = True, device: str = "auto", threads: int | None = None, seed: int = 0,
        target: Target | None = None, network: SlicePoser | None = None, volumes: PoseNetworks | None = None,
    ) -> None:  # fmt: skip
        self.device, self.register, self.threads, self.seed = pick_device(device), register, threads, seed
        self._weights, self._network, self._volumes = weights, network, volumes
        self.choice: Choice | None = None
        if target is None:
            library = AtlasLibrary.default([Path(d) for d in atlas_dirs])
            self.choice = choose_template(library, age=age, contrast=contrast, atlas=atlas)
            target = Target.load(self.choice.template, device=self.device)
        self.target = target
        self.reset()

    def reset(self) -> None:
        """Reset the estimate, for a new scan or a repositioned patient."""
        self._estimate = HeadEstimate(self.target.brain.center, registered=self.register)
        self._last_reliable: Rigid | None = None
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._time: float | None = None
        self._follower = NavigatorFollower(self.target, lambda: self.volumes, self._weights, self.device)

    def warm(self, *, volumes: bool = False) -> None:
        """Load and run all networks for slices (or for ``volumes``) once, so that the first image takes no longer than the others."""
        with threads_of_torch(self.threads):
            if volumes:
                self._follower.warm()
                return
            n = int(2.6 * self.target.brain.radius)
            affine = np.diag([1.0, 1, 3, 1])
            affine[:3, 3] = self._slice_target.center - [n / 2, n / 2, 0]
            grid = SliceGrid((n, n), affine, 3.0)
            piece = Slice(grid, self._section(Rigid.identity(), grid, image=True), self._section(Rigid.identity(), grid) > 0.5)
            self._predict(piece, None, masked=True)
            if self.register:
                register_slices([piece], self._slice_target, [Rigid.identity()], options=_OPTIONS)

    @property
    def head(self) -> Rigid | None:
        """Current pose estimate of the head, atlas → scanner (RAS mm), by the best hypothesis, reliable or not; None before any
        detection."""
        return self._estimate.pose

    @cached_property
    def volumes(self) -> PoseNetworks:
        """The networks of whole volumes."""
        return self._volumes or PoseNetworks(self._weights, device=self.device)

    @cached_property
    def _poser(self) -> SlicePoser:
        return self._network or SliceNetwork(self._weights, device=self.device, copies=1)  # one copy meets the limit of 20 ms

    @cached_property
    def _slice_target(self) -> SliceTarget:
        if self.target.to_canonical is None:
            self.target.to_canonical = self.volumes.canonical(self.target)
        made = SliceTarget(self.target)
        if self.register:
            _ = made.levels()
        return made

    def add(
        self, image: npt.ArrayLike, affine: npt.ArrayLike, thickness: float | None = None, mask: npt.ArrayLike | None = None,
        time: float | None = None,
    ) -> TrackedPose:  # fmt: skip
        """Add the next slice: ``image`` (n_u, n_v) and ``affine`` (4, 4) from (i, j, 0) to RAS mm; its third column is the step between
        slices.

        ``thickness`` in mm defaults to the length of that step. ``mask`` (n_u, n_v) is the brain mask, if known; without it the network's
        input is an unmasked crop at the last position of the head, or at the image's centre. ``time`` is the acquisition time in seconds
        from any origin (default: the usual interval between slices). Raises :class:`~posepipe.errors.ImageError` for an unusable image,
        mask or affine, and :class:`~posepipe.errors.UsageError` for decreasing times.
        """
        begun = clock.perf_counter()
        piece = _piece(image, affine, thickness, mask)
        self._check_time(time)
        with threads_of_torch(self.threads):
            prediction = self._predicted(piece, masked=mask is not None)
            if isinstance(prediction, str):
                self._estimate.advance(time)
                return self._tracked(None, None, prediction, begun)
            poses, weight, ncc = self._registered(piece, prediction, masked=mask is not None)
            apart = self._estimate.add(poses, weight=weight, time=time)
        pose, twin = self._estimate.nearest_first(poses)
        return replace(self._tracked(pose, twin, _outlier_reason(apart), begun), ncc=ncc)

    def add_volume(self, volume: Volume, mask: Volume | None = None, time: float | None = None) -> TrackedPose:
        """Add the next navigator volume, of low resolution (about 6 mm), instead of a slice.

        ``mask`` is the brain mask on the same grid, if known; without it the brain is segmented near the head's last position, or in the
        whole volume for the first volume and if the pose there is not reliable. A reliable pose
        (:meth:`~posepipe.pose.coordinate_networks.PoseNetworks.reliable`) replaces the estimate, as a volume has no twin. Other poses are
        added as those of slices are, with ``hold``. Raises :class:`~posepipe.errors.MaskError` for a mask on another grid or an empty one,
        and :class:`~posepipe.errors.UsageError` for decreasing times.
        """
        begun = clock.perf_counter()
        self._check_time(time)
        with threads_of_torch(self.threads):
            head_is_reliable = self._estimate.confidence >= MIN_CONFIDENCE
            whole, inside = checked(volume), None if mask is None else checked(mask)
            if whole.not_finite:
                logger.warning("%s: %s", volume.source, whole.not_finite)
            found = self._follower.follow(whole, inside, self._estimate.pose if head_is_reliable else None)
            if found is None:
                self._estimate.advance(time)
                return self._tracked(None, None, "no brain was found in the volume", begun)
        if found.reliable:
            self._estimate.reset_to(found.pose, time=time)
            return self._tracked(found.pose, None, "", begun)
        self._estimate.add([found.pose], time=time)
        return self._tracked(found.pose, None, "the networks' pose of the brain in the volume is not reliable", begun)

    def _check_time(self, time: float | None) -> None:
        if time is not None:
            if self._time is not None and time < self._time:
                msg = f"time {time:g} s is before that of the last image ({self._time:g} s): give images in order of acquisition"
                raise UsageError(msg)
            self._time = time

    def _tracked(self, pose: Rigid | None, twin: Rigid | None, reason: str, begun: float) -> TrackedPose:
        confidence, head = self._estimate.confidence, self._estimate.pose
        if not reason and confidence < MIN_CONFIDENCE:
            reason = f"confidence {confidence:.2f} is below {MIN_CONFIDENCE:g}: the last slices do not determine the head's pose yet"
        if not reason:
            self._last_reliable = head
        elif self._last_reliable is not None:
            head = self._last_reliable
        return TrackedPose(pose, twin, head, confidence, bool(reason), reason, clock.perf_counter() - begun)

    def _predicted(self, piece: Slice, *, masked: bool) -> SlicePose | str:
        """The network's prediction for ``piece``, or the reason why no brain is detected."""
        if masked and piece.area < LEAST_MM2:
            return f"the slice's mask has {piece.area:.0f} mm², less than the required {LEAST_MM2:.0f} mm²"
        head = self._estimate.pose
        if masked:
            prediction = self._predict(piece, None, masked=True)
        elif head is not None and self._estimate.confidence >= MIN_CONFIDENCE:
            prediction = self._predict(piece, self._middle(head, piece.grid), masked=False)
        else:
            center = np.zeros(2)
            for _ in range(LOCALISATION_PASSES):
                prediction = self._predict(piece, center, masked=False)
                center = prediction.center
                if prediction.brain_mm2 < LEAST_MM2:
                    break
        if prediction.brain_mm2 < LEAST_MM2:
            return f"the network detects no brain in the slice ({prediction.brain_mm2:.0f} mm², less than {LEAST_MM2:.0f})"
        return prediction

    def _predict(self, piece: Slice, center: Array | None, *, masked: bool) -> SlicePose:
        centers = None if center is None else center[None]
        return self._poser.poses([piece], self._slice_target, self._slice_target.plane, centers=centers, masked=masked)[0]

    def _middle(self, head: Rigid, grid: SliceGrid) -> Array:
        """Position in the slice (2,), mm along û, v̂ from its frame's origin: the centroid of the brain's section by the pose ``head``, or
        the projection of the brain's centre if the slice does not intersect the brain."""
        inside = self._section(head, grid) > 0.5
        place = grid.points[inside].mean(0) if inside.any() else head.apply(self._slice_target.center)
        return np.asarray((~grid.to_world).apply(place)[:2], dtype=float)

    def _section(self, pose: Rigid, grid: SliceGrid, *, image: bool = False) -> npt.NDArray[np.float32]:
        """The template's mask, or image, (n_u, n_v) resampled to the slice by ``pose``."""
        brain = self.target.brain
        field = brain.image if image else brain.mask
        points = tensor((~pose).apply(grid.points), field.device)
        out: npt.NDArray[np.float32] = sample(field[None], brain.world_to_voxel, points)[0].cpu().numpy()
        return out

    def _registered(self, piece: Slice, prediction: SlicePose, *, masked: bool) -> tuple[list[Rigid], float, float | None]:
        """Pose and twin of ``piece``, its weight in [0, 1], and its NCC if it is registered.

        The weight is 1 up to an expected error of :data:`~posepipe.slices.fuse.MM` and decreases with its inverse square beyond; it is
        lower if the NCC is below that of the last slices. Starts of the registration are the network's pose and, if known, the head's; else
        pose and twin.
        """
        weight = min(1.0, (MM / max(prediction.expected_error, 1e-6)) ** 2)
        poses, head = self._estimate.nearest_first([prediction.pose, prediction.twin]), self._estimate.pose
        if not self.register:
            return poses, weight, None
        known = head is not None and self._estimate.confidence >= MIN_CONFIDENCE
        starts = [poses[0], head] if known and head is not None else poses
        pieces = [piece] * len(starts)
        if not masked:
            both = [(p, replace(piece, mask=self._section(p, piece.grid) > 0.5)) for p in starts]
            both = [(p, s) for p, s in both if s.area >= LEAST_MM2]
            if not both:
                return poses, weight, None
            starts, pieces = [p for p, _ in both], [s for _, s in both]
        which = [0] * len(starts) if masked else list(range(len(starts)))
        found = register_slices(pieces[:1] if masked else pieces, self._slice_target, starts, which=which, options=_OPTIONS)
        best = int(found.ncc.argmax())
        ncc = float(found.ncc[best])
        self._recent.append(ncc)
        pose = found.poses[best]
        return [pose, twin_pose(pose, piece.grid, self._slice_target.plane)], weight * float(stack_weights(np.array(self._recent))[-1]), ncc


_OPTIONS = replace(SINGLE, steps=SVR_STEPS)


def _outlier_reason(apart: float) -> str:
    """Reason to reject a slice whose nearer pose has the distance ``apart`` to the head's; empty if it is accepted."""
    if apart <= FARTHEST:
        return ""
    return (
        f"the slice's pose is {apart / FARTHEST:.1f} times as far from the head's as heads move between slices "
        f"({FARTHEST * DEGREES:.0f}° or {FARTHEST * MM:.0f} mm)"
    )


def _piece(image: npt.ArrayLike, affine: npt.ArrayLike, thickness: float | None, mask: npt.ArrayLike | None) -> Slice:
    data, lost, _ = finite(np.asarray(image, dtype=np.float32))
    if data.ndim != 2 or min(data.shape) < 2:
        msg = f"a slice is a 2D image, not one of shape {data.shape}; give one slice at a time (whole volumes: add_volume)"
        raise ImageError(msg)
    matrix = np.asarray(affine, dtype=float)
    if thickness is None and matrix.shape == (4, 4):
        thickness = float(np.linalg.norm(matrix[:3, 2]))
    grid = SliceGrid((data.shape[0], data.shape[1]), matrix, thickness or 0.0)
    inside, note = (np.ones(data.shape, dtype=bool), "") if mask is None else inside_of(np.asarray(mask))
    for text in filter(None, (lost, note)):
        logger.warning("slice: %s", text)
    return Slice(grid, data, inside)
