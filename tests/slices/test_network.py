"""The slice network before registration: poses from coordinates of pixels, in the right frame, and the mean of rotated copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posepipe.errors import MaskError, WeightsError
from posepipe.geometry import random_rotations
from posepipe.models.slices import SliceCoordinateNet, SliceField, SlicePoseNet, slice_points
from posepipe.models.weights import save_network
from posepipe.slices import network as module
from posepipe.slices.frames import Slice, twin_pose
from posepipe.slices.network import SliceNetwork, mask_middle
from posepipe.slices.points import SliceTarget

SIDE = 16


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    options = {"size": SIDE, "width": [2, 2, 2, 2]}
    kept = {"options": options, "card": "For tests.", "terms": "none"}
    save_network(SliceCoordinateNet(SIDE, (2, 2, 2, 2)), "slice-coordinates", folder, architecture="SliceCoordinateNet", **kept)
    pose = {"options": {"size": 32, "width": 0.05}, "card": "For tests.", "terms": "none"}
    save_network(SlicePoseNet(32, 0.05), "other", folder, architecture="SlicePoseNet", **pose)
    return folder


def piece(grid) -> Slice:
    mask = np.zeros(grid.shape, bool)
    mask[30:70, 20:50] = True
    return Slice(grid, np.where(mask, 100.0, 0.0).astype(np.float32), mask)


def truth_of(slices, target: SliceTarget, seed: int = 0):
    """Poses (atlas → image) and, of each, the canonical coordinates of the network's pixels about the mask's middle."""
    rng, radius, poses, fields = np.random.default_rng(seed), target.target.brain.radius, [], []
    for one, rotation in zip(slices, random_rotations(len(slices), rng), strict=True):
        shift = rng.uniform(-0.2, 0.2, 3)
        lands = np.append(mask_middle(one), 0.0) + radius * shift
        about = module.Rigid.about(rotation @ target.to_canonical, target.center, lands)
        poses.append(one.grid.pose_in_world(about))
        u = slice_points(SIDE // 2).double().numpy()
        fields.append(torch.from_numpy(((u - shift) @ rotation).T.reshape(3, SIDE // 2, SIDE // 2)).float())
    return poses, torch.stack(fields)


class Knows(torch.nn.Module):
    """Says of each turned copy what is true of the slice; ``errors`` are what it expects, ``mirrored`` copies it takes for twins."""

    def __init__(self, places: torch.Tensor, errors=(0.1,) * 4, mirrored=()) -> None:
        super().__init__()
        self.size, self.places, self.errors, self.mirrored, self.seen = SIDE, places, errors, mirrored, None

    def forward(self, x: torch.Tensor) -> SliceField:
        self.seen = x
        n, out = len(self.places), []
        for k in range(len(x) // n):
            p = torch.rot90(self.places, k, (2, 3))
            p = p * torch.tensor([-1.0, 1.0, 1.0])[:, None, None] if k in self.mirrored else p
            error = torch.full_like(p[:, :1], float(np.log(self.errors[k])))
            out.append(SliceField(p, error, torch.full_like(error, 20.0)))
        return SliceField(*(torch.cat(parts) for parts in zip(*out, strict=True)))


def asked(weights: Path, module: Knows, copies: int = 4) -> SliceNetwork:
    network = SliceNetwork(weights, copies=copies)
    network._loaded = replace(network._loaded, module=module)
    return network


@pytest.mark.parametrize("mirrored", [(), (1, 3)])
def test_poses_are_in_the_world_of_the_image(weights, slice_target, planes, mirrored):
    slices = [piece(grid) for grid in planes[:4]]
    poses, places = truth_of(slices, slice_target)
    found = asked(weights, Knows(places, mirrored=mirrored)).poses(slices, slice_target, slice_target.plane)
    for f, true, one in zip(found, poses, slices, strict=True):
        assert f.pose.degrees_from(true) < 0.05 and f.pose.mm_from(true, slice_target.center) < 0.05
        other = twin_pose(true, one.grid, slice_target.plane)
        assert f.twin.degrees_from(other) < 0.1 and len(f.copies) == 4
        for k, copy in enumerate(f.copies):
            assert copy.degrees_from(other if k in mirrored else true) < 0.1
        assert f.residual < 0.1 and f.expected_error == pytest.approx(0.1 * slice_target.target.brain.radius, rel=1e-3)


def test_places_are_weighed_by_what_copies_expect(weights, slice_target, planes):
    """A copy that is wrong, and knows it, hardly counts; alone it is wrong."""
    slices = [piece(planes[0])]
    (true,), places = truth_of(slices, slice_target)
    (_,), wrong = truth_of(slices, slice_target, seed=5)

    class Mixed(Knows):
        def forward(self, x):
            field = super().forward(x)
            field.position[2:3] = torch.rot90(wrong, 2, (2, 3))
            return field

    sure = asked(weights, Mixed(places, errors=(0.01, 0.01, 5.0, 0.01))).poses(slices, slice_target, slice_target.plane)[0]
    alike = asked(weights, Mixed(places)).poses(slices, slice_target, slice_target.plane)[0]
    assert sure.pose.degrees_from(true) < 0.5 < 3 < sure.copies[2].degrees_from(true)
    assert alike.pose.degrees_from(true) > sure.pose.degrees_from(true)


def test_the_crop_is_centred_on_the_mask_or_on_the_given_centre(weights, slice_target, planes):
    slices = [piece(planes[0])]
    _, places = truth_of(slices, slice_target)
    network = asked(weights, output := Knows(places), copies=1)
    network.poses(slices, slice_target, slice_target.plane)
    assert len(output.seen) == 1
    mask = output.seen[0, 1] > 0.5
    assert abs(float(torch.argwhere(mask).float().mean(0).sub((SIDE - 1) / 2).abs().max())) < 1
    away = mask_middle(slices[0]) + np.array([0.0, 20.0])
    (found,) = network.poses(slices, slice_target, slice_target.plane, centers=[away])
    moved = torch.argwhere(output.seen[0, 1] > 0.5).float().mean(0) - torch.argwhere(mask).float().mean(0)
    assert abs(float(moved[0])) < 0.5 and float(moved[1]) < -1
    assert found.center == pytest.approx(away, abs=1e-3)  # all is brain to this one
    network.poses(slices, slice_target, slice_target.plane, masked=False)
    assert (output.seen[0, 1] == 1).all()


def test_other_weights_and_empty_masks_are_errors(weights, slice_target, planes):
    with pytest.raises(WeightsError, match="other must be a SliceCoordinateNet, not a SlicePoseNet"):
        SliceNetwork(weights, name="other")
    grid = planes[0]
    with pytest.raises(MaskError):
        SliceNetwork(weights).poses([Slice(grid, np.zeros(grid.shape), np.zeros(grid.shape, bool))], slice_target, slice_target.plane)
