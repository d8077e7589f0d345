"""Logistic regression with a ridge penalty, and performance measures of probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from ..geometry.so3 import Array

STEPS, TOLERANCE = 100, 1e-8
"""Limits of the fit: iterations, and the gradient at which it ends."""


@dataclass(frozen=True, eq=False)
class Logistic:
    """``P(y = 1) = σ(intercept + coefficients · (x − mean) / scale)``; all but ``intercept`` are (F,)."""

    coefficients: Array
    intercept: float
    mean: Array
    scale: Array

    def probability(self, x: Array) -> Array:
        """Probabilities (N,) for features ``x`` (N, F)."""
        return expit(self.intercept + ((x - self.mean) / self.scale) @ self.coefficients)


def fit_logistic(
    x: Array, y: Array, *, weights: Array | None = None, ridge: float = 1.0, signs: Array | None = None
) -> Logistic:
    """Fit features ``x`` (N, F) to ``y`` (N,) in {0, 1} by scikit-learn.

    ``weights`` (N,) of the rows. ``ridge``: factor of the penalty ½ ‖coefficients‖², on coefficients of standardised features (not on the
    intercept); it keeps the model finite for separable classes. ``signs`` (F,) of 1 and −1: sign that each coefficient may have; features
    that would get the other sign are left out, the largest violation first. Raises :class:`ValueError` if ``y`` has one class only.
    """
    if len(np.unique(y)) < 2:
        msg = "a logistic model needs both right and wrong poses"
        raise ValueError(msg)
    weights = np.ones(len(y)) if weights is None else weights
    mean = np.average(x, axis=0, weights=weights)
    spread = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))
    scale = np.where(spread > 1e-9, spread, 1.0)
    z = (x - mean) / scale
    beta = _solved(z, y, weights, ridge)
    if signs is not None:
        free = np.ones(x.shape[1], dtype=bool)
        while (wrong := np.where(free, beta[1:] * signs, 0.0)).min() < 0:
            free[wrong.argmin()] = False
            beta = np.zeros(len(free) + 1)
            beta[np.r_[True, free]] = _solved(z[:, free], y, weights, ridge)
    return Logistic(beta[1:], float(beta[0]), mean, scale)


def _solved(z: Array, y: Array, weights: Array, ridge: float) -> Array:
    """Intercept and coefficients (F + 1,) that minimise the penalised loss for the standardised features ``z`` (N, F)."""
    model = LogisticRegression(C=1 / ridge, solver="newton-cholesky", tol=TOLERANCE, max_iter=STEPS).fit(z, y, sample_weight=weights)
    return np.r_[model.intercept_, model.coef_[0]]


def held_out(groups: Array, folds: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Masks (N,) of the rows that each fold of cross-validation holds out. Folds are of whole ``groups`` (N,); at most ``folds`` of them.

    Raises :class:`ValueError` for rows of one group only.
    """
    names = np.unique(groups)
    if len(names) < 2:
        msg = f"cross-validation needs rows of two brains or more, not {len(names)}"
        raise ValueError(msg)
    count = min(folds, len(names))
    for fold in range(count):
        yield np.isin(groups, names[fold::count])


def out_of_fold(x: Array, y: Array, groups: Array, *, weights: Array | None = None, folds: int = 5, ridge: float = 1.0,
                signs: Array | None = None) -> Array:  # fmt: skip
    """Probabilities (N,) by cross-validation: each row's model was fitted without the rows of its group."""
    out = np.full(len(y), np.nan)
    for held in held_out(groups, folds):
        some = None if weights is None else weights[~held]
        out[held] = fit_logistic(x[~held], y[~held], weights=some, ridge=ridge, signs=signs).probability(x[held])
    return out


def auroc(p: Array, y: Array) -> float:
    """Area under the ROC curve; ties count half; NaN if ``y`` has one class only."""
    return float(roc_auc_score(y, p)) if len(np.unique(y)) == 2 else float("nan")


def brier(p: Array, y: Array, weights: Array | None = None) -> float:
    """Brier score: mean squared difference between probability ``p`` and outcome ``y``."""
    return float(brier_score_loss(y, p, sample_weight=weights, pos_label=1))


def reliability(p: Array, y: Array, weights: Array | None = None, edges: tuple[float, ...] = ()) -> list[tuple[float, float, float, int]]:
    """``(mean probability, share right, weight, rows)`` of each bin of probability between ``edges`` that is not empty."""
    edges = edges or (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
    weights = np.ones(len(y)) if weights is None else weights
    which = np.searchsorted(np.array(edges), p, "right") - 1
    out = []
    for k in range(len(edges)):
        mine = which == k
        if mine.any():
            w = weights[mine]
            out.append((float(np.average(p[mine], weights=w)), float(np.average(y[mine], weights=w)), float(w.sum()), int(mine.sum())))
    return out


def threshold(p: Array, y: Array, *, flagged: float, alarms: float) -> float:
    """The lowest threshold below which the share ``flagged`` of the wrong poses is; limited to the highest threshold below which at most
    the share ``alarms`` of the right poses is."""
    right, wrong = np.sort(p[y == 1]), np.sort(p[y == 0])
    if not len(right) or not len(wrong):
        msg = "thresholds need both right and wrong poses"
        raise ValueError(msg)
    wanted = np.nextafter(wrong[int(np.ceil(flagged * len(wrong))) - 1], 1.0)
    limit = right[min(int(np.floor(alarms * len(right))), len(right) - 1)]
    return float(min(wanted, limit))
