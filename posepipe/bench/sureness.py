"""How sure of themselves pose networks must be to be hardly ever wrong, by brains with known truth."""

from __future__ import annotations

import numpy as np

from ..errors import UsageError
from ..models.calibration import Sureness
from ..quality.confidence import WITHIN_DEGREES

SURE_VOTES = 0.75
"""Three of four turned copies agree: with one, networks that are right by chance would count as sure."""
WRONG, STEP = 0.005, 0.001
"""The largest expected error, in steps, up to which no more than so many poses of the networks are wrong."""


def sureness(rows: list[dict[str, str]]) -> tuple[Sureness, str]:
    """From rows of :mod:`posepipe.bench.confidence`; and how it was made.

    Raises :class:`~posepipe.errors.UsageError` where no expected error keeps what is wrong below :data:`WRONG`.
    """
    mine = [r for r in rows if r["source"] == "auto" and float(r["votes"]) >= SURE_VOTES]
    # the features are logarithms
    error = np.exp([float(r["expected_error"]) for r in mine])
    wrong = np.array([float(r["networks"]) > WITHIN_DEGREES for r in mine])
    limits = np.arange(1, 200) * STEP
    allowed = [limit for limit in limits if (error <= limit).any() and wrong[error <= limit].mean() <= WRONG]
    if not allowed:
        msg = f"networks that agree are wrong in more than {100 * WRONG:g} % of {len(mine)} poses, however sure; train them further"
        raise UsageError(msg)
    limit = float(max(allowed))
    below = error <= limit
    brains = len({r["name"] for r in mine})
    made = (
        f"{len(mine)} poses of {brains} brains in which {SURE_VOTES:g} of the votes agree: {wrong[below].sum()} of {below.sum()} are wrong "
        f"up to this error, {wrong[~below].sum()} of {(~below).sum()} beyond"
    )
    return Sureness(SURE_VOTES, round(limit, 3)), made
