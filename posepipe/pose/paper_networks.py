"""The pose by the paper's two networks: Pose-Net (one forward pass on the brain), then Correction-Net (on the pair of template and brain).

Salehi et al. 2018, §2.3–2.5: initial translation by the centre of gravity, initial rotation by Pose-Net, and the residual pose by
Correction-Net. The inputs are prepared as in training (:mod:`posepipe.training.paper`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..geometry import Rigid, so3
from ..geometry.so3 import Array
from ..imaging.sampling import sample, tensor
from ..matching.brain import Brain
from ..matching.comparison import Comparison
from ..models.coordinates import HALF_SIDE, cube_points
from ..models.inputs import FOREGROUND_OFFSET, sampled, with_foreground_offset
from ..models.layers import for_inference
from ..models.precision import inference_context
from ..models.weights import PAPER_NETWORKS, load_network


class PoseNetwork:
    """The :class:`~posepipe.models.posenet.PoseNet` called ``name``. Raises :class:`~posepipe.errors.WeightsError`."""

    def __init__(self, name: str = PAPER_NETWORKS[0], weights_dir: str | Path | None = None, *, device: str = "cpu") -> None:
        loaded = load_network(name, weights_dir=weights_dir, device=device)
        self._network, self._size, self.sha256 = for_inference(loaded.module), int(loaded.options.get("size", 48)), loaded.sha256
        self._foreground_offset = float(loaded.options.get("foreground_offset", FOREGROUND_OFFSET))
        self._by_age = loaded.options.get("sizes") == "age"

    def pose(self, compare: Comparison, to_canonical: Array) -> Rigid:
        """Template → image: the centres of the masks coincide, the rotation is the network's. ``to_canonical`` (3, 3) is the template's."""
        brain, target = compare.brain, compare.target.brain
        radius = target.radius if self._by_age else brain.radius
        cube = with_foreground_offset(_cube(brain, self._size, so3.exp([0.0, 0.0, 0.0]), brain.center, radius), self._foreground_offset)
        with inference_context(cube.device):
            vector = self._network(cube)[0]
        return Rigid.about(so3.exp(vector.double().cpu().numpy()) @ to_canonical, target.center, brain.center)


class CorrectionNetwork:
    """The :class:`~posepipe.models.correction.CorrectionNet` called ``name``. Raises :class:`~posepipe.errors.WeightsError`."""

    def __init__(self, name: str = PAPER_NETWORKS[1], weights_dir: str | Path | None = None, *, device: str = "cpu") -> None:
        loaded = load_network(name, weights_dir=weights_dir, device=device)
        self._network, self._size, self.sha256 = for_inference(loaded.module), int(loaded.options.get("size", 48)), loaded.sha256
        self._foreground_offset = float(loaded.options.get("foreground_offset", FOREGROUND_OFFSET))
        self._by_age = loaded.options.get("sizes") == "age"

    def corrected(self, compare: Comparison, start: Rigid, to_canonical: Array, *, both_ways: bool = False) -> Rigid:
        """``start`` (template → image) after the correction that the network predicts. ``to_canonical`` (3, 3) is the template's.

        With ``both_ways`` a second forward pass has the image as the reference, and the mean of the first prediction and the inverse of the
        second is taken; a constant bias of the network cancels. Only valid for a ``start`` within a few degrees, as the reference was
        upright in training (docs/decisions/017).
        """
        brain, target = compare.brain, compare.target.brain
        upright = start.rotation @ to_canonical.T
        center = start.apply(target.center)
        radius = target.radius if self._by_age else brain.radius
        reference = _cube(target, self._size, to_canonical.T, target.center, target.radius)
        moving = _cube(brain, self._size, upright, center, radius)
        vector, shift = self._answer(reference, moving)
        if both_ways:
            back, shift_back = self._answer(moving, reference)
            vector = (vector - back) / 2
            shift = (shift - so3.exp(vector) @ shift_back) / 2
        rotation = upright @ so3.exp(vector)
        moved = center + radius * HALF_SIDE * (upright @ shift)
        return Rigid.about(rotation @ to_canonical, target.center, moved)

    def _answer(self, reference: Tensor, moving: Tensor) -> tuple[Array, Array]:
        both = (with_foreground_offset(cube, self._foreground_offset) for cube in (reference, moving))
        with inference_context(reference.device):
            vector, shift = (x[0].double().cpu().numpy() for x in self._network(*both))
        return vector, shift


class PaperNetworks:
    """Pose-Net, then Correction-Net. Raises :class:`~posepipe.errors.WeightsError`."""

    def __init__(self, weights_dir: str | Path | None = None, *, device: str = "cpu") -> None:
        self._first = PoseNetwork(weights_dir=weights_dir, device=device)
        self._second = CorrectionNetwork(weights_dir=weights_dir, device=device)

    @property
    def sha256(self) -> dict[str, str]:
        """Name → hash of the weights."""
        return dict(zip(PAPER_NETWORKS, (self._first.sha256, self._second.sha256), strict=True))

    def pose(self, compare: Comparison, to_canonical: Array) -> Rigid:
        """Template → image. ``to_canonical`` (3, 3) is the template's."""
        return self._second.corrected(compare, self._first.pose(compare, to_canonical), to_canonical)


def _cube(brain: Brain, size: int, rotation: Array, center: Array, radius: float) -> Tensor:
    """``brain`` (1, 2, S, S, S) in the frame ``x = center + radius · rotation · v``, standardised as in training."""
    device = brain.image.device
    world = cube_points(size, device=device) @ tensor(rotation, device).T * radius + tensor(center, device)
    stack = torch.stack([brain.image * brain.mask, brain.mask])
    return sampled(sample(stack, brain.world_to_voxel, world).reshape(1, 2, size, size, size))
