"""The poses of all slices of a stack from initial poses: choice of twins, joint registration, fusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..atlas.volumes import SIZE_DEVIATION
from ..geometry import Rigid
from .acquisition import Acquisition
from .frames import MidsagittalPlane, Slice, twin_pose
from .fuse import FusedStack, fuse
from .points import SliceBatch, SliceTarget
from .register import SHAPE_DEVIATION, SVROptions, register_slices
from .smoothness import Smoothness

SINGLE = SVROptions(scale_deviation=SIZE_DEVIATION, shape_deviation=SHAPE_DEVIATION)
"""Options for the registration of single slices."""
HEAD = SVROptions(scale_deviation=SIZE_DEVIATION, shared_scale=True, foreground_offset=0.0)
"""How the slices of one head are registered together: one size, without a foreground offset, as three sizes and the foreground_offset made
newborns' stacks worse (docs/decisions/034)."""
LAST_STEPS = 6
"""Steps at the finest level after the best start of each slice was chosen."""


@dataclass(frozen=True, eq=False)
class StackPoses:
    """``poses`` (n) of the slices, atlas → image, with their ``ncc`` (n,) and ``weights`` (n,); ``apart`` (n,): largest angle between the
    pose from the best start and those from the other starts, degrees; ``log_scale`` (3,) of the template over the brain; ``first``: the
    starts fused; ``fused``: the registered poses fused."""

    poses: list[Rigid]
    ncc: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    apart: npt.NDArray[np.float64]
    log_scale: npt.NDArray[np.float64]
    first: FusedStack
    fused: FusedStack


def register_stack(
    slices: Sequence[Slice], target: SliceTarget, starts: Sequence[Rigid], plane: MidsagittalPlane, acquisition: Acquisition, *,
    weights: npt.ArrayLike | None = None, smoothness: Smoothness | None = None, guess: Rigid | None = None,
    batch: SliceBatch | None = None,
) -> StackPoses:  # fmt: skip
    """Register ``slices`` of one stack, each with brain, from ``starts`` (atlas → image), each of which may be the twin of the correct
    pose.

    The starts are fused first (:func:`~posepipe.slices.fuse.fuse`, with ``weights``). The slices are then registered from their own starts,
    from the stack's fused pose (better with little motion, or if a start is wrong), and from ``guess``, the pose of the volume, if given;
    each time with the penalty on motion. For each slice the result with the highest NCC is the start of the last steps. ``acquisition`` is
    that of the whole stack (``Slice.index``). ``batch`` are the same slices, if already prepared.
    """
    numbers = np.array([s.index for s in slices])
    order = np.argsort(acquisition.times[numbers], kind="stable")
    twins = [twin_pose(p, s.grid, plane) for p, s in zip(starts, slices, strict=True)]
    first = fuse(starts, target.center, twins=twins, weights=weights, order=order)
    batch = batch or SliceBatch(slices, target.target.brain.image.device)
    tied = smoothness or Smoothness.along(acquisition, numbers)
    options = replace(HEAD, smoothness=tied)
    own = [first.pose if out else p for p, out in zip(first.poses, first.outlier, strict=True)]
    begun = [own, [first.pose] * len(own), *([] if guess is None else [[guess] * len(own)])]
    found = [register_slices(batch, target, begin, options=options) for begin in begun]
    best = np.stack([f.ncc for f in found]).argmax(0)
    mixed = [found[b].poses[i] for i, b in enumerate(best)]
    size = np.median([found[b].log_scale[i] for i, b in enumerate(best)], axis=0)
    last = replace(HEAD, steps=(0, 0, LAST_STEPS), scale_deviation=0.0, smoothness=tied)
    done = register_slices(batch, target, mixed, options=last, log_scale=size)
    fused = fuse(done.poses, target.center, weights=done.weights, order=order)
    apart = np.array([max(p.degrees_from(f.poses[i]) for f in found) for i, p in enumerate(mixed)])
    return StackPoses(done.poses, done.ncc, done.weights, apart, size, first, fused)
