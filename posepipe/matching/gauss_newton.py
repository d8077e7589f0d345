"""Batched Gauss–Newton optimisation of similarity transforms on a robust correlation ratio.

The moving image's points are mapped into the template, ``y = c_T + e^σ R (p − c_I) + τ``. Each step first estimates the best map ``f``
from image to template intensities (mean of the template in each class of image intensity), which makes the criterion a correlation ratio
(Roche et al. 1998), valid for any contrast. The residual ``f(I) − T(y)``, down-weighted where it is large, is then linearised in the seven
parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import Rigid, so3, so3_torch
from ..geometry.so3 import Array
from ..imaging.sampling import sample
from .channels import Level, Points

CLASSES = 16
"""Intensity classes of the correlation ratio, of equal size. How it was chosen is not recorded."""
OUTLIER = 3.0
"""A residual of this many robust standard deviations has weight 1/2. Dimensionless: ``|r| / (1.48 · median |r|)`` of residuals r. It is the
baseline in docs/decisions/007 (templates of other atlases and newborns); how it was first chosen is not recorded. Slices are outliers by
the same number: in NCC below the median of their stack, and in distance to the path of their neighbours in time."""
STRICT_OUTLIER = 2.0
"""In a strict fit a residual of this many robust standard deviations has weight 1/4, and larger ones far less. Same quantity as
:data:`OUTLIER`; set on 16 templates of other atlases and 16 newborns, corrupted, 8° off (docs/decisions/007)."""
SCALE_LIMIT = 0.25
"""Largest logarithm of the scale between brain and template, either way: a fit stays within. For single slices also of length, width and
height: by affine registration at most 0.17 in newborns A01–A12 on Serag's templates, 0.22 in the width of Serag's on CRL's."""
STEP_LIMIT = 0.2
"""Largest step, radians of rotation and fractions of the level's radius of shift."""


@dataclass(frozen=True, eq=False)
class Poses:
    """``n`` candidate similarity maps image → template: ``rotation`` (n, 3, 3), ``shift`` (n, 3) mm, ``log_scale`` (n,).

    A point ``p`` (mm from the image's centre) maps to ``e^log_scale · rotation @ p + shift`` (mm from the template's centre).
    """

    rotation: Tensor
    shift: Tensor
    log_scale: Tensor

    def __len__(self) -> int:
        return len(self.rotation)

    def pick(self, index: Tensor) -> Poses:
        """The poses at ``index`` (m,)."""
        return Poses(self.rotation[index], self.shift[index], self.log_scale[index])

    def concat(self, others: Poses) -> Poses:
        """These poses, then ``others``."""
        names = ("rotation", "shift", "log_scale")
        return Poses(*(torch.cat([getattr(self, name), getattr(others, name)]) for name in names))

    def transform(self, where: Tensor) -> Tensor:
        """Points ``where`` (N, 3) → (n, N, 3), mm from the template's centre."""
        turned = torch.einsum("nij,pj->npi", self.rotation, where)
        return turned * self.log_scale.exp()[:, None, None] + self.shift[:, None]

    def rigid(self, i: int, image_center: Array, template_center: Array) -> Rigid:
        """Pose ``i`` as the rigid map template → image, RAS mm, that agrees with it at the template's centre."""
        rotation = so3.project(self.rotation[i].double().cpu().numpy())
        shift = self.shift[i].double().cpu().numpy() / float(self.log_scale[i].exp())
        # template centre ↔ image point p with R p e^σ + shift = 0
        return Rigid.about(rotation.T, template_center, image_center - rotation.T @ shift)

    @classmethod
    def from_rigid(
        cls, pose: Rigid, image_center: Array, template_center: Array, log_scale: float, device: torch.device | str = "cpu"
    ) -> Poses:
        """One candidate from a rigid map template → image, with ``log_scale`` about the template's centre."""
        at = pose.apply(template_center) - image_center
        shift = -pose.rotation.T @ at * np.exp(log_scale)
        values = [pose.rotation.T[None], shift[None], np.array([log_scale])]
        return cls(*[torch.as_tensor(np.array(v), dtype=torch.float32, device=device) for v in values])


class Term:
    """One channel of a criterion: the template's ``level``, the image's ``points`` in the same channel, and the weight ``share``."""

    def __init__(self, level: Level, points: Points, share: float = 1.0) -> None:
        self.level, self.points, self.share = level, points, share
        self.classes = _classes(points)

    def sample_template(self, poses: Poses) -> tuple[Tensor, Tensor, Tensor]:
        """Mapped points (n, N, 3), mm from the template's centre; the template's fields there (5, n, N); and weights (n, N)."""
        carried = poses.transform(self.points.where)
        fields = sample(self.level.fields, self.level.world_to_voxel, carried + self.level.center)
        return carried, fields, self.points.weight * fields[1]

    def derivatives(self, value: Tensor, weight: Tensor, *, strict: bool) -> tuple[Tensor, Tensor]:
        """First derivative of the correlation ratio with respect to the template's ``value`` (n, N) at each point, and the approximate
        curvature for the Gauss–Newton step, both (n, N)."""
        residual, robust = residual_weights(value, weight, self.classes, strict=strict)
        return robust * residual, robust


@dataclass(frozen=True, eq=False)
class Fitted:
    """Poses after a fit on ``terms``; the scores are computed on first use."""

    poses: Poses
    terms: tuple[Term, ...]

    @cached_property
    def _sampled(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [term.sample_template(self.poses) for term in self.terms]

    @cached_property
    def criterion(self) -> Tensor:
        """For each pose (n,): sum of the terms' correlation ratios inside the overlap, weighted by their shares."""
        ratios = [t.share * _ratio(fields[0], weight, t.classes) for t, (_, fields, weight) in zip(self.terms, self._sampled, strict=True)]
        return torch.stack(ratios).sum(0)

    @cached_property
    def overlap(self) -> Tensor:
        """Fraction of the image's weight inside the template (n,), in the first term."""
        return self._sampled[0][2].sum(1) / self.terms[0].points.weight.sum()

    def best(self, n: int, apart: float = 5.0) -> Tensor:
        """Indices of the ``n`` poses with the highest criterion that are more than ``apart`` degrees from each other."""
        flat = self.poses.rotation.flatten(1)
        near = flat @ flat.T > 1 + 2 * np.cos(np.radians(apart))
        free = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
        out: list[int] = []
        for i in self.criterion.argsort(descending=True).tolist():
            if free[i] and len(out) < n:
                out.append(i)
                free = free & ~near[i]
        return torch.tensor(out, device=flat.device)


def fit(terms: Sequence[Term], poses: Poses, iterations: int, *, strict: bool = False) -> Fitted:
    """Take ``iterations`` damped Gauss–Newton steps from ``poses`` on the sum of all ``terms``; 0 only computes the scores.

    ``strict`` uses Geman–McClure weights, which nearly ignore large residuals. It keeps scale and translation stable if the mask is partly
    wrong, and is slightly less accurate with correct masks.
    """
    if not terms:
        msg = "a fit needs at least one term"
        raise ValueError(msg)
    for _ in range(iterations):
        poses = _step(poses, terms, strict=strict)
    return Fitted(poses, tuple(terms))


def _classes(points: Points) -> Tensor:
    """Image intensities as one-hot classes (N, CLASSES) of equal size."""
    inside = points.value[points.weight > 0.3]
    edges = torch.quantile(inside, torch.linspace(0, 1, CLASSES + 1, device=inside.device)[1:-1])
    return F.one_hot(torch.bucketize(points.value, edges), CLASSES).to(points.value.dtype)


def _mapped(value: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """Template values (n, N) predicted from the image's intensity classes."""
    mean = ((weight * value) @ classes) / (weight @ classes).clamp_min(1.0)
    return mean @ classes.T


def residual_weights(value: Tensor, weight: Tensor, classes: Tensor, *, strict: bool) -> tuple[Tensor, Tensor]:
    """Residuals (n, N) and robust weights (n, N), the latter scaled by the residual variance."""
    rough = _mapped(value, weight, classes) - value
    spread = 1.48 * rough.abs().median(1, keepdim=True).values.clamp_min(0.05)
    limit, power = (STRICT_OUTLIER, 2) if strict else (OUTLIER, 1)
    weight = weight / (1 + (rough / (limit * spread)) ** 2) ** power
    residual = _mapped(value, weight, classes) - value
    variance = (weight * residual**2).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)
    return residual, weight / variance.clamp_min(0.02)


def _ratio(value: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    residual = _mapped(value, weight, classes) - value
    mean = (weight * value).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)
    return 1 - (weight * residual**2).sum(1) / (weight * (value - mean) ** 2).sum(1).clamp_min(1e-6)


def _normal(term: Term, poses: Poses, *, strict: bool) -> tuple[Tensor, Tensor]:
    """Normal matrix (n, 7, 7) and right side (n, 7) of one term: a mean over its points, times its share."""
    carried, fields, weight = term.sample_template(poses)
    force, curvature = term.derivatives(fields[0], weight, strict=strict)
    x, y, z = carried.unbind(-1)
    gx, gy, gz = fields[2:]
    jacobian = torch.stack(
        [y * gz - z * gy, z * gx - x * gz, x * gy - y * gx, gx, gy, gz, x * gx + y * gy + z * gz], -1
    )
    share = (term.share / weight.sum(1, keepdim=True).clamp_min(1))[..., None]
    weighted = jacobian * curvature[..., None] * share
    return weighted.transpose(1, 2) @ jacobian, (jacobian * force[..., None] * share).sum(1)


def _step(poses: Poses, terms: Sequence[Term], *, strict: bool) -> Poses:
    normal, right = _normal(terms[0], poses, strict=strict)
    for term in terms[1:]:
        n, r = _normal(term, poses, strict=strict)
        normal, right = normal + n, right + r
    diagonal = torch.diagonal(normal, dim1=1, dim2=2)
    change = torch.linalg.solve(normal + torch.diag_embed(1e-3 * diagonal + 1e-7), right)
    reach = STEP_LIMIT * terms[0].level.reach
    rotation = so3_torch.exp(change[:, :3] * _limit(change[:, :3], STEP_LIMIT))
    grow = change[:, 6].clamp(-0.08, 0.08)
    moved = torch.einsum("nij,nj->ni", rotation, poses.shift) * grow.exp()[:, None]
    return Poses(
        rotation @ poses.rotation,
        moved + change[:, 3:6] * _limit(change[:, 3:6], reach),
        (poses.log_scale + grow).clamp(-SCALE_LIMIT, SCALE_LIMIT),
    )


def _limit(vector: Tensor, most: float) -> Tensor:
    return most / vector.norm(dim=1, keepdim=True).clamp_min(most)
