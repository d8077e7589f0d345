"""Slices of a volume, their frames and their twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rotation_strategies import rigids

from posepipe.errors import ImageError
from posepipe.geometry import Rigid
from posepipe.imaging.volume import Volume
from posepipe.slices.frames import MidsagittalPlane, Slice, SliceGrid, slice_axis, slices_of, twin_degrees, twin_pose

MIRROR = np.diag([-1.0, 1.0, 1.0])


@st.composite
def grids(draw) -> SliceGrid:
    """Any slice, of left- or right-handed voxel axes."""
    where = draw(rigids())
    axes = where.rotation * [1.1, 1.3, draw(st.sampled_from([-3.3, 3.3]))]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, where.translation
    return SliceGrid((40, 30), affine, 3.0)


@st.composite
def symmetry(draw) -> MidsagittalPlane:
    """Any template's plane of symmetry."""
    where = draw(rigids())
    return MidsagittalPlane.of(where.rotation, where.translation)


@given(grids(), rigids())
def test_the_slice_frame_is_right_handed_and_goes_both_ways(grid, pose):
    assert np.linalg.det(grid.axes) == pytest.approx(1)
    assert grid.pose_in_world(grid.pose_in_frame(pose)).is_close(pose)
    u, v = grid.spacing
    inner = (~grid.to_world).apply(grid.points)
    np.testing.assert_allclose(inner[..., 2], 0, atol=1e-9)
    np.testing.assert_allclose(inner[0, 0, :2], [-u * 19.5, -v * 14.5], atol=1e-9)
    np.testing.assert_allclose(inner[-1, 0, 0] - inner[0, 0, 0], 39 * u, atol=1e-9)


@given(grids(), rigids(), symmetry())
def test_a_twin_shows_the_mirror_image_in_every_pixel_and_is_its_twins_twin(grid, pose, plane):
    twin = twin_pose(pose, grid, plane)
    assert np.linalg.det(twin.rotation) == pytest.approx(1)
    np.testing.assert_allclose((~twin).apply(grid.points), plane.mirrored((~pose).apply(grid.points)), atol=1e-7)
    assert twin_pose(twin, grid, plane).is_close(pose, degrees=1e-5, mm=1e-6)
    assert twin.degrees_from(pose) == pytest.approx(twin_degrees(pose, grid, plane), abs=1e-5)


@given(grids(), rigids())
def test_in_the_slice_frame_of_an_upright_atlas_the_twin_is_mrf(grid, pose):
    """Slice → atlas (R, t) has the twin (M R F, M t)."""
    back, other = ~grid.pose_in_frame(pose), ~grid.pose_in_frame(twin_pose(pose, grid, MidsagittalPlane.of(np.eye(3), np.zeros(3))))
    np.testing.assert_allclose(other.rotation, MIRROR @ back.rotation @ np.diag([1, 1, -1]), atol=1e-9)
    np.testing.assert_allclose(other.translation, MIRROR @ back.translation, atol=1e-7)


@pytest.mark.parametrize(("normal", "degrees"), [((0, 0, 1), 180), ((0, 1, 0), 180), ((1, 0, 0), 0), ((1, 1, 0), 90)])
def test_twins_are_twice_the_angle_between_normal_and_left_right_apart(normal, degrees):
    n = np.array(normal) / np.linalg.norm(normal)
    u = np.cross(n, [0.3, 0.5, 0.8])
    u /= np.linalg.norm(u)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([u, np.cross(n, u), n], -1)
    grid = SliceGrid((10, 10), affine, 3.0)
    plane = MidsagittalPlane.of(np.eye(3), np.zeros(3))
    assert twin_degrees(Rigid.identity(), grid, plane) == pytest.approx(degrees, abs=1e-5)
    assert twin_pose(Rigid.identity(), grid, plane).angle_degrees == pytest.approx(degrees, abs=1e-5)


@given(rigids(), st.integers(0, 2), st.booleans())
def test_slices_hold_the_voxels_where_the_volume_has_them(where, axis, left_handed):
    rng = np.random.default_rng(0)
    data = rng.random((4, 5, 6)).astype(np.float32)
    spacing = np.array([1.0, 1.1, 1.2])
    spacing[axis] = 3.0
    affine = where.matrix @ np.diag([*(spacing * [-1 if left_handed else 1, 1, 1]), 1])
    volume = Volume(data, affine)
    assert slice_axis(volume) == axis
    pieces = slices_of(volume, volume.with_data(data > 0.5))
    assert [p.index for p in pieces] == list(range(data.shape[axis]))
    index = np.argwhere(data > -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    for p in pieces:
        mine = index[:, axis] == p.index
        order = np.lexsort(world[mine].round(6).T)
        got = p.grid.points.reshape(-1, 3)
        other = np.lexsort(got.round(6).T)
        np.testing.assert_allclose(got[other], world[mine][order], atol=1e-5)
        np.testing.assert_allclose(np.sort(p.image.ravel()), np.sort(data[tuple(index[mine].T)]))
        i, j = 2, 3
        back = np.linalg.inv(affine) @ [*p.grid.points[i, j], 1]
        assert p.image[i, j] == data[tuple(back[:3].round().astype(int))]
        assert p.mask[i, j] == (p.image[i, j] > 0.5)
        assert p.grid.thickness == pytest.approx(3.0)


def test_sheared_pixels_other_grids_and_no_thickness_are_refused():
    affine = np.eye(4)
    affine[0, 1] = 0.1
    with pytest.raises(ImageError, match="sheared"):
        SliceGrid((3, 3), affine, 3.0)
    with pytest.raises(ImageError, match="thick"):
        SliceGrid((3, 3), np.eye(4), 0.0)
    volume = Volume(np.ones((3, 3, 3), np.float32), np.eye(4))
    with pytest.raises(ImageError, match="grid"):
        slices_of(volume, Volume(np.ones((3, 3, 3), bool), np.diag([1, 1, 2, 1])))
    with pytest.raises(ImageError, match="shape"):
        Slice(SliceGrid((3, 3), np.eye(4), 1.0), np.zeros((3, 4)), np.zeros((3, 3), bool))


def test_area_and_centre_of_a_mask():
    mask = np.zeros((10, 10), bool)
    mask[2:4, 5:7] = True
    grid = SliceGrid((10, 10), np.diag([2.0, 3.0, 4.0, 1.0]), 4.0)
    piece = Slice(grid, mask.astype(np.float32), mask)
    assert piece.area == pytest.approx(24)
    np.testing.assert_allclose(piece.mask_center, [5.0, 16.5, 0])
