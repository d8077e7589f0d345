"""Reorienting and restoring: voxels under their original header, and labels on another grid mapped back to the image's."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest

from posepipe import phantom
from posepipe.errors import ImageError, UsageError
from posepipe.geometry import Rigid
from posepipe.imaging.apply import reorient, resample_to_template
from posepipe.imaging.restore import is_reoriented, labels_on_image, order_for, restore
from posepipe.imaging.volume import Volume, load_volume, save_volume

pytestmark = pytest.mark.usefixtures("one_thread_no_cache")


def handedness(volume: Volume) -> float:
    return float(np.sign(np.linalg.det(volume.affine[:3, :3])))


def tissue(volume: Volume, mask: Volume) -> Volume:
    """Three labels in the brain, by brightness: ragged ones, as a segmentation is."""
    edges = np.quantile(volume.data[mask.data > 0], [0.33, 0.67])
    return volume.with_data(((np.digitize(volume.data, edges) + 1) * (mask.data > 0)).astype(np.uint8))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


def test_labels_of_the_reoriented_image_come_back_voxel_for_voxel(heads: list[Any]):
    assert {handedness(head.image) for head in heads} == {-1.0, 1.0}
    for head in heads:
        upright = reorient(head.image, head.pose)
        labels = tissue(upright, Volume(head.mask.data, upright.affine))
        back = restore(labels, head.image, head.pose)
        assert back.data.dtype == np.uint8 and np.array_equal(back.data, labels.data)
        np.testing.assert_array_equal(back.affine, head.image.affine)
        # and it lies on the brain, by world coordinates
        world = head.image.affine @ np.append(np.argwhere(back.data > 0).mean(0), 1)
        brain = head.image.affine @ np.append(np.argwhere(head.mask.data > 0).mean(0), 1)
        np.testing.assert_allclose(world, brain, atol=1e-6)


def test_labels_that_a_tool_wrote_in_another_order_of_axes_come_back_voxel_for_voxel(heads: list[Any], tmp_path):
    for head in heads[:2]:
        upright = reorient(head.image, head.pose)
        labels = tissue(upright, Volume(head.mask.data, upright.affine))
        tool = nib.as_closest_canonical(nib.load(save_volume(labels, tmp_path / "labels.nii.gz")))
        nib.save(tool, tmp_path / "turned.nii.gz")
        turned = load_volume(tmp_path / "turned.nii.gz", None)
        assert np.array_equal(restore(turned, head.image, head.pose).data, labels.data)


def test_labels_on_the_grid_of_the_template_come_back_where_they_were(heads: list[Any]):
    """Brain masks by way of a grid of 0.8 mm: the two nearest neighbours shift edges by half a voxel at most."""
    found = []
    grid = phantom.brain_labels(29.0, 0.8)
    for head in heads[::3]:
        on_grid = Volume(labels_on_image(head.mask, grid, ~head.pose).data, grid.affine)
        back = restore(on_grid, head.image, head.pose)
        assert back.same_grid(head.image)
        found.append(dice(back.data > 0, head.mask.data > 0))
        wrong = restore(on_grid, head.image, ~head.pose)
        assert dice(wrong.data > 0, head.mask.data > 0) < 0.9
    assert min(found) > 0.99, found


def test_an_image_on_the_grid_of_the_template_comes_back_alike(head: Any, target: Any):
    there = resample_to_template(head.image, target.volume, head.pose)
    inside = head.mask.data > 0
    errors = {}
    for order in (None, 3, 1, 0):
        back = restore(there, head.image, head.pose, order)
        errors[order] = float(np.abs(back.data - head.image.data)[inside].mean())
    assert errors[None] == errors[3] < errors[1] < errors[0]


def test_whole_numbers_stay_whole_and_keep_their_type(head: Any, target: Any):
    there = resample_to_template(head.image, target.volume, head.pose)
    stored = there.with_data(np.round(there.data).astype(np.int16))
    labels, image = restore(stored, head.image, head.pose), restore(stored, head.image, head.pose, 3)
    assert labels.data.dtype == image.data.dtype == np.int16
    assert set(np.unique(labels.data)) <= set(np.unique(stored.data)) | {0}
    assert np.abs(image.data - restore(there, head.image, head.pose).data).max() <= 2


def test_order_follows_the_values():
    assert order_for(np.zeros(3, bool)) == order_for(np.arange(3, dtype=">i2")) == order_for(np.arange(3.0)) == 0
    assert order_for(np.array([0.25, 1.0])) == 3


def test_atlas_labels_lie_on_the_image(heads: list[Any]):
    labels = phantom.brain_labels(29.0, 0.8)
    for head in heads[::4]:
        ours = labels_on_image(labels, head.image, head.pose)
        assert ours.same_grid(head.image) and ours.data.dtype == labels.data.dtype
        assert dice(ours.data > 0, head.mask.data > 0) > 0.85
        index = np.argwhere(ours.data > 0)[::997]
        world = index @ head.image.affine[:3, :3].T + head.image.affine[:3, 3]
        there = (~head.pose).apply(world)
        at = np.round((there - labels.affine[:3, 3]) @ np.linalg.inv(labels.affine[:3, :3]).T).astype(int)
        assert np.array_equal(labels.data[tuple(at.T)], ours.data[tuple(index.T)])


def test_what_needs_no_restoring_and_unknown_orders_are_refused(head: Any):
    with pytest.raises(ImageError, match=r"already on the grid of .*, not in the atlas's frame"):
        restore(head.mask, head.image, head.pose)
    with pytest.raises(UsageError, match=r"order 2; give 0 \(nearest"):
        restore(head.mask, head.image, head.pose, 2)
    same = Rigid.identity()
    assert is_reoriented(head.mask, head.image, same) and restore(head.mask, head.image, same).data is head.mask.data
