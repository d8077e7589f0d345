"""Moving stacks made from a still volume, with the true pose of each slice: the protocol of METHODS §4, after SVoRT's generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..geometry import Rigid, random_rotations, so3
from ..geometry.so3 import Array
from ..imaging.moments import moments
from ..imaging.volume import Volume
from .acquisition import Acquisition, in_order, interleaved
from .frames import Slice, SliceGrid
from .fuse import mean_pose
from .scanner import SliceScanner

LEVELS = {"small": 2.0, "middle": 8.0, "large": 20.0}
"""Root mean square rotation of the head about its mean pose, degrees; in mm half of that (METHODS §4)."""
LEAST_AREA = 0.1
"""Slices at either end of a stack with less than this share of its largest brain section are dropped."""


@dataclass(frozen=True)
class StackProtocol:
    """What is acquired: ``pixel``, ``thickness`` and ``gap`` mm, ``seconds`` a slice, ``interleaves``; ``noise`` as a share of the
    brain's 99th percentile, ``voids`` as a share of the slices, ``bias`` as the deviation of the gain's logarithm."""

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
        """At random within METHODS §4's ranges; ``brain_mm``, the brain's length along the stack, bounds the interleaves (2 to √n)."""
        thickness, gap = rng.uniform(2.5, 3.5), rng.uniform(0, 1)
        most = max(2, math.isqrt(int(brain_mm / (thickness + gap))))
        return cls(
            rng.uniform(1.0, 1.2), thickness, gap, rng.uniform(1, 2), int(rng.integers(2, most + 1)),
            rng.uniform(0.01, 0.05), rng.uniform(0.03, 0.05), rng.uniform(0.05, 0.2),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class MovingStack:
    """A stack of ``image`` and ``mask`` (slices along the last axis) and the truth: ``motions`` of the head while each slice was
    acquired (world of the still volume → world of the stack, RAS mm), the stack's ``mean`` of them, and the numbers of slices with
    ``voids``.

    Against an atlas a slice's true pose is its motion after the still volume's own pose (:meth:`poses`).
    """

    image: Volume
    mask: Volume
    slices: tuple[Slice, ...]
    motions: tuple[Rigid, ...]
    mean: Rigid
    acquisition: Acquisition
    voids: tuple[int, ...]

    def poses(self, own: Rigid) -> list[Rigid]:
        """True pose of each slice (atlas → image), the still volume's being ``own``."""
        return [m @ own for m in self.motions]


def random_motion(times: npt.ArrayLike, degrees: float, center: Array, rng: np.random.Generator) -> list[Rigid]:
    """Motion of a head about ``center`` (3,) RAS mm at ``times`` (n,) s: ``degrees`` RMS rotation and half as many mm RMS translation.

    Three slow waves (a period of at least half the time in all) and on average two sudden jumps, a part of the sum; without net motion.
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
    """``vectors`` (n, 3) without their mean, of root mean square length ``rms``; 0 where they do not vary."""
    centred = vectors - vectors.mean(0)
    size = float(np.sqrt((centred**2).sum(1).mean()))
    return centred * (rms / size) if size > 1e-9 else centred


def simulate_stack(
    volume: Volume, mask: Volume, rng: np.random.Generator, *, degrees: float, protocol: StackProtocol | None = None,
    orientation: Array | None = None,
) -> MovingStack:  # fmt: skip
    """A stack of the head in ``volume`` (brain ``mask`` on its grid) that moves by ``degrees`` RMS (:data:`LEVELS`).

    ``orientation`` (3, 3): columns are the stack's pixel axes and its slice axis in the still head's world, det ±1; by default uniform.
    The stack's world is that of the still volume.
    """
    m = moments(mask.with_data(np.asarray(mask.data) > 0))
    axes = random_rotations(1, rng)[0] if orientation is None else np.asarray(orientation, dtype=float)
    inside = np.argwhere(mask.data > 0)[::11] @ mask.affine[:3, :3].T + mask.affine[:3, 3] - m.center
    along = inside @ axes
    protocol = protocol or StackProtocol.draw(rng, float(np.ptp(along[:, 2])))
    step = protocol.thickness + protocol.gap
    # room for the head to move in: twice its RMS motion, in mm, at the brain's rim
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
    first, last = _held(np.array([s.area for s in slices]))
    return _spoilt(slices[first:last], motions[first:last], times[first:last], m.center, protocol, rng)


def _held(areas: Array) -> tuple[int, int]:
    """First slice and one past the last that hold :data:`LEAST_AREA` of the largest section."""
    hit = np.flatnonzero(areas >= LEAST_AREA * areas.max())
    return int(hit[0]), int(hit[-1]) + 1


def _spoilt(
    slices: list[Slice], motions: list[Rigid], times: Array, center: Array, protocol: StackProtocol, rng: np.random.Generator
) -> MovingStack:
    """Bias, voids and noise put onto ``slices``, and all of them together as a stack."""
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
    """A quadratic field over a stack of ``shape``, of deviation 1 and mean 0."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij", sparse=True)
    c = rng.normal(size=9)
    field: Array = c[0] * x + c[1] * y + c[2] * z + c[3] * x * y + c[4] * y * z + c[5] * x * z + c[6] * x * x + c[7] * y * y + c[8] * z * z
    return (field - field.mean()) / field.std()


def _void(mask: npt.NDArray[np.bool_], pixel: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Signal that is left (n_u, n_v) of a slice: all but a tenth to a half lost, everywhere or in a spot 10–30 mm wide."""
    kept = rng.uniform(0.1, 0.5)
    if rng.random() < 0.3 or not mask.any():
        return np.full(mask.shape, kept, dtype=np.float32)
    places = np.argwhere(mask)
    at = places[rng.integers(len(places))]
    u, v = np.meshgrid(*[np.arange(n) for n in mask.shape], indexing="ij", sparse=True)
    near = np.exp(-0.5 * (((u - at[0]) ** 2 + (v - at[1]) ** 2) * pixel**2) / rng.uniform(5, 15) ** 2)
    return (1 - (1 - kept) * near).astype(np.float32)
