"""Candidate poses and their three scores, each with its own thresholds.

``criterion``
    Correlation ratio of fine texture plus 0.3 times that of the outline, the criterion of
    :class:`~posepipe.matching.comparison.Comparison`. 0.26 to 1.1 at the correct pose of an uncorrupted brain.
``coarse``
    Correlation ratio, 0 to 1, of coarse texture alone. It is near 0 at wrong poses, also if the mask is wrong and the outline term is high.
``votes``
    Fraction, 0 to 1, of the networks' votes for this pose.

The scores are not comparable with each other. A ranking names its score (:class:`Ranked`), and each threshold belongs to one score.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from ..geometry import Rigid
from ..matching.comparison import Comparison

Score: TypeAlias = Literal["criterion", "coarse", "votes"]

SAME_DEGREES = 15.0
"""Angle, degrees, within which two poses are the same, and a pose is correct. One angle for the distance of restarts and
for the agreement of networks, search and refinement: with separate ones (12 and 10 degrees) as many poses were right
(docs/decisions/044)."""
LOW_CRITERION = 0.32
"""Criterion below which a multi-start search follows. Uncorrupted brains have 0.26 (a spina bifida template on a normal one) to 1.1;
corrupted brains with a wrong pose have at most 0.24 (17 brains, 357 corrupted poses; docs/decisions/007 and 011)."""
LOW_COARSE_RATIO = 0.10
"""Coarse texture score below which a pose with a low criterion is likely wrong: of 116 corrupted brains the ten with a wrong pose had at
most 0.091, those with a correct pose at least 0.110 (docs/decisions/010). From this score on the multi-start search stops; with
higher limits for its rounds and attempts as many poses were right (docs/decisions/044)."""
RIVAL_DEGREES = 30.0
"""Hypotheses farther than this from the best one, degrees, are its rivals."""


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A candidate ``pose`` (template → image, RAS mm) and its scores, None if not computed.

    ``log_scale`` is log(template size / image size); ``overlap`` is the fraction of the image inside the template.
    """

    pose: Rigid
    log_scale: float
    overlap: float
    criterion: float | None = None
    coarse: float | None = None
    votes: float | None = None

    def score(self, by: Score) -> float:
        """The score named ``by``; −∞ if it was not computed."""
        value: float | None = getattr(self, by)
        return float("-inf") if value is None else value


@dataclass(frozen=True, eq=False)
class Ranked:
    """``hypotheses``, best first, ranked by the score named ``by``."""

    hypotheses: tuple[Hypothesis, ...]
    by: Score

    @classmethod
    def of(cls, hypotheses: Iterable[Hypothesis], by: Score) -> Ranked:
        """Sort ``hypotheses`` by the score ``by``; the order of equal scores is kept."""
        return cls(tuple(sorted(hypotheses, key=lambda h: -h.score(by))), by)

    @property
    def best(self) -> Hypothesis:
        """The first hypothesis."""
        return self.hypotheses[0]

    def lead(self, by: Score | None = None) -> float | None:
        """Difference in the score ``by`` between the best hypothesis and its best rival (more than :data:`RIVAL_DEGREES` away). Default:
        the score of the ranking, for which it is never below 0. None without a rival, or if a score is not known."""
        by = by or self.by
        rivals = [h.score(by) for h in self.hypotheses[1:] if h.pose.degrees_from(self.best.pose) > RIVAL_DEGREES]
        lead = self.best.score(by) - max(rivals) if rivals else float("inf")
        return lead if abs(lead) < float("inf") else None


def fits(criterion: float, coarse: float) -> bool:
    """Whether the intensities inside the brain match the template at a pose with these scores: either score reaches its threshold.

    >>> fits(criterion=0.4, coarse=0.05), fits(criterion=0.2, coarse=0.15), fits(criterion=0.2, coarse=0.05)
    (True, True, False)
    """
    return criterion >= LOW_CRITERION or coarse >= LOW_COARSE_RATIO


def measured(compare: Comparison, hypothesis: Hypothesis) -> Hypothesis:
    """``hypothesis`` with criterion and coarse texture score; missing scores are computed."""
    criterion, coarse = hypothesis.criterion, hypothesis.coarse
    return replace(
        hypothesis,
        criterion=compare.score(hypothesis.pose) if criterion is None else criterion,
        coarse=compare.coarse_score(hypothesis.pose) if coarse is None else coarse,
    )
