"""The images of one session in the plan of a run, and what of them is done."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ImageError
from ..plan import ImagePlan, PlanFailure, SessionPlan
from ..settings import TRANSFORMS


def session_plan(subject: str, session: str | None, parts: list[ImagePlan | PlanFailure], *, consistent: bool) -> SessionPlan:
    """The plan of one session of ``parts``; with ``consistent`` the result of each image depends on the others at its template."""
    images = [part for part in parts if isinstance(part, ImagePlan)]
    failures = [part for part in parts if isinstance(part, PlanFailure)]
    if consistent:
        planned = [_together(image, images) for image in images]
        failures += [part for part in planned if isinstance(part, PlanFailure)]
        images = [part for part in planned if isinstance(part, ImagePlan)]
        # one pose for several images: all of them are worked on again if one is
        unfinished = {image.space for image in images if image.alone_hash and not image.done}
        images = [replace(image, done=False) if image.alone_hash and image.space in unfinished else image for image in images]
    return SessionPlan(subject, session, tuple(images), tuple(failures))


def _together(image: ImagePlan, images: list[ImagePlan]) -> ImagePlan | PlanFailure:
    """``image``, its result dependent on the other ``images`` of its session at the same template too; itself if there are none."""
    from ..bids import parameters_hash

    members = [other.parameters_hash for other in images if other.space == image.space]
    if len(members) < 2:
        return image
    parameters = {**image.parameters, "session_pose": sorted(members)}
    try:
        digest = parameters_hash(parameters, image.image)
        alone = replace(image, alone_hash=image.parameters_hash, earlier=None, reuse=_TOGETHER if image.reuse else "")
        return checked(replace(alone, parameters=parameters, parameters_hash=digest))
    except OSError as error:
        return PlanFailure(image.image, "image", ImageError(f"{error.filename or image.image.path}: cannot be read ({error.strerror})"))


_TOGETHER = "nothing is taken of an earlier run, as the images of the session get one pose together (--session-pose consistent)"


def checked(plan: ImagePlan) -> ImagePlan:
    """``plan`` with its ``done``; raises OSError for a file that cannot be read."""
    from ..bids import is_done, is_turned_by

    done = is_done(
        plan.names, plan.parameters, synth=plan.converted, slices=plan.timing is not None, formats=plan.formats, labels=plan.label_request,
        level=plan.level,
    )  # fmt: skip
    return replace(plan, done=done and (plan.level == TRANSFORMS or is_turned_by(plan.names)))
