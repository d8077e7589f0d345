"""Multi-start search for a brain whose criterion is low at all hypotheses: many starts, strict fits, and random perturbations of the best.

In a heavily corrupted image the correct pose is rarely among the first hypotheses, but a pose within 15–25° of it is. The coarse texture
score is several times higher at the correct pose than at any other (docs/decisions/010). The best poses are therefore perturbed
and fitted again, with decreasing perturbations; if the score stays low, the search is repeated from wider perturbations and from uniformly
random rotations (docs/decisions/011).
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
from .hypothesis import LOW_COARSE_RATIO, SAME_DEGREES

ATTEMPTS = 7
"""Default number of attempts."""

Terms: TypeAlias = tuple[Term, Term]
"""Coarse texture, which gives the score, and the outline with a smaller weight."""


class Round(NamedTuple):
    """One round: the best ``kept`` poses are perturbed ``copies`` times each (the first copy is unchanged). Standard deviations of the
    perturbation: ``degrees``, ``shift`` in template radii, and ``size``, of the logarithm of the scale."""

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
WIDE_ROUND = Round(24, 16, 25.0, 0.2, 0.08)
"""The first round of the second, fourth … attempt, which starts from the same poses as the first attempt."""
UNIFORM_ROUND = Round(1, 1536, 0.0, 0.25, 0.08)
"""Start poses of the third, fifth … attempt: uniformly random rotations."""
SCREENING_STEPS, STEPS = 2, 4
"""Fit steps for all perturbed poses, and further steps for the best quarter of them."""


def multistart_search(compare: Comparison, starts: Poses, keep: int, attempts: int = ATTEMPTS) -> Fitted:
    """Distinct poses found from ``starts``, at most ``keep`` per attempt; their ``criterion`` is the correlation ratio of coarse texture.

    Poses are fitted on outline and coarse texture with strict outlier weights, and scored by the coarse texture alone, because the outline
    of a wrong mask favours wrong poses. Deterministic: the random generator has a fixed seed.
    """
    edges, inside = compare.coarse_terms
    full = (Term(inside.level, inside.points), Term(edges.level, edges.points, OUTLINE_SHARE))
    sparse, sparser = _thinned(full), _thinned(_thinned(full))
    rough = (Term(edges.level, sparse[1].points), Term(inside.level, sparse[0].points, TEXTURE_SHARE))
    radius = compare.target.brain.radius
    generator = torch.Generator().manual_seed(0)
    near = _judged(sparse, fit(rough, starts, 8, strict=True).poses, 2)

    def restarted(found: Fitted, rounds: tuple[Round, ...]) -> Fitted:
        for this in rounds:
            if float(found.criterion.max()) >= LOW_COARSE_RATIO:
                break
            best = found.poses.pick(found.best(this.kept, SAME_DEGREES))
            found = _screened(sparse, sparse, _perturbed(best, this, radius, generator), 4)
        return _judged(full, found.poses.pick(found.best(keep)), 4)

    found = restarted(near, ROUNDS)
    for attempt in range(1, attempts):
        if float(found.criterion.max()) >= LOW_COARSE_RATIO:
            break
        if attempt % 2:
            again = restarted(near, (WIDE_ROUND, *ROUNDS))
        else:
            again = restarted(_screened(sparser, sparse, _uniformly_rotated(UNIFORM_ROUND, near.poses, radius, generator), 8), ROUNDS)
        found = fit(full[:1], found.poses.concat(again.poses), 0)
    return found


def _judged(terms: Terms, poses: Poses, steps: int) -> Fitted:
    """``poses`` after a strict fit on both terms, scored by the first."""
    return fit(terms[:1], fit(terms, poses, steps, strict=True).poses, 0)


def _screened(first: Terms, then: Terms, poses: Poses, share: int) -> Fitted:
    """The best ``1/share`` of ``poses`` after :data:`SCREENING_STEPS` steps on the terms ``first``, then fitted and scored on ``then``."""
    screened = _judged(first, poses, SCREENING_STEPS)
    best = screened.criterion.argsort(descending=True)[: max(len(screened.poses) // share, 1)]
    return _judged(then, screened.poses.pick(best), STEPS)


def _perturbed(poses: Poses, how: Round, radius: float, generator: torch.Generator) -> Poses:
    """Random perturbations of ``poses``: rotation and scale about the template's centre, and shift."""
    rotation, shift, log_scale = (x.repeat_interleave(how.copies, 0) for x in (poses.rotation, poses.shift, poses.log_scale))
    n, device = len(rotation), rotation.device
    noise = torch.randn(n, 7, generator=generator)
    noise[:: how.copies] = 0
    noise = noise.to(device)
    # each of the three components has a third of the variance
    turn = so3_torch.exp(torch.deg2rad(noise[:, :3] * (how.degrees / 3**0.5)))
    grow = noise[:, 6] * how.size
    moved = (turn @ shift[..., None])[..., 0] * grow.exp()[:, None] + noise[:, 3:6] * (how.shift * radius / 3**0.5)
    return Poses(turn @ rotation, moved, (log_scale + grow).clamp(-SCALE_LIMIT, SCALE_LIMIT))


def _uniformly_rotated(how: Round, like: Poses, radius: float, generator: torch.Generator) -> Poses:
    """Poses with uniformly random rotations, on the device of ``like``."""
    n, device = how.copies, like.rotation.device
    turn = tensor(so3.from_quaternion(torch.randn(n, 4, generator=generator).numpy()), device)
    noise = torch.randn(n, 4, generator=generator)
    shift = noise[:, :3] * (how.shift * radius / 3**0.5)
    return Poses(turn, shift.to(device), (noise[:, 3] * how.size).to(device))


def _thinned(terms: Terms) -> Terms:
    """The same terms at every second point."""
    inside, outline = (Term(t.level, _every_second(t.points), t.share) for t in terms)
    return inside, outline


def _every_second(points: Points) -> Points:
    def half(x: Tensor) -> Tensor:
        return x[::2].contiguous()

    return Points(half(points.where), half(points.value), half(points.weight))
