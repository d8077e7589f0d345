"""Agreement between raters: Cohen's kappa, plain and weighted."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def kappa(a: Sequence[Hashable], b: Sequence[Hashable], levels: Sequence[Hashable], *, weights: str = "none") -> float:
    """Cohen's kappa of two raters: 1 is full agreement, 0 the agreement expected by chance.

    Args:
        a: the first rater's value of each item.
        b: the second rater's values of the same items.
        levels: all possible values, in order.
        weights: ``"none"`` (all disagreements have the same weight; Cohen 1960) or ``"quadratic"`` (by the squared distance
            of the levels; Cohen 1968).

    NaN if it is not defined: no items, or both raters gave all items the same level. Raises ValueError for a value that
    is not among ``levels``, for lists of different length and for unknown ``weights``.

    >>> kappa([1, 1, 0, 0], [1, 0, 0, 0], [0, 1])
    0.5
    """
    if len(a) != len(b):
        msg = f"two raters' lists must have the same items, not {len(a)} and {len(b)}"
        raise ValueError(msg)
    if weights not in ("none", "quadratic"):
        msg = f"weights are 'none' or 'quadratic', not {weights!r}"
        raise ValueError(msg)
    number = {level: n for n, level in enumerate(levels)}
    unknown = [value for value in (*a, *b) if value not in number]
    if unknown:
        msg = f"{unknown[0]!r} is none of {', '.join(map(str, levels))}"
        raise ValueError(msg)
    if not len(a):
        return float("nan")
    seen = np.zeros((len(levels), len(levels)))
    np.add.at(seen, ([number[v] for v in a], [number[v] for v in b]), 1)
    index = np.arange(len(levels))
    apart = (index[:, None] - index[None, :]) ** 2 if weights == "quadratic" else index[:, None] != index[None, :]
    by_chance = float((apart * np.outer(seen.sum(1), seen.sum(0))).sum()) / len(a)
    if by_chance == 0:
        return float("nan")
    return 1 - float((apart * seen).sum()) / by_chance
