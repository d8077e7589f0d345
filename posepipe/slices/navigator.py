"""Whole navigator volumes of low resolution, one after the other: the brain is sought where it was last, and everywhere if it is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage
from torch import Tensor

from ..errors import MaskError
from ..geometry import Rigid
from ..imaging.mask import given_mask
from ..imaging.sampling import sample, tensor
from ..imaging.volume import Volume
from ..registration.deep import Glance, PoseNetworks
from ..registration.masking import BrainFinder
from ..registration.target import Target

MARGIN_MM = 6.0
"""How far about the last place the brain is looked for, mm: a voxel of a navigator, and more than heads move in the 1.5 s from one to the
next (:class:`~posepipe.slices.smoothness.Smoothness`); with twice as much the networks are as good on still brains."""
LEAST_SHARE = 0.5
"""Of a brain less of which lies in the volume, by its last pose, nothing is to be expected there."""


@dataclass(frozen=True, eq=False)
class FoundBrain:
    """``pose`` (atlas → volume, RAS mm); ``sure``: whether the networks vouch for it; ``followed``: it was found where it was last."""

    pose: Rigid
    sure: bool
    followed: bool


class NavigatorFollower:
    """Poses of the brain in volumes against ``target``; ``networks`` is called when they are first needed, and the networks of masks, of
    ``weights``, are loaded when a brain is first sought in all of a volume."""

    def __init__(
        self, target: Target, networks: Callable[[], PoseNetworks], weights: str | Path | None = None, device: str = "cpu"
    ) -> None:
        self._target, self._make, self._weights, self._device = target, networks, weights, device

    def warm(self) -> None:
        """Load the networks and try those of poses."""
        _ = self._grown, self._finder
        self._networks.place(self._target.brain)

    def follow(self, volume: Volume, mask: Volume | None = None, head: Rigid | None = None) -> FoundBrain | None:
        """The brain in ``volume``: inside ``mask``, or where it is by its last pose, ``head``, or anywhere; None where there is none.

        Where it was last, twice if it moved farther than :data:`MARGIN_MM`. Raises :class:`~posepipe.errors.MaskError` for a mask on
        another grid or without voxels.
        """
        if mask is not None:
            return self._placed(volume, given_mask(mask, volume).volume, followed=False)
        for _ in range(2):
            region = None if head is None else self.region(volume, head)
            if head is None or region is None:
                break
            found = self._placed(volume, region, followed=True)
            moved = self._moved(found.pose, head)
            if found.sure and moved <= MARGIN_MM:
                return found
            head = found.pose
        else:
            if found.sure:
                return found
        try:
            seen = self._finder.find(volume)
        except MaskError:
            return None
        return self._placed(volume, seen.volume, followed=False)

    def region(self, volume: Volume, head: Rigid) -> Volume | None:
        """Voxels of ``volume`` within :data:`MARGIN_MM` of the brain, by its pose ``head``; None where too little of it lies in there."""
        index = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in volume.shape], indexing="ij"), -1)
        back = (~head).matrix @ volume.affine
        points = tensor(index @ back[:3, :3].T + back[:3, 3], self._device)
        grown, to_voxel = self._grown
        inside = (sample(grown[None], to_voxel, points)[0] > 0.5).cpu().numpy()
        if inside.sum() * volume.voxel_volume / 1000 < LEAST_SHARE * self._target.millilitres:
            return None
        return volume.with_data(inside)

    def _placed(self, volume: Volume, mask: Volume, *, followed: bool) -> FoundBrain:
        best = self._networks.place(Glance.of(volume, mask, self._device))[0]
        pose = best.pose(self._networks.canonical(self._target), self._target.brain)
        return FoundBrain(pose, self._networks.sure(best.features), followed)

    def _moved(self, pose: Rigid, other: Rigid) -> float:
        """Most that a point of the brain is moved from ``other`` to ``pose``, mm."""
        center = self._target.brain.center
        turned = 2 * np.sin(np.radians(pose.degrees_from(other)) / 2) * self._target.brain.radius
        return float(turned + np.linalg.norm(pose.apply(center) - other.apply(center)))

    @cached_property
    def _networks(self) -> PoseNetworks:
        return self._make()

    @cached_property
    def _finder(self) -> BrainFinder:
        return BrainFinder(self._weights, self._device)

    @cached_property
    def _grown(self) -> tuple[Tensor, Tensor]:
        """The template's mask grown by :data:`MARGIN_MM`, and its map (4, 4) from atlas RAS mm to voxels."""
        brain = self._target.brain
        pad = int(np.ceil(MARGIN_MM / brain.spacing)) + 1
        inside = np.pad(brain.mask.cpu().numpy() > 0.5, pad)
        far = ndimage.distance_transform_edt(~inside) * brain.spacing
        to_voxel = brain.world_to_voxel.clone()
        to_voxel[:3, 3] += pad
        return tensor(far <= MARGIN_MM, self._device), to_voxel
