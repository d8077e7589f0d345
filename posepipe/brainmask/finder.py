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
from ..registration.calibration import load_calibration, uncalibrated
from .detection import LARGEST_RADIUS_MM, Detection, Place, ScanNetworks
from .scan import Frame, Scan

OVERVIEW_MM = 5.0
"""Spacing of the grid on which the whole scan is looked through."""
CANDIDATES, LEAST_SHARE = 4, 0.1
"""So many of the places that may be a brain's are looked at closer, the fullest first, and none of which less is brain."""
WIDE, OUTLINED = 1.6, 1.4
"""Half the side of a crop, in brain radii: for the pose, with eyes and neck in it, and for the outline."""
NEARBY = 2.0
"""Half the side, in brain radii, of the crop that the locator is shown when it looks closer."""
ROUNDS, OUTLINES = 3, 2
"""A brain is cropped so many times, each time about where and as large as it was seen before; and then for its outline."""
COPIES = 8
"""Turned crops from which the pose is taken: that nearest to all others."""
AGREE_DEGREES = 25.0
"""Poses of turned crops within this of that one agree with it."""


@dataclass(frozen=True, eq=False)
class _Found:
    """The last crop of a candidate, and how likely it is a brain."""

    detection: Detection
    likely: float


class BrainFinder:
    """Finds the brain and its pose in any image with the networks ``locator`` and ``scan``.

    ``weights_dir`` comes before the weights of the package. Raises :class:`~posepipe.errors.WeightsError`.
    """

    def __init__(self, weights_dir: str | Path | None = None, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._networks = ScanNetworks(weights_dir, device)
        self.weights = self._networks.weights
        """Name → SHA-256 of the networks."""
        calibration = load_calibration(weights_dir)
        self._strange = calibration.others(self.weights)
        self._model = calibration.brain

    @torch.inference_mode()
    def find(self, image: Volume) -> BrainMask:
        """The brain in ``image``: one piece without holes, on its grid, with its pose.

        Raises :class:`~posepipe.errors.MaskError` where nothing is likely to be a brain.
        """
        scan = Scan.of(image, self._device)
        found = sorted(self._candidates(scan), key=lambda one: -one.likely)
        if not found or found[0].likely < self._model.fail:
            raise no_brain(image.source)
        # of several that are likely brains the largest
        best = max(_brains(found, self._model.review) or found[:1], key=lambda one: one.detection.about.millilitres)
        mask = self._outlined(image, scan, best.detection)
        warnings = [uncalibrated(self._strange)] if self._strange else []
        if best.likely < self._model.review:
            warnings.append(f"what was masked is a brain with a probability of only {best.likely:.2f}: look at the mask, or give one")
        warnings += _another([one for one in _brains(found, self._model.review) if one is not best])
        found_pose = self._posed(image, scan, best.detection)
        return replace(mask, warnings=(*warnings, *mask.warnings), weights=dict(self.weights), found=found_pose)

    @torch.inference_mode()
    def near(self, image: Volume, center: Array, radius: float) -> Volume | None:
        """Mask of the brain in ``image`` that lies about ``center`` (3,), RAS mm, and has about this ``radius``, mm, on the image's grid,
        from three crops and one for the outline. None where there is none. Quick (docs/tracker.md), and not judged."""
        scan = Scan.of(image, self._device)
        at = (np.linalg.inv(image.affine) @ np.append(center, 1.0))[:3] * image.spacing
        place = self._closer(scan, at, radius)
        seen = None if place is None else self._settled(scan, place, rounds=2)
        try:
            return None if seen is None else self._outlined(image, scan, seen).volume
        except MaskError:  # nothing is left of it
            return None

    @torch.inference_mode()
    def features(self, image: Volume) -> list[tuple[dict[str, float], Array]]:
        """What tells whether it is a brain, and the centre (3,) in RAS mm, of all places in ``image`` that may be one: what the
        calibration is made of."""
        scan = Scan.of(image, self._device)
        seen = [self._settled(scan, place) for place in self._places(scan)]
        return [(brain_features(one), _world(image, one.about.center)) for one in seen if one is not None]

    def _candidates(self, scan: Scan) -> list[_Found]:
        found: list[_Found] = []
        for place in self._places(scan):
            seen = self._settled(scan, place)
            if seen is not None and all(_apart(seen.about, one.detection.about) for one in found):
                found.append(_Found(seen, self._model.probability(brain_features(seen))))
        return found

    def _places(self, scan: Scan) -> list[Place]:
        """Places that may be a brain's, each looked at closer, the fullest first."""
        rough = [one for one in self._networks.overview(scan, OVERVIEW_MM) if one.share >= LEAST_SHARE][:CANDIDATES]
        closer = [(one.share, self._closer(scan, one.center, one.radius)) for one in rough]
        return [replace(one, afar=afar) for afar, one in closer if one is not None]

    def _closer(self, scan: Scan, center: Array, radius: float) -> Place | None:
        """The fullest place in a crop about ``center`` (mm) for a brain of this ``radius``."""
        seen = self._networks.places(scan, Frame.about(center, NEARBY * min(radius, LARGEST_RADIUS_MM), self._networks.size))
        return next((one for one in seen if one.share >= LEAST_SHARE), None)

    def _settled(self, scan: Scan, place: Place, rounds: int = ROUNDS) -> Detection | None:
        """The last of the crops about ``place``, with what of the place tells whether it is a brain among its features; None: less than
        any brain holds."""
        seen, before, center, radius = None, place.likely, place.center, place.radius
        for _ in range(rounds):
            frame = Frame.about(center, WIDE * min(radius, LARGEST_RADIUS_MM), self._networks.size)
            found = self._networks.detect(scan, [frame], before)[0]
            if found is None:
                return None
            seen, before, center, radius = found, found.likely, found.about.center, found.about.radius
        if seen is None:
            return None
        inside = place.likely.on(seen.likely.frame)[0, 0][seen.likely.p > 0.5]
        return replace(seen, features=seen.features | {
            "located": float(inside.mean()),
            "afar": place.afar,
            "share": place.share,
            "moved": float(np.linalg.norm(place.center - center) / place.radius),
            "grown": float(abs(np.log(radius / place.radius))),
        })  # fmt: skip

    def _outlined(self, image: Volume, scan: Scan, seen: Detection) -> BrainMask:
        """The outline of what was seen."""
        about: Moments | None = seen.about
        for _ in range(OUTLINES):
            if about is None:
                raise no_brain(image.source)
            found = self._networks.outline(scan, about.center, OUTLINED * about.radius, about.radius)
            about = found.about()
        return checked_mask(scan.read_back(found.p, found.frame) > 0.5, image, "network", image.source)

    def _posed(self, image: Volume, scan: Scan, seen: Detection) -> FoundPose:
        """The pose from turned crops, nearest to all others', with what tells how sure it is."""
        center, half = seen.about.center, WIDE * seen.about.radius
        frames = [Frame.about(center, half, self._networks.size, axes) for axes in turns(COPIES)]
        return pose_of(image, [one for one in self._networks.detect(scan, frames, seen.likely) if one is not None] or [seen])


def brain_features(seen: Detection) -> dict[str, float]:
    """What tells whether something is a brain, each the better the higher but errors."""
    f = seen.features
    return {
        **{name: f[name] for name in ("afar", "share", "located", "moved", "grown", "sure")},
        "expected_error": float(np.log(f["expected_error"])),
        "residual": float(np.log(f["residual"])),
        "size": float(abs(np.log(seen.radius / seen.about.radius))),
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
    held = " and ".join(f"{one.detection.about.millilitres:.0f} ml" for one in others)
    return [
        f"another brain is in this scan ({held}; twins?): the larger was taken; crop the image to the other, or give its mask, to align it"
    ]
