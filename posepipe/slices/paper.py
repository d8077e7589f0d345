"""The paper's slice network, as an initialisation of registration: rotation vector and slice number of a single slice.

Salehi et al. 2018, §2.3 and §3.1 (:class:`~posepipe.models.slices.SlicePoseNet`). The network predicts the brain's rotation and the
distance of the slice from the brain's centre. It does not predict the in-plane translation, as slices are centred before: the centre of the
slice's mask is assumed to be the projection of the brain's centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..errors import WeightsError
from ..geometry import Rigid, so3
from ..models.inputs import sampled, with_foreground_offset
from ..models.layers import for_inference
from ..models.precision import inference_context
from ..models.slices import SlicePoseNet, slice_offset
from ..models.weights import load_network
from .frames import Slice
from .network import mask_middle, squares
from .points import SliceBatch, SliceTarget


class SlicePoseNetwork:
    """The :class:`~posepipe.models.slices.SlicePoseNet` called ``name``, loaded once; ``weights_dir`` takes precedence over the package's.
    Raises :class:`~posepipe.errors.WeightsError`, also for weights of another network."""

    def __init__(self, name: str = "slice-pose", weights_dir: str | Path | None = None, *, device: str = "cpu") -> None:
        self.device = torch.device(device)
        loaded = load_network(name, weights_dir=weights_dir, device=device)
        if not isinstance(loaded.module, SlicePoseNet):
            kind = type(loaded.module).__name__
            msg = f"{loaded.path}: {name} must be a SlicePoseNet, not a {kind}; give the name of another network"
            raise WeightsError(msg)
        self._size, self._foreground_offset = loaded.module.size, loaded.module.foreground_offset
        self._loaded = replace(loaded, module=for_inference(loaded.module))

    @property
    def sha256(self) -> dict[str, str]:
        """Name → hash of the weights."""
        return {self._loaded.name: self._loaded.sha256}

    def poses(self, slices: Sequence[Slice] | SliceBatch, target: SliceTarget) -> list[Rigid]:
        """The pose (atlas → image, RAS mm) of each of ``slices``; the brain is assumed to have the template's size.

        The slice number is relative to the extent of the template's brain along the slice's normal. Raises
        :class:`~posepipe.errors.MaskError` for a slice whose mask is empty.
        """
        batch = slices if isinstance(slices, SliceBatch) else SliceBatch(slices, self.device)
        radius = target.target.brain.radius
        middle = np.stack([mask_middle(s) for s in batch.slices])
        inputs = with_foreground_offset(sampled(squares(batch, middle, radius, self._size)), self._foreground_offset)
        with inference_context(self.device):
            vectors, numbers = (x.double().cpu() for x in self._loaded.module(inputs))
        rotations = so3.exp(vectors.numpy())
        # heights (n, cells) of the template's brain above the plane through its centre
        heights = torch.from_numpy(rotations[:, 2] @ target.cells.T)
        offsets = slice_offset(numbers, heights.amin(1), heights.amax(1)).numpy()
        out = []
        for piece, rotation, (u, v), offset in zip(batch.slices, rotations, middle, offsets, strict=True):
            # in the slice frame, the brain's centre has the negative offset of the slice
            pose = Rigid.about(rotation @ target.to_canonical, target.center, np.array([u, v, -radius * offset]))
            out.append(piece.grid.pose_in_world(pose))
        return out
