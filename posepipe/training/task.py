"""Base classes of the training tasks on synthesised images: batches, curriculum, validation in degrees, state of the random generators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..geometry.so3_torch import geodesic_distance
from ..models.inputs import FOREGROUND_OFFSET
from ..models.layers import channels_last
from ..models.precision import autocast
from .synthesis import Batch, Synthesis


@dataclass(frozen=True)
class Curriculum:
    """Curriculum of rotation angles: the largest angle is ``start`` degrees for ``hold`` steps, then grows linearly to the recipe's largest
    angle at step ``steps``.

    With rotations from all of SO(3) from the first step on, a network learns nothing for a long time (docs/tutorials/training.md).
    """

    start: float = 30.0
    steps: int = 0
    hold: int = 0

    def angle(self, step: int, largest: float) -> float:
        """Largest angle at ``step``, degrees; ``largest`` is that of the recipe.

        >>> Curriculum(30, 100).angle(50, 180), Curriculum(30, 100).angle(100, 180), Curriculum().angle(0, 180)
        (105.0, 180, 180)
        >>> Curriculum(40, 100, hold=60).angle(60, 180), Curriculum(40, 100, hold=60).angle(80, 180)
        (40.0, 110.0)
        """
        if step >= self.steps:
            return largest
        return self.start + (largest - self.start) * max(step - self.hold, 0) / (self.steps - self.hold)


class SynthesisTask(ABC):
    """Training of a network that estimates rotations, on images from ``training`` by ``curriculum``; ``validation``: a fixed list of
    batches.

    With ``bf16`` the network computes under autocast to bfloat16 where that is faster on the device.
    """

    def __init__(
        self,
        network: nn.Module,
        training: Synthesis,
        validation: list[Batch],
        *,
        curriculum: Curriculum | None = None,
        bf16: bool = True,
    ) -> None:
        self.network: nn.Module = channels_last(network)
        self._training, self._validation, self._bf16 = training, validation, bf16
        self._curriculum, self._recipe, self._step = curriculum or Curriculum(), training.recipe, 0

    def next_batch(self, n: int) -> tuple[Batch, float]:
        """The next ``n`` training images, and the seconds spent on synthesising them."""
        self._training.recipe = replace(self._recipe, max_angle=self._curriculum.angle(self._step, self._recipe.max_angle))
        self._step += 1
        return self._training.timed(n)

    @abstractmethod
    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`."""

    @abstractmethod
    def rotation(self, network: nn.Module, batch: Batch) -> Tensor:
        """Rotations (B, 3, 3) estimated by ``network``."""

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Median, mean and 95th percentile (degrees), and share over 15°, of the rotation errors on the validation batches."""
        return in_degrees(torch.cat([geodesic_distance(self.rotation(network, b), b.rotation) for b in self._validation]))

    def state(self) -> dict[str, Any]:
        """See :class:`~posepipe.training.engine.Task`."""
        return {**self._training.state(), "step": self._step}

    def restore(self, state: dict[str, Any]) -> None:
        """See :class:`~posepipe.training.engine.Task`."""
        self._training.restore(state)
        self._step = state["step"]

    def _autocast(self, x: Tensor) -> torch.autocast:
        return autocast(x.device, wanted=self._bf16)


class ForegroundOffsetTask(SynthesisTask):
    """Training of one of the paper's networks. The network input is :func:`~posepipe.models.inputs.with_foreground_offset` of the batch's
    ``input``, with ``foreground_offset`` in standard deviations."""

    def __init__(
        self,
        network: nn.Module,
        training: Synthesis,
        validation: list[Batch],
        *,
        foreground_offset: float = FOREGROUND_OFFSET,
        **options: Any,
    ) -> None:
        super().__init__(network, training, validation, **options)
        self._foreground_offset = foreground_offset


def in_degrees(angle: Tensor) -> dict[str, float]:
    """Median, mean, 95th percentile (degrees) and share over 15° of errors ``angle`` (N,), radians.

    >>> in_degrees(torch.deg2rad(torch.tensor([1.0, 2.0, 3.0, 4.0, 90.0])))["over15"]
    0.20...
    """
    degrees = torch.rad2deg(angle.detach())
    return {
        "median": float(degrees.median()),
        "mean": float(degrees.mean()),
        "p95": float(degrees.quantile(0.95)),
        "over15": float((degrees > 15).float().mean()),
    }
