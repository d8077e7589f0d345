"""Candidate poses and what speaks for them: three scores, each with thresholds of its own.

``criterion``
    Correlation ratio of fine texture plus a share of the outline's, the criterion of
    :class:`~posepipe.matching.comparison.Comparison`. 0.26 to 1.1 where an undamaged brain lies right.
``coarse``
    Correlation ratio, 0 to 1, of coarse texture alone: next to nothing at wrong poses, even where a wrong mask's outline speaks for them.
``votes``
    Share, 0 to 1, of the networks' votes for this pose.

They are not comparable with each other. Whoever ranks hypotheses says by which (:class:`Ranked`), and a threshold belongs to one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from ..geometry import Rigid
from ..matching.comparison import Comparison

Score: TypeAlias = Literal["criterion", "coarse", "votes"]

DOUBT = 0.32
"""Criterion below which a brain fits so poorly that it gets a closer look. Undamaged brains have 0.26 (a spina bifida template on a
normal one) to 1.1, those that are lost for damage at most 0.24 (17 brains, 357 damaged poses; docs/experiments.md, 10)."""
NO_FIT = 0.10
"""Coarse texture below which a pose in doubt is likely wrong: of 116 damaged brains the ten wrong ones had at most 0.091, the right
ones 0.110 and more (docs/experiments-deep.md, 5)."""
RIVAL_DEGREES = 30.0
"""Hypotheses farther from the best than this are its rivals."""


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A candidate ``pose`` (template → image, RAS mm) and its scores, None where they were not measured.

    ``log_scale`` is the logarithm of the template's size over the image's, ``overlap`` the share of the image inside the template.
    """

    pose: Rigid
    log_scale: float
    overlap: float
    criterion: float | None = None
    coarse: float | None = None
    votes: float | None = None

    def score(self, by: Score) -> float:
        """The score ``by`` which to rank; the lowest there is where it was not measured."""
        value: float | None = getattr(self, by)
        return float("-inf") if value is None else value


@dataclass(frozen=True, eq=False)
class Ranked:
    """``hypotheses``, best first, ranked ``by`` one score."""

    hypotheses: tuple[Hypothesis, ...]
    by: Score

    @classmethod
    def of(cls, hypotheses: Iterable[Hypothesis], by: Score) -> Ranked:
        """Those with the same score stay in the order in which they come."""
        return cls(tuple(sorted(hypotheses, key=lambda h: -h.score(by))), by)

    @property
    def best(self) -> Hypothesis:
        """The first."""
        return self.hypotheses[0]

    def lead(self, by: Score | None = None) -> float | None:
        """Score (default: that of the ranking, so never below 0) by which the best leads its best rival, more than
        :data:`RIVAL_DEGREES` away; None where it has none or the score is not known of both."""
        by = by or self.by
        rivals = [h.score(by) for h in self.hypotheses[1:] if h.pose.degrees_from(self.best.pose) > RIVAL_DEGREES]
        lead = self.best.score(by) - max(rivals) if rivals else float("inf")
        return lead if abs(lead) < float("inf") else None


def fits(criterion: float, coarse: float) -> bool:
    """Whether the inside of a brain fits the template at a pose with these scores, so that the pose is to be believed.

    >>> fits(criterion=0.4, coarse=0.05), fits(criterion=0.2, coarse=0.15), fits(criterion=0.2, coarse=0.05)
    (True, True, False)
    """
    return criterion >= DOUBT or coarse >= NO_FIT


def measured(compare: Comparison, hypothesis: Hypothesis) -> Hypothesis:
    """``hypothesis`` with its criterion and coarse texture, those measured that are not known."""
    criterion, coarse = hypothesis.criterion, hypothesis.coarse
    return replace(
        hypothesis,
        criterion=compare.score(hypothesis.pose) if criterion is None else criterion,
        coarse=compare.coarse_score(hypothesis.pose) if coarse is None else coarse,
    )
