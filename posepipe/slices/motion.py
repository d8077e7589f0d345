"""Simulation of moving stacks from a still volume, with the true pose of each slice: after SVoRT's
generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..geometry import Rigid, mean_pose, random_rotations, so3
from ..geometry.so3 import Array
from ..imaging.moments import moments
from ..imaging.volume import Volume
from .acquisition import Acquisition, in_order, interleaved
from .frames import Slice, SliceGrid
from .scanner import SliceScanner

LEVELS = {"small": 2.0, "middle": 8.0, "large": 20.0}
"""Root mean square rotation of the head about its mean pose, degrees; the translation in mm is half the number."""
LEAST_AREA = 0.1
"""Slices at either end of a stack with less than this fraction of the largest brain area are dropped."""


@dataclass(frozen=True)
class StackProtocol:
    """Acquisition parameters: ``pixel``, ``thickness`` and ``gap`` in mm, ``seconds`` per slice, ``interleaves``; ``noise`` as a fraction
    of the brain's 99th percentile, ``voids`` as the fraction of slices with signal voids, ``bias``: standard deviation of the log gain."""

    pixel: float = 1.1
    thickness: float = 3.0
    gap: float = 0.3
    seconds: float = 1.5
    interleaves: int = 2
    noise: float = 0.03
    voids: float = 0.04
    bias: float = 0.15

    @classmethod
    def draw(cls, rng: np.random.Generator, brain_mm: float) -> StackProtocol:
        """Random parameters within the ranges of the protocol; ``brain_mm``, the brain's length along the stack, limits the interleaves (2
        to √n)."""
        thickness, gap = rng.uniform(2.5, 3.5), rng.uniform(0, 1)
        most = max(2, math.isqrt(int(brain_mm / (thickness + gap))))
        return cls(
            rng.uniform(1.0, 1.2), thickness, gap, rng.uniform(1, 2), int(rng.integers(2, most + 1)),
            rng.uniform(0.01, 0.05), rng.uniform(0.03, 0.05), rng.uniform(0.05, 0.2),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class MovingStack:
    """A stack of ``image`` and ``mask`` (slices along the last axis) and the ground truth: the ``motions`` of the head during each slice
    (world of the still volume → world of the stack, RAS mm), their ``mean``, and the numbers of slices with ``voids``.

    The true pose of a slice against an atlas is its motion composed with the still volume's pose (:meth:`poses`).
    """

    image: Volume
    mask: Volume
    slices: tuple[Slice, ...]
    motions: tuple[Rigid, ...]
    mean: Rigid
    acquisition: Acquisition
    voids: tuple[int, ...]

    def poses(self, own: Rigid) -> list[Rigid]:
        """True pose of each slice (atlas → image); ``own`` is the still volume's pose."""
        return [m @ own for m in self.motions]


def random_motion(times: npt.ArrayLike, degrees: float, center: Array, rng: np.random.Generator) -> list[Rigid]:
    """Motion of a head about ``center`` (3,) RAS mm at ``times`` (n,) s: ``degrees`` RMS rotation and half as many mm RMS translation.

    The sum of three slow waves (period at least half the duration) and on average two sudden jumps, with random weights and zero mean.
    """
    times = np.asarray(times, dtype=float)
    span = max(float(np.ptp(times)), 1e-6)
    phase = (times - times.min()) / span
    smooth = np.zeros((len(times), 6))
    for cycles in (0.5, 1.0, 2.0):
        waves = np.cos(2 * np.pi * (cycles * phase[:, None] + rng.uniform(0, 1, 6)))
        smooth += rng.normal(size=6) / cycles * waves
    jumps = np.zeros_like(smooth)
    for at in rng.uniform(0, 1, rng.poisson(2)):
        jumps[phase > at] += rng.normal(size=6)
    both = [_scaled(part[:, :3], degrees) @ np.eye(3, 6) + _scaled(part[:, 3:], degrees / 2) @ np.eye(3, 6, 3) for part in (smooth, jumps)]
    vector = rng.uniform(0.5, 1) * both[0] + rng.uniform(0, 1) * both[1]
    turns, moves = _scaled(vector[:, :3], degrees), _scaled(vector[:, 3:], degrees / 2)
    return [Rigid.about(so3.exp(np.radians(r)), center, center + t) for r, t in zip(turns, moves, strict=True)]


def _scaled(vectors: Array, rms: float) -> Array:
    """``vectors`` (n, 3) minus their mean, scaled to the root mean square length ``rms``; 0 if they are constant."""
    centred = vectors - vectors.mean(0)
    size = float(np.sqrt((centred**2).sum(1).mean()))
    return centred * (rms / size) if size > 1e-9 else centred


def simulate_stack(
    volume: Volume, mask: Volume, rng: np.random.Generator, *, degrees: float, protocol: StackProtocol | None = None,
    orientation: Array | None = None,
) -> MovingStack:  # fmt: skip
    """Simulate a stack of the head in ``volume`` (brain ``mask`` on its grid) with motion of ``degrees`` RMS (:data:`LEVELS`).

    ``orientation`` (3, 3): columns are the stack's pixel axes and slice axis in the world of ``volume``, det ±1; by default uniformly
    random. The stack's world is that of ``volume``.
    """
    m = moments(mask.with_data(np.asarray(mask.data) > 0))
    axes = random_rotations(1, rng)[0] if orientation is None else np.asarray(orientation, dtype=float)
    inside = np.argwhere(mask.data > 0)[::11] @ mask.affine[:3, :3].T + mask.affine[:3, 3] - m.center
    along = inside @ axes
    protocol = protocol or StackProtocol.draw(rng, float(np.ptp(along[:, 2])))
    step = protocol.thickness + protocol.gap
    # margin for motion: twice its RMS displacement, mm, at the brain's surface
    room = 6 + 2 * degrees * (0.5 + np.radians(1) * m.radius)
    low, high = along.min(0) - room, along.max(0) + room
    pixels = [int((h - lo) / protocol.pixel) + 1 for lo, h in zip(low[:2], high[:2], strict=True)]
    low[2] = along[:, 2].min() + step * rng.uniform(-0.5, 0.5)
    n = int((along[:, 2].max() - low[2]) / step) + 1
    affine = np.eye(4)
    affine[:3, :3] = axes * [protocol.pixel, protocol.pixel, step]
    affine[:3, 3] = m.center + axes @ low
    times = in_order(interleaved(n, protocol.interleaves), protocol.seconds)
    motions = random_motion(times, degrees, m.center, rng)
    scanner = SliceScanner(volume, mask, protocol.pixel)
    slices = []
    for k in range(n):
        own = affine.copy()
        own[:, 3] += k * affine[:, 2]
        slices.append(scanner.acquire(SliceGrid((pixels[0], pixels[1]), own, protocol.thickness), motions[k], k))
    first, last = _range_with_brain(np.array([s.area for s in slices]))
    return _with_artefacts(slices[first:last], motions[first:last], times[first:last], m.center, protocol, rng)


def _range_with_brain(areas: Array) -> tuple[int, int]:
    """Index of the first slice, and one past the last, with at least :data:`LEAST_AREA` of the largest area."""
    hit = np.flatnonzero(areas >= LEAST_AREA * areas.max())
    return int(hit[0]), int(hit[-1]) + 1


def _with_artefacts(
    slices: list[Slice], motions: list[Rigid], times: Array, center: Array, protocol: StackProtocol, rng: np.random.Generator
) -> MovingStack:
    """Add bias field, signal voids and noise to ``slices`` and assemble the stack."""
    data = np.stack([s.image for s in slices], -1).astype(np.float32)
    mask = np.stack([s.mask for s in slices], -1)
    top = float(np.quantile(data[mask], 0.99))
    data = data * np.exp(protocol.bias * _gain(data.shape, rng)).astype(np.float32)
    voids = np.flatnonzero(rng.random(len(slices)) < protocol.voids)
    for k in voids:
        data[:, :, k] *= _void(mask[:, :, k], protocol.pixel, rng)
    noise = protocol.noise * top
    real = data + noise * rng.standard_normal(data.shape, dtype=np.float32)
    noisy = np.hypot(real, noise * rng.standard_normal(data.shape, dtype=np.float32)).astype(np.float32) if noise else data
    affine = slices[0].grid.affine
    image = Volume(noisy, affine, "simulated stack")
    done = [Slice(s.grid, noisy[:, :, i], s.mask, i) for i, s in enumerate(slices)]
    return MovingStack(
        image, image.with_data(mask), tuple(done), tuple(motions), mean_pose(motions, center),
        Acquisition(times - times.min(), "given"), tuple(int(k) for k in voids),
    )  # fmt: skip


def _gain(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """A random quadratic field of ``shape`` with mean 0 and standard deviation 1."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij", sparse=True)
    c = rng.normal(size=9)
    field: Array = c[0] * x + c[1] * y + c[2] * z + c[3] * x * y + c[4] * y * z + c[5] * x * z + c[6] * x * x + c[7] * y * y + c[8] * z * z
    return (field - field.mean()) / field.std()


def _void(mask: npt.NDArray[np.bool_], pixel: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Signal factor (n_u, n_v) of a slice with a void: 0.1 to 0.5, everywhere or in a Gaussian spot 10–30 mm wide."""
    kept = rng.uniform(0.1, 0.5)
    if rng.random() < 0.3 or not mask.any():
        return np.full(mask.shape, kept, dtype=np.float32)
    places = np.argwhere(mask)
    at = places[rng.integers(len(places))]
    u, v = np.meshgrid(*[np.arange(n) for n in mask.shape], indexing="ij", sparse=True)
    near = np.exp(-0.5 * (((u - at[0]) ** 2 + (v - at[1]) ** 2) * pixel**2) / rng.uniform(5, 15) ** 2)
    return (1 - (1 - kept) * near).astype(np.float32)
