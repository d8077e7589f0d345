"""A verdict on a pose: pass, review or fail, with the reasons in words."""

from __future__ import annotations

from dataclasses import dataclass

from ..imaging.mask import BrainMask
from .initial import InitialPose
from .refine import Refined
from .target import Target

SMALL, LARGE = 0.65, 1.5
"""Mask volume over the template's outside of which it is implausible for the age."""
LOW_DICE, BAD_DICE = 0.85, 0.70
LOW_MARGIN = 0.02
MOVED_DEGREES = 15.0


@dataclass(frozen=True)
class Quality:
    """``qc`` is ``pass``, ``review`` or ``fail``; ``confidence`` the probability that the pose is within 15°, None if not estimated."""

    qc: str
    reasons: tuple[str, ...]
    confidence: float | None = None


def judge_pose(initial: InitialPose, refined: Refined, mask: BrainMask, target: Target, age: float | None) -> Quality:
    """Rules on the mask's size, the masks' overlap after alignment, the lead over rival hypotheses and the refinement's path."""
    reasons, failed = [], False
    size = mask.millilitres / target.brain.moments.millilitres
    if not SMALL <= size <= LARGE:
        at = f" at {age:g} weeks" if age is not None else ""
        reasons.append(f"the brain mask holds {mask.millilitres:.0f} ml, {size:.2f} times the template's{at}: check mask and age")
    dice = refined.similarity["Dice"]["after"]
    if dice < LOW_DICE:
        failed = dice < BAD_DICE
        reasons.append(f"after alignment the brain mask and the template's overlap by only {dice:.2f} (Dice)")
    if initial.margin is not None and initial.margin < LOW_MARGIN:
        reasons.append(f"another orientation fits nearly as well (lead {initial.margin:.3f} in score)")
    moved = refined.pose.degrees_from(initial.pose)
    if moved > MOVED_DEGREES:
        reasons.append(f"refinement turned the pose by {moved:.0f}°, more than it should need")
    reasons.extend((*mask.warnings, *refined.warnings))
    verdict = "fail" if failed else "review" if reasons else "pass"
    return Quality(verdict, tuple(reasons))
