"""Synthesised images: correct true poses, corruption within its range, and the same images for the same seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from posepipe.errors import UsageError
from posepipe.models.coordinates import HALF_SIDE, cube_points
from posepipe.models.procrustes import procrustes
from posepipe.training.contrast import SYMMETRIC_SHARE, random_contrast
from posepipe.training.corruption import Corruption, corrupt
from posepipe.training.sources import LEFT, Sources
from posepipe.training.synthesis import MAX_SHIFT, Recipe, Synthesis

NONE = Corruption().none()
CLEAN = Recipe(size=16, corruption=NONE, deform=0, stretch=0)


@pytest.fixture(scope="module")
def ball() -> torch.Tensor:
    """A mask of root mean square radius 1, (16, 1, 32, 32, 32)."""
    inside = cube_points(32).norm(dim=1) < np.sqrt(5 / 3)
    return inside.float().reshape(1, 1, 32, 32, 32).repeat(16, 1, 1, 1, 1)


recipes = st.builds(
    Recipe,
    size=st.sampled_from([16, 32]),
    max_angle=st.floats(1, 180),
    shift=st.floats(0, 0.3),
    log_scale=st.floats(0, 0.3),
    stretch=st.floats(0, 0.1),
    deform=st.floats(0, 0.1),
    labels=st.floats(0, 1),
)


@settings(max_examples=12)
@given(recipe=recipes, seed=st.integers(0, 99))
def test_the_true_field_gives_the_true_pose(sources: Sources, recipe: Recipe, seed: int) -> None:
    batch = Synthesis(sources, recipe, seed=seed).batch(2)
    side = recipe.size // 2
    found = procrustes(batch.position(side).flatten(2).mT, cube_points(side).expand(2, -1, -1), torch.rand(2, side**3) + 0.1)
    assert torch.allclose(found.rotation, batch.rotation, atol=1e-4)
    assert torch.allclose(found.translation, batch.translation, atol=1e-4)
    assert torch.allclose(found.scale, batch.scale, atol=1e-4)
    assert torch.allclose(torch.linalg.det(batch.rotation), torch.ones(2), atol=1e-5)
    angle = torch.rad2deg(torch.arccos(((batch.rotation.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)))
    assert float(angle.max()) <= recipe.max_angle + 0.1
    assert float(batch.translation.abs().max()) <= MAX_SHIFT
    assert batch.input.shape == (2, 2, *(recipe.size,) * 3) and bool(batch.input.isfinite().all())


@pytest.mark.parametrize("size", [32, 48])
def test_the_image_agrees_with_the_true_pose(blob: Any, centroids: Any, size: int) -> None:
    """Of half resolution too; and mirrored images are mirrored before they are turned."""
    recipe = Recipe(size=size, shift=0.1, log_scale=0.1, corruption=NONE, stretch=0, deform=0)
    batch = Synthesis(blob.sources, recipe, seed=2).batch(24)
    seen = centroids(batch.input[:, 1:])
    errors = []
    for mirror in (1.0, -1.0):
        point = torch.tensor(blob.center) * torch.tensor([mirror, 1, 1])
        expected = batch.scale[:, None] * (batch.rotation @ point) + batch.translation
        errors.append((seen - expected).norm(dim=1))
    plain, mirrored = errors
    assert float(torch.minimum(plain, mirrored).max()) < 0.004
    assert 4 < int((plain < mirrored).sum()) < 20
    assert torch.allclose(torch.linalg.det(batch.rotation), torch.ones(24), atol=1e-5)
    # the same by the coordinates of each voxel
    where = (batch.position(size) * batch.input[:, 1:]).sum((2, 3, 4)) / batch.input[:, 1:].sum((2, 3, 4))
    assert float((where.abs() - torch.tensor(blob.center).abs()).abs().max()) < 0.004


def test_upright_pictures_are_upright(blob: Any, centroids: Any) -> None:
    for size in (32, 48):
        supply = Synthesis(blob.sources, Recipe(size=size), seed=0)
        before = supply.state()
        seen = supply.upright(np.array([0, 2]))
        assert torch.allclose(centroids(seen[:, 1:]), torch.tensor(blob.center).expand(2, -1), atol=0.004)
        assert supply.state()["numpy"] == before["numpy"]


def test_input_is_standardised_inside_the_mask(sources: Sources) -> None:
    batch = Synthesis(sources, Recipe(), seed=3).batch(8)
    value, mask = batch.input[:, :1], batch.input[:, 1:]
    assert bool((value[mask == 0] == 0).all()) and float(mask.min()) >= 0 and float(mask.max()) <= 1
    mean = value.sum((1, 2, 3, 4)) / mask.sum((1, 2, 3, 4))
    assert float(mean.abs().max()) < 0.05 and float(value.abs().max()) <= 4


def test_a_seed_gives_the_same_images(sources: Sources) -> None:
    supply = Synthesis(sources, Recipe(), seed=5)
    first, state = supply.batch(4), supply.state()
    second = supply.batch(4)
    again = Synthesis(sources, Recipe(), seed=5)
    assert torch.equal(again.batch(4).input, first.input)
    assert not torch.equal(second.input, first.input)
    assert not torch.equal(Synthesis(sources, Recipe(), seed=6).batch(4).input, first.input)
    later = Synthesis(sources, Recipe(), seed=7)
    later.restore(state)
    assert torch.equal(later.batch(4).input, second.input)


def test_only_what_may_train_trains(sources: Sources) -> None:
    def names(**options: Any) -> set[str]:
        return {sources.volumes[r].name for r in Synthesis(sources, Recipe(size=16), seed=0, **options).batch(60).rows}

    assert names() == {"Phantom+24", "Phantom+38", "sub-03"}
    assert names(leave_out=("bids",)) == {"Phantom+24", "Phantom+38"}
    assert names(part="validation") == {"Phantom+30"}


def test_kinds_are_sampled_by_the_share_of_labels(sources: Sources) -> None:
    def kinds(labels: float, **options: Any) -> list[str]:
        supply = Synthesis(sources, Recipe(size=16, labels=labels), seed=0, **options)
        return [sources.volumes[r].kind for r in supply.batch(60).rows]

    assert set(kinds(1.0)) == {"labels"} and "labels" not in kinds(0.0)
    assert 15 < kinds(0.5).count("labels") < 45
    # without label maps: no error if none are requested, an error otherwise
    assert "labels" not in kinds(0.0, leave_out=("Phantom",))
    with pytest.raises(UsageError, match="no labels"):
        kinds(0.5, leave_out=("Phantom",))


def test_contrast_tables() -> None:
    rng = np.random.default_rng(0)
    labels = [random_contrast("labels", rng) for _ in range(400)]
    images = [random_contrast("T2w", rng) for _ in range(400)]
    for table in (*labels, *images):
        assert table.shape == (256,) and table.dtype == np.float32 and table[0] == 0
        assert table.min() >= 0 and table.max() <= 1
    assert all(t[LEFT] == 0 for t in labels)
    tied = np.mean([np.array_equal(t[:LEFT], t[LEFT:]) for t in labels])
    assert abs(tied - SYMMETRIC_SHARE) < 0.06
    rising, falling = (np.mean([(s * np.diff(t[1:]) >= 0).all() for t in images]) for s in (1, -1))
    assert 0.5 < rising < 0.75 and 0.1 < falling < 0.25


def test_no_corruption_leaves_everything(ball: torch.Tensor) -> None:
    image = torch.rand(ball.shape, generator=torch.Generator().manual_seed(1))
    seen, observed, brain = corrupt(image, ball, NONE, torch.Generator().manual_seed(0))
    assert torch.equal(observed, ball) and torch.equal(brain, ball)
    assert torch.equal(seen[ball > 0], image[ball > 0])


def test_a_cut_loses_up_to_a_third(ball: torch.Tensor) -> None:
    _, observed, brain = corrupt(torch.rand_like(ball), ball, replace(NONE, cut=1.0), torch.Generator().manual_seed(0))
    lost = 1 - observed.sum((1, 2, 3, 4)) / ball.sum((1, 2, 3, 4))
    assert float(lost.min()) >= 0 and 0.1 < float(lost.max()) < 0.38
    assert torch.equal(observed, brain)


def test_a_leak_adds_outside_and_is_no_brain(ball: torch.Tensor) -> None:
    image = torch.rand_like(ball)
    seen, observed, brain = corrupt(image, ball, replace(NONE, leak=1.0), torch.Generator().manual_seed(0))
    added = observed.sum((1, 2, 3, 4)) / ball.sum((1, 2, 3, 4)) - 1
    assert bool((observed[ball > 0] == 1).all()) and torch.equal(brain, ball) and torch.equal(seen[ball > 0], image[ball > 0])
    assert 0.01 < float(added.max()) < 0.5 and float(added.min()) >= 0


def test_a_rough_rim_stays_near_the_rim(ball: torch.Tensor) -> None:
    _, observed, _ = corrupt(torch.rand_like(ball), ball, replace(NONE, rim=1.0, rim_radii=0.12), torch.Generator().manual_seed(0))
    radius = cube_points(32).norm(dim=1).reshape(ball.shape[2:])
    assert bool((observed[:, 0][:, radius < 0.9] == 1).all()) and float(observed[:, 0][:, radius > 1.7].max()) == 0
    share = observed.sum((1, 2, 3, 4)) / ball.sum((1, 2, 3, 4))
    assert float(share.min()) < 0.95 and float(share.max()) > 1.05


def test_bias_noise_and_slices_touch_the_image_alone(ball: torch.Tensor) -> None:
    image = 0.5 + 0.2 * torch.rand(ball.shape, generator=torch.Generator().manual_seed(1))
    for how in (replace(NONE, bias=0.4), replace(NONE, noise=0.25), replace(NONE, thick=1.0), replace(NONE, texture=0.15)):
        seen, observed, _ = corrupt(image.clone(), ball, how, torch.Generator().manual_seed(0))
        change = (seen - image)[ball > 0].abs()
        assert torch.equal(observed, ball) and bool(seen.isfinite().all())
        assert 1e-3 < float(change.mean()) < 0.3, how


def test_everything_at_once_is_finite(sources: Sources) -> None:
    worst = Recipe(corruption=Corruption(*[1.0] * 3, 0.3, 0.5, 1.0, 1.0, 1.0), shift=0.3, log_scale=0.3, stretch=0.2, deform=0.2)
    batch = Synthesis(sources, worst, seed=1).batch(16)
    assert bool(batch.input.isfinite().all()) and float(batch.brain.max()) <= 1
    assert float(cube_points(4).abs().max()) < HALF_SIDE


def test_offsets_about_the_axes_and_in_mm(sources: Sources) -> None:
    """Each angle and each shift is uniform up to its limit, of any size of brain; the limits are met."""
    made = Synthesis(sources, replace(CLEAN, xyz=25.0, shift_mm=10.0), seed=2).batch(64)
    angles = Rotation.from_matrix(made.rotation.numpy()).as_euler("xyz", degrees=True)
    radius = torch.tensor([sources.volumes[row].radius_mm for row in made.rows])
    shifts = (made.translation * radius[:, None]).numpy()
    for drawn, limit in ((angles, 25), (shifts, 10)):
        assert np.abs(drawn).max() <= limit + 1e-3
        assert 0.97 * limit < np.abs(drawn).max() and abs(drawn.mean()) < 0.15 * limit
        assert drawn.std() == pytest.approx(limit / 3**0.5, rel=0.1)


def test_sizes_by_age_are_those_of_the_atlas(sources: Sources) -> None:
    """A brain that is larger than the atlas of its age fills more of the cube, by as much; one by its mask fills it always alike."""
    expected = sources.atlas_radii()
    for p, radius in zip(sources.volumes, expected, strict=True):
        if p.template and p.part == "train":
            assert radius == pytest.approx(p.radius_mm)
    volumes = [p if p.template else replace(p, radius_mm=1.2 * r) for p, r in zip(sources.volumes, expected, strict=True)]
    grown = replace(sources, volumes=tuple(volumes))
    for sizes, larger in (("mask", 1.0), ("age", 1.2)):
        batch = Synthesis(grown, replace(CLEAN, sizes=sizes, log_scale=0.0), seed=1).batch(32)
        templates = np.array([grown.volumes[row].template and grown.volumes[row].part == "train" for row in batch.rows])
        assert 0 < templates.sum() < 32
        assert torch.allclose(batch.scale[templates], torch.ones(()), atol=1e-5)
        assert torch.allclose(batch.scale[~templates], torch.tensor(larger), atol=1e-5)


def test_sizes_by_age_need_an_atlas(blob: Any) -> None:
    with pytest.raises(UsageError, match="need templates of an atlas"):
        Synthesis(blob.sources, replace(CLEAN, sizes="age"), seed=1)
