"""Initial poses of single slices by a network, before registration, each with its twin.

The input is a slice resampled to a square about the centre of its mask. The network predicts the canonical coordinates of each pixel
(:class:`~posepipe.models.slices.SliceCoordinateNet`); the pose follows by Procrustes. The brain has the size of the template of its age.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import WeightsError
from ..geometry import Rigid, so3
from ..geometry.so3 import Array
from ..imaging.sampling import tensor
from ..models.coordinates import HALF_SIDE
from ..models.inputs import sampled, standardised
from ..models.layers import for_inference
from ..models.precision import inference_context
from ..models.slices import SliceCoordinateNet, SliceField, slice_points
from ..models.weights import SLICE_NETWORK, load_network
from .frames import MidsagittalPlane, Slice, twin_pose
from .points import SliceBatch, SliceTarget

COPIES = 4
"""Default number of rotated copies for test-time augmentation: all four right angles."""
_BATCH = 64
"""Slices per forward pass: memory only."""


@dataclass(frozen=True, eq=False)
class SlicePose:
    """A network's prediction for one slice: ``pose`` and ``twin``, atlas → image (RAS mm), between which one slice cannot decide.

    ``expected_error``: mean expected error of the predicted coordinates, mm; ``residual``: residual of the Procrustes fit, mm;
    ``brain_mm2``: segmented brain area, mm²; ``center`` (2,): its centroid, mm along û, v̂ from the slice frame's origin. ``copies``: poses
    from each rotated copy of the slice.
    """

    pose: Rigid
    twin: Rigid
    expected_error: float
    residual: float
    brain_mm2: float
    center: Array
    copies: tuple[Rigid, ...] = ()

    @property
    def weights(self) -> tuple[float, float]:
        """Probabilities of ``pose`` and ``twin``: 0.5 each. Of 480 single slices registered to the template from both, the one with the
        higher NCC was correct in 48 % (docs/decisions/037)."""
        return 0.5, 0.5


class SliceNetwork:
    """The slice network with weights ``name``, loaded once; ``weights_dir`` takes precedence over the package's. Its output is averaged
    over ``copies`` (1 to 4) of each slice, rotated by right angles in its plane. Raises :class:`~posepipe.errors.WeightsError`."""

    def __init__(
        self, weights_dir: str | Path | None = None, *, device: str = "cpu", name: str = SLICE_NETWORK, copies: int = COPIES
    ) -> None:
        self.device, self._copies = torch.device(device), copies
        loaded = load_network(name, weights_dir=weights_dir, device=device)
        if not isinstance(loaded.module, SliceCoordinateNet):
            kind = type(loaded.module).__name__
            msg = f"{loaded.path}: {name} must be a SliceCoordinateNet, not a {kind}; give other weights with --weights"
            raise WeightsError(msg)
        self._size = loaded.module.size
        self._loaded = replace(loaded, module=for_inference(loaded.module))

    @property
    def sha256(self) -> dict[str, str]:
        """Name → hash of the weights."""
        return {self._loaded.name: self._loaded.sha256}

    def poses(
        self, slices: Sequence[Slice] | SliceBatch, target: SliceTarget, plane: MidsagittalPlane, *,
        centers: npt.ArrayLike | None = None, masked: bool = True,
    ) -> list[SlicePose]:  # fmt: skip
        """Pose and twin of each of ``slices`` in the template's world; the brain is assumed to have the template's size.

        ``centers`` (n, 2), mm along û, v̂ from each slice frame's origin, are the centres of the crops (default: the masks' centres). With
        ``masked`` false, ``Slice.mask`` is not a brain mask, and the mask channel of the input is 1. Raises
        :class:`~posepipe.errors.MaskError` for a slice whose mask is empty.
        """
        batch = slices if isinstance(slices, SliceBatch) else SliceBatch(slices, self.device)
        turn, radius = target.to_canonical, target.target.brain.radius
        middle = np.stack([mask_middle(s) for s in batch.slices]) if centers is None else np.asarray(centers, dtype=float)
        crops = squares(batch, middle, radius, self._size)
        inputs = sampled(crops) if masked else standardised(crops[:, :1], torch.ones_like(crops[:, 1:]))
        field, copies = self._predict(inputs)
        found = [field.solve(), *(c.solve() for c in copies)]
        rotations = np.stack([so3.project(f.rotation.double().cpu().numpy()) for f in found], 1)
        shifts = np.stack([f.translation.double().cpu().numpy() for f in found], 1)
        probability = torch.sigmoid(field.foreground).flatten(1)
        error = ((field.log_error.flatten(1).exp() * probability).sum(1) / probability.sum(1).clamp_min(1e-6)).tolist()
        cell = (2 * HALF_SIDE * radius / field.position.shape[-1]) ** 2
        area = (probability.sum(1) * cell).tolist()
        residual = found[0].residual.double().cpu().numpy()
        about = _middles(probability, field.position.shape[-1]) * radius
        out = []
        for i, piece in enumerate(batch.slices):
            pose, *others = [
                piece.grid.pose_in_world(Rigid.about(rotation @ turn, target.center, np.append(middle[i], 0.0) + radius * shift))
                for rotation, shift in zip(rotations[i], shifts[i], strict=True)
            ]
            other = twin_pose(pose, piece.grid, plane)
            out.append(
                SlicePose(pose, other, float(error[i]) * radius, float(residual[i]) * radius, area[i], middle[i] + about[i], tuple(others))
            )
        return out

    def _predict(self, inputs: Tensor) -> tuple[SliceField, list[SliceField]]:
        """Forward pass on the rotated copies of ``inputs`` (n, 2, S, S): the mean of the fields, and the fields of the copies."""
        with inference_context(self.device):
            turned = [torch.rot90(inputs, k, (2, 3)) for k in range(self._copies)]
            parts = [self._loaded.module(x) for x in torch.cat(turned).split(_BATCH)]
            whole = [torch.cat(p).chunk(self._copies) for p in zip(*parts, strict=True)]
            copies = [SliceField(*(torch.rot90(x[k], -k, (2, 3)) for x in whole)) for k in range(self._copies)]
            return _mean(copies), copies


def _mean(copies: Sequence[SliceField]) -> SliceField:
    """The mean of fields, with coordinates weighted by the inverse of their expected error. Fields nearer to the first one after mirroring
    (twins) are mirrored before."""
    first = copies[0]
    brain = torch.sigmoid(first.foreground)
    mirror = first.position.new_tensor([-1.0, 1.0, 1.0])[:, None, None]
    places = []
    for copy in copies:
        own, twin = (((p - first.position).abs() * brain).sum((1, 2, 3), keepdim=True) for p in (copy.position, mirror * copy.position))
        places.append(torch.where(own <= twin, copy.position, mirror * copy.position))
    weight = torch.softmax(torch.stack([-c.log_error for c in copies]), 0)
    position = (weight * torch.stack(places)).sum(0)
    return SliceField(position, *(torch.stack([getattr(c, k) for c in copies]).mean(0) for k in ("log_error", "foreground")))


def squares(batch: SliceBatch, middle: Array, radius: float, side: int) -> Tensor:
    """Network inputs (n, 2, side, side) from slices: image times mask, and mask, in squares centred on ``middle`` (n, 2), mm along û, v̂
    from the slice frames' origins, that contain a brain of ``radius`` mm."""
    half = torch.full((len(batch),), HALF_SIDE * radius, device=batch.device)
    return batch.crops(tensor(middle, batch.device), half, side)


def mask_middle(piece: Slice) -> Array:
    """Centre of the mask (2,), mm along û, v̂ from the slice frame's origin."""
    inside = (~piece.grid.to_world).apply(piece.mask_center)
    return np.asarray(inside[:2], dtype=float)


def _middles(probability: Tensor, side: int) -> Array:
    """Centroids (n, 2) of the brain probabilities, in radii from the middle of the square."""
    points = slice_points(side, device=probability.device)[:, :2]
    middle = probability @ points / probability.sum(1, keepdim=True).clamp_min(1e-6)
    out: Array = middle.double().cpu().numpy()
    return out
