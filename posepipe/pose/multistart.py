"""A closer look at a brain that fits nowhere: many starts, strict fits, and wandering about the best of them.

Under heavy damage the right pose is hardly ever among the first hypotheses, but something within 15–25° of it is, and coarse texture knows
the right one when it sees it: there it correlates several times better than at any other pose (docs/experiments-deep.md, 5). So the
best poses are shaken and fitted again, wider first; and where nothing comes of that, again and again from further away
(docs/experiments-deep.md, 6).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..geometry import so3, so3_torch
from ..imaging.sampling import tensor
from ..matching.channels import Points
from ..matching.comparison import OUTLINE_SHARE, TEXTURE_SHARE, Comparison
from ..matching.gauss_newton import SCALE_LIMIT, Fitted, Poses, Term, fit

CLEAR = 0.3
"""Coarse texture from which no more wandering is needed: wrong poses of damaged brains have at most 0.08."""
APART_DEGREES = 12.0
"""The poses that are shaken are this far from each other."""
SURE = 0.15
"""Coarse texture from which a pose is believed: wrong poses reach 0.13 in as many attempts as are made, right ones have 0.08 (spina
bifida on a normal template) to 0.7."""
ATTEMPTS = 7
"""How often it is tried, unless told otherwise, before the best of what was found is taken."""
LEAST_OVERLAP = 0.5
"""Poses with less of the image's weight inside the template are dropped: a sliver correlates with anything.
Damaged brains have 0.7 and more at the true pose."""


Terms: TypeAlias = tuple[Term, Term]
"""Coarse texture, by which poses are judged, and a share of the outline."""


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
WIDE = Round(24, 16, 25.0, 0.2, 0.08)
"""The first round of a second, fourth … attempt, which starts from the same poses."""
ANYWHERE = Round(1, 1536, 0.0, 0.25, 0.08)
"""Poses of a third, fifth … attempt: turned uniformly at random."""
GLIMPSE_STEPS, STEPS = 2, 4
"""Shaken poses are fitted so many steps, and the best quarter of them so many more."""


def closer_look(compare: Comparison, starts: Poses, keep: int, attempts: int = ATTEMPTS) -> Fitted:
    """Distinct poses, ``keep`` of each attempt at most, that come of ``starts``, with the ratio of coarse texture as their criterion.

    Fitted by what a badly damaged brain still shows, outline and coarse texture with outliers left out, and judged by that texture alone:
    the outline of a wrong mask speaks for wrong poses. Always the same for the same input.
    """
    edges, inside = compare.rough
    full = (Term(inside.level, inside.points), Term(edges.level, edges.points, OUTLINE_SHARE))
    sparse, sparser = _thinned(full), _thinned(_thinned(full))
    rough = (Term(edges.level, sparse[1].points), Term(inside.level, sparse[0].points, TEXTURE_SHARE))
    radius = compare.target.brain.radius
    generator = torch.Generator().manual_seed(0)
    near = _judged(sparse, fit(rough, starts, 8, strict=True).poses, 2)

    def wandered(found: Fitted, rounds: tuple[Round, ...]) -> Fitted:
        for this in rounds:
            if float(found.criterion.max()) >= CLEAR:
                break
            best = found.poses.pick(found.best(this.kept, APART_DEGREES))
            found = _glimpsed(sparse, sparse, _shaken(best, this, radius, generator), 4)
        return _judged(full, found.poses.pick(found.best(keep)), 4)

    found = wandered(near, ROUNDS)
    for attempt in range(1, attempts):
        if float(found.criterion.max()) >= SURE:
            break
        if attempt % 2:
            again = wandered(near, (WIDE, *ROUNDS))
        else:
            again = wandered(_glimpsed(sparser, sparse, _anywhere(ANYWHERE, near.poses, radius, generator), 8), ROUNDS)
        found = fit(full[:1], found.poses.beside(again.poses), 0)
    return found


def _judged(terms: Terms, poses: Poses, steps: int) -> Fitted:
    """``poses`` fitted strictly by both terms, judged by the first; slivers are left out unless there is nothing else."""
    judged = fit(terms[:1], fit(terms, poses, steps, strict=True).poses, 0)
    held = judged.overlap >= LEAST_OVERLAP
    if bool(held.all()) or not bool(held.any()):
        return judged
    return fit(terms[:1], judged.poses.pick(held.nonzero()[:, 0]), 0)


def _glimpsed(first: Terms, then: Terms, poses: Poses, share: int) -> Fitted:
    """Of many ``poses``, the best ``1/share`` after a few steps by ``first``, judged by ``then``."""
    glimpsed = _judged(first, poses, GLIMPSE_STEPS)
    best = glimpsed.criterion.argsort(descending=True)[: max(len(glimpsed.poses) // share, 1)]
    return _judged(then, glimpsed.poses.pick(best), STEPS)


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


def _anywhere(how: Round, like: Poses, radius: float, generator: torch.Generator) -> Poses:
    """Uniformly turned poses, on the device of ``like``."""
    n, device = how.copies, like.rotation.device
    turn = tensor(so3.from_quaternion(torch.randn(n, 4, generator=generator).numpy()), device)
    drawn = torch.randn(n, 4, generator=generator)
    shift = drawn[:, :3] * (how.shift * radius / 3**0.5)
    return Poses(turn, shift.to(device), (drawn[:, 3] * how.size).to(device))


def _thinned(terms: Terms) -> Terms:
    """The same at every second point."""
    inside, outline = (Term(t.level, _every_second(t.points), t.share) for t in terms)
    return inside, outline


def _every_second(points: Points) -> Points:
    def half(x: Tensor) -> Tensor:
        return x[::2].contiguous()

    return Points(half(points.where), half(points.value), half(points.weight))
