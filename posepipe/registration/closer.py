"""A closer look at a brain that fits nowhere: many starts, strict fits, and wandering about the best of them.

Under heavy damage the right pose is hardly ever among the first hypotheses, but something within 15–25° of it is, and coarse texture knows
the right one when it sees it: there it correlates several times better than at any other pose (docs/experiments-deep.md, 5). So the
best poses are shaken and fitted again, wider first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..geometry import so3_torch
from .comparison import OUTLINE_SHARE, TEXTURE_SHARE, Comparison
from .fit import SCALE_LIMIT, Fitted, Poses, Term, fit
from .levels import Points

CLEAR = 0.3
"""A score from which no more wandering is needed: wrong poses of damaged brains have at most 0.08."""
APART_DEGREES = 12.0
"""The poses that are shaken are this far from each other."""


class Round(NamedTuple):
    """The best ``kept`` poses are each shaken ``copies`` times (the first copy is left as it is): standard deviations in ``degrees``, of
    the ``shift`` in template radii and of the logarithm of the ``size``."""

    kept: int
    copies: int
    degrees: float
    shift: float
    size: float


ROUNDS = (
    Round(16, 16, 15.0, 0.15, 0.06),
    Round(10, 16, 12.0, 0.12, 0.05),
    Round(6, 16, 10.0, 0.08, 0.04),
    Round(4, 16, 8.0, 0.05, 0.03),
)
GLIMPSE_STEPS, STEPS = 2, 4
"""Shaken poses are fitted so many steps, and the best quarter of them so many more."""


def closer_look(compare: Comparison, starts: Poses, keep: int) -> Fitted:
    """Up to ``keep`` distinct poses that come of ``starts``, with the ratio of coarse texture as their criterion.

    Fitted by what a badly damaged brain still shows, outline and coarse texture with outliers left out, and judged by that texture alone:
    the outline of a wrong mask speaks for wrong poses. Always the same for the same input.
    """
    edges, inside = compare.rough
    few_edges, few_inside = _every_second(edges.points), _every_second(inside.points)
    rough = (Term(edges.level, few_edges), Term(inside.level, few_inside, TEXTURE_SHARE))
    sparse = (Term(inside.level, few_inside), Term(edges.level, few_edges, OUTLINE_SHARE))
    found = _judged(sparse, fit(rough, starts, 8, strict=True).poses, 2)
    generator = torch.Generator().manual_seed(0)
    for this in ROUNDS:
        if float(found.criterion.max()) >= CLEAR:
            break
        best = found.poses.pick(found.best(this.kept, APART_DEGREES))
        glimpsed = _judged(sparse, _shaken(best, this, compare.target.brain.radius, generator), GLIMPSE_STEPS)
        quarter = glimpsed.criterion.argsort(descending=True)[: len(glimpsed.poses) // 4]
        found = _judged(sparse, glimpsed.poses.pick(quarter), STEPS)
    finalists = found.poses.pick(found.best(keep))
    return _judged((Term(inside.level, inside.points), Term(edges.level, edges.points, OUTLINE_SHARE)), finalists, 4)


def _judged(terms: tuple[Term, Term], poses: Poses, steps: int) -> Fitted:
    """``poses`` fitted strictly by both terms, judged by the first."""
    return fit(terms[:1], fit(terms, poses, steps, strict=True).poses, 0)


def _shaken(poses: Poses, how: Round, radius: float, generator: torch.Generator) -> Poses:
    """Random neighbours of ``poses``, turned and grown about the template's centre."""
    rotation, shift, log_scale = (x.repeat_interleave(how.copies, 0) for x in (poses.rotation, poses.shift, poses.log_scale))
    n, device = len(rotation), rotation.device
    drawn = torch.randn(n, 7, generator=generator)
    drawn[:: how.copies] = 0
    drawn = drawn.to(device)
    # of three components a third of the variance each
    turn = so3_torch.exp(torch.deg2rad(drawn[:, :3] * (how.degrees / 3**0.5)))
    grow = drawn[:, 6] * how.size
    moved = (turn @ shift[..., None])[..., 0] * grow.exp()[:, None] + drawn[:, 3:6] * (how.shift * radius / 3**0.5)
    return Poses(turn @ rotation, moved, (log_scale + grow).clamp(-SCALE_LIMIT, SCALE_LIMIT))


def _every_second(points: Points) -> Points:
    def half(x: Tensor) -> Tensor:
        return x[::2].contiguous()

    return Points(half(points.where), half(points.value), half(points.weight))
