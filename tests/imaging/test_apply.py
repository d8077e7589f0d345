"""Application of poses: images on the template's grid, and reoriented headers."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.geometry import Rigid
from posepipe.imaging.apply import reorient, resample_to_template
from posepipe.matching.brain import Brain
from posepipe.matching.similarity import similarity
from posepipe.matching.target import SPACING

pytestmark = pytest.mark.usefixtures("one_thread_no_cache")

IDENTITY = Rigid.identity()


def test_reoriented_keeps_every_voxel_and_turns_the_header(head):
    out = reorient(head.image, head.pose)
    assert out.data is head.image.data
    np.testing.assert_allclose(out.affine, np.linalg.inv(head.pose.matrix) @ head.image.affine, atol=1e-9)
    assert np.linalg.det(out.affine) * np.linalg.det(head.image.affine) > 0  # never mirrored


def test_resampled_is_the_reoriented_image_on_the_template_grid(head, target):
    direct = resample_to_template(head.image, target.volume, head.pose)
    by_header = resample_to_template(reorient(head.image, head.pose), target.volume, IDENTITY)
    assert direct.same_grid(target.volume)
    np.testing.assert_allclose(direct.data, by_header.data, atol=0.01)
    assert direct.data.max() > 500


def test_resampled_shows_the_head_in_atlas_pose(head, target):
    image = resample_to_template(head.image, target.volume, head.pose)
    mask = resample_to_template(head.mask, target.volume, head.pose, order=0)
    assert set(np.unique(mask.data)) == {0, 1}
    both = Brain.prepare(image, mask, SPACING)
    ours = similarity(both, target.brain, IDENTITY)
    assert ours["Dice"] > 0.88
    assert ours["NCC"] > 0.6
    inverse = resample_to_template(head.image, target.volume, ~head.pose)
    assert np.corrcoef(inverse.data.ravel(), target.volume.data.ravel())[0, 1] < 0.6


def test_values_stay_in_the_image_range(head, target):
    out = resample_to_template(head.image, target.volume, head.pose)
    assert out.data.min() >= head.image.data.min()
    assert out.data.max() <= head.image.data.max()
    assert out.data.dtype == np.float32


def test_identity_on_its_own_grid_changes_nothing(average):
    image, _ = average
    np.testing.assert_allclose(resample_to_template(image, image, IDENTITY).data, image.data, atol=0.05)


def test_outside_the_image_is_empty(average):
    image, _ = average
    away = Rigid(np.eye(3), np.array([400.0, 0, 0]))
    assert not resample_to_template(image, image, away).data.any()


def test_a_shift_of_whole_voxels_moves_voxels(average):
    image, _ = average
    out = resample_to_template(image, image, Rigid(np.eye(3), np.array([3 * image.spacing[0], 0, 0])))
    np.testing.assert_allclose(out.data[:-3], image.data[3:], atol=0.05)
