"""The paper's slice-to-volume registrations: ``svr_gc`` from the geometric centre, ``svr_deep`` from a network's poses.

Salehi et al. 2018, section 3.2: normalised cross-correlation, gradient descent, three levels; a lower learning rate when started from the
network. Details that the paper does not give, or that differ here:

- The learning rate is not given. At the first step of each level it is set so that no pixel inside the slice's mask moves farther than
  :data:`FIRST_STEP_MM` (ITK's ``EstimateLearningRate`` once a level), and is constant within the level; from a network it is a quarter of
  that.
- Rotation vectors are scaled by the brain's radius, so that a unit of each parameter moves pixels by about a millimetre (ITK's scales
  from physical shift).
- Many slices are registered at once, in torch, with the levels, slice profile and masks of
  :func:`posepipe.slices.register.register_slices`; only the optimiser and the criterion (NCC of intensities) differ.
- Geometric centre: the centre of the bounding box of the slice's mask is mapped to that of the template's mask. The image's own grid has
  no meaning for a slice that was cut out of a stack.
- The returned pose is that with the greatest NCC of the last level, which ITK's registrations offer as an option, and not the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..geometry import Rigid
from ..slices.frames import Slice
from ..slices.points import SliceBatch, SliceTarget
from ..slices.register import SlicePoses, SliceTerm

STEPS = (60, 60, 60)
"""Maximum number of steps at each level; the paper's number is not given. More steps change the mean error by less than its standard
deviation."""
FIRST_STEP_MM = 2.0
"""Largest displacement of a pixel in the first step of a level from the geometric centre, mm: about one voxel of the paper's template
(1.6 mm)."""
DEEP_RATE = 0.25
"""Learning rate from the network, as a share of that from the geometric centre: "a lower learning rate" (section 3.2)."""


@dataclass(frozen=True, eq=False)
class RegisteredSlices:
    """``poses`` (atlas → image), and ``ncc`` (n,) of intensities at the finest level."""

    poses: list[Rigid]
    ncc: np.ndarray


def geometric_start(piece: Slice, target: SliceTarget) -> Rigid:
    """Pose atlas → image: orientation by the header (identity against the template), bounding box centre to bounding box centre."""
    mask = target.target.mask
    hit = np.argwhere(np.asarray(mask.data) > 0)
    middle = mask.affine[:3, :3] @ ((hit.min(0) + hit.max(0)) / 2) + mask.affine[:3, 3]
    i, j = (np.flatnonzero(piece.mask.any(1 - a))[[0, -1]].mean() for a in (0, 1))
    here = piece.grid.affine[:3, :2] @ [i, j] + piece.grid.affine[:3, 3]
    return Rigid.about(np.eye(3), middle, here)


def svr_gc(slices: Sequence[Slice], target: SliceTarget, *, steps: tuple[int, int, int] = STEPS) -> RegisteredSlices:
    """SVR-GC: registration from the geometric centre."""
    return _gradient_descent(slices, target, [geometric_start(s, target) for s in slices], FIRST_STEP_MM, steps)


def svr_deep(
    slices: Sequence[Slice], target: SliceTarget, starts: Sequence[Rigid], *, steps: tuple[int, int, int] = STEPS
) -> RegisteredSlices:
    """SVR-Deep: registration from a network's ``starts`` (atlas → image), with a lower learning rate."""
    return _gradient_descent(slices, target, starts, FIRST_STEP_MM * DEEP_RATE, steps)


def _gradient_descent(
    slices: Sequence[Slice], target: SliceTarget, starts: Sequence[Rigid], first_mm: float, steps: tuple[int, int, int]
) -> RegisteredSlices:
    batch = SliceBatch(slices)
    poses = SlicePoses.of(starts, batch.slices, target.center)
    radius = target.target.brain.radius
    best, best_ncc = poses, torch.full((len(batch),), -1.0)
    with torch.inference_mode():
        for number, (level, points, many) in enumerate(zip(target.levels(0.0), batch.levels(0.0), steps, strict=True)):
            term = SliceTerm(level, points, batch.thickness, (1.0, 0.0))
            best, best_ncc = poses, torch.full((len(batch),), -1.0)
            rate = None
            for _ in range(many):
                value, slope = term.sample_template(poses)
                ncc, gradient = _gradient(term, value[:, 0], slope[:, 0, :, :6])
                best = poses.where_better(best, ncc > best_ncc)
                best_ncc = torch.maximum(ncc, best_ncc)
                # in mm: a rotation by 1/radius moves the brain's surface by 1 mm
                scaled = torch.cat([gradient[:, :3] / radius**2, gradient[:, 3:]], 1)
                if rate is None:
                    moved = scaled[:, :3].norm(dim=1) * radius + scaled[:, 3:].norm(dim=1)
                    rate = (first_mm / moved.clamp_min(1e-9))[:, None]
                change = rate * scaled
                # steps are limited, so that a rate that is too large for the level cannot move a slice out of the brain
                size = change[:, :3].norm(dim=1) * radius + change[:, 3:].norm(dim=1)
                change = change * (2 * first_mm / size.clamp_min(2 * first_mm))[:, None]
                poses = poses.stepped(change[:, :3], change[:, 3:], torch.zeros_like(poses.log_scale))
            if number < 2:
                poses = best
    return RegisteredSlices(best.rigid(batch.slices, target.center), best_ncc.double().numpy())


def _gradient(term: SliceTerm, value: torch.Tensor, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """NCC (n,) of intensities, and its gradient (n, 6) by rotation and translation."""
    w = term.points.weight[:, 0]
    w = w / w.sum(1, keepdim=True)
    centred = value - (w * value).sum(1, keepdim=True)
    spread = (w * centred**2).sum(1, keepdim=True).sqrt().clamp_min(1e-3)
    ncc = (w * centred * term.value[:, 0]).sum(1, keepdim=True) / spread
    by_value = w * (term.value[:, 0] - ncc * centred / spread) / spread
    return ncc[:, 0], torch.einsum("np,npd->nd", by_value, slope)
