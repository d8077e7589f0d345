"""posepipe: fetal and newborn brain MRI into the space of an age-matched atlas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .aligner import Aligner, align
    from .alignment import Alignment
    from .slices.tracker import SliceTracker, TrackedPose

__all__ = ["Aligner", "Alignment", "SliceTracker", "TrackedPose", "__version__", "align"]


def __getattr__(name: str) -> Any:
    # late, so that `import posepipe` (and so `posepipe --help`) stays cheap
    if name in {"Aligner", "Alignment", "align"}:
        from . import aligner, alignment

        return getattr(alignment if name == "Alignment" else aligner, name)
    if name in {"SliceTracker", "TrackedPose"}:
        from .slices import tracker

        return getattr(tracker, name)
    msg = f"module 'posepipe' has no attribute {name!r}"
    raise AttributeError(msg)
