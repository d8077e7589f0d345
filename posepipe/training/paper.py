"""Training of the paper's networks: Pose-Net estimates a rotation from one image, Correction-Net the residual pose between two.

Salehi et al. 2018, §2.3–2.5. The loss of the first stage is the mean squared error of rotation vectors, that of the second stage the
geodesic distance of rotations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..geometry import so3_torch
from ..geometry.so3 import Array
from ..models.coordinates import HALF_SIDE
from ..models.inputs import with_foreground_offset
from ..models.losses import pose_loss, rotation_loss
from .sources import Sources
from .synthesis import IMAGES, Batch, Recipe, Synthesis
from .task import ForegroundOffsetTask

POSENET = Recipe()
CORRECTION = Recipe(max_angle=40.0, shift=0.12, log_scale=0.06)
"""Angles up to 40°, the range of most of Pose-Net's errors; shifts with a standard deviation of 0.12 radii (about 4 mm) up to 10 mm."""
NEAR_WEEKS = 2.0
"""Largest difference in age, weeks, between an image and its reference; without such a reference the nearest in age is used."""
AS_PAPER: dict[str, float] = {"xyz": 25.0, "shift_mm": 10.0}
"""Ranges of the poses that Correction-Net learns with ``--offsets paper``: uniform within ± degrees about x, y and z and ± mm along them.
The available text does not give the paper's ranges. These correspond to :data:`CORRECTION`: 25° about each of three axes is 40° to
within 3°."""


class PoseTask(ForegroundOffsetTask):
    """Training of a :class:`~posepipe.models.posenet.PoseNet` on synthesised images; ``foreground_offset`` is the network's option."""

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`."""
        batch, seconds = self.next_batch(n)
        vector = self._forward(self.network, batch)
        loss = rotation_loss(vector, so3_torch.log(batch.rotation), stage)
        return loss, {**_errors(vector, batch), "largest": self._training.recipe.max_angle, "seconds": seconds}

    def rotation(self, network: nn.Module, batch: Batch) -> Tensor:
        """Rotations (B, 3, 3)."""
        return so3_torch.exp(self._forward(network, batch))

    def _forward(self, network: nn.Module, batch: Batch) -> Tensor:
        x = _channels_last(with_foreground_offset(batch.input, self._foreground_offset))
        with self._autocast(x):
            vector: Tensor = network(x)
        return vector.float()


class ReferenceImages:
    """Reference images for Correction-Net: upright source volumes of the training part, of another brain of a similar age (within
    :data:`NEAR_WEEKS`) where there is one, chosen at random.

    With ``atlas``: only templates, and always the nearest in age.
    """

    def __init__(
        self, sources: Sources, synthesis: Synthesis, *, leave_out: tuple[str, ...] = (), seed: int = 0, atlas: bool = False
    ) -> None:
        self._volumes, self._synthesis, self._weeks = sources.volumes, synthesis, 0.0 if atlas else NEAR_WEEKS
        contrast = synthesis.recipe.contrast
        rows = sources.pick(part="train", leave_out=leave_out, kinds=(contrast,) if contrast else IMAGES)
        self._rows = np.array([row for row in rows if self._volumes[row].template]) if atlas else rows
        if not len(self._rows):
            msg = "--offsets paper needs templates of an atlas as references, and the sources have none; gather sources with --atlases"
            raise UsageError(msg)
        self._ages = np.array([self._volumes[row].age for row in self._rows])
        self._names = np.array([self._volumes[row].name for row in self._rows])
        self._rng = np.random.default_rng(seed)
        self._made: dict[int, Tensor] = {}

    def of(self, rows: Array) -> Tensor:
        """Reference images (B, 2, S, S, S) for the volumes ``rows`` (B,)."""
        chosen = [self._one(int(row)) for row in rows]
        for row in set(chosen) - self._made.keys():  # deterministic, so resampled once and kept
            self._made[row] = self._synthesis.upright(np.array([row]))[0]
        return torch.stack([self._made[row] for row in chosen])

    def _one(self, row: int) -> int:
        source = self._volumes[row]
        apart = np.abs(self._ages - source.age) + 1e3 * (self._names == source.name)
        near = self._rows[apart <= max(self._weeks, apart.min())]
        return int(self._rng.choice(near))

    def state(self) -> dict[str, Any]:
        """State of the random generator."""
        return dict(self._rng.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a state of :meth:`state`."""
        self._rng.bit_generator.state = state


class CorrectionTask(ForegroundOffsetTask):
    """Training of a :class:`~posepipe.models.correction.CorrectionNet` on pairs: an upright reference image and a synthesised image in a
    nearby pose.

    The target is ``x_moving = exp([x]×) x_reference + t`` with ``t`` in units of half the cube's side; the scale of the image is not
    estimated. ``translation_weight`` is the λ of the paper's total loss, whose value its text does not give; ``foreground_offset`` is the
    network's option.
    """

    def __init__(
        self,
        network: nn.Module,
        training: Synthesis,
        validation: list[Batch],
        *,
        references: ReferenceImages,
        translation_weight: float = 20.0,
        **options: Any,
    ) -> None:
        super().__init__(network, training, validation, **options)
        self._references, self._weight = references, translation_weight
        # chosen once: the validation images are fixed too
        self._validation_references = {id(batch): references.of(batch.rows) for batch in validation}

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`."""
        batch, seconds = self.next_batch(n)
        vector, shift = self._forward(self.network, batch, self._references.of(batch.rows))
        target = batch.translation / HALF_SIDE
        loss = pose_loss(
            vector, so3_torch.log(batch.rotation), shift, target, stage=stage, translation_weight=self._weight
        )
        return loss, {**_errors(vector, batch), "shift": _radii(shift, batch), "seconds": seconds}

    def rotation(self, network: nn.Module, batch: Batch) -> Tensor:
        """Rotations (B, 3, 3) of a validation batch."""
        return so3_torch.exp(self._forward(network, batch, self._validation_references[id(batch)])[0])

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Rotation errors as of :class:`~posepipe.training.task.SynthesisTask`, and ``shift``: mean translation error in brain radii."""
        shifts = [_radii(self._forward(network, b, self._validation_references[id(b)])[1], b) for b in self._validation]
        return {**super().validate(network), "shift": float(np.mean(shifts))}

    def state(self) -> dict[str, Any]:
        """See :class:`~posepipe.training.engine.Task`."""
        return {**super().state(), "references": self._references.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """See :class:`~posepipe.training.engine.Task`."""
        super().restore(state)
        self._references.restore(state["references"])

    def _forward(self, network: nn.Module, batch: Batch, references: Tensor) -> tuple[Tensor, Tensor]:
        reference, moving = (_channels_last(with_foreground_offset(x, self._foreground_offset)) for x in (references, batch.input))
        with self._autocast(moving):
            vector, shift = network(reference, moving)
        return vector.float(), shift.float()


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _errors(vector: Tensor, batch: Batch) -> dict[str, float]:
    with torch.no_grad():
        degrees = torch.rad2deg(so3_torch.geodesic_distance(so3_torch.exp(vector.detach()), batch.rotation))
    return {"median": float(degrees.median()), "mean": float(degrees.mean())}


def _radii(shift: Tensor, batch: Batch) -> float:
    return float((shift.detach() * HALF_SIDE - batch.translation).norm(dim=1).mean())
