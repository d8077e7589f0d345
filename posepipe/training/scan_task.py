"""Training of the networks for raw scans: losses on crops, and validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry.so3_torch import geodesic_distance
from ..models.coordinates import HALF_SIDE, cube_points
from ..models.precision import autocast
from ..models.scans import Located, LocatorNet, OutlineNet, ScanField
from .coordinates import laplace_nll
from .scans import ScanBatch, ScanSynthesis
from .task import in_degrees


class ScanTask:
    """Training of a network for scans (:mod:`posepipe.models.scans`) on crops from ``training``; ``validation``: a fixed list of batches.

    Loss of the segmentation: cross-entropy plus ½ (1 − soft Dice). Added for a :class:`~posepipe.models.scans.ScanNet`: a third of
    :func:`coordinate_nll`, and in the second stage the geodesic distance of the rotation (the paper's eq. 9). Added for a
    :class:`~posepipe.models.scans.LocatorNet`: the :func:`center_errors`.
    """

    def __init__(self, network: nn.Module, training: ScanSynthesis, validation: Sequence[ScanBatch], *, bf16: bool = True) -> None:
        self.network: nn.Module = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._training, self._validation, self._bf16 = training, validation, bf16

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`."""
        batch, seconds = self._training.timed(n)
        found = self._forward(self.network, batch)
        foreground = found if isinstance(found, Tensor) else found.foreground
        entropy = F.binary_cross_entropy_with_logits(foreground, batch.brain)
        some = batch.brain.flatten(1).sum(1) > 20
        overlap = dice(torch.sigmoid(foreground), batch.brain)[some]
        total = entropy + 0.5 * (1 - overlap).mean()
        figures = {"entropy": float(entropy.detach()), "dice": float(overlap.detach().mean()), "seconds": seconds}
        if isinstance(found, Located):
            away, size = center_errors(found, batch)
            total = total + away + size
            figures |= {"away": float(away.detach()), "size": float(size.detach())}
        elif isinstance(found, ScanField):
            where = coordinate_nll(found, batch)
            angle = geodesic_distance(found.coordinates.solve().rotation, batch.rotation)[batch.whole]
            total = total + where / 3
            if stage == "geodesic" and len(angle):
                total = total + angle.clamp_max(1.0).mean() + 0.2 * angle.mean()
            figures |= {"where": float(where.detach()), "median": float(torch.rad2deg(angle.detach()).median()) if len(angle) else math.nan}
        return total, figures

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Validation metrics: rotation errors (degrees) of crops with the whole brain, or errors of the centre (brain radii) and of the
        size (logarithm); mean and 10th percentile of Dice; ``alarms``: share of crops without brain in which brain is segmented."""
        angles, overlaps, alarms, far = [], [], [], []
        for batch in self._validation:
            found = self._forward(network, batch)
            if isinstance(found, Located):
                far.append(torch.stack(center_errors(found, batch)))
            elif isinstance(found, ScanField):
                angles.append(geodesic_distance(found.coordinates.solve().rotation, batch.rotation)[batch.whole])
            foreground = found if isinstance(found, Tensor) else found.foreground
            segmented, some = (foreground > 0).float(), batch.brain.flatten(1).sum(1) > 50
            overlaps.append(dice(segmented, (batch.brain > 0.5).float())[some])
            alarms.append((segmented.flatten(1).sum(1) > 50)[batch.brain.flatten(1).sum(1) < 1])
        overlap, alarm = torch.cat(overlaps), torch.cat(alarms).float()
        figures = {"dice": float(overlap.mean()), "dice10": float(overlap.quantile(0.1))}
        figures |= in_degrees(torch.cat(angles)) if angles else {}
        if far:
            figures |= dict(zip(("away", "size"), torch.stack(far).mean(0).tolist(), strict=True))
        return figures | ({"alarms": float(alarm.mean())} if len(alarm) else {})

    def state(self) -> dict[str, Any]:
        """See :class:`~posepipe.training.engine.Task`."""
        return self._training.state()

    def restore(self, state: dict[str, Any]) -> None:
        """See :class:`~posepipe.training.engine.Task`."""
        self._training.restore(state)

    def _forward(self, network: nn.Module, batch: ScanBatch) -> ScanField | Located | Tensor:
        if isinstance(network, LocatorNet | OutlineNet):
            return self._network_output(network, batch.image)
        return self._network_output(network, torch.cat([batch.image, batch.previous_mask], 1))

    def _network_output(self, network: nn.Module, x: Tensor) -> Any:
        with autocast(x.device, wanted=self._bf16):
            return network(x.contiguous(memory_format=torch.channels_last_3d))


def center_errors(found: Located, batch: ScanBatch) -> tuple[Tensor, Tensor]:
    """Errors of the locator, means over brain voxels: of the predicted brain centre (absolute difference, mean over the axes, in brain
    radii), and of the predicted brain radius (absolute difference of the logarithm)."""
    side = found.offset.shape[-1]
    voxel = HALF_SIDE / side  # of the input, in units of the cube
    brain = (F.avg_pool3d(batch.brain, 2) > 0.5).flatten(1)
    u = cube_points(side, device=brain.device)
    # offsets and radius are in voxels
    radius = (batch.scale / voxel)[:, None]
    true = (batch.translation[:, None] - u).mT / voxel
    away = ((found.offset.flatten(2) - true).abs().mean(1) / radius)[brain]
    size = (found.log_radius.flatten(1) - radius.log()).abs()[brain]
    return (away.mean(), size.mean()) if len(away) else (away.sum(), size.sum())


def coordinate_nll(found: ScanField, batch: ScanBatch) -> Tensor:
    """Mean of :func:`~posepipe.training.coordinates.laplace_nll` over the brain voxels of crops with a known pose. Each crop has a weight
    of the square root of its number of brain voxels."""
    side = found.position.shape[-1]
    brain = F.avg_pool3d(batch.brain, batch.brain.shape[-1] // side) * batch.posed[:, None, None, None, None]
    here = laplace_nll(found, batch.position(side))  # type: ignore[arg-type]
    # weights: the square root of the number of brain voxels, so that crops with large brains do not dominate
    each = (here * brain).flatten(1).sum(1) / brain.flatten(1).sum(1).clamp_min(1.0)
    weight = brain.flatten(1).sum(1).sqrt()
    return (each * weight).sum() / weight.sum().clamp_min(1e-6)


def dice(a: Tensor, b: Tensor) -> Tensor:
    """Soft Dice overlap (B,) of ``a`` and ``b`` (B, 1, S, S, S) in [0, 1]; about 1 if both are empty.

    >>> one = torch.ones(1, 1, 4, 4, 4)
    >>> dice(one, one), dice(one, 0 * one).round(decimals=2)
    (tensor([1.]), tensor([0.0200]))
    """
    a, b = a.flatten(1), b.flatten(1)
    return (2 * (a * b).sum(1) + 1) / (a.sum(1) + b.sum(1) + 1)
