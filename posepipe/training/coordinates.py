"""Training of the default networks: dense canonical coordinates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry.so3_torch import geodesic_distance
from ..models.coordinates import CoordinateField
from .synthesis import Batch
from .task import SynthesisTask


class CoordinateTask(SynthesisTask):
    """Training of a :class:`~posepipe.models.coordinates.CoordinateNet` on synthesised images.

    Loss of the first stage: :func:`coordinate_loss`. In the second stage the geodesic distance (the paper's eq. 9) of the rotation by
    differentiable Procrustes is added.
    """

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`."""
        batch, seconds = self.next_batch(n)
        field = self._forward(self.network, batch)
        dense = coordinate_loss(field, batch)
        angle = geodesic_distance(field.solve().rotation, batch.rotation)
        total = dense + (angle.clamp_max(1.0).mean() + 0.2 * angle.mean() if stage == "geodesic" else 0.0)
        degrees = torch.rad2deg(angle.detach())
        return total, {"dense": float(dense.detach()), "median": float(degrees.median()), "mean": float(degrees.mean()), "seconds": seconds}

    def rotation(self, network: nn.Module, batch: Batch) -> Tensor:
        """Rotations (B, 3, 3) by Procrustes from the predicted coordinates."""
        return self._forward(network, batch).solve().rotation

    def _forward(self, network: nn.Module, batch: Batch) -> CoordinateField:
        x = batch.input.contiguous(memory_format=torch.channels_last_3d)
        with self._autocast(x):
            field: CoordinateField = network(x)
        return field


def coordinate_loss(field: CoordinateField, batch: Batch) -> Tensor:
    """A third of the mean of :func:`laplace_nll` over the brain voxels, plus the cross-entropy of the brain segmentation."""
    side = field.position.shape[-1]
    brain = F.avg_pool3d(batch.brain, batch.brain.shape[-1] // side)
    where = (laplace_nll(field, batch.position(side)) * brain).sum() / brain.sum().clamp_min(1.0)
    return where / 3 + F.binary_cross_entropy_with_logits(field.foreground, brain)


def laplace_nll(field: CoordinateField, position: Tensor) -> Tensor:
    """Negative log-likelihood of a Laplace density in three dimensions, up to a constant: e/b + 3 log b (B, 1, ...), with the distance e of
    the predicted from the true ``position`` (B, 3, ...) and the predicted error b, in brain radii."""
    error = (field.position - position).pow(2).sum(1, keepdim=True).add(1e-6).sqrt()
    return error * torch.exp(-field.log_error) + 3 * field.log_error
