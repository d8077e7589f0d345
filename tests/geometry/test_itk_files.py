"""ITK transform files: ANTs reads what posepipe writes and the other way round, whatever the header's orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from rotation_strategies import rigids

from posepipe.errors import TransformError
from posepipe.geometry import Rigid, axis_rotations, random_rotations, read_itk, so3, write_itk
from posepipe.imaging.volume import Volume, save_volume

MIRROR = np.diag([-1.0, 1, 1])
LPS = np.array([-1.0, -1, 1])


def orientations() -> list[tuple[str, np.ndarray]]:
    """The 48 orientations of voxel axes, six oblique ones of each handedness, and LAS axes barely tilted."""
    rng = np.random.default_rng(5)
    cube, oblique = axis_rotations(), random_rotations(6, rng)
    named = [(f"axes{i}", m) for i, m in enumerate([*cube, *(cube @ MIRROR)])]
    named += [(f"oblique{i}", m) for i, m in enumerate([*oblique, *(oblique @ MIRROR)])]
    tilts = [so3.exp(np.radians(degrees) * np.array([0.6, 0.48, 0.64])) @ MIRROR for degrees in (0.01, 0.1, 1.0)]
    return named + [(f"tilted{i}", m) for i, m in enumerate(tilts)]


def coordinates_image(axes: np.ndarray, center: np.ndarray) -> list[Volume]:
    """Three images about ``center`` whose values are the world x, y and z: linear, so interpolated exactly."""
    shape = (24, 26, 28)
    affine = np.eye(4)
    affine[:3, :3] = axes * [1.9, 2.2, 1.6]
    affine[:3, 3] = center - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    return [Volume(world[..., i].astype(np.float32), affine) for i in range(3)]


def template_image() -> Volume:
    affine = np.diag([1.5, 1.2, 1.4, 1.0])
    affine[:3, 3] = [-7, -6, 20]
    return Volume(np.ones((9, 10, 11), np.float32), affine, "template")


def world_points(volume: Volume) -> np.ndarray:
    return np.moveaxis(np.indices(volume.shape), 0, -1) @ volume.affine[:3, :3].T + volume.affine[:3, 3]


@pytest.mark.parametrize(("name", "axes"), orientations())
def test_ants_resamples_where_the_pose_says(name, axes, tmp_path):
    """``antsApplyTransforms -i IMAGE -r TEMPLATE -t FILE`` shows at each voxel the image at ``pose.apply(voxel)``."""
    import ants

    rng = np.random.default_rng(sum(name.encode()))
    template = template_image()
    center = rng.uniform(-60, 60, 3)
    pose = Rigid.about(random_rotations(1, rng)[0], template.center, center)
    transform = write_itk(pose, tmp_path / "from-T2w_to-CRL+29_mode-image_xfm.txt")
    fixed = ants.image_read(str(save_volume(template, tmp_path / "template.nii.gz")))
    seen = []
    for i, volume in enumerate(coordinates_image(axes, center)):
        moving = ants.image_read(str(save_volume(volume, tmp_path / f"{i}.nii.gz")))
        moved = ants.apply_transforms(fixed=fixed, moving=moving, transformlist=[str(transform)], defaultvalue=-9999)
        seen.append(moved.numpy())
    points = world_points(template)
    found, expected = np.stack(seen, -1), pose.apply(points)
    assert found.min() > -9000  # nothing fell outside the image
    assert np.linalg.norm(found - expected, axis=-1).max() < 1e-3  # mm
    fit = np.linalg.lstsq((points - template.center).reshape(-1, 3), (found - center).reshape(-1, 3), rcond=None)[0]
    assert np.degrees(so3.geodesic_distance(so3.project(fit.T), pose.rotation)) < 1e-3


def test_a_blob_lands_on_its_place_in_the_template(tmp_path):
    """The same from a user's side: a blob in an oblique, left-handed image, found again by its centroid."""
    import ants

    rng = np.random.default_rng(2)
    affine = np.eye(4)
    affine[:3, :3] = random_rotations(1, rng)[0] @ MIRROR * [1.1, 0.9, 1.3]
    affine[:3, 3] = [40, -25, 10]
    place = affine[:3, :3] @ [17.3, 22.8, 14.1] + affine[:3, 3]
    blank = Volume(np.zeros((36, 40, 30), np.float32), affine)
    blob = np.exp(-((world_points(blank) - place) ** 2).sum(-1) / (2 * 3.0**2)).astype(np.float32)
    template = Volume(np.ones((48, 48, 48), np.float32), np.diag([1.0, 1, 1, 1]))
    pose = Rigid.about(random_rotations(1, rng)[0], [22.4, 25.1, 23.6], place)
    transform = write_itk(pose, tmp_path / "x.txt")
    moved = ants.apply_transforms(
        fixed=ants.image_read(str(save_volume(template, tmp_path / "t.nii"))),
        moving=ants.image_read(str(save_volume(blank.with_data(blob), tmp_path / "m.nii"))),
        transformlist=[str(transform)],
    ).numpy()
    centroid = (world_points(template) * moved[..., None]).sum((0, 1, 2)) / moved.sum()
    np.testing.assert_allclose(centroid, [22.4, 25.1, 23.6], atol=0.02)


@settings(max_examples=40)
@given(pose=rigids())
def test_files_round_trip_and_ants_maps_points_alike(pose, tmp_path_factory):
    import ants

    folder = tmp_path_factory.mktemp("itk")
    for name in ("x.txt", "x.mat"):
        path = write_itk(pose, folder / name)
        assert read_itk(path).is_close(pose, degrees=1e-5, mm=1e-4)
        point = np.array([31.0, -64, 12])
        theirs = np.array(ants.read_transform(str(path)).apply_to_point(point * LPS)) * LPS
        np.testing.assert_allclose(theirs, pose.apply(point), atol=1e-4)
    assert sorted(p.name for p in folder.iterdir()) == ["x.mat", "x.txt"]


@pytest.mark.parametrize("precision", ["float", "double"])
@pytest.mark.parametrize("name", ["theirs.txt", "theirs.mat"])
def test_a_transform_written_by_ants_reads_back_as_the_same_map(name, precision, tmp_path):
    import ants

    pose = Rigid.from_rotvec([0.4, -2.2, 1.0], [30, -45, 12])
    rotation, translation = pose.to_lps()
    theirs = ants.create_ants_transform(
        transform_type="AffineTransform",
        precision=precision,
        dimension=3,
        matrix=rotation,
        translation=translation,
        center=[12.5, -33.0, 48.0],  # the centre of rotation moves the map, and must be read
    )
    ants.write_transform(theirs, str(tmp_path / name))
    ours = read_itk(tmp_path / name)
    assert ours.degrees_from(pose) < 1e-4
    for point in np.random.default_rng(0).uniform(-100, 100, (5, 3)):
        expected = np.array(theirs.apply_to_point(point * LPS)) * LPS
        np.testing.assert_allclose(ours.apply(point), expected, atol=2e-4)


def test_the_mat_of_a_registration_reads_back_as_the_map_it_applies(tmp_path):
    import ants

    shape, spread = (20, 20, 20), np.array([3.0, 4.0, 5.0])
    at = np.moveaxis(np.indices(shape), 0, -1)
    fixed, moving = (
        np.exp(-(((at - center) @ turn / spread) ** 2).sum(-1))
        for center, turn in (([9, 10, 9], np.eye(3)), ([11, 9, 10], so3.exp([0.2, 0.1, -0.15])))
    )
    result = ants.registration(
        fixed=ants.from_numpy(fixed.astype(np.float32), spacing=(1.5, 1.5, 1.5), origin=(-12.0, 7, 3)),
        moving=ants.from_numpy(moving.astype(np.float32), spacing=(1.5, 1.5, 1.5), origin=(20.0, -8, 1)),
        type_of_transform="Rigid",
        aff_metric="meansquares",  # every voxel and a plain metric: this is about the file, and must not hang on chance
        aff_random_sampling_rate=1.0,
        outprefix=str(tmp_path / "r_"),
        random_seed=1,
    )
    (path,) = result["fwdtransforms"]
    theirs, ours = ants.read_transform(path), read_itk(path)
    assert ours.angle_degrees > 1
    for point in np.random.default_rng(0).uniform(-60, 60, (5, 3)):
        expected = np.array(theirs.apply_to_point(point * LPS)) * LPS
        np.testing.assert_allclose(ours.apply(point), expected, atol=1e-3)


def ants_text(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "bad.txt"
    path.write_text(text)
    return path


HEAD = "#Insight Transform File V1.0\n#Transform 0\n"
AFFINE = "Transform: AffineTransform_double_3_3\nParameters: {}\nFixedParameters: 0 0 0\n"
SAME = "1 0 0 0 1 0 0 0 1 0 0 0"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not an ITK matrix transform"),
        ("not a transform\n", "not an ITK matrix transform"),
        (HEAD, "not an ITK matrix transform"),
        (HEAD + AFFINE.format("1 0 0 0 1 0 0 0"), "not an ITK matrix transform"),
        (HEAD + AFFINE.format("1 0 0 0 1 0 0 0 1 nan 0 0"), "finite"),
        (HEAD + AFFINE.format("1.05 0 0 0 1 0 0 0 1 0 0 0"), "stretches"),
        (HEAD + AFFINE.format("-1 0 0 0 1 0 0 0 1 0 0 0"), "mirrors"),
        (
            HEAD + "Transform: Euler3DTransform_double_3_3\nParameters: 0.3 -0.2 0.5 1 2 3\nFixedParameters: 5 6 7 0\n",
            "give one AffineTransform",
        ),
        (HEAD + AFFINE.format(SAME) + "#Transform 1\n" + AFFINE.format(SAME), "More than one"),
    ],
)
def test_what_is_no_rigid_matrix_is_refused_by_name(text, says, tmp_path):
    path = ants_text(tmp_path, text)
    with pytest.raises(TransformError) as error:
        read_itk(path)
    assert str(path) in str(error.value)
    assert says in str(error.value)


def test_a_missing_file_and_an_euler_mat_are_refused(tmp_path):
    import ants

    with pytest.raises(TransformError, match="no such transform file"):
        read_itk(tmp_path / "none.txt")
    euler = ants.new_ants_transform(
        dimension=3, transform_type="Euler3DTransform", parameters=[0.3, 0, 0, 1, 2, 3], fixed_parameters=[5, 6, 7, 0]
    )
    ants.write_transform(euler, str(tmp_path / "euler.mat"))
    with pytest.raises(TransformError, match="give one AffineTransform"):
        read_itk(tmp_path / "euler.mat")


def test_writing_over_a_file_replaces_it_whole(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old" * 1000)
    pose = Rigid.from_rotvec([0, 0.1, 0], [1, 2, 3])
    assert write_itk(pose, path) == path
    assert read_itk(path).is_close(pose, degrees=1e-5, mm=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    assert write_itk(pose, tmp_path / "new" / "x.txt").is_file()  # the folder is made
