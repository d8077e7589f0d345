"""``SessionSpread``: how far the poses of one session's images are apart, in the sidecars of their forward transforms."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bids import read_json, write_json
from ..errors import BidsError, TransformError
from ..geometry import Rigid
from ..imaging.header import UNKNOWN

logger = logging.getLogger(__name__)

SESSION_KEY = "SessionPose"
"""Key under which a sidecar tells of the pose that images of a session share (``--session-pose consistent``)."""
SPREAD_KEYS = ("SessionSpread", "SessionSpreadMM", "SessionSpreadImages")
"""Keys of the spread: degrees, mm, and the images compared with."""


def pose_alone(sidecar: Mapping[str, Any]) -> Rigid:
    """The pose (atlas → image) that the image was found to have alone: before the session's, where it has one.

    Raises :class:`~posepipe.errors.BidsError` for a sidecar without numbers of a pose.
    """
    known = (sidecar.get(SESSION_KEY) or {}).get("PoseBefore") or sidecar
    try:
        return Rigid(known["RotationMatrix"], known["TranslationMM"])
    except (KeyError, TypeError, ValueError, TransformError) as error:
        msg = f"{sidecar.get('Sources')}: the sidecar holds no pose; run posepipe again for this image"
        raise BidsError(msg) from error


def spread(own: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entries of :data:`SPREAD_KEYS` for the sidecar ``own``, from those of the session's ``others``; empty if none is compared.

    ``SessionSpread``: the largest angle (degrees) between the pose of this image and that of any other image of its session at the same
    template; ``SessionSpreadMM``: the largest distance (mm) between the places of the template's brain centre. Both are of the poses that
    images have alone. Left out of the others are images of verdict ``fail``; an image whose header does not say where it lies has none.
    """
    compared = [other for other in others if other.get("QC") != "fail" and _frames(other) == _frames(own)]
    if not compared or None in _frames(own):
        return {}
    pose, center = pose_alone(own), own["BrainCenterMM"]
    poses = [pose_alone(other) for other in compared]
    values = (
        max(pose.degrees_from(other) for other in poses),
        max(pose.mm_from(other, center) for other in poses),
        sorted(str(other["Sources"][0]) for other in compared),
    )
    return dict(zip(SPREAD_KEYS, values, strict=True))


def _frames(sidecar: Mapping[str, Any]) -> tuple[Any, ...]:
    """Frame of the atlas and of the scanner; None where the latter is not known."""
    unknown = UNKNOWN in (sidecar.get("QCReasons") or [])
    return sidecar.get("Atlas"), str(sidecar.get("Cohort")), None if unknown or not sidecar.get("BrainCenterMM") else "scanner"


def record_spread(sidecars: Sequence[Path]) -> list[Path]:
    """Write the :func:`spread` to the ``sidecars`` of one session's images where it is not there yet; those that changed.

    One image alone is left as it is. A sidecar that is missing or cannot be read is left out.
    """
    known: dict[Path, dict[str, Any]] = {}
    for path in sidecars:
        try:
            known[path] = read_json(path)
        except BidsError as error:
            logger.debug("%s; not compared with the other images of its session", error)
    changed = []
    for path, sidecar in known.items() if len(known) > 1 else ():
        kept = {key: value for key, value in sidecar.items() if key not in SPREAD_KEYS}
        try:
            new = kept | spread(kept, [other for at, other in known.items() if at != path])
        except BidsError as error:
            logger.warning("%s", error)
            continue
        if new != sidecar:
            changed.append(write_json(path, new))
    return changed
