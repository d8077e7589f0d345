"""The head's pose in real time: slices, or whole navigator volumes, one at a time in order of acquisition."""

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

SURE = 0.5
"""Confidence below which the head's last pose is held: another family of twins, or none, is then likelier than the one that is best."""
SVR_STEPS = (6, 5, 4)
"""Steps of registration at each level, half of those for stacks: on sub-A04 and CRL+27 (12 slices each, from 10° off) a median of 6.8 and
2.4° as against 6.7 and 2.0°, in 60 % of the time."""
LOOKS = 3
"""How often a slice without mask is looked at where the head's place is not known: about the image's middle, then twice about the brain
that was seen."""
RECENT = 16
"""Slices whose NCC a new slice's is compared with: about as many as count for the head's pose (:mod:`posepipe.slices.head`)."""


class SlicePoser(Protocol):
    """What tells the pose of a slice up to its twin: a :class:`~posepipe.slices.network.SliceNetwork`, or what answers as it does."""

    def poses(
        self, slices: Sequence[Slice], target: SliceTarget, plane: MidsagittalPlane, *,
        centers: npt.ArrayLike | None = None, masked: bool = True,
    ) -> list[SlicePose]: ...  # fmt: skip


@dataclass(frozen=True, eq=False)
class TrackedPose:
    """What is known once a slice, or a volume, has been acquired.

    ``pose`` is that of the brain in it, atlas → image, RAS mm, and ``twin`` the other that a slice could have (None of volumes); both None
    where no brain is seen. ``head``: the running pose of the head, None before any brain was seen. ``confidence`` in [0, 1]
    (:attr:`posepipe.slices.head.HeadEstimate.confidence`) is that of the estimate behind ``head``. ``hold``: keep the last
    ``head`` that came without it, which is also what ``head`` is then, if there was one (else the best guess so far); ``reason`` says why,
    empty otherwise. ``ncc``: of the registered slice, in [−1, 1]. ``seconds``: what it took.
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
    """Follows a head by slices (:meth:`add`) or whole navigator volumes (:meth:`add_volume`), in order of acquisition, without looking
    ahead.

    ``age`` (weeks), ``atlas`` (a name or ``auto``), ``atlas_dirs`` (searched first) and ``contrast`` (T2w or T1w, that of the images)
    choose the template as :class:`~posepipe.aligner.Aligner` does; ``target`` gives one that is ready instead. ``weights``: a
    folder of networks that come before the package's; ``network`` and ``volumes`` give networks that are ready. ``register``: slices
    are registered to the template after the network. ``device`` and ``threads`` as in Aligner; ``seed`` too, though nothing in a
    tracker is random. All poses are atlas → image, RAS mm of the affines that come with the images.

    Networks and templates are read when first needed; :meth:`warm` does it before the scan. Raises
    :class:`~posepipe.errors.AgeError`, :class:`~posepipe.errors.AtlasError` or :class:`~posepipe.errors.UsageError` where no template can
    be chosen.
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
        """Forget the head: another scan begins, or the patient was taken out."""
        self._estimate = HeadEstimate(self.target.brain.center, registered=self.register)
        self._kept: Rigid | None = None
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._time: float | None = None
        self._follower = NavigatorFollower(self.target, lambda: self.volumes, self._weights, self.device)

    def warm(self, *, volumes: bool = False) -> None:
        """Read and try all that slices (or ``volumes``) need, so that the first takes no longer than the others."""
        with threads_of_torch(self.threads):
            if volumes:
                self._follower.warm()
                return
            n = int(2.6 * self.target.brain.radius)
            affine = np.diag([1.0, 1, 3, 1])
            affine[:3, 3] = self._slice_target.center - [n / 2, n / 2, 0]
            grid = SliceGrid((n, n), affine, 3.0)
            piece = Slice(grid, self._section(Rigid.identity(), grid, image=True), self._section(Rigid.identity(), grid) > 0.5)
            self._asked(piece, None, masked=True)
            if self.register:
                register_slices([piece], self._slice_target, [Rigid.identity()], options=_OPTIONS)

    @property
    def head(self) -> Rigid | None:
        """The running pose of the head, atlas → scanner (RAS mm), by the likeliest hypothesis, held or not; None before any brain."""
        return self._estimate.pose

    @cached_property
    def volumes(self) -> PoseNetworks:
        """The networks of whole volumes."""
        return self._volumes or PoseNetworks(self._weights, device=self.device)

    @cached_property
    def _poser(self) -> SlicePoser:
        return self._network or SliceNetwork(self._weights, device=self.device, copies=1)  # one alone meets 20 ms

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
        """The next slice: ``image`` (n_u, n_v), and ``affine`` (4, 4) from (i, j, 0) to RAS mm, its third column the step between slices.

        ``thickness`` in mm defaults to the length of that step. ``mask`` (n_u, n_v) is the brain's, if known; without one the network sees
        all pixels where the head was last, or else about the image's middle. ``time`` in seconds, of any origin, tells how long ago
        the slices before were acquired (default: all as far apart as is usual). Raises :class:`~posepipe.errors.ImageError` for an image,
        mask or affine that cannot be used, and :class:`~posepipe.errors.UsageError` where time runs backwards.
        """
        begun = clock.perf_counter()
        piece = _piece(image, affine, thickness, mask)
        self._passed(time)
        with threads_of_torch(self.threads):
            seen = self._seen(piece, masked=mask is not None)
            if isinstance(seen, str):
                self._estimate.wait(time)
                return self._told(None, None, seen, begun)
            poses, weight, ncc = self._registered(piece, seen, masked=mask is not None)
            apart = self._estimate.add(poses, weight=weight, time=time)
        pose, twin = self._estimate.nearest_first(poses)
        return replace(self._told(pose, twin, _strayed(apart), begun), ncc=ncc)

    def add_volume(self, volume: Volume, mask: Volume | None = None, time: float | None = None) -> TrackedPose:
        """The next navigator volume, whole and of low resolution (about 6 mm), in place of a slice.

        ``mask`` is the brain's on the same grid, if known; without one the brain is sought where the head was last, and in all of the
        volume at first and where the networks are not sure of what they see there. Of a pose that they are sure of
        (:meth:`~posepipe.pose.coordinate_networks.PoseNetworks.sure`) the head's is made at once: a volume has no twin.
        Others are taken as slices are, and held. Raises :class:`~posepipe.errors.MaskError` for a mask
        on another grid or an empty one, and :class:`~posepipe.errors.UsageError` where time runs backwards.
        """
        begun = clock.perf_counter()
        self._passed(time)
        with threads_of_torch(self.threads):
            sure_of_head = self._estimate.confidence >= SURE
            whole, inside = checked(volume), None if mask is None else checked(mask)
            if whole.not_finite:
                logger.warning("%s: %s", volume.source, whole.not_finite)
            found = self._follower.follow(whole, inside, self._estimate.pose if sure_of_head else None)
            if found is None:
                self._estimate.wait(time)
                return self._told(None, None, "no brain was found in the volume", begun)
        if found.sure:
            self._estimate.settle(found.pose, time=time)
            return self._told(found.pose, None, "", begun)
        self._estimate.add([found.pose], time=time)
        return self._told(found.pose, None, "the networks are not sure of the brain's pose in the volume", begun)

    def _passed(self, time: float | None) -> None:
        if time is not None:
            if self._time is not None and time < self._time:
                msg = f"time {time:g} s is before that of the last image ({self._time:g} s): give images in order of acquisition"
                raise UsageError(msg)
            self._time = time

    def _told(self, pose: Rigid | None, twin: Rigid | None, reason: str, begun: float) -> TrackedPose:
        confidence, head = self._estimate.confidence, self._estimate.pose
        if not reason and confidence < SURE:
            reason = f"confidence {confidence:.2f} is below {SURE:g}: the last slices do not tell the head's pose yet"
        if not reason:
            self._kept = head
        elif self._kept is not None:
            head = self._kept
        return TrackedPose(pose, twin, head, confidence, bool(reason), reason, clock.perf_counter() - begun)

    def _seen(self, piece: Slice, *, masked: bool) -> SlicePose | str:
        """What the network says of ``piece``, or, in words, why it shows no brain."""
        if masked and piece.area < LEAST_MM2:
            return f"the slice's mask holds {piece.area:.0f} mm², less than the {LEAST_MM2:.0f} mm² that show a brain"
        head = self._estimate.pose
        if masked:
            seen = self._asked(piece, None, masked=True)
        elif head is not None and self._estimate.confidence >= SURE:
            seen = self._asked(piece, self._middle(head, piece.grid), masked=False)
        else:
            center = np.zeros(2)
            for _ in range(LOOKS):
                seen = self._asked(piece, center, masked=False)
                center = seen.center
                if seen.brain_mm2 < LEAST_MM2:
                    break
        if seen.brain_mm2 < LEAST_MM2:
            return f"the network sees no brain in the slice ({seen.brain_mm2:.0f} mm², less than {LEAST_MM2:.0f})"
        return seen

    def _asked(self, piece: Slice, center: Array | None, *, masked: bool) -> SlicePose:
        centers = None if center is None else center[None]
        return self._poser.poses([piece], self._slice_target, self._slice_target.plane, centers=centers, masked=masked)[0]

    def _middle(self, head: Rigid, grid: SliceGrid) -> Array:
        """Where in the slice (2,), mm along û, v̂ from its frame's origin, the brain's section is by ``head``, or else its centre."""
        inside = self._section(head, grid) > 0.5
        place = grid.points[inside].mean(0) if inside.any() else head.apply(self._slice_target.center)
        return np.asarray((~grid.to_world).apply(place)[:2], dtype=float)

    def _section(self, pose: Rigid, grid: SliceGrid, *, image: bool = False) -> npt.NDArray[np.float32]:
        """The template's mask, or image, (n_u, n_v) in the slice, by ``pose``."""
        brain = self.target.brain
        field = brain.image if image else brain.mask
        points = tensor((~pose).apply(grid.points), field.device)
        out: npt.NDArray[np.float32] = sample(field[None], brain.world_to_voxel, points)[0].cpu().numpy()
        return out

    def _registered(self, piece: Slice, seen: SlicePose, *, masked: bool) -> tuple[list[Rigid], float, float | None]:
        """Pose and twin of ``piece``, how much it counts, and its NCC if it is registered.

        It counts by the inverse variance of the errors that the network expects, as far as they exceed what is usual
        (:data:`~posepipe.slices.fuse.MM`), and less where its NCC is below that of the last slices.
        Starts are what the network says and, where the head is known, the head's pose; without that, pose and twin.
        """
        weight = min(1.0, (MM / max(seen.expected_error, 1e-6)) ** 2)
        poses, head = self._estimate.nearest_first([seen.pose, seen.twin]), self._estimate.pose
        if not self.register:
            return poses, weight, None
        known = head is not None and self._estimate.confidence >= SURE
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


def _strayed(apart: float) -> str:
    """Why a slice whose nearer pose is ``apart`` from the head's is not believed; empty where it is."""
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
