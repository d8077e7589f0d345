"""The network in front of registration: where in the atlas single slices lie, each up to its twin.

The network sees a slice on a square about its mask's centre and says of each pixel where in the canonical brain it lies
(:class:`~posepipe.models.slices.SliceCoordinateNet`); the pose follows by Procrustes. The age's template gives the size of the brain.
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
from ..models.layers import ready
from ..models.precision import answering
from ..models.slices import SliceCoordinateNet, SliceField, slice_points
from ..models.weights import SLICE_NETWORK, load_network
from .frames import MidsagittalPlane, Slice, twin_pose
from .points import SliceBatch, SliceTarget

_BATCH = 64


@dataclass(frozen=True, eq=False)
class SlicePose:
    """What a network says of one slice: ``pose`` and ``twin``, atlas → image (RAS mm), of which it cannot tell which is right.

    ``expected_error`` is the mean error, in mm, that it expects of a pixel's place in the brain; ``residual``, in mm, what the pixels'
    places differ from those of a plane; ``brain_mm2`` the area that it takes for brain; ``center`` (2,) the middle of that, mm along û, v̂
    from the slice frame's origin.
    """

    pose: Rigid
    twin: Rigid
    expected_error: float
    residual: float
    brain_mm2: float
    center: Array


class SliceNetwork:
    """The network of weights ``name``, loaded once; ``weights_dir`` comes before the package's. Raises
    :class:`~posepipe.errors.WeightsError`."""

    def __init__(self, weights_dir: str | Path | None = None, *, device: str = "cpu", name: str = SLICE_NETWORK) -> None:
        self.device = torch.device(device)
        loaded = load_network(name, weights_dir=weights_dir, device=device)
        if not isinstance(loaded.module, SliceCoordinateNet):
            kind = type(loaded.module).__name__
            msg = f"{loaded.path}: {name} must be a SliceCoordinateNet, not a {kind}; give other weights with --weights"
            raise WeightsError(msg)
        self._loaded = replace(loaded, module=ready(loaded.module))

    @property
    def sha256(self) -> dict[str, str]:
        """Name → hash of the weights."""
        return {self._loaded.name: self._loaded.sha256}

    def poses(
        self, slices: Sequence[Slice] | SliceBatch, target: SliceTarget, plane: MidsagittalPlane, *,
        centers: npt.ArrayLike | None = None, masked: bool = True,
    ) -> list[SlicePose]:  # fmt: skip
        """A pose and its twin of each of ``slices`` in the template's world, whose brain has the template's size.

        ``centers`` (n, 2), mm along û, v̂ from each slice frame's origin, are where the network looks (default: the masks' centres). Where
        the brain's outline is not known (``masked`` false) the network sees all pixels inside ``Slice.mask``. Raises
        :class:`~posepipe.errors.MaskError` for a slice whose mask is empty.
        """
        batch = slices if isinstance(slices, SliceBatch) else SliceBatch(slices, self.device)
        turn, radius = target.to_canonical, target.target.brain.radius
        middle = np.stack([mask_middle(s) for s in batch.slices]) if centers is None else np.asarray(centers, dtype=float)
        crops = squares(batch, middle, radius, self._size)
        seen = sampled(crops) if masked else standardised(crops[:, :1], torch.ones_like(crops[:, 1:]))
        rotation, shift, field = self._answered(seen)
        probability = torch.sigmoid(field.foreground).flatten(1)
        error = ((field.log_error.flatten(1).exp() * probability).sum(1) / probability.sum(1).clamp_min(1e-6)).tolist()
        cell = (2 * HALF_SIDE * radius / field.position.shape[-1]) ** 2
        area = (probability.sum(1) * cell).tolist()
        residual = field.solve().residual.double().cpu().numpy()
        about = _middles(probability, field.position.shape[-1]) * radius
        out = []
        for i, piece in enumerate(batch.slices):
            lands = np.append(middle[i], 0.0) + radius * shift[i]
            pose = piece.grid.pose_in_world(Rigid.about(rotation[i] @ turn, target.center, lands))
            out.append(
                SlicePose(
                    pose, twin_pose(pose, piece.grid, plane), float(error[i]) * radius, float(residual[i]) * radius, area[i],
                    middle[i] + about[i],
                )
            )  # fmt: skip
        return out

    @property
    def _size(self) -> int:
        module = self._loaded.module
        assert isinstance(module, SliceCoordinateNet)
        return module.size

    def _answered(self, seen: Tensor) -> tuple[Array, Array, SliceField]:
        """Rotations (n, 3, 3), shifts (n, 3) in radii, and the fields behind them."""
        with answering(self.device):
            parts = [self._loaded.module(x) for x in seen.split(_BATCH)]
            field = SliceField(*(torch.cat(p) for p in zip(*parts, strict=True)))
            found = field.solve()
        rotation = so3.project(found.rotation.double().cpu().numpy())
        return rotation, found.translation.double().cpu().numpy(), field


def squares(batch: SliceBatch, middle: Array, radius: float, side: int) -> Tensor:
    """What networks see (n, 2, side, side) of slices: image times mask, and mask, about ``middle`` (n, 2) mm along û, v̂ from the slice
    frames' origins, as far as brains of ``radius`` mm reach."""
    half = torch.full((len(batch),), HALF_SIDE * radius, device=batch.device)
    return batch.crops(tensor(middle, batch.device), half, side)


def mask_middle(piece: Slice) -> Array:
    """Centre of the mask (2,), mm along û, v̂ from the slice frame's origin."""
    inside = (~piece.grid.to_world).apply(piece.mask_center)
    return np.asarray(inside[:2], dtype=float)


def _middles(probability: Tensor, side: int) -> Array:
    """Centroids (n, 2) of what is brain, in radii from the middle of the square."""
    points = slice_points(side, device=probability.device)[:, :2]
    middle = probability @ points / probability.sum(1, keepdim=True).clamp_min(1e-6)
    out: Array = middle.double().cpu().numpy()
    return out
