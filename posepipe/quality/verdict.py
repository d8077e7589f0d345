"""A verdict on a pose: pass, review or fail, with the reasons in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..atlas.volumes import LARGE, SMALL, VolumeRange
from ..contrast.check import contrast_seen
from ..imaging.mask import BrainMask
from ..matching.brain import Brain
from ..matching.target import Target
from ..models.calibration import Calibration, load_calibration, uncalibrated
from ..pose.hypothesis import fits
from ..pose.initial import InitialPose
from ..refinement.refine import Refined
from .confidence import confidence

LOW_DICE, BAD_DICE = 0.85, 0.70
LOW_LEAD = 0.02
"""Lead in criterion over the best rival below which either may be right."""
MOVED_DEGREES = 15.0


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
    """Rules on the mask's size and on how far the masks overlap after alignment, and the confidence by ``calibration`` (default: the
    package's), where it was made with the networks' weights; where it was not, the verdict is ``review`` at best.
    Where the brain as it was ``scanned`` is given, it must look like the ``contrast`` that the image is said to have. ``doubts`` about the
    image itself, its header and voxels, or about its age, are reasons of their own.

    ``volumes``: the sizes of the atlases at hand. A mask that is too large or too small for the age and for any age of theirs fails, and is
    given no more confidence than a pose that fails; so does one that is only the latter where the age was ``estimated``.

    Where the confidence is known it stands for the other signs of a wrong pose, since it was calibrated on them: fit of the inside,
    overlap, lead over rival hypotheses and path of the refinement are then told as reasons only if it is low. Where it is not, each of
    them is reason enough.
    """
    calibration = calibration or load_calibration()
    strange = calibration.others(initial.prediction.weights if initial.prediction else {})
    model = calibration.confidence
    known = None if strange else confidence(initial, refined, model)
    reasons = [uncalibrated(strange)] if strange else []
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
    if scanned is not None and contrast is not None and not failed:  # at a wrong pose it would tell nothing
        reasons.extend(_looks_like_another(scanned, contrast, target, refined))
    reasons.extend((*mask.warnings, *refined.warnings, *doubts))
    if outside and known is not None:
        known = min(known, model.fail)  # it was set on brains of these ages, and tells nothing of others
    verdict = "fail" if failed or outside else "review" if reasons else "pass"
    return Quality(verdict, tuple(reasons), known)


def _misfit(initial: InitialPose, refined: Refined) -> list[str]:
    """That the inside of the brain does not fit where it was laid, unless the networks vouch for that pose."""
    criterion, coarse = (refined.similarity[name]["after"] for name in ("CR", "CoarseCR"))
    if fits(criterion, coarse) or (initial.prediction is not None and initial.prediction.supports(refined.pose)):
        return []
    scores = f"criterion {criterion:.2f}, coarse texture {coarse:.2f}"
    return [f"the inside of the brain does not fit the template where it was laid ({scores}): the pose is likely wrong"]


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
        signs.append(f"refinement turned the pose by {moved:.0f}°, more than it should need")
    return signs


def _looks_like_another(scanned: Brain, contrast: str, target: Target, refined: Refined) -> list[str]:
    seen, correlation = contrast_seen(scanned, target, refined.pose)
    if seen in {None, contrast}:
        return []
    return [
        f"called {contrast}, but looks like {seen} (correlation with the {target.contrast} template {correlation:.2f}): check the file, or "
        f"say --contrast {seen}"
    ]


def _overlap(refined: Refined) -> str:
    dice = refined.similarity["Dice"]["after"]
    return f"after alignment the brain mask and the template's overlap by only {dice:.2f} (Dice)"
