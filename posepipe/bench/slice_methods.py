"""The methods of the tables on slices: estimation of the pose of a single slice, or of neighbouring slices without motion."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import UsageError
from ..geometry import Rigid
from ..geometry.so3 import Array
from ..models import available
from ..models.weights import SLICE_NETWORK, hashes
from ..slices.acquisition import Acquisition, in_order
from ..slices.frames import Slice, twin_pose
from ..slices.fuse import fuse
from ..slices.network import SliceNetwork, SlicePose
from ..slices.paper import SlicePoseNetwork
from ..slices.points import SliceTarget
from ..slices.register import register_slices
from ..slices.smoothness import Smoothness
from ..slices.stack import SINGLE, register_stack
from .methods import networks_key
from .slice_baselines import svr_deep, svr_gc

POSE_NETWORKS = ("slice-pose-mse", "slice-pose")
"""Names of the weights of the paper's networks: after the first stage, and after both."""
OWN = ("ours", "ours+svr")
"""posepipe's network alone, and with registration."""
STILL_DEGREES, STILL_MM = 0.3, 0.15
"""Standard deviations of the motion between slices that are known to have none, degrees and mm: a fifth of those of
:class:`~posepipe.slices.smoothness.Smoothness`; small relative to the errors of slices, and large enough for the linear system to be well
conditioned."""


@dataclass(frozen=True, eq=False)
class Found:
    """The ``pose`` (atlas → image, RAS mm) by a method, and its ``seconds`` from image and mask in memory."""

    pose: Rigid
    seconds: float


@dataclass(frozen=True)
class Family:
    """``methods`` with the same initial pose, and the names of the ``networks`` that they need."""

    name: str
    methods: tuple[str, ...]
    networks: tuple[str, ...] = ()


def families(pose_networks: Sequence[str] = POSE_NETWORKS) -> tuple[Family, ...]:
    """All methods in the order of the tables. Each of ``pose_networks`` is a method; SVR-Deep starts from the last one.

    Raises :class:`~posepipe.errors.UsageError` for a network named twice or like another method.

    >>> [f.methods for f in families(["slice-pose"])]
    [('svr-gc',), ('slice-pose', 'svr-deep'), ('ours', 'ours+svr')]
    """
    names = [*pose_networks]
    if len(set(names)) < len(names) or {*names} & {"svr-gc", "svr-deep", *OWN}:
        msg = f"--pose-weights {' '.join(names)}: name each network once, and none like a method"
        raise UsageError(msg)
    paper = [Family(n, (n, "svr-deep") if n == names[-1] else (n,), (n,)) for n in names]
    return (Family("svr-gc", ("svr-gc",)), *paper, Family("ours", OWN, (SLICE_NETWORK,)))


def missing_networks(some: Sequence[Family], weights_dir: str | Path | None = None) -> dict[str, str]:
    """Methods of the families ``some`` that cannot be run with these weights → the missing network."""
    there = available(weights_dir)
    return {m: n for f in some for m in f.methods for n in f.networks if n not in there}


def family_key(family: Family, weights_dir: str | Path | None = None) -> str:
    """A short name of the weights of ``family``, for the names of files of rows made with them."""
    return networks_key(hashes(family.networks, weights_dir)) if family.networks else "no-weights"


class SliceBenchmarkRunner:
    """Runs the methods of families; networks are loaded on first use."""

    def __init__(self, weights_dir: str | Path | None = None) -> None:
        self._weights = weights_dir
        self._pose: dict[str, SlicePoseNetwork] = {}

    @cached_property
    def network(self) -> SliceNetwork:
        """posepipe's slice network."""
        return SliceNetwork(self._weights)

    def pose_network(self, name: str) -> SlicePoseNetwork:
        """The paper's network of that name."""
        if name not in self._pose:
            self._pose[name] = SlicePoseNetwork(name, self._weights)
        return self._pose[name]

    def run(
        self, family: Family, pieces: Sequence[Slice], target: SliceTarget, *, half: bool = False
    ) -> Iterator[tuple[str, Found]]:
        """Method and result for each method of ``family``, on one slice, or on neighbouring ``pieces`` without motion, in order; only
        ``ours`` uses more than one slice. With ``half`` it is known that the slice's normal points up in the brain (R₃₃ ≥ 0), as in the
        training of the paper's networks; this distinguishes a pose from its twin. The time of an initial pose counts in the methods that
        start from it."""
        begun = time.perf_counter()
        if family.methods == OWN:
            found = self.network.poses(pieces, target, target.plane)
            first = fused_slab(found, target) if len(found) > 1 else better_twin(pieces[0], target, found[0], half=half, register=False)
            seconds = time.perf_counter() - begun
            yield OWN[0], Found(first, seconds)
            begun = time.perf_counter()
            pose = registered_slab(pieces, target, found) if len(found) > 1 else better_twin(pieces[0], target, found[0], half=half)
            yield OWN[1], Found(pose, seconds + time.perf_counter() - begun)
            return
        if not family.networks:
            (pose,) = svr_gc(pieces, target).poses
            yield family.methods[0], Found(pose, time.perf_counter() - begun)
            return
        (start,) = self.pose_network(family.name).poses(pieces, target)
        seconds = time.perf_counter() - begun
        yield family.methods[0], Found(start, seconds)
        for method in family.methods[1:]:
            begun = time.perf_counter()
            (pose,) = svr_deep(pieces, target, [start]).poses
            yield method, Found(pose, seconds + time.perf_counter() - begun)


def better_twin(piece: Slice, target: SliceTarget, found: SlicePose, *, half: bool = False, register: bool = True) -> Rigid:
    """The network's poses for the slice and for rotated copies of it, and their twins, all registered to the template: the one with the
    greatest NCC; with ``half`` among those with R₃₃ ≥ 0, if there are any. Without ``register``: the network's pose, or with ``half``
    whichever of it and its twin has R₃₃ ≥ 0."""
    poses, ncc = [found.pose, found.twin], np.array([1.0, 0.0])
    if register:
        poses += [p for copy in found.copies for p in (copy, twin_pose(copy, piece.grid, target.plane))]
        done = register_slices([piece], target, poses, which=[0] * len(poses), options=SINGLE)
        poses, ncc = done.poses, done.ncc
    if half:
        ncc = ncc + 2.0 * np.array([normal_in_brain(piece, p, target)[2] >= 0 for p in poses])
    return poses[int(np.argmax(ncc))]


def normal_in_brain(piece: Slice, pose: Rigid, target: SliceTarget) -> Array:
    """The slice's normal (3,) in the canonical frame, for ``pose`` (atlas → image)."""
    return target.to_canonical @ pose.rotation.T @ piece.grid.normal


def fused_slab(found: Sequence[SlicePose], target: SliceTarget) -> Rigid:
    """The one pose that agrees best with the network's poses of neighbouring slices, each of which may be the twin."""
    return fuse([f.pose for f in found], target.center, twins=[f.twin for f in found]).pose


def registered_slab(pieces: Sequence[Slice], target: SliceTarget, found: Sequence[SlicePose]) -> Rigid:
    """The pose of neighbouring slices without motion, registered together. ``Slice.index`` gives the order of acquisition."""
    numbers = np.array([s.index for s in pieces])
    acquisition = Acquisition(in_order(np.arange(numbers.max() + 1)), "given")
    still = Smoothness.along(acquisition, numbers, degrees=STILL_DEGREES, mm=STILL_MM)
    return register_stack(pieces, target, [f.pose for f in found], target.plane, acquisition, smoothness=still).fused.pose
