"""Images of a dataset without outputs in an output folder, judged by its files alone: for ``posepipe-tools array --only-failed``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..bids import InputImage, subject_page
from ..plan import SessionPlan

Unit = tuple[str, str | None]


def unfinished(out_dir: Path, images: Iterable[InputImage]) -> set[Unit]:
    """Participants and sessions of ``images`` that need another run: an image failed or has no outputs, or the last run did not finish.

    A run writes its settings before it starts a session, and the session's page when it has finished it: a page that is older than the
    settings, or missing, means that the run was killed. Changes of settings or inputs since then are not detected here, as that would
    require reading all of them; posepipe itself detects them.
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
