"""Synthesis of training images on the fly: source volumes with random contrast, pose, deformation and corruption, resampled once.

Everything is batched in torch. The frame of a batch is the input cube of the networks, which reaches ``HALF_SIDE`` brain radii to either
side of its centre. Canonical points x map to cube points ``u = s R x + t``; t is the error of the estimated brain centre.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation as ScipyRotation
from torch import Tensor

from ..errors import UsageError
from ..geometry import random_rotations, so3
from ..geometry.so3 import Array
from ..models.coordinates import HALF_SIDE, cube_points
from ..models.inputs import standardised
from .contrast import random_contrast
from .corruption import Corruption, corrupt
from .fields import smooth_field, uniform
from .sources import SIDE, Sources

MAX_SHIFT = 0.35
LABELS, IMAGES = ("labels",), ("T2w", "T1w")


@dataclass(frozen=True)
class Recipe:
    """Distributions that training images are sampled from. Lengths are in brain radii.

    - ``size``: side of the cube in voxels.
    - ``max_angle``: in degrees. 180: rotations uniform on SO(3) (Arvo); less: axis uniform, angle uniform up to it.
    - Standard deviations: ``shift`` of the centre's error along each axis, ``log_scale`` of the logarithm of the size, ``stretch`` of the
      logarithm of the scale of each axis. ``deform``: largest standard deviation of a smooth displacement.
    - ``labels``: share of images synthesised from label maps. ``corruption``: of image and mask.
    - ``contrast``: use images of this contrast alone, changed by a gamma only. None: all contrasts, changed at random.

    Alternatives as in the paper (Salehi et al. 2018, §2.4 and 2.5): ``xyz`` above 0: rotations about x, y and z, each uniform within
    ± ``xyz`` degrees; ``shift_mm`` above 0: shifts uniform within ± ``shift_mm`` along each axis. ``sizes`` "mask": the cube's side
    follows the radius of the brain's own mask; "age": the radius of the atlas templates at its age (the paper's GA scale parameter).
    """

    size: int = 32
    max_angle: float = 180.0
    shift: float = 0.08
    log_scale: float = 0.08
    stretch: float = 0.05
    deform: float = 0.05
    labels: float = 0.5
    corruption: Corruption = field(default_factory=Corruption)
    contrast: str | None = None
    sizes: str = "mask"
    xyz: float = 0.0
    shift_mm: float = 0.0

    def clean(self) -> Recipe:
        """The same poses and sizes without corruption and deformation, for validation."""
        return replace(self, corruption=self.corruption.none(), deform=0.0, stretch=0.0)


@dataclass(frozen=True, eq=False)
class Batch:
    """``input`` (B, 2, S, S, S): standardised intensities inside the mask (0 outside), and the mask.

    Truth: ``rotation`` (B, 3, 3), ``translation`` (B, 3) and ``scale`` (B,) of ``u = s R x + t``; ``brain`` (B, 1, S, S, S): true brain
    inside the observed mask; ``rows`` (B,): indices of the source volumes.
    """

    input: Tensor
    rotation: Tensor
    translation: Tensor
    scale: Tensor
    brain: Tensor
    rows: Array

    def position(self, side: int) -> Tensor:
        """Canonical coordinates (B, 3, side, side, side) of the cube's points."""
        return self._position(cube_points(side, device=self.input.device)).reshape(-1, 3, side, side, side)

    def _position(self, u: Tensor) -> Tensor:
        """Canonical coordinates (B, 3, N) of points ``u`` (N, 3)."""
        x = ((u[None] - self.translation[:, None]) / self.scale[:, None, None]) @ self.rotation
        return x.mT


class Synthesis:
    """Endless, seeded supply of batches of training images from ``sources`` by ``recipe``.

    Cubes of 40 voxels a side or fewer are sampled from every second voxel of the volumes along each axis, with a random phase: at 32
    voxels a side that is as sharp, and several times faster.
    """

    def __init__(
        self,
        sources: Sources,
        recipe: Recipe,
        *,
        part: str = "train",
        leave_out: tuple[str, ...] = (),
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.recipe, self._sources, self._device = recipe, sources, torch.device(device)
        self.step = 2 if recipe.size <= 40 else 1
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator(self._device).manual_seed(seed)
        self._labels, self._images = _rows(sources, part, leave_out, recipe)
        self._radius_mm = np.array([p.radius_mm for p in sources.volumes])
        self._cube_mm = sources.atlas_radii(leave_out) if recipe.sizes == "age" else self._radius_mm
        self._voxels = torch.as_tensor(sources.voxels).to(self._device)
        self._masks = torch.as_tensor(sources.masks).to(self._device)

    def batch(self, n: int) -> Batch:
        """``n`` new images."""
        rows = self._sample_rows(n)
        rotation, translation, scale = self._poses(rows)
        points = self._source_points(rotation, translation, scale)
        volumes, between, _ = self._with_random_contrast(rows)
        image, mask = sample_volumes(volumes, points.sub_(between))
        image, observed, brain = corrupt(image, mask, self.recipe.corruption, self._generator)
        return Batch(standardised(image, observed), rotation, translation, scale, brain, rows)

    def timed(self, n: int) -> tuple[Batch, float]:
        """``n`` new images, and the seconds spent on them (after a synchronisation on CUDA)."""
        start = self._now()
        batch = self.batch(n)
        return batch, self._now() - start

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def upright(self, rows: Array) -> Tensor:
        """Network inputs (B, 2, S, S, S) of the volumes ``rows`` in the canonical frame, with their own contrast: reference images."""
        side = self.recipe.size
        points = (cube_points(side, device=self._device) / HALF_SIDE).flip(-1).reshape(1, side, side, side, 3)
        of = self._sources.volumes
        volumes = torch.stack(
            [torch.stack([self._voxels[row].float() / 255, self._masks[of[row].mask].float() / 255]) for row in rows]
        )
        # mean of neighbouring voxels, against aliasing
        image, mask = sample_volumes(F.avg_pool3d(volumes, self.step), points.expand(len(rows), -1, -1, -1, -1))
        return standardised(image, mask)

    def state(self) -> dict[str, Any]:
        """State of the random generators, to resume from."""
        return {"numpy": self._rng.bit_generator.state, "torch": self._generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a state of :meth:`state`."""
        self._rng.bit_generator.state = state["numpy"]
        self._generator.set_state(state["torch"])

    def _sample_rows(self, n: int) -> Array:
        """Indices (n,) of random volumes; the recipe's share of them are label maps."""
        labelled = self._rng.random(n) < self.recipe.labels
        return np.where(labelled, self._rng.choice(self._labels, n), self._rng.choice(self._images, n))

    def _poses(self, rows: Array) -> tuple[Tensor, Tensor, Tensor]:
        r, n = self.recipe, len(rows)
        if r.xyz > 0:
            each = np.radians(self._rng.uniform(-r.xyz, r.xyz, (n, 3)))
            rotation = ScipyRotation.from_euler("xyz", each).as_matrix()
        elif r.max_angle >= 180:
            rotation = random_rotations(n, self._rng)
        else:
            axis = self._rng.normal(size=(n, 3))
            angle = np.radians(self._rng.uniform(0, r.max_angle, (n, 1)))
            rotation = so3.exp(axis / np.linalg.norm(axis, axis=1, keepdims=True) * angle)
        if r.shift_mm > 0:
            shift = self._rng.uniform(-r.shift_mm, r.shift_mm, (n, 3)) / self._cube_mm[rows, None]
        else:
            shift = np.clip(self._rng.normal(0, r.shift, (n, 3)), -MAX_SHIFT, MAX_SHIFT)
        size = np.exp(np.clip(self._rng.normal(0, r.log_scale, n), -0.3, 0.3)) * (self._radius_mm / self._cube_mm)[rows]
        return self._tensor(rotation), self._tensor(shift), self._tensor(size)

    def _source_points(self, rotation: Tensor, translation: Tensor, scale: Tensor) -> Tensor:
        """Position in the source volume of each voxel of the cube (B, S, S, S, 3), for ``grid_sample``: z, y, x in units of half a side."""
        n, side = len(rotation), self.recipe.size
        u = cube_points(side, device=self._device)
        turn = self._turn(rotation, scale, self._stretch(n))
        return self._placed(u, turn, translation).reshape(n, side, side, side, 3)

    def _stretch(self, n: int) -> Tensor:
        """Random factors (n, 1, 3) from canonical coordinates to those of the source volume: scale of each axis and mirroring of x."""
        each = np.exp(self._rng.normal(0, self.recipe.stretch, (n, 1, 3)))
        return self._tensor(each * self._rng.choice([-1.0, 1.0], (n, 1, 1)) ** [1, 0, 0])

    def _turn(self, rotation: Tensor, scale: Tensor, stretch: Tensor) -> Tensor:
        """Matrices (B, 3, 3) that row vectors u − t are multiplied by: R / s (Rᵀ / s for columns), stretched and mirrored, in units of half
        a side of the volume."""
        return rotation / scale[:, None, None] * stretch / HALF_SIDE

    def _placed(self, u: Tensor, turn: Tensor, translation: Tensor, *, axes: int = 3) -> Tensor:
        """Positions in the source volume (B, N, 3) of points ``u`` (N, 3) of a grid of ``axes`` axes, with deformation: z, y, x in units of
        half a side."""
        r, n = self.recipe, len(turn)
        start = -translation[:, None] @ turn
        x = torch.baddbmm(start.flip(-1), u.expand(n, -1, -1), turn.flip(-1))
        if r.deform > 0:
            bend = uniform(n, 0, r.deform / HALF_SIDE, self._generator, axes=axes)
            bend = bend * smooth_field(n, 3, r.size, 5, self._generator, axes=axes)
            x += bend.flip(1).flatten(2).mT
        return x

    def _with_random_contrast(self, rows: Array) -> tuple[Tensor, Tensor, Tensor]:
        """The volumes ``rows`` with a random contrast.

        Returns intensities (0 outside) and mask (B, 2, D, D, D); the offset (B, 1, 1, 1, 3) of the subsampled voxels from the positions
        that ``grid_sample`` assumes, in units of half a side; and the tables byte → intensity (B, 256).
        """
        side = SIDE // self.step
        out = torch.empty(len(rows), 2, side, side, side, device=self._device)
        first, tables = np.zeros((len(rows), 1, 1, 1, 3)), torch.empty(len(rows), 256, device=self._device)
        for i, row in enumerate(rows):
            source = self._sources.volumes[row]
            first[i] = self._rng.integers(0, self.step, 3)
            sub = tuple(slice(int(f), None, self.step) for f in first[i].flat)
            tables[i] = self._tensor(random_contrast(source.kind, self._rng, own=self.recipe.contrast is not None))
            out[i, 0] = tables[i][self._voxels[row][sub].int()]
            out[i, 1] = self._masks[source.mask][sub]
        out[:, 1] /= 255
        return out, self._tensor((first[..., ::-1] - (self.step - 1) / 2) * 2 / SIDE), tables

    def _tensor(self, array: Array) -> Tensor:
        return torch.as_tensor(np.asarray(array, dtype=np.float32), device=self._device)


def _rows(sources: Sources, part: str, leave_out: tuple[str, ...], recipe: Recipe) -> tuple[Array, Array]:
    """Indices of the label maps and of the images of ``part``. A kind with a share of 0 in ``recipe`` may be missing; then the other kind
    is returned in its place.

    Raises :class:`~posepipe.errors.UsageError` for a missing kind with a share above 0.
    """
    found: dict[tuple[str, ...], Array] = {}
    images = (recipe.contrast,) if recipe.contrast else IMAGES
    for kinds, share in (images, 1 - recipe.labels), (LABELS, recipe.labels):
        try:
            found[kinds] = sources.pick(part=part, leave_out=leave_out, kinds=kinds)
        except UsageError:
            if share > 0:
                raise
    some = next(iter(found.values()))
    return found.get(LABELS, some), found.get(images, some)


def sample_volumes(volumes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Intensities and mask (B, 1, S, S, S) of ``volumes`` (B, 2, D, D, D) at ``points`` (B, S, S, S, 3); 0 beyond the volume."""
    return unmixed(F.grid_sample(volumes, points, mode="bilinear", padding_mode="zeros", align_corners=False))


def unmixed(both: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised interpolation: intensities and mask (B, 1, ...) from interpolated values (B, 2, ...) of both, which are 0 outside the
    mask.

    Intensities are divided by the mask, so that voxels at its edge keep their brightness.
    """
    mask = both[:, 1:].clamp(0, 1)
    return both[:, :1] / mask.clamp_min(0.5), mask
