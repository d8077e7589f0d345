"""The six raw stacks of one fetus, aligned slice by slice and as volumes: agreement of their poses (``posepipe-tools bench stacks``).

All stacks share one scanner world, so the poses of a head without motion would be equal. The head turned between two groups of stacks.
The groups are found by the poses: stacks belong together if a chain of pairs less than :data:`JOINED` apart, by the volume's pose,
connects them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bids import read_json
from ..geometry import Rigid
from ..imaging.mask import given_mask
from ..imaging.volume import Volume, load_volume
from ..matching.target import Target
from ..plan import SLICE_KEYS
from ..pose.coordinate_networks import PoseNetworks
from ..pose.initial import initial_pose
from ..refinement.refine import refine_pose
from ..slices.align import StackAligner, StackAlignment
from ..slices.frames import Slice, slices_of, twin_pose
from ..slices.network import SliceNetwork
from ..slices.points import SliceTarget
from .classical import Case, cases

JOINED = 10.0
"""Largest angle, degrees, between stacks of one position of the head."""


LARGE_MM2 = 1500.0
"""Least brain area, mm², of the slices that are also evaluated one by one: a disc of 44 mm diameter."""


@dataclass(frozen=True, eq=False)
class RealStack:
    """One stack. ``found``: result of the alignment by slices, which includes the volume's pose. ``alone`` and ``unmasked``: errors of
    the network alone, degrees to the nearer of the volume's pose and its twin, for each slice with more than :data:`LARGE_MM2` of brain;
    with its mask, and with the brain's centre alone."""

    name: str
    found: StackAlignment
    alone: tuple[float, ...] = ()
    unmasked: tuple[float, ...] = ()


def real_stacks(data: Path, weights: Path | None = None) -> list[RealStack]:
    """The stacks of ``data/ds-stacks`` with their delineated masks, against one template (:mod:`posepipe.bench.classical`)."""
    aligner, networks, network = StackAligner(weights), PoseNetworks(weights), SliceNetwork(weights)
    out = []
    for case in cases(data, ("stacks",)):
        image, mask, target = _loaded(case)
        found = _aligned(case, (image, mask, target), aligner, networks)
        out.append(RealStack(case.name, found, *_single(slices_of(image, mask), SliceTarget(target), found.by_volume, network)))
        print(f"{case.name}: {out[-1].found.kept.reason}", flush=True)
    return out


def _loaded(case: Case) -> tuple[Volume, Volume, Target]:
    assert case.mask is not None
    image = load_volume(case.image)
    return image, given_mask(load_volume(case.mask), image).volume, Target.load(case.template)


def _single(
    slices: Sequence[Slice], target: SliceTarget, pose: Rigid, network: SliceNetwork
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Errors (degrees) of single slices with and without a mask; the true pose is ``pose``."""
    some = [s for s in slices if s.area > LARGE_MM2]
    whole = [Slice(s.grid, s.image, np.ones_like(s.mask), s.index) for s in some]
    center = pose.apply(target.center)
    middles = [(~s.grid.to_world).apply(center)[:2] for s in some]
    found = (network.poses(some, target, target.plane), network.poses(whole, target, target.plane, centers=middles, masked=False))
    alone, unmasked = (
        tuple(min(p.pose.degrees_from(q) for q in (pose, twin_pose(pose, s.grid, target.plane))) for p, s in zip(one, some, strict=True))
        for one in found
    )
    return alone, unmasked


def _aligned(
    case: Case, about: tuple[Volume, Volume, Target], aligner: StackAligner, networks: PoseNetworks
) -> StackAlignment:
    image, mask, target = about
    by_volume = refine_pose(image, mask, target, initial_pose(image, mask, target, networks=networks).pose, method="torch").pose
    sidecar = case.image.with_name(case.image.name.replace(".nii.gz", ".json"))
    known = read_json(sidecar) if sidecar.is_file() else {}
    return aligner.align(image, mask, target, by_volume, {k: known[k] for k in SLICE_KEYS if k in known})


def agreement(poses: Sequence[Rigid], groups: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Angles in degrees between all pairs of ``poses`` within one of the ``groups``, and between different groups."""
    pairs = [(a.degrees_from(b), groups[i] == groups[j]) for i, a in enumerate(poses) for j, b in enumerate(poses) if i < j]
    return np.array([d for d, same in pairs if same]), np.array([d for d, same in pairs if not same])


def groups_of(poses: Sequence[Rigid]) -> list[int]:
    """Group number, from 0, of each of ``poses``: equal where a chain of pairs less than :data:`JOINED` apart connects them.

    >>> groups_of([Rigid.from_rotvec([0, 0, a], [0, 0, 0]) for a in (0.0, 0.1, 1.0, 0.2)])
    [0, 0, 1, 0]
    """
    group = list(range(len(poses)))
    for _ in poses:
        for i, a in enumerate(poses):
            for j, b in enumerate(poses):
                if a.degrees_from(b) < JOINED:
                    group[i] = group[j] = min(group[i], group[j])
    return [sorted(set(group)).index(g) for g in group]


def report(stacks: Sequence[RealStack]) -> str:
    """Markdown: motion of each stack, and agreement of the poses by volume, by slices, and as kept."""
    groups = groups_of([s.found.by_volume for s in stacks])
    out = ["| stack | group | slices | outliers | motion ° (RMS) | slices from volume ° | kept | order |", "|" + "---|" * 8]
    for s, group in zip(stacks, groups, strict=True):
        about = s.found.about()
        apart = s.found.by_slices.degrees_from(s.found.by_volume)
        out.append(
            f"| {s.name} | {group + 1} | {about['SlicesWithPose']} | {about['Outliers']} | {s.found.kept.motion:.1f} | {apart:.1f} "
            f"| {s.found.kept.kept} | {about['SliceOrder']} |"
        )
    out.append("\nAngles between the poses of pairs of stacks, degrees: median (largest)\n")
    out += ["| pose | within a group | between groups |", "|---|---|---|"]
    for name in ("by_volume", "by_slices", "pose"):
        within, between = agreement([getattr(s.found, name) for s in stacks], groups)
        out.append(f"| {name.replace('_', ' ').replace('pose', 'as kept')} | {_median(within)} | {_median(between)} |")
    out.append("\nThe network alone on single slices, to the nearer twin of the volume's pose, degrees\n")
    out += ["| slices | n | median | mean | > 15° | > 30° |", "|" + "---|" * 6]
    for name, errors in (("with mask", [e for s in stacks for e in s.alone]), ("without", [e for s in stacks for e in s.unmasked])):
        e = np.array(errors)
        if len(e):
            far = " | ".join(f"{100 * (e > limit).mean():.0f} %" for limit in (15, 30))
            out.append(f"| {name} | {len(e)} | {np.median(e):.1f} | {e.mean():.1f} | {far} |")
    return "\n".join(out)


def _median(angles: np.ndarray) -> str:
    return f"{np.median(angles):.1f} ({angles.max():.1f}), {len(angles)} pairs" if len(angles) else "no pair"
