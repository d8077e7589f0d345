"""Thresholds of network consensus, fitted on brains with known pose: predictions that meet them are hardly ever wrong."""

from __future__ import annotations

import numpy as np

from ..errors import UsageError
from ..models.calibration import NetworkConsensus
from ..quality.confidence import WITHIN_DEGREES

CONSENSUS_VOTES = 0.75
"""Least share of agreeing predictions: three of four rotated copies (test-time augmentation). With fewer, chance agreement would count."""
WRONG, STEP = 0.005, 0.001
"""Largest share of wrong poses below the threshold of the predicted error, and the step (brain radii) of the thresholds tried."""


def fit_consensus(rows: list[dict[str, str]]) -> tuple[NetworkConsensus, str]:
    """The thresholds fitted to rows of :mod:`posepipe.bench.confidence`, and a description of the fit.

    Raises :class:`~posepipe.errors.UsageError` if the share of wrong poses exceeds :data:`WRONG` for every threshold.
    """
    mine = [r for r in rows if r["source"] == "auto" and float(r["votes"]) >= CONSENSUS_VOTES]
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
        f"{len(mine)} poses of {brains} brains in which {CONSENSUS_VOTES:g} of the votes agree: {wrong[below].sum()} of {below.sum()} are "
        f"wrong up to this error, {wrong[~below].sum()} of {(~below).sum()} beyond"
    )
    return NetworkConsensus(CONSENSUS_VOTES, round(limit, 3)), made
