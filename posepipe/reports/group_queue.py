"""The review queue: images ordered by priority of review."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .group_ratings import ImageKey
from .group_rows import GroupRow
from .verdict import ORDER


def review_queue(rows: Sequence[GroupRow], rated: Collection[ImageKey]) -> list[int]:
    """Indices of the ``rows`` with a pose that nobody has rated, the least reliable first.

    First those whose confidence was not estimated, by verdict (fail, review, pass) and then by the overlap of the masks
    (Dice); then the others by confidence, the least first.
    """
    waiting = [i for i, row in enumerate(rows) if row.has_pose and (row.subject, row.session, row.name) not in rated]
    return sorted(waiting, key=lambda index: _urgency(rows[index]))


def _urgency(row: GroupRow) -> tuple[float, ...]:
    if row.confidence is not None:
        return 1, row.confidence
    dice = row.after("Dice")
    return 0, -ORDER.index(row.verdict), -1.0 if dice is None else dice


def rule_of(rows: Sequence[GroupRow]) -> str:
    """The rule by which these rows are ordered, in a sentence."""
    poses = [row for row in rows if row.has_pose]
    unknown = sum(row.confidence is None for row in poses)
    without = "by verdict (fail, review, pass), then by the overlap of the masks (Dice)"
    if not unknown:
        return "Ordered by confidence, the least first."
    if unknown == len(poses):
        return f"No confidence was estimated: ordered {without}."
    return f"{unknown} images without an estimated confidence come first, {without}; the others by confidence, the least first."
