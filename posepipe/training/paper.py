"""Learning the paper's pair: Pose-Net finds a rotation from one image, Correction-Net the small pose left between two.

Salehi et al. 2018, §2.3–2.5. The first stage compares rotation vectors (mean squared error), the second rotations (geodesic distance).
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
"""Angles as far as Pose-Net errs; shifts of 0.12 radii, about 4 mm, standard deviation, up to 10 mm."""
NEAR_WEEKS = 2.0
"""A reference is at most this much older or younger, where there is one."""
AS_PAPER: dict[str, float] = {"xyz": 25.0, "shift_mm": 10.0}
"""How Correction-Net's offsets are drawn with ``--offsets paper``, ± degrees about x, y and z and ± mm along them. The text at hand has
lost the paper's ranges: as far as ours reach (25° about each of three axes is 40° to within 3°, :data:`CORRECTION`)."""


class PoseTask(ForegroundOffsetTask):
    """A :class:`~posepipe.models.posenet.PoseNet` on synthesised images; ``foreground_offset`` is the network's option."""

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`."""
        batch, seconds = self.draw(n)
        vector = self._forward(self.network, batch)
        loss = rotation_loss(vector, so3_torch.log(batch.rotation), stage)
        return loss, {**_errors(vector, batch), "largest": self._training.recipe.max_angle, "seconds": seconds}

    def rotation(self, network: nn.Module, batch: Batch) -> Tensor:
        """Rotations (B, 3, 3)."""
        return so3_torch.exp(self._forward(network, batch))

    def _forward(self, network: nn.Module, batch: Batch) -> Tensor:
        x = _laid_out(with_foreground_offset(batch.input, self._foreground_offset))
        with self._autocast(x):
            vector: Tensor = network(x)
        return vector.float()


class References:
    """Upright pictures of atlases and subjects to compare images with, near in age and of another brain where there are such.

    With ``atlas`` of the age's own template alone: the nearest in age, of another brain where there is one.
    """

    def __init__(
        self, sources: Sources, synthesis: Synthesis, *, leave_out: tuple[str, ...] = (), seed: int = 0, atlas: bool = False
    ) -> None:
        self._pictures, self._synthesis, self._weeks = sources.pictures, synthesis, 0.0 if atlas else NEAR_WEEKS
        contrast = synthesis.recipe.contrast
        rows = sources.pick(part="train", leave_out=leave_out, kinds=(contrast,) if contrast else IMAGES)
        self._rows = np.array([row for row in rows if self._pictures[row].template]) if atlas else rows
        if not len(self._rows):
            msg = "offsets as in the paper are from the age's own atlas, and the sources have none; gather sources with --atlases"
            raise UsageError(msg)
        self._ages = np.array([self._pictures[row].age for row in self._rows])
        self._names = np.array([self._pictures[row].name for row in self._rows])
        self._rng = np.random.default_rng(seed)
        self._made: dict[int, Tensor] = {}

    def of(self, rows: Array) -> Tensor:
        """A reference (B, 2, S, S, S) for each of the pictures ``rows``."""
        chosen = [self._one(int(row)) for row in rows]
        for row in set(chosen) - self._made.keys():  # always the same: made once
            self._made[row] = self._synthesis.upright(np.array([row]))[0]
        return torch.stack([self._made[row] for row in chosen])

    def _one(self, row: int) -> int:
        picture = self._pictures[row]
        apart = np.abs(self._ages - picture.age) + 1e3 * (self._names == picture.name)
        near = self._rows[apart <= max(self._weeks, apart.min())]
        return int(self._rng.choice(near))

    def state(self) -> dict[str, Any]:
        """State of the random generator."""
        return dict(self._rng.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Back to a state of :meth:`state`."""
        self._rng.bit_generator.state = state


class CorrectionTask(ForegroundOffsetTask):
    """A :class:`~posepipe.models.correction.CorrectionNet` on pairs: an upright reference and a synthesised image in a nearby pose.

    The target is ``x_moving = exp([x]×) x_reference + t`` with ``t`` in halves of the cube's side; the image's scale error is not
    asked for. ``translation_weight`` is the λ of the paper's total loss, whose value its text does not give; ``foreground_offset`` is the
    network's option.
    """

    def __init__(
        self,
        network: nn.Module,
        training: Synthesis,
        validation: list[Batch],
        *,
        references: References,
        translation_weight: float = 20.0,
        **options: Any,
    ) -> None:
        super().__init__(network, training, validation, **options)
        self._references, self._weight = references, translation_weight
        # drawn once, as the images of the validation are
        self._beside = {id(batch): references.of(batch.rows) for batch in validation}

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`."""
        batch, seconds = self.draw(n)
        vector, shift = self._forward(self.network, batch, self._references.of(batch.rows))
        target = batch.translation / HALF_SIDE
        loss = pose_loss(
            vector, so3_torch.log(batch.rotation), shift, target, stage=stage, translation_weight=self._weight
        )
        return loss, {**_errors(vector, batch), "shift": _radii(shift, batch), "seconds": seconds}

    def rotation(self, network: nn.Module, batch: Batch) -> Tensor:
        """Rotations (B, 3, 3) of a validation batch."""
        return so3_torch.exp(self._forward(network, batch, self._beside[id(batch)])[0])

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """As for every task, and ``shift``: the mean error of the translation in brain radii."""
        shifts = [_radii(self._forward(network, b, self._beside[id(b)])[1], b) for b in self._validation]
        return {**super().validate(network), "shift": float(np.mean(shifts))}

    def state(self) -> dict[str, Any]:
        """See :class:`~posepipe.training.engine.Task`."""
        return {**super().state(), "references": self._references.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """See :class:`~posepipe.training.engine.Task`."""
        super().restore(state)
        self._references.restore(state["references"])

    def _forward(self, network: nn.Module, batch: Batch, references: Tensor) -> tuple[Tensor, Tensor]:
        reference, moving = (_laid_out(with_foreground_offset(x, self._foreground_offset)) for x in (references, batch.input))
        with self._autocast(moving):
            vector, shift = network(reference, moving)
        return vector.float(), shift.float()


def _laid_out(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _errors(vector: Tensor, batch: Batch) -> dict[str, float]:
    with torch.no_grad():
        degrees = torch.rad2deg(so3_torch.geodesic_distance(so3_torch.exp(vector.detach()), batch.rotation))
    return {"median": float(degrees.median()), "mean": float(degrees.mean())}


def _radii(shift: Tensor, batch: Batch) -> float:
    return float((shift.detach() * HALF_SIDE - batch.translation).norm(dim=1).mean())
