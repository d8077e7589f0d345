"""Mutual information as the criterion of the last steps of a fit.

Mattes et al. 2003, PET-CT image registration in the chest using free-form deformations: a joint histogram with linear Parzen windows. Its
derivative with respect to the template's value at a point is the slope of ``log p(i, t) / (p(i) p(t))`` along ``t``. The curvature is that
of the correlation ratio, so that the same Gauss–Newton step applies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .channels import Level, Points, top
from .gauss_newton import Poses, Term, residual_weights
from .similarity import BINS

SMOOTH_BINS = 1.0
"""Standard deviation (bins) of the blur of the joint histogram, which makes its slope smooth for few points."""


class MutualTerm(Term):
    """A :class:`~posepipe.matching.gauss_newton.Term` with the derivatives of mutual information. The background (0 in both images) is
    included."""

    def __init__(self, level: Level, points: Points, share: float = 1.0) -> None:
        super().__init__(level, points, share)
        self._own = _binned(points.value, top(points.value))
        x = torch.arange(BINS, dtype=torch.float32, device=points.value.device)
        kernel = torch.exp(-0.5 * ((x[:, None] - x[None]) / SMOOTH_BINS) ** 2)
        self._kernel = kernel / kernel.sum(0, keepdim=True)

    def derivatives(self, value: Tensor, weight: Tensor, *, strict: bool) -> tuple[Tensor, Tensor]:
        """See :class:`~posepipe.matching.gauss_newton.Term`."""
        slope = self._slope(value, weight)
        return weight * slope, residual_weights(value, weight, self.classes, strict=strict)[1]

    def information(self, poses: Poses) -> Tensor:
        """Mutual information (n,) at ``poses``, nats."""
        _, fields, weight = self.sample_template(poses)
        joint, pointwise = self._pointwise(self._corners(fields[0]), weight)
        return (joint * pointwise).sum((1, 2))

    def _slope(self, value: Tensor, weight: Tensor) -> Tensor:
        """Slope (n, N) of the pointwise mutual information along the template's value."""
        corners = self._corners(value)
        pointwise = self._pointwise(corners, weight)[1]
        slope = torch.zeros_like(pointwise)
        slope[:, :, 1:-1] = (pointwise[:, :, 2:] - pointwise[:, :, :-2]) / 2
        flat = slope.flatten(1) * (BINS - 1) / self.level.top
        return sum((share * flat.gather(1, index) for index, share in corners), torch.zeros_like(value))

    def _pointwise(self, corners: list[tuple[Tensor, Tensor]], weight: Tensor) -> tuple[Tensor, Tensor]:
        """Joint distribution, and its log ratio to the product of the marginals (pointwise mutual information), both (n, BINS, BINS)."""
        joint = torch.zeros(len(weight), BINS * BINS, device=weight.device)
        for index, share in corners:
            joint.scatter_add_(1, index, share * weight)
        joint = joint / joint.sum(1, keepdim=True).clamp_min(1e-6)
        p = self._kernel @ joint.reshape(-1, BINS, BINS) @ self._kernel.T + 1e-7
        return p, (p / (p.sum(2, keepdim=True) * p.sum(1, keepdim=True))).log()

    def _corners(self, value: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The four cells of the joint histogram to which each point contributes: flat index and weight, both (n, N)."""
        i, f = self._own
        j, g = _binned(value, self.level.top)
        return [
            ((i + a)[None] * BINS + j + b, (f if a else 1 - f)[None] * (g if b else 1 - g)) for a in (0, 1) for b in (0, 1)
        ]


def _binned(value: Tensor, last: float) -> tuple[Tensor, Tensor]:
    """Bin index of each value, with the last bin at ``last``, and the fractional position within the bin."""
    x = (value / last * (BINS - 1)).clamp(0, BINS - 1.001)
    lower = x.floor()
    return lower.long(), x - lower
