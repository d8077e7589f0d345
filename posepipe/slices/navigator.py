"""Whole navigator volumes of low resolution, one after the other: the brain is sought where it was last, and everywhere if it is lost.

The template's mask, carried into the next volume by the last pose, would be quicker than two crops shown to the outline network, but it
confirms itself: the networks take a mask's outline for the brain's. On two brains that turned by 8° and 20° RMS in 12 volumes the poses
found under it, grown by 6 mm, were 11–25° off, where those under masks that were looked for anew are 2–5° off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..brainmask.finder import BrainFinder
from ..errors import MaskError
from ..geometry import Rigid
from ..imaging.mask import given_mask
from ..imaging.volume import Volume
from ..matching.target import Target
from ..pose.coordinate_networks import Glance, PoseNetworks


@dataclass(frozen=True, eq=False)
class FoundBrain:
    """``pose`` (atlas → volume, RAS mm); ``sure``: whether the networks vouch for it; ``followed``: it was found where it was last."""

    pose: Rigid
    sure: bool
    followed: bool


class NavigatorFollower:
    """Poses of the brain in volumes against ``target``; ``networks`` is called when they are first needed, and the networks of masks, of
    ``weights``, are loaded when a brain is first sought."""

    def __init__(
        self, target: Target, networks: Callable[[], PoseNetworks], weights: str | Path | None = None, device: str = "cpu"
    ) -> None:
        self._target, self._make, self._weights, self._device = target, networks, weights, device

    def warm(self) -> None:
        """Load the networks and try them."""
        brain = self._target.brain
        self._finder.near(self._target.volume, brain.center, brain.radius)
        self._networks.place(brain)

    def follow(self, volume: Volume, mask: Volume | None = None, head: Rigid | None = None) -> FoundBrain | None:
        """The brain in ``volume``: inside ``mask``, or about where it is by its last pose, ``head``; where the networks are not sure of
        what they find there, anywhere. None where there is none.

        Raises :class:`~posepipe.errors.MaskError` for a mask on another grid or without voxels.
        """
        if mask is not None:
            return self._placed(volume, given_mask(mask, volume).volume, followed=False)
        brain = self._target.brain
        near = None if head is None else self._finder.near(volume, head.apply(brain.center), brain.radius)
        if near is not None and (found := self._placed(volume, near, followed=True)).sure:
            return found
        try:
            seen = self._finder.find(volume)
        except MaskError:
            return None
        return self._placed(volume, seen.volume, followed=False)

    def _placed(self, volume: Volume, mask: Volume, *, followed: bool) -> FoundBrain:
        best = self._networks.place(Glance.of(volume, mask, self._device))[0]
        pose = best.pose(self._networks.canonical(self._target), self._target.brain)
        return FoundBrain(pose, self._networks.sure(best.features), followed)

    @cached_property
    def _networks(self) -> PoseNetworks:
        return self._make()

    @cached_property
    def _finder(self) -> BrainFinder:
        return BrainFinder(self._weights, self._device)
