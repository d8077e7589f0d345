"""Learning dense canonical coordinates: the task behind the default network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry.so3_torch import geodesic_distance
from ..models.coordinates import CoordinateField, CoordinateNet
from .synthesis import Batch, Synthesis


class CoordinateTask:
    """A :class:`~posepipe.models.coordinates.CoordinateNet` on synthesised images.

    First stage: where each voxel lies, with its expected error (Laplace likelihood), and what is brain. Second stage: also the geodesic
    distance of the pose that follows by Procrustes, the paper's loss (eq. 9) put behind a solver.
    """

    def __init__(self, network: CoordinateNet, training: Synthesis, validation: list[Batch], *, bf16: bool = True) -> None:
        self.network: nn.Module = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._training, self._validation, self._bf16 = training, validation, bf16

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`."""
        start = time.perf_counter()
        batch = self._training.batch(n)
        seconds = time.perf_counter() - start
        field = self._forward(self.network, batch)
        dense = coordinate_loss(field, batch)
        angle = geodesic_distance(field.solve().rotation, batch.rotation)
        total = dense + (angle.clamp_max(1.0).mean() + 0.2 * angle.mean() if stage == "geodesic" else 0.0)
        degrees = torch.rad2deg(angle.detach())
        return total, {"dense": float(dense.detach()), "median": float(degrees.median()), "mean": float(degrees.mean()), "seconds": seconds}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Median, mean, 95th percentile (degrees) and share over 15° on the validation batches."""
        degrees = torch.cat(list(self._angles(network)))
        return {
            "median": float(degrees.median()),
            "mean": float(degrees.mean()),
            "p95": float(degrees.quantile(0.95)),
            "over15": float((degrees > 15).float().mean()),
        }

    @torch.inference_mode()
    def _angles(self, network: nn.Module) -> Iterator[Tensor]:
        for batch in self._validation:
            yield torch.rad2deg(geodesic_distance(self._forward(network, batch).solve().rotation, batch.rotation))

    def _forward(self, network: nn.Module, batch: Batch) -> CoordinateField:
        x = batch.input.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._bf16):
            return network(x)

    def state(self) -> dict[str, Any]:
        """See :class:`~posepipe.training.engine.Task`."""
        return self._training.state()

    def restore(self, state: dict[str, Any]) -> None:
        """See :class:`~posepipe.training.engine.Task`."""
        self._training.restore(state)


def coordinate_loss(field: CoordinateField, batch: Batch) -> Tensor:
    """Negative logarithm of a Laplace density of each brain voxel's error, plus cross-entropy of what is brain.

    With e the distance from the true coordinate and b the expected error, e/b + 3 log b (isotropic, three dimensions).
    """
    side = field.position.shape[-1]
    brain = F.avg_pool3d(batch.brain, batch.brain.shape[-1] // side)
    error = (field.position - batch.position(side)).pow(2).sum(1, keepdim=True).add(1e-6).sqrt()
    dense = error * torch.exp(-field.log_error) + 3 * field.log_error
    where = (dense * brain).sum() / brain.sum().clamp_min(1.0)
    return where / 3 + F.binary_cross_entropy_with_logits(field.foreground, brain)
