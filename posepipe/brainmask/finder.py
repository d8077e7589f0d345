"""Brain and pose in a scan without a mask: one overview of the scan, then crops about what was seen there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..errors import MaskError
from ..geometry import super_fibonacci
from ..geometry.so3 import Array, geodesic_distance
from ..imaging.mask import BrainMask, FoundPose, checked_mask, no_brain
from ..imaging.moments import Moments
from ..imaging.volume import Volume
from ..models.calibration import load_calibration, uncalibrated
from ..pose.coordinate_networks import Glance, Placement, PoseNetworks
from .detection import LARGEST_RADIUS_MM, Detection, Likely, Place, ScanNetworks
from .scan import Frame, Scan

OVERVIEW_MM = 4.0
"""Spacing of the grid on which the whole scan is looked through."""
CANDIDATES, LEAST_SHARE = 4, 0.1
"""So many of the places that may be a brain's are looked at closer, the fullest first, and none of which less is brain."""
OUTLINED, ROUNDS = 1.2, 4
"""Half the side of a crop for the outline, in brain radii; it is taken so many times, each time about where and as large as it was seen
before."""
WIDE = 1.6
"""The same of a crop for the pose, with eyes and neck in it."""
COPIES = 8
"""Turned crops from which the pose is taken: that nearest to all others."""
AGREE_DEGREES = 25.0
"""Poses of turned crops within this of that one agree with it."""


@dataclass(frozen=True, eq=False)
class _Found:
    """An outline, ``about`` which it is, the mask of it, what the network for the pose sees there, and how likely it is a brain, by its
    :func:`brain_features`."""

    outline: Likely
    about: Moments
    mask: BrainMask
    seen: Detection
    features: dict[str, float]
    likely: float


class BrainFinder:
    """Finds the brain and its pose in any image with the networks ``locator``, ``outline`` and ``scan``; those of masked brains help to
    tell whether something is one.

    ``weights_dir`` comes before the weights of the package. Raises :class:`~posepipe.errors.WeightsError`.
    """

    def __init__(self, weights_dir: str | Path | None = None, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._networks = ScanNetworks(weights_dir, device)
        self._pose_networks = PoseNetworks(weights_dir, device=device)
        self.weights = self._networks.weights
        """Name → SHA-256 of the networks."""
        calibration = load_calibration(weights_dir)
        self._strange = calibration.others({**self.weights, **self._pose_networks.sha256})
        self.model = calibration.brain
        """Of whether something is a brain."""

    @torch.inference_mode()
    def find(self, image: Volume) -> BrainMask:
        """The brain in ``image``: one piece without holes, on its grid, with its pose.

        Raises :class:`~posepipe.errors.MaskError` where nothing is likely to be a brain.
        """
        scan = Scan.of(image, self._device)
        found = sorted(self._candidates(image, scan), key=lambda one: -one.likely)
        if not found or found[0].likely < self.model.fail:
            raise no_brain(image.source)
        # of several that are likely brains the largest
        best = max(_brains(found, self.model.review) or found[:1], key=lambda one: one.about.millilitres)
        mask = best.mask
        warnings = [uncalibrated(self._strange)] if self._strange else []
        if best.likely < self.model.review:
            warnings.append(f"what was masked is a brain with a probability of only {best.likely:.2f}: look at the mask, or give one")
        warnings += _another([one for one in _brains(found, self.model.review) if one is not best])
        found_pose = self._posed(image, scan, best)
        return replace(mask, warnings=(*warnings, *mask.warnings), weights=dict(self.weights), found=found_pose)

    @torch.inference_mode()
    def near(self, image: Volume, center: Array, radius: float) -> Volume | None:
        """Mask of the brain in ``image`` that lies about ``center`` (3,), RAS mm, and has about this ``radius``, mm, on the image's grid,
        from two crops. None where there is none. Quick (docs/how-to/tracker.md), and not judged."""
        scan = Scan.of(image, self._device)
        at = (np.linalg.inv(image.affine) @ np.append(center, 1.0))[:3] * image.spacing
        outline = self._outlined(scan, at, radius, rounds=2)
        try:
            return None if outline is None else _masked(image, scan, outline[0]).volume
        except MaskError:  # nothing is left of it
            return None

    @torch.inference_mode()
    def features(self, image: Volume) -> list[tuple[dict[str, float], Array]]:
        """What tells whether it is a brain, and the centre (3,) in RAS mm, of all places in ``image`` that may be one: what the
        calibration is made of."""
        return [(one.features, _world(image, one.about.center)) for one in self._candidates(image, Scan.of(image, self._device))]

    def _candidates(self, image: Volume, scan: Scan) -> list[_Found]:
        found: list[_Found] = []
        places = [one for one in self._networks.overview(scan, OVERVIEW_MM) if one.share >= LEAST_SHARE]
        for place in places[:CANDIDATES]:
            outline = self._outlined(scan, place.center, place.radius)
            if outline is not None and all(_apart(outline[1], one.about) for one in found):
                judged = self._judged(image, scan, place, *outline)
                found += [] if judged is None else [judged]
        return found

    def _judged(self, image: Volume, scan: Scan, place: Place, outline: Likely, about: Moments) -> _Found | None:
        """What was outlined at a ``place``; None: the networks see less than any brain holds."""
        frame = Frame.about(about.center, WIDE * min(about.radius, LARGEST_RADIUS_MM), self._networks.size)
        seen = self._networks.detect(scan, [frame], outline)[0]
        try:
            mask = _masked(image, scan, outline)
        except MaskError:  # nothing is left of it
            return None
        if seen is None:
            return None
        masked = self._pose_networks.place(Glance.of(image, mask.volume))[0]
        features = brain_features(place, outline, about, seen, pose_of(image, [seen]), masked)
        return _Found(outline, about, mask, seen, features, self.model.probability(features))

    def _outlined(self, scan: Scan, center: Array, radius: float, rounds: int | None = None) -> tuple[Likely, Moments] | None:
        """The outline of what lies about ``center`` and has about this ``radius``, mm; None: less than any brain holds."""
        outline = about = None
        for _ in range(rounds or ROUNDS):
            outline = self._networks.outline(scan, center, OUTLINED * min(radius, LARGEST_RADIUS_MM))
            about = outline.about()
            if about is None:
                return None
            center, radius = about.center, about.radius
        return None if outline is None or about is None else (outline.largest(), about)

    def _posed(self, image: Volume, scan: Scan, found: _Found) -> FoundPose:
        """The pose from turned crops, nearest to all others', with what tells how sure it is."""
        center, half = found.about.center, WIDE * found.about.radius
        frames = [Frame.about(center, half, self._networks.size, axes) for axes in turns(COPIES)]
        return pose_of(image, [one for one in self._networks.detect(scan, frames, found.outline) if one is not None] or [found.seen])


def _masked(image: Volume, scan: Scan, outline: Likely) -> BrainMask:
    return checked_mask(scan.read_back(outline.p, outline.frame) > 0.5, image, "network", image.source)


def brain_features(
    place: Place, outline: Likely, about: Moments, seen: Detection, found: FoundPose, masked: Placement
) -> dict[str, float]:
    """What tells whether something is a brain: how full the place was in the overview (``share``), how sure the outline is of itself
    (``sharp``, mean probability, each voxel counting by its own), how far the size that the network for the pose gives is from the
    outline's (``size``, logarithm), the errors that it and the networks of masked brains expect of their coordinates (``expected_error``,
    ``masked_error``, logarithms of brain radii), and how far the poses of both are ``apart``, as log(1 + degrees)."""
    return {
        "share": place.share,
        "sharp": float((outline.p**2).sum() / outline.p.sum()),
        "size": float(abs(np.log(seen.radius / about.radius))),
        "expected_error": float(np.log(seen.features["expected_error"])),
        "masked_error": float(np.log(masked.features["expected_error"])),
        "apart": float(np.log1p(np.degrees(geodesic_distance(found.rotation, masked.rotation)))),
    }


def pose_of(image: Volume, seen: Sequence[Detection]) -> FoundPose:
    """The pose of that of the detections which is nearest to all others, in RAS mm of ``image``."""
    rotations = np.stack([one.rotation for one in seen])
    apart = np.degrees(geodesic_distance(rotations[:, None], rotations[None]))
    k = int(apart.sum(1).argmin())
    best = seen[k]
    axes = image.affine[:3, :3] / image.spacing
    # a crop of a left-handed grid shows a mirrored head, upright in a frame that is mirrored too
    mirror = np.diag([float(np.sign(np.linalg.det(axes))), 1.0, 1.0])
    features = {
        "agree": float((apart[k] < AGREE_DEGREES).mean()),
        "spread": float(np.median(apart[k])),
        **{name: float(np.median([one.features[name] for one in seen])) for name in ("sure", "expected_error", "residual")},
    }
    return FoundPose(axes @ best.rotation @ mirror, _world(image, best.origin), best.radius, features)


def turns(n: int) -> Array:
    """Rotations (n, 3, 3), as even as can be, the first the identity."""
    grid = super_fibonacci(n)
    return grid @ grid[0].T


def _world(image: Volume, place: Array) -> Array:
    """A place in a scan in RAS mm."""
    out: Array = image.affine[:3, :3] @ (place / image.spacing) + image.affine[:3, 3]
    return out


def _apart(one: Moments, other: Moments) -> bool:
    """Whether two detections are of two brains."""
    return float(np.linalg.norm(one.center - other.center)) > max(one.radius, other.radius)


def _brains(found: Sequence[_Found], least: float) -> list[_Found]:
    return [one for one in found if one.likely >= least]


def _another(others: Sequence[_Found]) -> list[str]:
    """That a scan shows a second head, as of twins."""
    if not others:
        return []
    held = " and ".join(f"{one.about.millilitres:.0f} ml" for one in others)
    return [
        f"another brain is in this scan ({held}; twins?): the larger was taken; crop the image to the other, or give its mask, to align it"
    ]
