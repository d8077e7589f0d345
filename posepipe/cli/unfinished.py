"""What an output folder lacks of a dataset, told from its files alone: for ``posepipe-tools array --only-failed``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..bids import InputImage, subject_page
from ..plan import SessionPlan

Unit = tuple[str, str | None]


def unfinished(out_dir: Path, images: Iterable[InputImage]) -> set[Unit]:
    """Participants and sessions of ``images`` that posepipe has to go to again: an image failed or has no outputs, or the last run was
    ended before it was through.

    A run writes its settings before it works on a session, and the session's page when it is through: a page that is older, or not there,
    tells of a run that was killed. That settings or inputs have changed since is not seen, for which all would have to be read; posepipe
    itself sees that.
    """
    from ..reports.group_rows import MISSING, UNREADABLE, collect
    from ..reports.verdict import FAILED

    images = list(images)
    lacking = {FAILED, MISSING, UNREADABLE}
    found = {(row.subject, row.session) for row in collect(out_dir, inputs=images).rows if row.verdict in lacking}
    units = {(image.subject, image.session) for image in images}
    return {unit for unit in units if unit in found or _was_ended(out_dir, *unit)}


def _was_ended(out_dir: Path, subject: str, session: str | None) -> bool:
    logs = SessionPlan(subject, session).log_dir(out_dir, "").glob("*/posepipe.toml")
    begun = max((path.stat().st_mtime_ns for path in logs), default=None)
    page = subject_page(out_dir, subject, session)
    return begun is not None and (not page.is_file() or page.stat().st_mtime_ns < begun)
