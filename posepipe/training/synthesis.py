"""Training images made on the fly: real anatomy, random contrast, pose, deformation and corruption, in one resampling step.

Everything is batched in torch. The frame of a batch is the input cube of the networks: ``HALF_SIDE`` brain radii either way of the
(corrupted) mask's supposed centre. The map from canonical points x to cube points is ``u = s R x + t``.
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
    """How images are made. Lengths are in brain radii.

    ``max_angle`` (degrees): 180 draws rotations uniformly from SO(3) (Arvo); less draws the axis uniformly and the angle up to it.
    ``shift`` is the spread of the centre's error, ``log_scale`` that of the size, ``stretch`` that of scaling an axis, ``deform`` that
    of a smooth displacement. ``labels`` is the share of images made from label maps; ``corruption`` how the mask and image are spoilt.
    With a ``contrast`` images are of that one alone, as bright as they are up to gamma; None: of any, and turned to others at random.

    As in the paper (Salehi et al. 2018, §2.4 and 2.5) where they are above 0: ``xyz``, rotations about x, y and z in turn, each by a
    uniform angle of up to so many degrees either way; ``shift_mm``, uniform shifts of up to so many mm along each axis. With ``sizes``
    "age" the cube is that of the age's atlas (their GA scale parameter), so that a brain shows how large it is for its age; with "mask"
    that of the brain's own mask.
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
        """The same poses and sizes without corruption: what validation also looks at."""
        return replace(self, corruption=self.corruption.none(), deform=0.0, stretch=0.0)


@dataclass(frozen=True, eq=False)
class Batch:
    """``input`` (B, 2, S, S, S): standardised intensities inside the mask (0 outside), and the mask.

    Truth: ``rotation`` (B, 3, 3), ``translation`` (B, 3) and ``scale`` (B,) of ``u = s R x + t``; ``brain`` (B, 1, S, S, S): where there
    is brain to see; ``rows`` (B,) of the pictures used.
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
    """An endless, seeded supply of batches from ``sources`` by ``recipe``.

    Small cubes are made from every second voxel of the pictures (a random one of each pair): at 32 voxels a side that is as sharp, and
    several times faster.
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
        self._radius_mm = np.array([p.radius_mm for p in sources.pictures])
        self._cube_mm = sources.atlas_radii(leave_out) if recipe.sizes == "age" else self._radius_mm
        self._voxels = torch.as_tensor(sources.voxels).to(self._device)
        self._masks = torch.as_tensor(sources.masks).to(self._device)

    def batch(self, n: int) -> Batch:
        """``n`` new images."""
        rows = self._draw_rows(n)
        rotation, translation, scale = self._poses(rows)
        points = self._source_points(rotation, translation, scale)
        pictures, between, _ = self._pictures(rows)
        image, mask = read_pictures(pictures, points.sub_(between))
        seen, observed, brain = corrupt(image, mask, self.recipe.corruption, self._generator)
        return Batch(standardised(seen, observed), rotation, translation, scale, brain, rows)

    def timed(self, n: int) -> tuple[Batch, float]:
        """``n`` new images, and the seconds it took to make them (of the device too, where work is queued there)."""
        start = self._now()
        batch = self.batch(n)
        return batch, self._now() - start

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def upright(self, rows: Array) -> Tensor:
        """The pictures ``rows`` with their own contrast, upright in the canonical frame (B, 2, S, S, S): references to compare with."""
        side = self.recipe.size
        points = (cube_points(side, device=self._device) / HALF_SIDE).flip(-1).reshape(1, side, side, side, 3)
        of = self._sources.pictures
        pictures = torch.stack(
            [torch.stack([self._voxels[row].float() / 255, self._masks[of[row].mask].float() / 255]) for row in rows]
        )
        # coarser than the pictures: the mean of neighbours, so that nothing is skipped
        image, mask = read_pictures(F.avg_pool3d(pictures, self.step), points.expand(len(rows), -1, -1, -1, -1))
        return standardised(image, mask)

    def state(self) -> dict[str, Any]:
        """State of the random generators, to go on from."""
        return {"numpy": self._rng.bit_generator.state, "torch": self._generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Back to a state of :meth:`state`."""
        self._rng.bit_generator.state = state["numpy"]
        self._generator.set_state(state["torch"])

    def _draw_rows(self, n: int) -> Array:
        """Rows of ``n`` pictures, label maps and images as the recipe says."""
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
        """Where in the pictures each voxel of the cube lies (B, S, S, S, 3), as ``grid_sample`` wants it: z, y, x in halves of the side."""
        n, side = len(rotation), self.recipe.size
        u = cube_points(side, device=self._device)
        turn = self._turn(rotation, scale, self._stretch(n))
        return self._placed(u, turn, translation).reshape(n, side, side, side, 3)

    def _stretch(self, n: int) -> Tensor:
        """Factors (n, 1, 3) on canonical coordinates that lead to those of the picture: stretching and mirroring."""
        each = np.exp(self._rng.normal(0, self.recipe.stretch, (n, 1, 3)))
        return self._tensor(each * self._rng.choice([-1.0, 1.0], (n, 1, 1)) ** [1, 0, 0])

    def _turn(self, rotation: Tensor, scale: Tensor, stretch: Tensor) -> Tensor:
        """The matrices (B, 3, 3) that rows u − t are multiplied by: Rᵀ / s, stretched and mirrored, in halves of the pictures' side."""
        return rotation / scale[:, None, None] * stretch / HALF_SIDE

    def _placed(self, u: Tensor, turn: Tensor, translation: Tensor, *, axes: int = 3) -> Tensor:
        """Where in the pictures points ``u`` (N, 3) of a grid of ``axes`` axes lie, deformed: (B, N, 3), z, y, x in halves of the side."""
        r, n = self.recipe, len(turn)
        start = -translation[:, None] @ turn
        x = torch.baddbmm(start.flip(-1), u.expand(n, -1, -1), turn.flip(-1))
        if r.deform > 0:
            bend = uniform(n, 0, r.deform / HALF_SIDE, self._generator, axes=axes)
            bend = bend * smooth_field(n, 3, r.size, 5, self._generator, axes=axes)
            x += bend.flip(1).flatten(2).mT
        return x

    def _pictures(self, rows: Array) -> tuple[Tensor, Tensor, Tensor]:
        """Random contrast (B, 2, D, D, D): intensities, 0 outside, and mask; how far the voxels lie beside where ``grid_sample`` takes
        every second voxel to be (B, 1, 1, 1, 3); and the contrasts (B, 256)."""
        side = SIDE // self.step
        out = torch.empty(len(rows), 2, side, side, side, device=self._device)
        first, tables = np.zeros((len(rows), 1, 1, 1, 3)), torch.empty(len(rows), 256, device=self._device)
        for i, row in enumerate(rows):
            picture = self._sources.pictures[row]
            first[i] = self._rng.integers(0, self.step, 3)
            sub = tuple(slice(int(f), None, self.step) for f in first[i].flat)
            tables[i] = self._tensor(random_contrast(picture.kind, self._rng, own=self.recipe.contrast is not None))
            out[i, 0] = tables[i][self._voxels[row][sub].int()]
            out[i, 1] = self._masks[picture.mask][sub]
        out[:, 1] /= 255
        return out, self._tensor((first[..., ::-1] - (self.step - 1) / 2) * 2 / SIDE), tables

    def _tensor(self, array: Array) -> Tensor:
        return torch.as_tensor(np.asarray(array, dtype=np.float32), device=self._device)


def _rows(sources: Sources, part: str, leave_out: tuple[str, ...], recipe: Recipe) -> tuple[Array, Array]:
    """Rows of label maps and of images; a kind of which none is wanted may be missing, and the other then stands in its place."""
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


def read_pictures(pictures: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Intensities and mask (B, 1, S, S, S) of ``pictures`` (B, 2, D, D, D) at ``points`` (B, S, S, S, 3), where 0 lies outside."""
    return unmixed(F.grid_sample(pictures, points, mode="bilinear", padding_mode="zeros", align_corners=False))


def unmixed(both: Tensor) -> tuple[Tensor, Tensor]:
    """Intensities and mask (B, 1, ...) of their means over some neighbourhood (B, 2, ...), outside of the mask 0 in both."""
    mask = both[:, 1:].clamp(0, 1)
    # both were averaged with the empty outside alike: the quotient keeps its brightness up to the rim
    return both[:, :1] / mask.clamp_min(0.5), mask
