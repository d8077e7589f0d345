"""Training of the networks for single slices: synthesised slices, the default network and the paper's.

From one slice a pose cannot be distinguished from its twin (:mod:`posepipe.models.twin`). So the loss of the default network accepts
either, over all orientations; the paper's network is trained on half of all orientations.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry import so3_torch
from ..geometry.so3 import Array
from ..models.coordinates import grid_points
from ..models.inputs import standardised, with_foreground_offset
from ..models.losses import rotation_loss
from ..models.slices import EXTENT_CELLS, MIDDLE, SliceField, slice_number, slice_points
from ..models.twin import twin, twin_distance
from .coordinates import laplace_nll
from .corruption import Corruption
from .slice_corruption import SliceCorruption, corrupt_slice
from .sources import SIDE, Sources
from .synthesis import Batch, Recipe, Synthesis, unmixed
from .task import ForegroundOffsetTask, SynthesisTask, in_degrees

SLICES_PER_VOLUME = 8
"""Slices that are sampled from one volume with one random contrast, each in a pose of its own. Preparing the volume takes longer than
sampling a slice."""
PLANES = 3
"""Number of planes that approximate the slice profile."""
NUMBER_WEIGHT = 0.01
"""Weight of the squared error of the slice number over the rotation loss: an error of ten slices counts as one of 1 rad. The paper's text
gives no value."""


@dataclass(frozen=True)
class SliceRecipe(Recipe):
    """Distributions that slices are sampled from. Lengths are in brain radii unless a unit is given.

    The plane is uniform in the ``middle`` share of the brain's extent along the plane's normal; ``shift`` is in the plane. ``thickness``:
    range in mm of the full width at half maximum of the Gaussian slice profile. With ``half``, orientations are uniform on the half of
    SO(3) in which the slice's normal points up in the brain (R₃₃ ≥ 0), which contains exactly one of each pose and its twin: a sampled
    pose of the other half is replaced by its twin.
    """

    size: int = 64
    shift: float = 0.15
    labels: float = 0.35
    corruption: Corruption = field(default_factory=SliceCorruption)
    thickness: tuple[float, float] = (2.0, 6.0)
    middle: float = MIDDLE
    half: bool = False


@dataclass(frozen=True, eq=False)
class SliceBatch(Batch):
    """``input`` (B, 2, S, S): standardised intensities inside the mask, and the mask, which is 1 everywhere if none is given.

    Truth: pose as for volumes, with the slice as the plane w = 0; ``brain`` (B, 1, S, S); ``number`` (B,):
    :func:`~posepipe.models.slices.slice_number`.
    """

    number: Tensor

    def position(self, side: int) -> Tensor:
        """Canonical coordinates (B, 3, side, side) of the slice's pixels."""
        return self._position(slice_points(side, device=self.input.device)).reshape(-1, 3, side, side)


class SliceSynthesis(Synthesis):
    """Endless, seeded supply of slices, each resampled once from a source volume with its slice profile."""

    def __init__(self, sources: Sources, recipe: SliceRecipe, **options: Any) -> None:
        super().__init__(sources, recipe, **options)
        inside = F.avg_pool3d(self._masks[:, None].float() / 255, SIDE // EXTENT_CELLS).flatten(1) > 0.5
        some = inside.any(0)
        self._points, self._inside = grid_points(EXTENT_CELLS, 3, device=self._device)[some], inside[:, some]

    def batch(self, n: int) -> SliceBatch:
        """``n`` new slices."""
        recipe = self.recipe
        assert isinstance(recipe, SliceRecipe)
        volume_rows = self._sample_rows(-(-n // SLICES_PER_VOLUME))
        rows = np.repeat(volume_rows, SLICES_PER_VOLUME)
        rotation, translation, scale = self._poses(rows)
        if recipe.half:
            rotation = torch.where(rotation[:, 2:, 2:] < 0, twin(rotation, translation)[0], rotation)
        stretch = self._stretch(len(rows))
        low, high = self._extent(rows, rotation[:, 2] / stretch[:, 0])
        share = self._tensor(0.5 + recipe.middle * (self._rng.random(len(rows)) - 0.5))
        offset = low + share * (high - low)
        translation[:, 2] = -scale * offset
        image, mask = self._slices(volume_rows, self._turn(rotation, scale, stretch), translation, self._profile(rows, recipe))
        how = recipe.corruption
        assert isinstance(how, SliceCorruption)
        image, observed, brain = corrupt_slice(image[:n], mask[:n], how, self._generator)
        number = slice_number(offset, low, high)
        return SliceBatch(standardised(image, observed), rotation[:n], translation[:n], scale[:n], brain, rows[:n], number[:n])

    def _extent(self, rows: Array, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest coordinate (B,) of the brain of each volume along ``normal`` (B, 3), brain radii."""
        inside = self._inside[[self._sources.volumes[row].mask for row in rows]]
        height = normal @ self._points.T
        return height.masked_fill(~inside, torch.inf).amin(1), height.masked_fill(~inside, -torch.inf).amax(1)

    def _profile(self, rows: Array, recipe: SliceRecipe) -> tuple[Tensor, Tensor]:
        """Slice profile: offsets (B, K) of its planes along the normal, brain radii, and their weights (K,)."""
        millimetres = self._rng.uniform(*recipe.thickness, len(rows))
        width = self._tensor(millimetres / [self._sources.volumes[row].radius_mm for row in rows])
        planes = torch.linspace(-0.5, 0.5, PLANES, device=self._device)
        weight = torch.exp(-4 * np.log(2) * planes**2)
        return width[:, None] * planes, weight / weight.sum()

    def _slices(self, volume_rows: Array, turn: Tensor, translation: Tensor, profile: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Intensities and mask (B, 1, S, S) of ``SLICES_PER_VOLUME`` slices of each of the volumes ``volume_rows``."""
        side, n = self.recipe.size, len(turn)
        planes, weight = profile
        volumes, between, _ = self._with_random_contrast(volume_rows)
        x = self._placed(slice_points(side, device=self._device), turn, translation, axes=2)
        points = x[:, None] + planes[:, :, None, None] * turn[:, 2].flip(-1)[:, None, None]
        points = points.reshape(len(volume_rows), SLICES_PER_VOLUME * PLANES, side, side, 3).sub_(between)
        both = F.grid_sample(volumes, points, mode="bilinear", padding_mode="zeros", align_corners=False)
        both = both.reshape(len(volume_rows), 2, SLICES_PER_VOLUME, PLANES, side, side).movedim(2, 1).reshape(n, 2, PLANES, side * side)
        return unmixed((weight @ both).reshape(n, 2, side, side))


class _SliceTask(SynthesisTask):
    """Base class of the tasks on slices: validation with errors to the nearer of the true pose and its twin, and to the true pose."""

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Rotation errors in degrees to the nearer of the true pose and its twin; ``outright``: median and share over 15° of the errors
        to the true pose."""
        pairs = [twin_distance(self.rotation(network, b), b.rotation) for b in self._validation]
        truth, other = (torch.cat(angles) for angles in zip(*pairs, strict=True))
        outright = in_degrees(truth)
        return {**in_degrees(torch.minimum(truth, other)), "outright": outright["median"], "outright_over15": outright["over15"]}


class SliceCoordinateTask(_SliceTask):
    """Training of a :class:`~posepipe.models.slices.SliceCoordinateNet` on synthesised slices.

    Loss of the first stage: :func:`slice_loss`. In the second stage the geodesic distance of the rotation by Procrustes to the nearer of
    the true pose and its twin is added.
    """

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`."""
        batch, seconds = self.next_batch(n)
        field = self._forward(self.network, batch)
        dense = slice_loss(field, batch)
        angle = torch.minimum(*twin_distance(field.solve().rotation, batch.rotation))
        total = dense + (angle.clamp_max(1.0).mean() + 0.2 * angle.mean() if stage == "geodesic" else 0.0)
        degrees = torch.rad2deg(angle.detach())
        return total, {"dense": float(dense.detach()), "median": float(degrees.median()), "mean": float(degrees.mean()), "seconds": seconds}

    def rotation(self, network: nn.Module, batch: Batch) -> Tensor:
        """Rotations (B, 3, 3) by Procrustes from the predicted coordinates."""
        return self._forward(network, batch).solve().rotation

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Rotation errors, and ``shift``: mean translation error to the nearer of the true pose and its twin, brain radii."""
        shifts = []
        for batch in self._validation:
            found = self._forward(network, batch).solve()
            truth, other = twin_distance(found.rotation, batch.rotation)
            nearer = torch.where((truth <= other)[:, None], batch.translation, twin(batch.rotation, batch.translation)[1])
            shifts.append(float((found.translation - nearer).norm(dim=1).mean()))
        return {**super().validate(network), "shift": float(np.mean(shifts))}

    def _forward(self, network: nn.Module, batch: Batch) -> SliceField:
        x = batch.input.contiguous(memory_format=torch.channels_last)
        with self._autocast(x):
            field: SliceField = network(x)
        return field


def slice_loss(field: SliceField, batch: Batch) -> Tensor:
    """:func:`~posepipe.training.coordinates.coordinate_loss` of slices, each relative to the pose or to its twin, whichever is nearer.

    The coordinates of the twin are the true ones mirrored at the midplane. The nearer of both is the one with the smaller loss over the
    whole slice, so that a slice cannot follow one in a part and the other elsewhere.
    """
    side = field.position.shape[-1]
    brain = F.avg_pool2d(batch.brain, batch.brain.shape[-1] // side)
    truth = batch.position(side)
    mirror = truth.new_tensor([-1.0, 1.0, 1.0])[:, None, None]
    each = torch.stack([(laplace_nll(field, p) * brain).sum((1, 2, 3)) for p in (truth, mirror * truth)])
    where = each.amin(0).sum() / brain.sum().clamp_min(1.0)
    return where / 3 + F.binary_cross_entropy_with_logits(field.foreground, brain)


class SlicePoseTask(_SliceTask, ForegroundOffsetTask):
    """Training of the paper's :class:`~posepipe.models.slices.SlicePoseNet` on synthesised slices.

    Loss of the rotation vector: mean squared error, then geodesic distance. Loss of the slice number: mean squared error in both stages,
    with weight :data:`NUMBER_WEIGHT`. ``foreground_offset``: the network's option.
    """

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`."""
        batch, seconds = self.next_batch(n)
        vector, number = self._forward(self.network, batch)
        turn = rotation_loss(vector, so3_torch.log(batch.rotation), stage)
        far = number - _numbers(batch)
        with torch.no_grad():
            degrees = torch.rad2deg(torch.minimum(*twin_distance(so3_torch.exp(vector.detach()), batch.rotation)))
        figures = {"median": float(degrees.median()), "mean": float(degrees.mean()), "slices": float(far.detach().abs().mean())}
        return turn + NUMBER_WEIGHT * far.square().mean(), {**figures, "largest": self._training.recipe.max_angle, "seconds": seconds}

    def rotation(self, network: nn.Module, batch: Batch) -> Tensor:
        """Rotations (B, 3, 3)."""
        return so3_torch.exp(self._forward(network, batch)[0])

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Rotation errors, and ``slices``: mean absolute error of the slice number."""
        far = [(self._forward(network, b)[1] - _numbers(b)).abs().mean() for b in self._validation]
        return {**super().validate(network), "slices": float(torch.stack(far).mean())}

    def _forward(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        x = with_foreground_offset(batch.input, self._foreground_offset).contiguous(memory_format=torch.channels_last)
        with self._autocast(x):
            vector, number = network(x)
        return vector.float(), number.float()


def _numbers(batch: Batch) -> Tensor:
    assert isinstance(batch, SliceBatch)
    return batch.number


SLICE_POSENET = replace(SliceRecipe(), half=True)
"""The paper's sampling: half of all orientations."""
