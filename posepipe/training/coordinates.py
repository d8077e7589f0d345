"""Learning dense canonical coordinates: the task behind the default network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry.so3_torch import geodesic_distance
from ..models.coordinates import CoordinateField
from .synthesis import Batch
from .task import SynthesisTask


class CoordinateTask(SynthesisTask):
    """A :class:`~posepipe.models.coordinates.CoordinateNet` on synthesised images.

    First stage: where each voxel lies, with its expected error (Laplace likelihood), and what is brain. Second stage: also the geodesic
    distance of the pose that follows by Procrustes, the paper's loss (eq. 9) put behind a solver.
    """

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`."""
        batch, seconds = self.draw(n)
        field = self._forward(self.network, batch)
        dense = coordinate_loss(field, batch)
        angle = geodesic_distance(field.solve().rotation, batch.rotation)
        total = dense + (angle.clamp_max(1.0).mean() + 0.2 * angle.mean() if stage == "geodesic" else 0.0)
        degrees = torch.rad2deg(angle.detach())
        return total, {"dense": float(dense.detach()), "median": float(degrees.median()), "mean": float(degrees.mean()), "seconds": seconds}

    def rotation(self, network: nn.Module, batch: Batch) -> Tensor:
        """Rotations (B, 3, 3) by Procrustes."""
        return self._forward(network, batch).solve().rotation

    def _forward(self, network: nn.Module, batch: Batch) -> CoordinateField:
        x = batch.input.contiguous(memory_format=torch.channels_last_3d)
        with self._autocast(x):
            field: CoordinateField = network(x)
        return field


def coordinate_loss(field: CoordinateField, batch: Batch) -> Tensor:
    """Negative logarithm of a Laplace density of each brain voxel's error, plus cross-entropy of what is brain.

    With e the distance from the true coordinate and b the expected error, e/b + 3 log b (isotropic, three dimensions).
    """
    side = field.position.shape[-1]
    brain = F.avg_pool3d(batch.brain, batch.brain.shape[-1] // side)
    where = (surprise(field, batch.position(side)) * brain).sum() / brain.sum().clamp_min(1.0)
    return where / 3 + F.binary_cross_entropy_with_logits(field.foreground, brain)


def surprise(field: CoordinateField, position: Tensor) -> Tensor:
    """e/b + 3 log b (B, 1, ...) for the distance e of each voxel from its true ``position`` (B, 3, ...) and its expected error b."""
    error = (field.position - position).pow(2).sum(1, keepdim=True).add(1e-6).sqrt()
    return error * torch.exp(-field.log_error) + 3 * field.log_error
