"""Pose estimation by networks that predict canonical coordinates of each voxel: a coarse network for any orientation, then a fine one.

The template's intensities are not used. The networks predict the pose in the canonical frame, and the template's rotation to that frame
(``atlases/canonical.toml``) gives the pose against the template. If that rotation is not known, the networks estimate it from the template.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from ..atlas.sidecars import write_text
from ..errors import WeightsError
from ..geometry import Rigid, super_fibonacci
from ..geometry.so3 import Array
from ..imaging.mask import FoundPose
from ..imaging.moments import moments
from ..imaging.sampling import sample, tensor
from ..imaging.volume import Volume
from ..matching.brain import Brain, bounding_box
from ..models.calibration import load_calibration
from ..models.coordinates import CoordinateNet, cube_points
from ..models.inputs import sampled
from ..models.layers import for_inference
from ..models.precision import inference_context
from ..models.weights import POSE_NETWORKS, LoadedNetwork, load_network
from .hypothesis import SAME_DEGREES
from .paper_networks import PaperNetworks

if TYPE_CHECKING:
    from ..matching.target import Target

logger = logging.getLogger(__name__)

DOWNSAMPLED_MM = 2.0
"""Voxels are averaged to about this edge, mm, before sampling for the networks, whose cubes have 3 mm and more."""
COPIES = 4
"""Rotated copies of the brain for test-time augmentation of the coarse network; each gives one vote."""
VOTE_DEGREES = 25.0
"""Votes within this angle, degrees, form one hypothesis; poses from rotated crops of a raw scan within it of their medoid agree with it."""
MULTISTART, MULTISTART_KEPT = 64, 16
"""Number of start rotations of :meth:`PoseNetworks.place_multistart`, and number of results kept."""


class NetworkInput(Protocol):
    """Input of the networks: ``stack`` (2, X, Y, Z), intensity times mask and mask; ``center`` (RAS mm) and ``radius`` (mm) of the mask.
    Implemented by :class:`~posepipe.matching.brain.Brain` and by the faster :class:`DownsampledBrain`."""

    @property
    def stack(self) -> Tensor: ...
    @property
    def world_to_voxel(self) -> Tensor: ...
    @property
    def center(self) -> Array: ...
    @property
    def radius(self) -> float: ...


@dataclass(frozen=True, eq=False)
class DownsampledBrain:
    """A brain averaged over blocks of voxels to about :data:`DOWNSAMPLED_MM`: sufficient for the networks, and several times faster to
    compute than a :class:`~posepipe.matching.brain.Brain`."""

    stack: Tensor
    world_to_voxel: Tensor
    center: Array
    radius: float

    @classmethod
    def of(cls, volume: Volume, mask: Volume, device: torch.device | str = "cpu") -> DownsampledBrain:
        """From an image and its brain mask on the same grid; raises :class:`~posepipe.errors.MaskError` for an empty mask."""
        about = moments(mask)
        box = bounding_box(mask.data, mask.source)
        block = np.maximum(np.floor(DOWNSAMPLED_MM / volume.spacing), 1).astype(int)
        inside = tensor(mask.data[box], device)
        weight, value = _block_means(torch.stack([inside, tensor(volume.data[box], device) * inside]), block)
        full = weight > 0.5
        some = (value[full] / weight[full])[::4]
        low, high = torch.quantile(some, torch.tensor([0.01, 0.99], device=device)).tolist() if len(some) else (0.0, 1.0)
        value = ((value - low * weight) / max(high - low, 1e-6)).clamp_min(0).minimum(weight)
        affine = volume.affine.copy()
        # the middle of the first block, in voxels of the image
        affine[:3, 3] += affine[:3, :3] @ ([s.start for s in box] + (block - 1) / 2)
        affine[:3, :3] = affine[:3, :3] * block
        return cls(torch.stack([value, weight]), tensor(np.linalg.inv(affine), device), about.center, about.radius)


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the canonical brain lies in an image: ``x_image = center + radius · (scale · rotation · x + shift)``.

    ``x`` is in canonical brain radii; ``center`` (3,) and ``radius`` (mm) are the image mask's; ``shift`` (3,) is in radii. ``features``
    are indicators of the prediction's reliability.
    """

    rotation: Array
    shift: Array
    scale: float
    center: Array
    radius: float
    features: dict[str, float] = field(default_factory=dict)

    def pose(self, to_canonical: Array, target: Brain) -> Rigid:
        """The pose template → image. ``to_canonical`` (3, 3) is the template's; the canonical origin is the centre of its mask."""
        return Rigid.about(self.rotation @ to_canonical, target.center, self.center + self.radius * self.shift)

    def log_scale(self, target: Brain) -> float:
        """log(template size / image size)."""
        return float(np.log(target.radius / (self.radius * self.scale)))


class PoseNetworks:
    """The default networks, loaded once: ``coarse`` for any orientation, ``fine`` for the remaining rotation.

    Weights in ``weights_dir`` take precedence over the package's. Raises :class:`~posepipe.errors.WeightsError`.
    """

    def __init__(self, weights_dir: str | Path | None = None, *, device: str = "cpu") -> None:
        self._device, self._weights_dir = torch.device(device), weights_dir
        self.coarse, self.fine = (self._load(name, weights_dir, device) for name in POSE_NETWORKS)
        self._own: dict[str, Array] = {}
        calibration = load_calibration(weights_dir)
        self._consensus = None if calibration.others(self.sha256) else calibration.consensus

    @property
    def sha256(self) -> dict[str, str]:
        """Name → hash of the weights."""
        return {n.name: n.sha256 for n in (self.coarse, self.fine)}

    def reliable(self, features: Mapping[str, float]) -> bool:
        """Whether a placement with these ``features`` passes the calibrated reliability thresholds; False for uncalibrated weights."""
        return self._consensus is not None and self._consensus.of(features)

    @cached_property
    def paper(self) -> PaperNetworks:
        """The networks of the paper, loaded on first use."""
        return PaperNetworks(self._weights_dir, device=str(self._device))

    def place(self, brain: NetworkInput, found: FoundPose | None = None) -> tuple[Placement, ...]:
        """Distinct placements of ``brain``, most votes first. The pose ``found`` by the masking network is an additional start; its share
        of votes is the share of rotated crops that agree with it."""
        stack = brain.stack
        turns = tensor(_turns(), self._device)
        zero, one = torch.zeros(len(turns), 3, device=self._device), torch.ones(len(turns), device=self._device)
        first = self._step(self.coarse, brain, stack, turns, zero, one)
        groups = _grouped(first.rotation, first.trust)
        start = [_mean(first, g) for g in groups]
        if found is not None:
            start.append(_start(found, brain, self._device))
        second = self._step(self.fine, brain, stack, *(torch.stack(x) for x in zip(*start, strict=True)))
        third = self._step(self.fine, brain, stack, second.rotation, second.shift, second.scale)
        placements = [self._placement(brain, first, g, start[i][0], second, third, i) for i, g in enumerate(groups)]
        if found is not None:
            like = {"votes": found.features["agree"], "spread": found.features["spread"]}
            own = self._placement(brain, first, groups[0], start[-1][0], second, third, len(groups))
            placements.append(replace(own, features=own.features | like))
        return tuple(sorted(placements, key=lambda one: -one.features["votes"]))

    def place_multistart(self, brain: NetworkInput) -> tuple[Placement, ...]:
        """Placements from the fine network alone, started from a grid of :data:`MULTISTART` rotations, with two passes each.

        Used if the coarse network may have failed. The placements with the least expected error, best first; most of them are wrong.
        ``features`` holds only ``expected_error``.
        """
        stack, turns = brain.stack, tensor(super_fibonacci(MULTISTART), self._device)
        zero, one = torch.zeros(len(turns), 3, device=self._device), torch.ones(len(turns), device=self._device)
        first = self._step(self.fine, brain, stack, turns, zero, one)
        kept = _least_error(first)
        second = self._step(self.fine, brain, stack, first.rotation[kept], first.shift[kept], first.scale[kept])
        return tuple(
            _placed(brain, second, i, {"expected_error": float(second.error[i])}) for i in second.error.argsort().tolist()
        )

    def canonical(self, target: Target) -> Array:
        """Rotation (3, 3) of the template's RAS world to the canonical frame: the known one, else an estimate of the networks, which is
        cached in the target's ``cache_dir`` under a hash of the template's voxels and the weights."""
        if target.to_canonical is not None:
            return target.to_canonical
        key = hashlib.sha256(" ".join((target.fingerprint, *self.sha256.values())).encode()).hexdigest()[:24]
        if key not in self._own:
            path = None if target.cache_dir is None else target.cache_dir / f"canonical-{key}.json"
            kept = _read_rotation(path) if path else None
            if kept is None:
                kept = self.place(target.brain)[0].rotation.T
                logger.info("%s: its rotation to the canonical frame is not known; the networks estimated it", target.name)
                if path:
                    _write_rotation(path, kept)
            self._own[key] = kept
        return self._own[key]

    def _step(self, loaded: LoadedNetwork, brain: NetworkInput, stack: Tensor, rotation: Tensor, shift: Tensor, scale: Tensor) -> _Votes:
        """Forward pass on the brain resampled in the frames ``u = scale · rotation · v + shift``; predictions in the image's frame."""
        net: CoordinateNet = loaded.module  # type: ignore[assignment]
        points = cube_points(net.size, device=self._device)
        where = scale[:, None, None] * points @ rotation.mT + shift[:, None]
        world = where * brain.radius + tensor(brain.center, self._device)
        cube = sample(stack, brain.world_to_voxel, world).movedim(0, 1).reshape(len(rotation), 2, *(net.size,) * 3)
        x = sampled(cube).contiguous(memory_format=torch.channels_last_3d)
        with inference_context(self._device):
            output = net(x)
            found = output.solve()
            share = torch.sigmoid(output.foreground).flatten(1)
            error = (output.log_error.flatten(1).exp() * share).sum(1) / share.sum(1).clamp_min(1e-6)
        # voxels that the network segments as brain, relative to the input mask
        brain_share = share.sum(1) / (x[:, 1].flatten(1).sum(1) / 8).clamp_min(1.0)
        return _Votes(
            rotation @ found.rotation,
            shift + scale[:, None] * (rotation @ found.translation[..., None])[..., 0],
            scale * found.scale,
            found.residual,
            error,
            brain_share,
        )

    def _placement(
        self, brain: NetworkInput, first: _Votes, group: list[int], mean: Tensor, second: _Votes, third: _Votes, i: int
    ) -> Placement:
        degrees = [_degrees(first.rotation[j], first.rotation[group[0]]) for j in range(len(first.rotation))]
        features = {
            "votes": len(group) / COPIES,
            "spread": float(np.mean(degrees)),
            "expected_error": float(third.error[i]),
            "residual": float(third.residual[i]),
            "brain_share": float(third.brain_share[i]),
            "first_correction": _degrees(mean, second.rotation[i]),
            "last_correction": _degrees(second.rotation[i], third.rotation[i]),
            "log_scale": float(third.scale[i].log()),
            "shift": float(third.shift[i].norm()),
        }
        return _placed(brain, third, i, features)

    def _load(self, name: str, weights_dir: str | Path | None, device: str) -> LoadedNetwork:
        loaded = load_network(name, weights_dir=weights_dir, device=device)
        if not isinstance(loaded.module, CoordinateNet):
            msg = f"{loaded.path}: {name} must be a CoordinateNet, not a {type(loaded.module).__name__}; give other weights with --weights"
            raise WeightsError(msg)
        return replace(loaded, module=for_inference(loaded.module))


@dataclass(frozen=True, eq=False)
class _Votes:
    """Predictions of a network for B input frames, transformed to the image's frame."""

    rotation: Tensor
    shift: Tensor
    scale: Tensor
    residual: Tensor
    error: Tensor
    brain_share: Tensor

    @property
    def trust(self) -> Tensor:
        """Negative sum of residual and expected error (B,); larger is better."""
        return -self.residual - self.error


def _block_means(data: Tensor, block: Array) -> Tensor:
    """Means of ``data`` (C, X, Y, Z) over blocks of ``block`` (3,) voxels, padded with 0; one axis at a time."""
    for axis, b in enumerate(block.astype(int), 1):
        parts = [data[(slice(None),) * axis + (slice(k, None, b),)] for k in range(b)]
        total = parts[0].clone()
        for part in parts[1:]:
            total[(slice(None),) * axis + (slice(0, part.shape[axis]),)] += part
        data = total / b
    return data


def _turns() -> Array:
    """Rotations of the copies (COPIES, 3, 3): a super-Fibonacci grid, turned so that the first is the identity."""
    grid = super_fibonacci(COPIES)
    return grid @ grid[0].T


def _placed(brain: NetworkInput, votes: _Votes, i: int, features: dict[str, float]) -> Placement:
    """Vote ``i`` as a placement."""
    rotation, shift = (x[i].double().cpu().numpy() for x in (votes.rotation, votes.shift))
    return Placement(rotation, shift, float(votes.scale[i]), brain.center, brain.radius, features)


def _least_error(votes: _Votes) -> list[int]:
    """Indices of the votes with the least expected error, at least :data:`~posepipe.pose.hypothesis.SAME_DEGREES` apart."""
    cosine = torch.einsum("iab,jab->ij", votes.rotation, votes.rotation)
    near = cosine > 1 + 2 * np.cos(np.radians(SAME_DEGREES))
    kept: list[int] = []
    for i in votes.error.argsort().tolist():
        if len(kept) < MULTISTART_KEPT and not any(bool(near[i, j]) for j in kept):
            kept.append(i)
    return kept


def _grouped(rotation: Tensor, trust: Tensor) -> list[list[int]]:
    """Groups of indices of votes that agree with each other, largest group first; the first of each group is its most central vote."""
    left = set(range(len(rotation)))
    cosine = torch.einsum("iab,jab->ij", rotation, rotation)
    near = cosine > 1 + 2 * np.cos(np.radians(VOTE_DEGREES))
    groups = []
    while left:
        center = max(left, key=lambda i: (sum(bool(near[i, j]) for j in left), float(trust[i])))
        members = [center, *(j for j in left if j != center and bool(near[center, j]))]
        groups.append(members)
        left -= set(members)
    return groups


def _mean(votes: _Votes, group: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Chordal mean rotation, mean shift and geometric mean scale of a group."""
    u, _, vh = torch.linalg.svd(votes.rotation[group].double().mean(0))
    rotation = u @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(u @ vh).sign())], dtype=u.dtype, device=u.device)) @ vh
    return rotation.float(), votes.shift[group].mean(0), votes.scale[group].log().mean().exp()


def _start(found: FoundPose, brain: NetworkInput, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rotation, shift and scale of the masking network's pose, in the units of ``brain``."""
    shift = (found.origin - brain.center) / brain.radius
    return tensor(found.rotation, device), tensor(shift, device), torch.tensor(found.radius / brain.radius, device=device)


def _degrees(a: Tensor, b: Tensor) -> float:
    return float(np.degrees(np.arccos(np.clip((float((a * b).sum()) - 1) / 2, -1, 1))))


def _read_rotation(path: Path) -> Array | None:
    """A rotation (3, 3) written by :func:`_write_rotation`; None if the file is missing or invalid."""
    try:
        rotation = np.array(json.loads(path.read_text(encoding="utf-8")), dtype=float)
    except (OSError, ValueError, TypeError):
        return None
    whole = rotation.shape == (3, 3) and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    return rotation if whole else None


def _write_rotation(path: Path, rotation: Array) -> None:
    try:
        write_text(path, json.dumps(rotation.tolist()))
    except OSError as error:
        logger.warning("%s: the rotation of the template could not be saved (%s); it is estimated again each time", path, error)
