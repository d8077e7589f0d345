"""Slice-to-volume registration of many slices at once: robust normalised cross-correlation by Gauss–Newton steps.

A pixel ``q`` (slice frame, mm) is mapped to ``y = e^σ ∘ (A q) + τ``, mm from the template's centre. σ holds the log scales along the
template's three axes: the proportions of brains differ from the average, and without these scales the difference would bias the rotation.
In each channel the residual is that of the linear regression of the template's values on the slice's (its variance is 1 − NCC² times the
template's); large residuals are down-weighted. The poses of a stack can be coupled by a penalty on the motion between slices acquired in
sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..geometry import Rigid, so3, so3_torch
from ..imaging.sampling import sample, tensor
from ..matching.gauss_newton import OUTLIER, SCALE_LIMIT
from .frames import Slice
from .points import FOREGROUND_OFFSET, SliceBatch, SlicePoints, SliceTarget, TemplateLevel, profile
from .smoothness import Smoothness, coupled_step

SHARES = ((1.0, 0.5), (1.0, 0.5), (0.5, 1.0))
"""Weights of brightness and texture in the criterion of each level. Of five settings on the brains of :mod:`posepipe.bench.slice_register`
none was better from starts 10° off by more than its standard error. Weights of 0.5 and 1 at all levels are 0.2° more accurate when started
at the truth, but have a smaller capture range (docs/decisions/033)."""
STEPS = (12, 10, 8)
"""Gauss–Newton steps at each level, coarse to fine."""
TURN_LIMIT = 0.15
"""Maximum rotation per step, radians (8.6°): the linearisation is not valid beyond the blur of a level divided by the brain's radius."""
SHIFT_LIMIT = 6.0
"""Maximum translation per step, mm: 1.5 times the blur of the first level."""
SHAPE_DEVIATION = 0.06
"""Prior for single slices: standard deviation of the log ratios of a brain's length, width and height to its template's, in addition to the
common scale. Newborns A01–A12 against Serag's templates have 0.063 by affine registration. Not used for stacks, whose slices are all
parallel: it increased the errors of five newborns (docs/decisions/033)."""
RESIZED = 4
"""Number of estimates per level of the scales that the slices of a stack share: for a brain a tenth smaller than the phantom the error is
2.4° with three, 0.7° with four, 0.6° with six."""
EVIDENCE_MM2 = 500.0
"""Area of a slice that counts as one independent observation, mm². It sets the weight of the data relative to the smoothness of motion and
the prior of the scales: anatomical differences are correlated over centimetres. On the brains of :mod:`posepipe.bench.slice_register` 250
and 1,000 mm² are as good (docs/decisions/033)."""
LEAST_SPREAD = 0.03
"""Lower limit of the robust standard deviation of the NCC in a stack, so that small differences in a good stack give no outliers."""


@dataclass(frozen=True, eq=False)
class SlicePoses:
    """``n`` maps slice frame → template: ``rotation`` (n, 3, 3), then ``log_scale`` (n, 3) along the template's axes, then ``shift``
    (n, 3), mm from its centre."""

    rotation: Tensor
    shift: Tensor
    log_scale: Tensor

    def transform(self, where: Tensor, heights: Tensor) -> Tensor:
        """Pixels ``where`` (n, P, 2) at ``heights`` (n, K) along n̂ → (n, K, P, 3), mm from the template's centre."""
        grown = self.rotation * self.log_scale.exp()[..., None]
        flat = where @ grown[:, :, :2].transpose(1, 2) + self.shift[:, None]
        return flat[:, None] + (heights[..., None] * grown[:, None, :, 2])[:, :, None]

    def where_better(self, other: SlicePoses, better: Tensor) -> SlicePoses:
        """These poses where ``better`` (n,) is true, else those of ``other``."""
        b = better[:, None]
        return SlicePoses(
            torch.where(b[..., None], self.rotation, other.rotation),
            torch.where(b, self.shift, other.shift),
            torch.where(b, self.log_scale, other.log_scale),
        )

    def of_size(self, log_scale: Tensor) -> SlicePoses:
        """The same poses with the common ``log_scale`` (3,), scaled about the template's centre."""
        change = log_scale - self.log_scale
        return SlicePoses(self.rotation, self.shift * change.exp(), log_scale.expand_as(self.log_scale))

    def stepped(self, turn: Tensor, move: Tensor, grow: Tensor) -> SlicePoses:
        """After a step: rotation ``turn`` (n, 3), radians, about the template's centre, translation ``move`` (n, 3), mm, and change
        ``grow`` (n, 3) of the log scales."""
        rotation = so3_torch.exp(turn)
        size = self.log_scale.exp()
        shift = torch.einsum("nij,nj->ni", rotation, self.shift / size) * size * grow.exp() + move
        return SlicePoses(rotation @ self.rotation, shift, self.log_scale + grow)

    @classmethod
    def of(
        cls, poses: Sequence[Rigid], slices: Sequence[Slice], center: np.ndarray, log_scale: npt.ArrayLike = 0.0,
        device: torch.device | str = "cpu",
    ) -> SlicePoses:  # fmt: skip
        """From poses atlas → image (RAS mm) of ``slices``; ``center`` (3,) is the template's, the centre of the scaling by ``log_scale``
        (one number or three)."""
        inner = [s.grid.pose_in_frame(p) for s, p in zip(slices, poses, strict=True)]
        rotation = np.stack([p.rotation.T for p in inner])
        size = np.broadcast_to(np.asarray(log_scale, dtype=float), (len(rotation), 3))
        shift = -np.exp(size) * np.einsum("nij,nj->ni", rotation, np.stack([p.apply(center) for p in inner]))
        return cls(tensor(rotation, device), tensor(shift, device), tensor(size.copy(), device))

    def rigid(self, slices: Sequence[Slice], center: np.ndarray) -> list[Rigid]:
        """As rigid maps atlas → image (RAS mm) that agree with these at the template's ``center`` (3,)."""
        rotation = so3.project(self.rotation.double().cpu().numpy()).transpose(0, 2, 1)
        shift = (self.shift * (-self.log_scale).exp()).double().cpu().numpy()
        lands = -np.einsum("nij,nj->ni", rotation, shift)
        return [s.grid.pose_in_world(Rigid.about(r, center, h)) for s, r, h in zip(slices, rotation, lands, strict=True)]


@dataclass(frozen=True)
class SVROptions:
    """Options of slice-to-volume registration.

    ``steps`` at each level (0 skips a level); ``shares``: weights of brightness and texture at each level; ``scale_deviation``: prior
    standard deviation of the log scale relative to the template; ``shape_deviation``: of the three log scales in addition (0 and 0: fixed
    scales); ``shared_scale``: all slices are of one head, and its scales are estimated jointly, :data:`RESIZED` times per level;
    ``smoothness``: penalty on motion between slices acquired in sequence; ``foreground_offset``: offset of the brain above the background
    (:data:`~posepipe.slices.points.FOREGROUND_OFFSET`).
    """

    steps: tuple[int, int, int] = STEPS
    shares: tuple[tuple[float, float], ...] = SHARES
    scale_deviation: float = 0.0
    shape_deviation: float = 0.0
    shared_scale: bool = False
    smoothness: Smoothness | None = None
    foreground_offset: float = FOREGROUND_OFFSET

    def size_precision(self, device: torch.device | str) -> Tensor | None:
        """Prior inverse covariance (3, 3) of the three log scales; None if they are fixed."""
        if not (self.scale_deviation or self.shape_deviation):
            return None
        covariance = self.scale_deviation**2 + np.eye(3) * max(self.shape_deviation, 1e-3) ** 2
        return tensor(np.linalg.inv(covariance), device)


@dataclass(frozen=True, eq=False)
class SVRResult:
    """``poses`` atlas → image (RAS mm), ``ncc`` (n,) at the finest level in [−1, 1], ``weights`` (n,) in [0, 1], low for slices that fit
    worse than the others, ``log_scale`` (n, 3) of the template over the brain along the template's axes."""

    poses: list[Rigid]
    ncc: np.ndarray
    weights: np.ndarray
    log_scale: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))


def register_slices(
    slices: Sequence[Slice] | SliceBatch, target: SliceTarget, starts: Sequence[Rigid], *, which: Sequence[int] | None = None,
    options: SVROptions | None = None, log_scale: npt.ArrayLike = 0.0,
) -> SVRResult:  # fmt: skip
    """Register ``slices`` to the template from ``starts`` (atlas → image, RAS mm), all at once.

    ``which`` maps each start to a slice (default: one start per slice, in order), so that several hypotheses of a slice are registered
    together; ``log_scale``, one number or three, is the initial log scale of the template over the brain. Without smoothness each slice
    keeps the pose with the highest NCC of all steps. The weights compare the slices of this call and are meaningful for slices of one
    stack. Raises :class:`~posepipe.errors.MaskError` for a slice without brain.
    """
    options = options or SVROptions()
    batch = slices if isinstance(slices, SliceBatch) else SliceBatch(slices, target.target.brain.image.device)
    index = torch.arange(len(batch), device=batch.device) if which is None else torch.as_tensor(list(which), device=batch.device)
    chosen = [batch.slices[i] for i in index.tolist()]
    poses = SlicePoses.of(starts, chosen, target.center, log_scale, batch.device)
    with torch.inference_mode():
        if options.smoothness is not None:
            options = replace(options, smoothness=options.smoothness.on(batch.device))
        axes = tensor(np.stack([s.grid.axes for s in chosen]), batch.device)
        origin = tensor(np.stack([s.grid.center for s in chosen]), batch.device)
        ncc = torch.zeros(len(chosen), device=batch.device)
        both = (target.levels(options.foreground_offset), batch.levels(options.foreground_offset))
        for level, points, steps, shares in zip(*both, options.steps, options.shares, strict=True):
            if steps:
                term = SliceTerm(level, points.pick(index), batch.thickness[index], shares)
                shared = options.shared_scale and options.size_precision(batch.device) is not None
                for part in np.array_split(np.arange(steps), RESIZED if shared else 1):
                    if shared:
                        poses = _resized(term, poses, options)
                    poses, ncc = _fitted(term, poses, len(part), options, (axes, origin))
    score = ncc.double().cpu().numpy()
    return SVRResult(poses.rigid(chosen, target.center), score, stack_weights(score), poses.log_scale.double().cpu().numpy())


def ncc_at(
    batch: SliceBatch, target: SliceTarget, poses: Sequence[Rigid], options: SVROptions, log_scale: npt.ArrayLike = 0.0
) -> np.ndarray:
    """NCC (n,) in [−1, 1] of the slices of ``batch`` with the template at ``poses`` (atlas → image), at the finest level, as in
    :func:`register_slices`; ``log_scale`` is the log scale of the template over the brain."""
    with torch.inference_mode():
        at = SlicePoses.of(poses, batch.slices, target.center, log_scale, batch.device)
        offset = options.foreground_offset
        term = SliceTerm(target.levels(offset)[-1], batch.levels(offset)[-1], batch.thickness, options.shares[-1])
        out: np.ndarray = term.ncc(term.sample_template(at)[0]).double().cpu().numpy()
    return out


def stack_weights(ncc: np.ndarray) -> np.ndarray:
    """Weights (n,) in [0, 1] from the NCC (n,) of the slices of a stack: 1 at the median and above, less below (Geman–McClure)."""
    below = np.maximum(np.median(ncc) - ncc, 0)
    spread = max(1.48 * float(np.median(np.abs(ncc - np.median(ncc)))), LEAST_SPREAD)
    return 1 / (1 + (below / (OUTLIER * spread)) ** 2)


class SliceTerm:
    """The slices' ``points`` compared with the template's ``level``: NCC, and normal equations of a step; ``shares`` of brightness and
    texture in both."""

    def __init__(self, level: TemplateLevel, points: SlicePoints, thickness: Tensor, shares: tuple[float, float] = SHARES[-1]) -> None:
        channels = 2 if shares[1] else 1
        points = replace(points, value=points.value[:, :channels], weight=points.weight[:, :channels])
        self.level, self.points, self.shares = level, points, torch.tensor(shares[:channels], device=thickness.device)
        self._fields = level.fields[: 4 * channels]
        self.heights, self.planes = profile(thickness, level.blur)
        total = points.weight.sum(-1, keepdim=True).clamp_min(1e-3)
        mean = (points.weight * points.value).sum(-1, keepdim=True) / total
        deviation = ((points.weight * (points.value - mean) ** 2).sum(-1, keepdim=True) / total).sqrt().clamp_min(1e-4)
        self.value = (points.value - mean) / deviation
        self.evidence = total[..., 0] * points.area / EVIDENCE_MM2 * self.shares

    def sample_template(self, poses: SlicePoses) -> tuple[Tensor, Tensor]:
        """The template's values (n, 2, P) in the pixels, and their derivatives (n, 2, P, 9) by turn, move (mm) and growth."""
        y = poses.transform(self.points.where, self.heights)
        fields = sample(self._fields, self.level.to_voxel, y).unflatten(0, (-1, 4))
        value, slope = fields[:, 0], fields[:, 1:].movedim(1, -1)
        size = poses.log_scale.exp()[:, None, None]
        turn = torch.linalg.cross((y / size)[None].expand_as(slope), slope * size)
        whole = torch.cat([turn, slope, y * slope], -1)
        if len(self.planes) == 1:
            return value[:, :, 0].transpose(0, 1), whole[:, :, 0].transpose(0, 1)
        return torch.einsum("cnkp,k->ncp", value, self.planes), torch.einsum("cnkpd,k->ncpd", whole, self.planes)

    def ncc(self, value: Tensor) -> Tensor:
        """NCC (n,) of the template's ``value`` (n, 2, P) with the slices', all pixels counted by weight; the channels' mean by shares."""
        w = self.points.weight
        total = w.sum(-1, keepdim=True).clamp_min(1e-3)
        centred = value - (w * value).sum(-1, keepdim=True) / total
        spread = ((w * centred**2).sum(-1) / total[..., 0]).sqrt()
        each = (w * centred * self.value).sum(-1) / total[..., 0] / spread.clamp_min(1e-3)
        return (each * self.shares).sum(1) / self.shares.sum()

    def equations(self, value: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Normal matrix (n, 9, 9) and right side (n, 9) of a robust step, in units of −log likelihood (:data:`EVIDENCE_MM2`)."""
        residual = self._residual(value, self.points.weight)
        size = torch.where(self.points.weight > 0.3, residual.abs(), torch.full_like(residual, torch.nan))
        spread = 1.48 * size.nanmedian(-1, keepdim=True).values.nan_to_num(1.0).clamp_min(0.02)
        weight = self.points.weight / (1 + (residual / (OUTLIER * spread)) ** 2)
        residual = self._residual(value, weight)
        total = weight.sum(-1, keepdim=True).clamp_min(1e-3)
        variance = ((weight * residual**2).sum(-1, keepdim=True) / total).clamp_min(1e-3)
        scale = (weight / total / variance * self.evidence[..., None])[..., None]
        weighted = (slope * scale).flatten(1, 2)
        return weighted.transpose(1, 2) @ slope.flatten(1, 2), (weighted * residual.flatten(1)[..., None]).sum(1)

    def _residual(self, value: Tensor, weight: Tensor) -> Tensor:
        """The best line from the slice's values to the template's, less the template's (n, 2, P)."""
        total = weight.sum(-1, keepdim=True).clamp_min(1e-3)
        x = self.value - (weight * self.value).sum(-1, keepdim=True) / total
        t = value - (weight * value).sum(-1, keepdim=True) / total
        # a negative slope would match the inverted template
        gain = ((weight * x * t).sum(-1, keepdim=True) / (weight * x * x).sum(-1, keepdim=True).clamp_min(1e-3)).clamp_min(0)
        return gain * x - t


def _fitted(
    term: SliceTerm, poses: SlicePoses, steps: int, options: SVROptions, frames: tuple[Tensor, Tensor]
) -> tuple[SlicePoses, Tensor]:
    """``steps`` damped steps; the NCC (n,) of the poses returned."""
    value, slope = term.sample_template(poses)
    best, best_ncc, best_sampled = poses, term.ncc(value), (value, slope)
    damping = torch.full_like(best_ncc, 1e-2)
    for _ in range(steps):
        normal, right = term.equations(value, slope)
        turn, move, grow = _solved(normal, right, damping, poses, options, frames)
        poses = poses.stepped(turn, move, grow)
        value, slope = term.sample_template(poses)
        ncc = term.ncc(value)
        if options.smoothness is not None:
            best, best_ncc = poses, ncc
            continue
        better = ncc > best_ncc
        damping = torch.where(better, damping * 0.4, damping * 8.0).clamp(1e-4, 1e3)
        best, best_ncc = poses.where_better(best, better), torch.maximum(ncc, best_ncc)
        b = better[:, None, None]
        best_sampled = (torch.where(b, value, best_sampled[0]), torch.where(b[..., None], slope, best_sampled[1]))
        poses, (value, slope) = best, best_sampled
    return best, best_ncc


def _resized(term: SliceTerm, poses: SlicePoses, options: SVROptions) -> SlicePoses:
    """The poses of one head after a Gauss–Newton step on the shared scales, with the slices' poses eliminated (Schur complement) and with
    lower weights for slices with a low NCC."""
    precision = options.size_precision(poses.shift.device)
    if precision is None:
        return poses
    value, slope = term.sample_template(poses)
    normal, right = term.equations(value, slope)
    six = normal[:, :6, :6] + torch.diag_embed(torch.diagonal(normal, dim1=1, dim2=2)[:, :6] * 1e-2 + 1e-6)
    along = torch.linalg.solve(six, normal[:, :6, 6:])
    curvature = normal[:, 6:, 6:] - normal[:, 6:, :6] @ along
    pull = right[:, 6:] - (along.transpose(1, 2) @ right[:, :6, None])[..., 0]
    weight = tensor(stack_weights(term.ncc(value).double().cpu().numpy()), pull.device)[:, None]
    size = poses.log_scale.mean(0)
    grow = torch.linalg.solve((weight[..., None] * curvature).sum(0) + precision, (weight * pull).sum(0) - precision @ size)
    return poses.of_size((size + grow.clamp(-0.05, 0.05)).clamp(-SCALE_LIMIT, SCALE_LIMIT))


def _solved(
    normal: Tensor, right: Tensor, damping: Tensor, poses: SlicePoses, options: SVROptions, frames: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn (n, 3), move (n, 3) and growth (n, 3) of a step, each within its limit."""
    precision = None if options.shared_scale else options.size_precision(normal.device)
    damped = normal + torch.diag_embed(torch.diagonal(normal, dim1=1, dim2=2) * damping[:, None] + 1e-6)
    grow = torch.zeros_like(poses.log_scale)
    if options.smoothness is not None:
        change = coupled_step(damped[:, :6, :6], right[:, :6], poses, options.smoothness, frames)
    elif precision is None:
        change = torch.linalg.solve(damped[:, :6, :6], right[:, :6])
    else:
        damped[:, 6:, 6:] += precision
        change = torch.linalg.solve(damped, torch.cat([right[:, :6], right[:, 6:] - poses.log_scale @ precision], 1))
        grow = (poses.log_scale + change[:, 6:].clamp(-0.03, 0.03)).clamp(-SCALE_LIMIT, SCALE_LIMIT) - poses.log_scale
    return _limited(change[:, :3], TURN_LIMIT), _limited(change[:, 3:6], SHIFT_LIMIT), grow


def _limited(vector: Tensor, most: float) -> Tensor:
    return vector * (most / vector.norm(dim=1, keepdim=True).clamp_min(most))
