"""The two poses that one slice of a mirror-symmetric brain can have.

A slice is the plane w = 0 of its frame (u, v, w). Canonical points x map to the slice frame by ``u = s R x + t``, so a pixel (u, v, 0)
shows the point ``x = A (u, v, 0) + b`` with ``A = Rᵀ/s`` and ``b = −Rᵀ t/s``. If the brain equals its mirror image by M = diag(−1, 1, 1),
the point ``M A (u, v, 0) + M b`` has the same intensity. F = diag(1, 1, −1) changes no point of the plane, and ``s M A F`` is a proper
rotation again. The pose with it is the *twin*: rotation ``F R M`` and translation ``F t``, at the same place in the plane, with the
opposite offset from it.
"""

from __future__ import annotations

from torch import Tensor

from ..geometry.so3_torch import geodesic_distance


def twin(rotation: Tensor, translation: Tensor) -> tuple[Tensor, Tensor]:
    """The other pose that shows the same slice, of ``rotation`` (..., 3, 3) and ``translation`` (..., 3) in ``u = s R x + t``.

    The scale is the same. The twin of the twin is the pose itself.

    >>> import torch
    >>> rotation, translation = twin(torch.eye(3), torch.tensor([0.1, 0.2, 0.3]))
    >>> rotation.diagonal().tolist(), translation.tolist()[:2], round(float(translation[2]), 1)
    ([-1.0, 1.0, -1.0], [0.10000000149011612, 0.20000000298023224], -0.3)
    """
    ones = rotation.new_ones(3)
    mirror, flip = ones.clone(), ones.clone()
    mirror[0], flip[2] = -1, -1
    return flip[:, None] * rotation * mirror, flip * translation


def twin_distance(rotation: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Angles in radians (...) from ``rotation`` (..., 3, 3) to ``truth`` (..., 3, 3) and to the twin of ``truth``.

    >>> import torch
    >>> [round(float(a), 2) for a in twin_distance(torch.eye(3), torch.eye(3))]
    [0.0, 3.14]
    """
    other, _ = twin(truth, truth.new_zeros(3))
    return geodesic_distance(rotation, truth), geodesic_distance(rotation, other)
