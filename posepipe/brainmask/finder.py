"""Segmentation and pose of the brain in a scan without a mask: the locator on the whole scan, then crops about its candidates."""

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
from ..pose.coordinate_networks import VOTE_DEGREES, DownsampledBrain, Placement, PoseNetworks
from .detection import LARGEST_RADIUS_MM, BrainProbability, Candidate, Detection, ScanNetworks
from .scan import Frame, Scan

OVERVIEW_MM = 4.0
"""Grid spacing (mm) of the locator's input."""
CANDIDATES, LEAST_SHARE = 4, 0.1
"""Maximum number of candidates that are segmented, by decreasing ``share``, and the least ``share`` of a candidate."""
OUTLINED, ROUNDS = 1.2, 4
"""Half the edge of a crop for the segmentation, in brain radii, and the number of iterations. Each iteration takes centre and radius from
the segmentation before."""
WIDE = 1.6
"""Half the edge of a crop for the pose, in brain radii; it includes eyes and neck."""
COPIES = 8
"""Number of rotated crops (test-time augmentation) for the pose; the medoid of their poses is used."""


@dataclass(frozen=True, eq=False)
class _DetectedBrain:
    """A segmented candidate: ``outline`` with its moments ``about``, the ``mask`` on the image's grid, the ``detection`` of the pose
    network, the :func:`brain_features`, and the ``probability`` that it is a brain."""

    outline: BrainProbability
    about: Moments
    mask: BrainMask
    detection: Detection
    features: dict[str, float]
    probability: float


class BrainFinder:
    """Segments the brain in any image and estimates its pose, with the networks ``locator``, ``outline`` and ``scan``. The networks for
    masked brains contribute to the probability that a candidate is a brain.

    Weights in ``weights_dir`` take precedence over the package's. Raises :class:`~posepipe.errors.WeightsError`.
    """

    def __init__(self, weights_dir: str | Path | None = None, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._networks = ScanNetworks(weights_dir, device)
        self._pose_networks = PoseNetworks(weights_dir, device=device)
        self.weights = self._networks.weights
        """Name → SHA-256 of the networks."""
        calibration = load_calibration(weights_dir)
        self._other_weights = calibration.others({**self.weights, **self._pose_networks.sha256})
        self.model = calibration.brain
        """Calibrated model of the probability that a candidate is a brain."""

    @torch.inference_mode()
    def find(self, image: Volume) -> BrainMask:
        """Brain mask of ``image`` (one connected component without holes, on its grid), with the pose.

        Raises :class:`~posepipe.errors.MaskError` if no candidate is likely to be a brain.
        """
        scan = Scan.of(image, self._device)
        found = sorted(self._candidates(image, scan), key=lambda one: -one.probability)
        if not found or found[0].probability < self.model.fail:
            raise no_brain(image.source)
        # the largest of the candidates that are likely brains
        best = max(_brains(found, self.model.review) or found[:1], key=lambda one: one.about.millilitres)
        mask = best.mask
        warnings = [uncalibrated(self._other_weights)] if self._other_weights else []
        if best.probability < self.model.review:
            warnings.append(f"the masked region is a brain with a probability of only {best.probability:.2f}: check the mask, or give one")
        warnings += _another([one for one in _brains(found, self.model.review) if one is not best])
        found_pose = self._posed(image, scan, best)
        return replace(mask, warnings=(*warnings, *mask.warnings), weights=dict(self.weights), found=found_pose)

    @torch.inference_mode()
    def near(self, image: Volume, center: Array, radius: float) -> Volume | None:
        """Mask of the brain in ``image`` near ``center`` (3,), RAS mm, of about this ``radius``, mm, on the image's grid, from two crops.
        None if there is none. Fast (docs/how-to/tracker.md); the probability that it is a brain is not checked."""
        scan = Scan.of(image, self._device)
        at = (np.linalg.inv(image.affine) @ np.append(center, 1.0))[:3] * image.spacing
        outline = self._outlined(scan, at, radius, rounds=2)
        try:
            return None if outline is None else _masked(image, scan, outline[0]).volume
        except MaskError:  # the segmentation is empty on the image's grid
            return None

    @torch.inference_mode()
    def features(self, image: Volume) -> list[tuple[dict[str, float], Array]]:
        """:func:`brain_features` and centre (3,), RAS mm, of all candidates in ``image``: the data of the calibration."""
        return [(one.features, _world(image, one.about.center)) for one in self._candidates(image, Scan.of(image, self._device))]

    def _candidates(self, image: Volume, scan: Scan) -> list[_DetectedBrain]:
        found: list[_DetectedBrain] = []
        places = [one for one in self._networks.overview(scan, OVERVIEW_MM) if one.share >= LEAST_SHARE]
        for place in places[:CANDIDATES]:
            outline = self._outlined(scan, place.center, place.radius)
            if outline is not None and all(_apart(outline[1], one.about) for one in found):
                judged = self._judged(image, scan, place, *outline)
                found += [] if judged is None else [judged]
        return found

    def _judged(self, image: Volume, scan: Scan, place: Candidate, outline: BrainProbability, about: Moments) -> _DetectedBrain | None:
        """Features and probability of the candidate ``place``; None if its volume is below that of any brain."""
        frame = Frame.about(about.center, WIDE * min(about.radius, LARGEST_RADIUS_MM), self._networks.size)
        detection = self._networks.detect(scan, [frame], outline)[0]
        try:
            mask = _masked(image, scan, outline)
        except MaskError:  # the segmentation is empty on the image's grid
            return None
        if detection is None:
            return None
        masked = self._pose_networks.place(DownsampledBrain.of(image, mask.volume))[0]
        features = brain_features(place, outline, about, detection, pose_of(image, [detection]), masked)
        return _DetectedBrain(outline, about, mask, detection, features, self.model.probability(features))

    def _outlined(self, scan: Scan, center: Array, radius: float, rounds: int | None = None) -> tuple[BrainProbability, Moments] | None:
        """Segmentation near ``center`` (3,), of about this ``radius``, mm, in ``rounds`` iterations; None: less than any brain's volume."""
        outline = about = None
        for _ in range(rounds or ROUNDS):
            outline = self._networks.outline(scan, center, OUTLINED * min(radius, LARGEST_RADIUS_MM))
            about = outline.about()
            if about is None:
                return None
            center, radius = about.center, about.radius
        return None if outline is None or about is None else (outline.largest(), about)

    def _posed(self, image: Volume, scan: Scan, found: _DetectedBrain) -> FoundPose:
        """The medoid of the poses of :data:`COPIES` rotated crops, with its features."""
        center, half = found.about.center, WIDE * found.about.radius
        frames = [Frame.about(center, half, self._networks.size, axes) for axes in turns(COPIES)]
        return pose_of(image, [one for one in self._networks.detect(scan, frames, found.outline) if one is not None] or [found.detection])


def _masked(image: Volume, scan: Scan, outline: BrainProbability) -> BrainMask:
    return checked_mask(scan.read_back(outline.p, outline.frame) > 0.5, image, "network", image.source)


def brain_features(
    place: Candidate, outline: BrainProbability, about: Moments, detection: Detection, found: FoundPose, masked: Placement
) -> dict[str, float]:
    """Features of the model that decides whether a candidate is a brain.

    ``share`` of the locator's votes; ``sharp``: mean probability of the segmentation, weighted by itself; ``size``: absolute log ratio of
    the radii by the pose network and by the segmentation; ``expected_error`` and ``masked_error``: errors of the coordinates expected by
    the pose network and by the networks of masked brains (logarithms of brain radii); ``apart``: angle between the poses of both, as log(1
    + degrees).
    """
    return {
        "share": place.share,
        "sharp": float((outline.p**2).sum() / outline.p.sum()),
        "size": float(abs(np.log(detection.radius / about.radius))),
        "expected_error": float(np.log(detection.features["expected_error"])),
        "masked_error": float(np.log(masked.features["expected_error"])),
        "apart": float(np.log1p(np.degrees(geodesic_distance(found.rotation, masked.rotation)))),
    }


def pose_of(image: Volume, detections: Sequence[Detection]) -> FoundPose:
    """The medoid of the poses of ``detections``, in RAS mm of ``image``."""
    rotations = np.stack([one.rotation for one in detections])
    apart = np.degrees(geodesic_distance(rotations[:, None], rotations[None]))
    k = int(apart.sum(1).argmin())
    best = detections[k]
    axes = image.affine[:3, :3] / image.spacing
    # a crop of a left-handed grid is mirrored; the canonical frame is mirrored as well
    mirror = np.diag([float(np.sign(np.linalg.det(axes))), 1.0, 1.0])
    features = {
        "agree": float((apart[k] < VOTE_DEGREES).mean()),
        "spread": float(np.median(apart[k])),
        **{name: float(np.median([one.features[name] for one in detections])) for name in ("sure", "expected_error", "residual")},
    }
    return FoundPose(axes @ best.rotation @ mirror, _world(image, best.origin), best.radius, features)


def turns(n: int) -> Array:
    """Rotations (n, 3, 3): a super-Fibonacci grid, turned so that the first is the identity."""
    grid = super_fibonacci(n)
    return grid @ grid[0].T


def _world(image: Volume, place: Array) -> Array:
    """A position in scan coordinates (:class:`~posepipe.brainmask.scan.Frame`) in RAS mm."""
    out: Array = image.affine[:3, :3] @ (place / image.spacing) + image.affine[:3, 3]
    return out


def _apart(one: Moments, other: Moments) -> bool:
    """Whether two detections are different brains."""
    return float(np.linalg.norm(one.center - other.center)) > max(one.radius, other.radius)


def _brains(found: Sequence[_DetectedBrain], least: float) -> list[_DetectedBrain]:
    return [one for one in found if one.probability >= least]


def _another(others: Sequence[_DetectedBrain]) -> list[str]:
    """Warning that the scan shows a second brain, as with twins."""
    if not others:
        return []
    held = " and ".join(f"{one.about.millilitres:.0f} ml" for one in others)
    return [
        f"another brain is in this scan ({held}; twins?): the larger was used; to align the other, crop the image to it, or give its mask"
    ]
