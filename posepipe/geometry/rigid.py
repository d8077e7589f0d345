"""Rigid maps of world space as a value object.

**Frame: world coordinates are RAS millimetres, points are column vectors, ``y = R x + t``.** The pose of an image
against an atlas is the map from atlas points to image points (docs/reference/outputs.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import TransformError
from . import so3
from .so3 import Array

_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Rigid:
    """A rotation and a translation, ``y = R x + t``, in RAS millimetres; composed with ``@``, inverted with ``~``.

    ``rotation`` is (3, 3) with determinant +1, ``translation`` (3,) in mm. Raises
    :class:`~posepipe.errors.TransformError` for anything else: a mirror is never a pose.

    >>> turn = Rigid.from_rotvec([0, 0, np.pi / 2], [10, 0, 0])
    >>> turn.apply([1, 0, 0]).round(6)
    array([10.,  1.,  0.])
    >>> (turn @ ~turn).is_close(Rigid.identity())
    True
    """

    rotation: Array
    translation: Array

    __slots__ = ("rotation", "translation")

    def __post_init__(self) -> None:
        rotation = np.array(self.rotation, dtype=float)
        translation = np.array(self.translation, dtype=float)
        if rotation.shape != (3, 3) or translation.shape != (3,):
            shapes = f"{rotation.shape} and {translation.shape}"
            msg = f"a rigid map has a (3, 3) rotation and a (3,) translation, not {shapes}"
            raise TransformError(msg)
        if not (np.isfinite(rotation).all() and np.isfinite(translation).all()):
            msg = "a rigid map must be finite; the registration that made it diverged"
            raise TransformError(msg)
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-4 or np.linalg.det(rotation) < 0:
            msg = (
                "not a rotation: the matrix stretches, shears or mirrors "
                f"(determinant {np.linalg.det(rotation):.4f}); posepipe handles rigid maps only"
            )
            raise TransformError(msg)
        rotation = so3.project(rotation)
        rotation.setflags(write=False)
        translation.setflags(write=False)
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation", translation)

    def __reduce__(self) -> tuple:
        # frozen slots have no default pickling, and poses travel between processes
        return (Rigid, (np.array(self.rotation), np.array(self.translation)))

    @classmethod
    def identity(cls) -> Rigid:
        """The identity map."""
        return cls(np.eye(3), np.zeros(3))

    @classmethod
    def from_rotvec(cls, rotvec: npt.ArrayLike, translation: npt.ArrayLike = (0.0, 0.0, 0.0)) -> Rigid:
        """From a rotation vector (3,) in radians and a translation (3,) in mm."""
        return cls(so3.exp(rotvec), np.asarray(translation, dtype=float))

    @classmethod
    def from_matrix(cls, matrix: npt.ArrayLike) -> Rigid:
        """From a homogeneous (4, 4) matrix in RAS mm."""
        m = np.asarray(matrix, dtype=float)
        if m.shape != (4, 4) or np.abs(m[3] - [0, 0, 0, 1]).max() > 1e-9:
            msg = "a homogeneous matrix is (4, 4) with last row 0 0 0 1"
            raise TransformError(msg)
        return cls(m[:3, :3], m[:3, 3])

    @classmethod
    def about(cls, rotation: npt.ArrayLike, center: npt.ArrayLike, target: npt.ArrayLike | None = None) -> Rigid:
        """Rotation by ``rotation`` (3, 3) about ``center`` (3,), which is mapped to ``target`` (3,) (default: ``center``)."""
        r, c = np.asarray(rotation, dtype=float), np.asarray(center, dtype=float)
        t = c if target is None else np.asarray(target, dtype=float)
        return cls(r, t - r @ c)

    @classmethod
    def from_lps(cls, rotation: npt.ArrayLike, translation: npt.ArrayLike) -> Rigid:
        """From the same map written in LPS coordinates (ITK, DICOM)."""
        return cls(_LPS @ np.asarray(rotation, dtype=float) @ _LPS, _LPS @ np.asarray(translation, dtype=float))

    def to_lps(self) -> tuple[Array, Array]:
        """Rotation (3, 3) and translation (3,) of this map in LPS coordinates (ITK, DICOM)."""
        return _LPS @ self.rotation @ _LPS, _LPS @ self.translation

    @property
    def matrix(self) -> Array:
        """Homogeneous (4, 4) matrix, RAS mm."""
        m = np.eye(4)
        m[:3, :3], m[:3, 3] = self.rotation, self.translation
        return m

    @property
    def rotvec(self) -> Array:
        """Rotation vector (3,), radians."""
        return so3.log(self.rotation)

    @property
    def angle_degrees(self) -> float:
        """Angle of the rotation, degrees in [0, 180]."""
        return float(np.degrees(so3.geodesic_distance(self.rotation, np.eye(3))))

    def apply(self, points: npt.ArrayLike) -> Array:
        """Images (..., 3) of ``points`` (..., 3), RAS mm."""
        return np.asarray(points, dtype=float) @ self.rotation.T + self.translation

    def __matmul__(self, other: Rigid) -> Rigid:
        """``self @ other``: first ``other``, then ``self``."""
        return Rigid(self.rotation @ other.rotation, self.rotation @ other.translation + self.translation)

    def __invert__(self) -> Rigid:
        """The inverse map."""
        return Rigid(self.rotation.T, -self.rotation.T @ self.translation)

    def degrees_from(self, other: Rigid) -> float:
        """Geodesic distance of the two rotations, degrees."""
        return float(np.degrees(so3.geodesic_distance(self.rotation, other.rotation)))

    def mm_from(self, other: Rigid, at: npt.ArrayLike = (0.0, 0.0, 0.0)) -> float:
        """Distance, mm, between the images of the point ``at`` (3,) under the two maps."""
        return float(np.linalg.norm(self.apply(at) - other.apply(at)))

    def is_close(self, other: Rigid, degrees: float = 1e-6, mm: float = 1e-6) -> bool:
        """Whether rotation and translation both agree within the tolerances."""
        return self.degrees_from(other) <= degrees and self.mm_from(other) <= mm


def mean_pose(poses: Sequence[Rigid], center: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Rigid:
    """Mean of ``poses`` (atlas → image): chordal mean rotation, and mean place of the brain's ``center`` (3,), atlas RAS mm."""
    rotation = so3.project(np.average([p.rotation for p in poses], axis=0, weights=weights))
    return Rigid.about(rotation, center, np.average([p.apply(center) for p in poses], axis=0, weights=weights))
