"""The phantom: growth, labels, asymmetry, contrast, and correct poses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from posepipe import phantom
from posepipe.errors import AgeError, UsageError
from posepipe.geometry import Rigid, random_rotations
from posepipe.imaging.volume import Volume, load_volume
from posepipe.phantom.subject import best_rigid

COARSE = 1.6


def millilitres(volume: Volume, label: int | None = None) -> float:
    inside = volume.data > 0 if label is None else volume.data == label
    return float(inside.sum() * volume.voxel_volume / 1000)


def world(volume: Volume) -> np.ndarray:
    """World points (n, 3) of the voxels that are not zero."""
    return np.argwhere(volume.data > 0) @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def read_at(volume: Volume, points: np.ndarray, order: int = 1) -> np.ndarray:
    inverse = np.linalg.inv(volume.affine)
    return ndimage.map_coordinates(volume.data, inverse[:3, :3] @ points.T + inverse[:3, 3:], order=order)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.fixture(scope="module")
def by_age() -> dict[int, Volume]:
    return {age: phantom.brain_labels(age, COARSE) for age in (21, 24, 27, 30, 34, 38, 41, 44)}


def test_brain_grows_within_the_bounds_known_of_fetal_atlases(by_age: dict[int, Volume]) -> None:
    sizes = [millilitres(v) for v in by_age.values()]
    assert all(b > 1.05 * a for a, b in pairwise(sizes))
    bounds = {21: (80, 100), 24: (120, 150), 30: (255, 295), 38: (430, 480), 44: (480, 580)}
    for age, (low, high) in bounds.items():
        assert low < millilitres(by_age[age]) < high, age


@pytest.mark.data
@pytest.mark.parametrize("week", [21, 26, 31, 37])
def test_size_and_shape_agree_with_a_real_atlas(data_dir, week: int) -> None:
    real = load_volume(data_dir / f"atlases/tpl-CRL/cohort-{week}/tpl-CRL_cohort-{week}_desc-brain_mask.nii.gz")
    mine = phantom.brain_labels(week, COARSE)
    assert millilitres(mine) == pytest.approx(millilitres(real), rel=0.12)
    spread = [np.sqrt(np.linalg.eigvalsh(np.cov(world(v).T))) for v in (mine, real)]
    np.testing.assert_allclose(spread[0], spread[1], rtol=0.05)


def test_every_label_is_there_at_every_age_and_the_border_is_empty(by_age: dict[int, Volume]) -> None:
    for age, labels in by_age.items():
        assert labels.data.dtype == np.uint8
        assert set(np.unique(labels.data)) == {0, *phantom.LABELS}, age
        inner = labels.data[2:-2, 2:-2, 2:-2]
        assert inner.astype(bool).sum() == labels.data.astype(bool).sum(), age
        assert np.linalg.norm(world(labels).mean(axis=0)) < 1.0, age


def test_the_brain_is_one_piece_longest_from_front_to_back(by_age: dict[int, Volume]) -> None:
    for labels in by_age.values():
        assert ndimage.label(labels.data > 0)[1] == 1
        x, y, z = world(labels).std(axis=0)
        assert y > x > z


def test_anatomy_changes_with_age_as_it_should(by_age: dict[int, Volume]) -> None:
    def share(age: int, label: int) -> float:
        return millilitres(by_age[age], label) / millilitres(by_age[age])

    assert share(21, 4) > share(30, 4) > share(41, 4)  # fluid around the brain
    assert share(21, 2) > share(30, 2) > share(41, 2)  # ventricles
    assert share(21, 3) < share(30, 3) < share(41, 3)  # cerebellum

    def folding(age: int) -> float:
        """Surface of the cortical label for the size of the brain: grows as the cortex folds."""
        brain = np.isin(by_age[age].data, (1, 5))
        edge = brain & ~ndimage.binary_erosion(brain)
        return float(edge.sum() / brain.sum() ** (2 / 3))

    assert folding(21) < folding(34) < folding(41)


def test_superior_and_anterior_are_where_they_should_be(by_age: dict[int, Volume]) -> None:
    labels = by_age[30]
    centres = {k: world(labels.with_data(labels.data == k)).mean(axis=0) for k in phantom.LABELS}
    assert centres[7][2] < -10 and centres[3][2] < -10  # brainstem and cerebellum below
    assert centres[3][1] < centres[7][1] - 5  # the cerebellum behind the brainstem
    assert centres[8][2] > centres[6][2] + 3  # the callosum above the thalami


def test_left_differs_from_right_but_not_by_much() -> None:
    labels = phantom.brain_labels(32, 1.0)
    right = labels.data == 5
    points = world(labels.with_data(right))
    mirrored = read_at(labels.with_data(right.astype(np.uint8)), points * [-1, 1, 1], order=0)
    assert 0.2 < mirrored.mean() < 0.9
    whole = world(phantom.brain_mask(labels))
    assert 0.93 < read_at(phantom.brain_mask(labels), whole * [-1, 1, 1], order=0).mean() < 0.995
    horn = world(labels.with_data(labels.data == 2))
    assert horn[horn[:, 0] < -5][:, 1].min() < horn[horn[:, 0] > 5][:, 1].min() - 2  # the left occipital horn is longer


def test_no_rotation_of_a_mirrored_phantom_fits_as_well_as_the_true_one() -> None:
    labels = phantom.brain_labels(30, 2.0)
    image = phantom.render(labels, 30)
    points = world(labels)
    true = read_at(image, points)
    mirrored = read_at(image, points * [-1, 1, 1])
    assert np.corrcoef(true, mirrored)[0, 1] < 0.9


def test_background_is_exactly_zero_and_fluid_is_bright_on_t2w_dark_on_t1w(by_age: dict[int, Volume]) -> None:
    labels = by_age[27]
    t2, t1 = (phantom.render(labels, 27, contrast) for contrast in ("T2w", "T1w"))
    for image in (t2, t1):
        assert image.data.dtype == np.float32
        assert not image.data[labels.data == 0].any()
        assert image.data[labels.data > 0].min() > 0
    t2_by_label, t1_by_label = ({k: np.median(v.data[labels.data == k]) for k in phantom.LABELS} for v in (t2, t1))
    assert t2_by_label[4] > t2_by_label[1] > t2_by_label[5]
    assert t1_by_label[4] < t1_by_label[1] < t1_by_label[5]


def test_mask_is_what_has_a_label(by_age: dict[int, Volume]) -> None:
    mask = phantom.brain_mask(by_age[24])
    assert mask.data.dtype == np.uint8
    np.testing.assert_array_equal(mask.data > 0, by_age[24].data > 0)


def test_individuals_differ_by_seed_and_repeat_with_it() -> None:
    average = phantom.brain_labels(28, 2.5)
    one, again, other = (phantom.brain_labels(28, 2.5, seed=s, shape_jitter=1.0, margin=20) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.data, again.data)
    assert one.shape != other.shape or (one.data != other.data).any()
    np.testing.assert_array_equal(phantom.brain_labels(28, 2.5, seed=1).data, average.data)


def test_impossible_requests_say_why() -> None:
    with pytest.raises(AgeError, match="21 to 44 weeks, not 50"):
        phantom.brain_labels(50)
    with pytest.raises(AgeError, match="not nan"):
        phantom.brain_labels(float("nan"))
    with pytest.raises(UsageError, match=r"0.2 to 10 mm, not 0"):
        phantom.brain_labels(30, spacing=0)
    with pytest.raises(UsageError, match="not 'FLAIR'"):
        phantom.render(phantom.brain_labels(30, 4.0), 30, "FLAIR")
    with pytest.raises(UsageError, match="orthonormal"):
        phantom.subject(30, rng=np.random.default_rng(0), pose=Rigid.identity(), directions=np.ones((3, 3)))


def test_deformation_has_the_size_requested_and_no_net_rigid_motion() -> None:
    points = world(phantom.brain_labels(30, 4.0)).astype(float)
    for seed in range(5):
        change = phantom.random_deformation(points, np.random.default_rng(seed), rms_mm=2.0)
        images = change.apply(points)
        assert np.sqrt(((images - points) ** 2).sum(axis=1).mean()) == pytest.approx(2.0, abs=0.02)
        left_over = best_rigid(points, images)
        assert left_over.angle_degrees < 1e-6
        assert np.linalg.norm((images - points).mean(axis=0)) < 1e-9


def test_no_deformation_moves_nothing() -> None:
    points = np.random.default_rng(0).normal(size=(50, 3)) * 30
    change = phantom.random_deformation(points, np.random.default_rng(1), rms_mm=0.0)
    np.testing.assert_allclose(change.apply(points), points, atol=1e-9)


def everywhere(volume: Volume) -> np.ndarray:
    """World points (n, 3) of every voxel: the brain's outline counts as much as what is in it."""
    return np.argwhere(np.ones(volume.shape, bool)) @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def similarity(image: Volume, template: Volume, points: np.ndarray, pose: Rigid) -> float:
    return float(np.corrcoef(read_at(template, points), read_at(image, pose.apply(points)))[0, 1])


@pytest.mark.slow
def test_truth_beats_every_pose_ten_degrees_or_four_millimetres_off() -> None:
    labels = phantom.brain_labels(29, COARSE)
    template = phantom.render(labels, 29)
    points = everywhere(labels)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth = Rigid(random_rotations(1, rng)[0], rng.uniform(-30, 30, 3))
        image, mask, pose = phantom.subject(29, rng=rng, pose=truth, spacing=COARSE)
        assert pose is truth
        best = similarity(image, template, points, truth)
        assert best > 0.9
        for axis in np.vstack([np.eye(3), -np.eye(3)]):
            turned = Rigid.from_rotvec(axis * np.radians(10))
            assert best > similarity(image, template, points, truth @ turned) + 0.02
            assert best > similarity(image, template, points, truth @ Rigid(np.eye(3), axis * 4)) + 0.02
        assert read_at(mask, truth.apply(world(labels)), order=0).mean() > 0.93


def test_anatomy_is_never_mirrored_whatever_the_voxel_order() -> None:
    labels = phantom.brain_labels(33, 2.0)
    template, points = phantom.render(labels, 33), world(labels)
    truth = Rigid.from_rotvec([1.0, -0.7, 0.4], [12, 3, -8])
    seen = set()
    for flips in ([1, 1, 1], [-1, 1, 1], [1, -1, 1], [-1, -1, -1]):
        directions = np.eye(3)[:, [1, 0, 2]] * flips
        image, _, _ = phantom.subject(
            33, rng=np.random.default_rng(4), pose=truth, spacing=2.0, directions=directions, deformation_mm=0
        )
        seen.add(np.sign(np.linalg.det(image.affine[:3, :3])))
        right_way = similarity(image, template, points, truth)
        mirrored = np.corrcoef(read_at(template, points), read_at(image, truth.apply(points * [-1, 1, 1])))[0, 1]
        assert right_way > mirrored + 0.05
    assert seen == {1.0, -1.0}


def test_random_directions_have_both_hands_and_every_axis_order() -> None:
    rng = np.random.default_rng(0)
    frames = [phantom.random_directions(rng) for _ in range(400)]
    nearest = {tuple(np.round(np.where(np.abs(f) > 0.7, np.sign(f), 0)).astype(int).ravel()) for f in frames}
    assert len(nearest) == 48
    assert {round(float(np.linalg.det(f))) for f in frames} == {-1, 1}


def test_image_outside_the_mask_is_zero_unless_surroundings_are_requested() -> None:
    pose = Rigid.from_rotvec([0.0, 2.0, 0.5], [5, 5, 5])
    bare, mask, _ = phantom.subject(25, rng=np.random.default_rng(3), pose=pose, spacing=2.0)
    assert not bare.data[mask.data == 0].any()
    assert (bare.data[mask.data == 1] > 0).all()
    assert bare.same_grid(mask)
    head, head_mask, _ = phantom.subject(25, rng=np.random.default_rng(3), pose=pose, spacing=2.0, surroundings=True)
    assert (head.data[head_mask.data == 0] > 0).mean() > 0.9


def test_same_generator_gives_the_same_head_in_both_contrasts() -> None:
    pose = Rigid.from_rotvec([0.5, 2.0, 0.5])
    t2, t1, again = (
        phantom.subject(39, rng=np.random.default_rng(5), pose=pose, contrast=c, spacing=(1.5, 1.5, 3.0))
        for c in ("T2w", "T1w", "T2w")
    )
    assert t2[0].same_grid(t1[0])
    np.testing.assert_allclose(t2[0].spacing, (1.5, 1.5, 3.0))
    np.testing.assert_array_equal(t2[1].data, t1[1].data)
    np.testing.assert_array_equal(t2[0].data, again[0].data)
    inside = t2[1].data > 0
    assert np.corrcoef(t2[0].data[inside], t1[0].data[inside])[0, 1] < -0.3


def test_noise_and_bias_do_what_they_say() -> None:
    def head(noise: float, bias: float) -> tuple[Volume, Volume]:
        image, mask, _ = phantom.subject(
            30, rng=np.random.default_rng(6), pose=Rigid.identity(), spacing=2.0, noise=noise, bias=bias
        )
        return image, mask

    clean, mask = head(0, 0)
    inside = mask.data > 0
    mean = clean.data[inside].mean()
    noisy = head(0.1, 0)[0].data[inside] - clean.data[inside]
    assert noisy.std() == pytest.approx(0.1 * mean, rel=0.1)
    gain = head(0, 0.2)[0].data[inside] / clean.data[inside]
    assert np.exp(-0.2) - 1e-3 <= gain.min() < gain.max() - 0.1
    assert 1.05 < gain.max() <= np.exp(0.2) + 1e-3
