"""A verdict on a pose: pass, review or fail, with the reasons in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..atlas.volumes import LARGE, SMALL, VolumeRange
from ..contrast.check import apparent_contrast
from ..imaging.mask import BrainMask
from ..matching.brain import Brain
from ..matching.target import Target
from ..models.calibration import Calibration, load_calibration, uncalibrated
from ..pose.hypothesis import fits
from ..pose.initial import InitialPose
from ..refinement.refine import Refined
from .confidence import confidence

LOW_DICE, BAD_DICE = 0.85, 0.70
"""Overlap of the masks after alignment (Dice) below which it is named as a sign of a wrong pose, and below which the pose fails."""
LOW_LEAD = 0.02
"""Lead in criterion over the best rival below which the pose is ambiguous."""
MOVED_DEGREES = 15.0
"""Angle by which the refinement turned the pose, degrees, above which that is named as a sign of a wrong pose."""


@dataclass(frozen=True)
class Quality:
    """``qc`` is ``pass``, ``review`` or ``fail``; ``confidence`` the probability that the pose is within 15°, None if not estimated."""

    qc: str
    reasons: tuple[str, ...]
    confidence: float | None = None


def judge_pose(
    initial: InitialPose,
    refined: Refined,
    mask: BrainMask,
    target: Target,
    age: float | None,
    *,
    calibration: Calibration | None = None,
    scanned: Brain | None = None,
    contrast: str | None = None,
    estimated: bool = False,
    volumes: VolumeRange | None = None,
    doubts: Sequence[str] = (),
) -> Quality:
    """The verdict from rules on the mask's volume and on the overlap of the masks after alignment, and from the confidence by
    ``calibration`` (default: the package's). If the calibration is not for the networks' weights, the verdict is ``review`` at best.

    ``scanned`` is the acquired brain; if given, its apparent contrast is compared with ``contrast``, the nominal one. ``doubts`` about the
    header, the voxels or the age are further reasons.

    ``volumes`` is the range of brain volumes in the atlases. A mask fails if its volume is implausible both for the age and for every age
    of the atlases, or only for the latter if the age was ``estimated``; its confidence is then limited to that of a failed pose.

    If the confidence is known, the other signs of a wrong pose (similarity inside the brain, overlap, lead over rival hypotheses, motion
    during refinement) are listed as reasons only if it is low, since it was calibrated on them. If it is not known, each sign is a reason.
    """
    calibration = calibration or load_calibration()
    other_weights = calibration.others(initial.prediction.weights if initial.prediction else {})
    model = calibration.confidence
    known = None if other_weights else confidence(initial, refined, model)
    reasons = [uncalibrated(other_weights)] if other_weights else []
    size = mask.millilitres / target.millilitres
    usual = SMALL <= size <= LARGE
    outside = volumes.outside(mask.millilitres) if volumes and (estimated or not usual) else ""
    if outside:
        reasons.append(outside)
    elif not usual:
        at = f" at {age:g} weeks" if age is not None else ""
        reasons.append(f"the brain mask holds {mask.millilitres:.0f} ml, {size:.2f} times the template's{at}: check mask and age")
    failed = refined.similarity["Dice"]["after"] < BAD_DICE
    if known is None:
        reasons.extend(_signs(initial, refined))
    elif known < model.review:
        failed = failed or known < model.fail
        reasons.append(f"the pose is within 15° of the right one with an estimated probability of only {known:.2f}")
        reasons.extend(_signs(initial, refined))
    elif failed:
        reasons.append(_overlap(refined))
    if scanned is not None and contrast is not None and not failed:  # the check is not meaningful at a wrong pose
        reasons.extend(_contrast_mismatch(scanned, contrast, target, refined))
    reasons.extend((*mask.warnings, *refined.warnings, *doubts))
    if outside and known is not None:
        known = min(known, model.fail)  # the model was calibrated on brains of the atlases' ages and is not valid for others
    verdict = "fail" if failed or outside else "review" if reasons else "pass"
    return Quality(verdict, tuple(reasons), known)


def _misfit(initial: InitialPose, refined: Refined) -> list[str]:
    """Reason: low similarity inside the brain, unless a reliable network prediction supports the pose."""
    criterion, coarse = (refined.similarity[name]["after"] for name in ("CR", "CoarseCR"))
    if fits(criterion, coarse) or (initial.prediction is not None and initial.prediction.supports(refined.pose)):
        return []
    scores = f"criterion {criterion:.2f}, coarse texture {coarse:.2f}"
    return [f"the intensities inside the brain do not match the template at this pose ({scores}): the pose is likely wrong"]


def _signs(initial: InitialPose, refined: Refined) -> list[str]:
    """Signs of a wrong pose, in words."""
    signs = _misfit(initial, refined)
    if refined.similarity["Dice"]["after"] < LOW_DICE:
        signs.append(_overlap(refined))
    lead = initial.found.lead()
    if initial.found.by == "criterion" and lead is not None and lead < LOW_LEAD:
        signs.append(f"another orientation fits nearly as well (its criterion is {lead:.3f} lower)")
    moved = refined.pose.degrees_from(initial.pose)
    if moved > MOVED_DEGREES:
        signs.append(f"refinement rotated the pose by {moved:.0f}°, more than expected")
    return signs


def _contrast_mismatch(scanned: Brain, contrast: str, target: Target, refined: Refined) -> list[str]:
    apparent, correlation = apparent_contrast(scanned, target, refined.pose)
    if apparent in {None, contrast}:
        return []
    return [
        f"named {contrast}, but its contrast is that of {apparent} (correlation with the {target.contrast} template {correlation:.2f}): "
        f"check the file, or give --contrast {apparent}"
    ]


def _overlap(refined: Refined) -> str:
    dice = refined.similarity["Dice"]["after"]
    return f"after alignment the brain mask and the template's overlap by only {dice:.2f} (Dice)"
