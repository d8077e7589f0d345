"""Individual subjects from the phantom: deformed, in a known pose, resampled to an arbitrary scanner grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..geometry import Rigid, so3
from ..geometry.so3 import Array
from ..imaging.volume import Volume
from .brain import brain_labels, brain_mask, render


@dataclass(frozen=True, eq=False)
class Deformation:
    """A smooth deformation of atlas space without net rigid motion: a few long waves, then the rigid map that removes theirs.

    ``waves`` (n, 3) rad/mm, ``phases`` (n,), ``amplitudes`` (n, 3) mm.
    """

    waves: Array
    phases: Array
    amplitudes: Array
    correction: Rigid

    def apply(self, points: npt.NDArray) -> npt.NDArray:
        """Images (n, 3) of ``points`` (n, 3), mm; as precise as the type of ``points``."""
        kind = points.dtype
        shift = np.sin(points @ self.waves.T.astype(kind) + self.phases.astype(kind)) @ self.amplitudes.astype(kind)
        return (points + shift) @ self.correction.rotation.T.astype(kind) + self.correction.translation.astype(kind)


def best_rigid(points: npt.NDArray, images: npt.NDArray) -> Rigid:
    """The rigid map that takes ``points`` (n, 3) nearest to ``images`` (n, 3) in least squares (Kabsch 1976)."""
    a, b = points.mean(axis=0), images.mean(axis=0)
    rotation = so3.project((images - b).T.astype(float) @ (points - a).astype(float))
    return Rigid.about(rotation, a, b)


def random_deformation(
    points: npt.NDArray, rng: np.random.Generator, rms_mm: float, shortest_mm: float = 45.0, n: int = 6
) -> Deformation:
    """A random :class:`Deformation` that moves ``points`` (m, 3) by ``rms_mm`` without turning or shifting the whole.

    Its waves are ``shortest_mm`` to twice that long. The best-fit rotation and translation over ``points`` are taken
    out, so that the pose given to a deformed brain stays its true pose.
    """
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    waves = direction * (2 * np.pi / (shortest_mm * rng.uniform(1, 2, n)))[:, None]
    phases = rng.uniform(0, 2 * np.pi, n)
    amplitudes = rng.normal(size=(n, 3))
    points = np.asarray(points, dtype=float)
    unit = Deformation(waves, phases, amplitudes, Rigid.identity())
    # the correction takes part of the displacement with it, which the size must make good
    size = 0.0 if rms_mm <= 0 else rms_mm / _rms(unit.apply(points) - points)
    for _ in range(4):
        free = Deformation(waves, phases, amplitudes * size, Rigid.identity())
        done = Deformation(waves, phases, amplitudes * size, ~best_rigid(points, free.apply(points)))
        if rms_mm > 0:
            size *= rms_mm / _rms(done.apply(points) - points)
    return done


def subject(
    age: float,
    *,
    rng: np.random.Generator,
    pose: Rigid,
    contrast: str = "T2w",
    spacing: float | tuple[float, float, float] = 0.8,
    noise: float = 0.03,
    bias: float = 0.15,
    deformation_mm: float = 1.0,
    shape_jitter: float = 0.5,
    contrast_jitter: float = 0.08,
    directions: npt.ArrayLike | None = None,
    surroundings: bool = False,
) -> tuple[Volume, Volume, Rigid]:
    """One individual of ``age`` weeks, its head turned by ``pose``: image (float32), brain mask (uint8), and the pose.

    **The pose maps atlas points to image points, x_image = R x_atlas + t, world RAS mm.** Anatomy is never mirrored in
    world space, whatever the order and sign of the voxel axes. The image is interpolated once. Two calls with
    generators in the same state make the same head on the same grid, so that T1w and T2w of one newborn can be had.

    Args:
        age: 21 to 44 postmenstrual weeks.
        rng: the source of all chance.
        pose: where the head lies.
        contrast: ``T2w`` or ``T1w``.
        spacing: voxel edge in mm, one or one for each voxel axis.
        noise: standard deviation of the Rician noise as a fraction of the brain's mean.
        bias: how far the receive field strays from 1, at most.
        deformation_mm: root mean square displacement of the individual deformation.
        shape_jitter: as for :func:`~posepipe.phantom.brain.brain_labels`.
        contrast_jitter: as for :func:`~posepipe.phantom.brain.render`.
        directions: world directions of the voxel axes as columns (3, 3), orthonormal, of either handedness; by default
            one of the 48 orientations at random, oblique by up to 15°.
        surroundings: leave skull, scalp and tissue around the brain, instead of zero outside the mask.

    Raises :class:`~posepipe.errors.UsageError` for directions that are not orthonormal, a spacing outside 0.2–10 mm and
    unknown contrasts; :class:`~posepipe.errors.AgeError` for another age.
    """
    edges = np.broadcast_to(np.asarray(spacing, dtype=float), 3)
    axes = random_directions(rng) if directions is None else np.asarray(directions, dtype=float)
    if axes.shape != (3, 3) or np.abs(axes.T @ axes - np.eye(3)).max() > 1e-5:
        msg = "the directions of the voxel axes must be three orthonormal columns (3, 3)"
        raise UsageError(msg)
    if not ((edges >= 0.2) & (edges <= 10)).all():
        msg = f"the phantom's voxels are 0.2 to 10 mm, not {spacing}"
        raise UsageError(msg)
    labels = brain_labels(age, max(0.8, float(edges.min())), seed=int(rng.integers(2**31)), shape_jitter=shape_jitter)
    still = render(labels, age, contrast, rng=rng, contrast_jitter=contrast_jitter)
    inside = np.argwhere(labels.data[::4, ::4, ::4] > 0) * 4 @ labels.affine[:3, :3].T + labels.affine[:3, 3]
    change = random_deformation(inside, rng, deformation_mm)
    field_of_view = _grid(pose.apply(inside), axes, edges, margin=14.0 if surroundings else 8.0)
    image, mask = _resample(still, brain_mask(labels), field_of_view, pose, change)
    coefficients = rng.normal(size=9)
    # each contrast is its own acquisition, of the same head
    own = np.random.default_rng([int(rng.integers(2**31)), {"T1w": 1, "T2w": 2}[contrast]])
    mean = float(image[mask > 0].mean())
    if surroundings:
        image = _surround(image, mask, edges, own, mean)
    image = image * np.exp(bias * _receive_field(image.shape, coefficients))
    image = _rician(image, noise * mean, own)
    if not surroundings:
        image *= mask
    source = f"phantom subject of {age:g} weeks"
    grid = field_of_view.affine
    return Volume(image.astype(np.float32), grid, source), Volume(mask, grid, source), pose


def random_directions(rng: np.random.Generator, oblique_degrees: float = 15.0) -> Array:
    """World directions of the voxel axes (3, 3): any order and signs (48 ways), turned by up to ``oblique_degrees``."""
    axes = np.eye(3)[:, rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)
    axis = rng.normal(size=3)
    turn = so3.exp(axis / np.linalg.norm(axis) * np.radians(rng.uniform(0, oblique_degrees)))
    return turn @ axes


def _grid(points: Array, axes: Array, edges: Array, margin: float) -> Volume:
    """An empty grid along ``axes`` that holds ``points`` with ``margin`` mm to spare."""
    along = points @ axes
    low, high = along.min(axis=0) - margin, along.max(axis=0) + margin
    shape = np.ceil((high - low) / edges).astype(int) + 1
    affine = np.eye(4)
    affine[:3, :3] = axes * edges
    affine[:3, 3] = axes @ low
    return Volume(np.zeros(tuple(shape), dtype=np.float32), affine, "grid")


def _resample(
    still: Volume, mask: Volume, grid: Volume, pose: Rigid, change: Deformation
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Image and mask on ``grid``: each voxel is mapped back to the atlas, deformed, and interpolated."""
    from scipy import ndimage

    indices = np.indices(grid.shape, dtype=np.float32).reshape(3, -1)
    back = (~pose).matrix @ grid.affine
    points = (back[:3, :3].astype(np.float32) @ indices).T + back[:3, 3].astype(np.float32)
    there = change.apply(points)
    inverse = np.linalg.inv(still.affine).astype(np.float32)
    at = inverse[:3, :3] @ there.T + inverse[:3, 3:]
    image = ndimage.map_coordinates(still.data, at, order=1, output=np.float32).reshape(grid.shape)
    share = ndimage.map_coordinates(mask.data.astype(np.float32), at, order=1).reshape(grid.shape)
    return image, (share >= 0.5).astype(np.uint8)


def _receive_field(shape: tuple[int, ...], coefficients: Array) -> npt.NDArray[np.float32]:
    """A quadratic of the grid's own coordinates with values in −1 to 1."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    c = coefficients.astype(np.float32)
    field = (c[0] * x + c[1] * y + c[3] * x * y + c[4] * x * x + c[5] * y * y) + (
        (c[2] + c[6] * x + c[7] * y) * z + c[8] * z * z
    )
    field -= (field.max() + field.min()) / 2
    return field / np.abs(field).max()


def _surround(
    image: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8], edges: Array, rng: np.random.Generator, mean: float
) -> npt.NDArray[np.float32]:
    """Dark skull, bright scalp, and mottled tissue beyond."""
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(mask == 0, sampling=edges)
    mottle = ndimage.gaussian_filter(rng.standard_normal(mask.shape, dtype=np.float32), 5.0 / edges)
    tissue = mean * (0.6 + 0.25 * mottle / mottle.std())
    around = np.where(distance < 2.5, 0.12 * mean, np.where(distance < 5.0, 0.9 * mean, np.maximum(tissue, 0)))
    around = ndimage.gaussian_filter(around.astype(np.float32), 0.5 / edges)
    return np.where(mask > 0, image, around).astype(np.float32)


def _rician(image: npt.NDArray, sigma: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Magnitude of the image with independent Gaussian noise in its real and imaginary parts."""
    if sigma <= 0:
        return image.astype(np.float32)
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return np.hypot(real, sigma * rng.standard_normal(image.shape, dtype=np.float32)).astype(np.float32)


def _rms(vectors: Array) -> float:
    return float(np.sqrt((vectors**2).sum(axis=-1).mean()))
