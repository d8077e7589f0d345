"""The paper's losses: rotation by mean squared error or by geodesic distance, translation by mean squared error.

Salehi et al. 2018, eq. 5–10. Rotations are rotation vectors (..., 3) in radians: axis times angle. Every loss is a mean over
all leading dimensions, a scalar tensor. It is computed in single or double precision, also under autocast: bfloat16 would change
rotations by up to half a degree.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import so3_torch

STAGES = ("mse", "geodesic")
"""The two stages of the paper's training, in order, named after their rotation loss."""


def rotation_mse(predicted: Tensor, target: Tensor) -> Tensor:
    """``L_rot = mean (x̂ − x)²`` over batch and components, rad²: the rotation loss of the first stage.

    ``predicted`` and ``target`` are rotation vectors (..., 3). The loss compares vectors, not rotations: ``x`` and ``x − 2π x/‖x‖`` are
    the same rotation but different vectors. So the paper's second stage uses the geodesic distance.

    >>> rotation_mse(torch.tensor([[0.3, 0.0, 0.0]]), torch.zeros(1, 3))
    tensor(0.0300)
    """
    return _mean_square(predicted, target)


def geodesic_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """``L_rot = mean arccos((tr(R̂ᵀ R) − 1)/2)``, ``R̂ = exp [x̂]×``, rad in [0, π]: the rotation loss of the second stage (eq. 3, 7).

    ``predicted`` and ``target`` are rotation vectors (..., 3) of any length. The arccos is computed as an atan2 with regularised roots
    (:func:`~posepipe.geometry.so3_torch.geodesic_distance`): the gradient is finite everywhere, including 0 and π, and its norm is at
    most 1 for one pair. The distance of equal rotations is 2e-6 rad.

    >>> geodesic_loss(torch.tensor([[0.3, 0.0, 0.0]]), torch.zeros(1, 3))
    tensor(0.3000)
    """
    _check(predicted, target)
    dtype = _full(predicted).dtype
    # in double precision: near π, 1 + tr consists of rounding errors in single precision, and gradients would reach a norm of 200
    predicted, target = predicted.double(), target.double()
    # autocast would cast the matrix products to bfloat16
    with torch.autocast(predicted.device.type, enabled=False):
        return so3_torch.geodesic_distance(so3_torch.exp(predicted), so3_torch.exp(target)).mean().to(dtype)


def translation_mse(predicted: Tensor, target: Tensor) -> Tensor:
    """``L_trans = mean (t̂ − t)²`` over batch and components, in the square of the inputs' unit.

    ``predicted`` and ``target`` are (..., 3): of :class:`~posepipe.models.correction.CorrectionNet`, fractions of half the
    cube's side.
    """
    return _mean_square(predicted, target)


def rotation_loss(predicted: Tensor, target: Tensor, stage: str) -> Tensor:
    """:func:`rotation_mse` (rad²) or :func:`geodesic_loss` (rad), as ``stage`` says: ``mse`` or ``geodesic``.

    Raises :class:`ValueError` for another stage.
    """
    if stage not in STAGES:
        msg = f"the stage of a loss is {' or '.join(STAGES)}, not {stage!r}"
        raise ValueError(msg)
    return rotation_mse(predicted, target) if stage == "mse" else geodesic_loss(predicted, target)


def pose_loss(
    rotation: Tensor,
    target_rotation: Tensor,
    translation: Tensor,
    target_translation: Tensor,
    *,
    stage: str,
    translation_weight: float,
) -> Tensor:
    """``L = L_rot + λ L_trans``: the total loss of a network that estimates rotation and translation.

    ``rotation`` and ``target_rotation`` (..., 3) in radians; ``translation`` and ``target_translation`` (..., 3) in the same unit.
    ``translation_weight`` is λ, whose value the paper's text does not give; its unit is rad (``geodesic``) or rad² (``mse``) over the
    square of the unit of translation. Raises :class:`ValueError` as :func:`rotation_loss` does, and for a negative λ.
    """
    if not translation_weight >= 0:
        msg = f"the weight of the translation loss cannot be {translation_weight}; give 0 or more"
        raise ValueError(msg)
    turn = rotation_loss(rotation, target_rotation, stage)
    return turn + translation_weight * translation_mse(translation, target_translation)


def _mean_square(predicted: Tensor, target: Tensor) -> Tensor:
    _check(predicted, target)
    return (_full(predicted) - _full(target)).square().mean()


def _check(predicted: Tensor, target: Tensor) -> None:
    """Raise :class:`ValueError` unless the shapes are equal and end in 3: broadcasting would silently average over wrong pairs."""
    if predicted.shape != target.shape or predicted.shape[-1:] != (3,):
        msg = f"predicted and target must be alike and end in 3, not {tuple(predicted.shape)} and {tuple(target.shape)}"
        raise ValueError(msg)


def _full(x: Tensor) -> Tensor:
    """``x`` in single precision; in double precision if it has that."""
    return x if x.dtype == torch.float64 else x.float()
