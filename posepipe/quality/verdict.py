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
from ..pose.initial import InitialPose
from ..refinement.refine import Refined
from .confidence import confidence

BAD_DICE = 0.70
"""Overlap of the masks after alignment (Dice) below which the pose fails."""


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

    If the confidence is low or not known, a further reason lists the scores of the pose: similarity inside the brain, overlap of the masks,
    lead over another orientation, rotation by the refinement. They have no limits of their own, since the confidence was calibrated on
    them (docs/decisions/044).
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
    dice = refined.similarity["Dice"]["after"]
    failed = dice < BAD_DICE
    if failed:
        reasons.append(f"after alignment the brain mask and the template's overlap by only {dice:.2f} (Dice)")
    if known is None and not other_weights:
        reasons.append("the probability that the pose is right was not estimated, as there is no prediction by networks")
    elif known is not None and known < model.review:
        failed = failed or known < model.fail
        reasons.append(f"the pose is within 15° of the right one with an estimated probability of only {known:.2f}")
    if known is None or known < model.review:
        reasons.append(_scores(initial, refined))
    if scanned is not None and contrast is not None and not failed:  # the check is not meaningful at a wrong pose
        reasons.extend(_contrast_mismatch(scanned, contrast, target, refined))
    reasons.extend((*mask.warnings, *refined.warnings, *doubts))
    if outside and known is not None:
        known = min(known, model.fail)  # the model was calibrated on brains of the atlases' ages and is not valid for others
    verdict = "fail" if failed or outside else "review" if reasons else "pass"
    return Quality(verdict, tuple(reasons), known)


def _scores(initial: InitialPose, refined: Refined) -> str:
    """The scores of a pose in doubt, in words."""
    after = {name: refined.similarity[name]["after"] for name in ("CR", "CoarseCR", "Dice")}
    lead = initial.found.lead("criterion")
    moved = refined.pose.degrees_from(initial.pose)
    parts = (
        f"criterion {after['CR']:.2f}", f"coarse texture {after['CoarseCR']:.2f}", f"overlap of the masks {after['Dice']:.2f} (Dice)",
        "no rival orientation" if lead is None else f"lead of {lead:.3f} over another orientation",
        f"rotated by {moved:.0f}° in the refinement",
    )  # fmt: skip
    return f"scores of the pose: {', '.join(parts)}"


def _contrast_mismatch(scanned: Brain, contrast: str, target: Target, refined: Refined) -> list[str]:
    apparent, correlation = apparent_contrast(scanned, target, refined.pose)
    if apparent in {None, contrast}:
        return []
    return [
        f"named {contrast}, but its contrast is that of {apparent} (correlation with the {target.contrast} template {correlation:.2f}): "
        f"check the file, or give --contrast {apparent}"
    ]
