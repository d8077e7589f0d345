"""A robust penalty on the motion between slices acquired in sequence, which couples the poses of a stack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..geometry import so3_torch
from .acquisition import Acquisition

if TYPE_CHECKING:
    from .register import SlicePoses


@dataclass(frozen=True, eq=False)
class Smoothness:
    """``pairs`` (m, 2): rows of slices that follow each other in time; ``degrees`` and ``mm``: standard deviations of the motion between
    them. The penalty is a Cauchy loss, logarithmic for large motion.

    Defaults: the middle level of motion of simulated stacks (:mod:`posepipe.slices.motion`), 8° RMS over a stack of about 30 slices with
    one or two periods, is 1–2° per slice, and half as many mm.
    """

    pairs: Tensor
    degrees: float = 1.5
    mm: float = 0.75

    @classmethod
    def along(cls, acquisition: Acquisition, numbers: np.ndarray, **deviations: float) -> Smoothness:
        """For slices with these ``numbers`` (n,) along the slice axis, in order of acquisition."""
        order = np.argsort(acquisition.times[numbers], kind="stable")
        return cls(torch.as_tensor(np.stack([order[:-1], order[1:]], -1)), **deviations)

    def on(self, device: torch.device | str) -> Smoothness:
        """The same on ``device``."""
        return replace(self, pairs=self.pairs.to(device))


def coupled_step(normal: Tensor, right: Tensor, poses: SlicePoses, prior: Smoothness, frames: tuple[Tensor, Tensor]) -> Tensor:
    """Turn and move (n, 6) of all slices together: normal matrices (n, 6, 6) and right sides (n, 6) of their fits, and the ``prior``.

    ``frames``: axes (n, 3, 3) and origins (n, 3) of the slice frames in RAS. A turn ω of slice i about the template's centre changes
    its pose's rotation from R to R exp(−ω), a move τ the place of the head's centre by −R τ e^−σ.
    """
    n, (i, j) = len(normal), prior.pairs.unbind(1)
    world = frames[0] @ poses.rotation.transpose(1, 2)  # atlas → RAS
    shrink = (-poses.log_scale).exp()
    head = frames[1] - torch.einsum("nij,nj->ni", world, poses.shift * shrink)
    apart = so3_torch.log(world[i].transpose(1, 2) @ world[j])  # becomes apart + ω_i − ω_j
    between = head[i] - head[j]  # becomes between − R_i τ_i + R_j τ_j
    one = torch.eye(3, dtype=normal.dtype, device=normal.device)
    # double precision: slices without overlap with the template have only the prior, which is singular in single precision
    whole = torch.zeros(n, 6, n, 6, dtype=torch.float64, device=normal.device)
    whole[torch.arange(n), :, torch.arange(n)] = normal.double()
    side = right.double()
    turn_weight, shift_weight = _weight(apart, np.radians(prior.degrees)), _weight(between, prior.mm)
    to_i, to_j = -world[i] * shrink[i][:, None], -world[j] * shrink[j][:, None]
    zero, turns = torch.zeros(len(i), 3, 3, device=normal.device), one.expand(len(i), 3, 3)
    # residual (6) of a pair, and its derivative (6, 6) by the change of either slice
    by_i = torch.cat([torch.cat([turns, zero], 2), torch.cat([zero, to_i], 2)], 1)
    by_j = -torch.cat([torch.cat([turns, zero], 2), torch.cat([zero, to_j], 2)], 1)
    weight = torch.cat([turn_weight.expand(-1, 3), shift_weight.expand(-1, 3)], 1)[..., None]
    residual = torch.cat([apart, between], 1)[..., None]
    for a, by_a in ((i, by_i), (j, by_j)):
        side.index_add_(0, a, -(by_a.transpose(1, 2) @ (weight * residual))[..., 0].double())
        for b, by_b in ((i, by_i), (j, by_j)):
            block = (by_a.transpose(1, 2) @ (weight * by_b)).double()
            whole.permute(0, 2, 1, 3).index_put_((a, b), block, accumulate=True)
    solved = torch.linalg.solve(whole.reshape(6 * n, 6 * n), side.reshape(6 * n))
    return solved.to(normal.dtype).reshape(n, 6)


def _weight(difference: Tensor, deviation: float) -> Tensor:
    """Cauchy weight (m, 1) of a vector ``difference`` (m, 3), over the variance."""
    size = (difference**2).sum(1, keepdim=True) / deviation**2
    return 1 / (deviation**2 * (1 + size))
