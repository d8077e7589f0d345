"""Crops of synthetic heads and of real scans: the brain and each of its parts are at their true positions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_scenes import scene

from posepipe.geometry import random_rotations
from posepipe.geometry.so3_torch import geodesic_distance
from posepipe.models.coordinates import HALF_SIDE, cube_points
from posepipe.models.scans import Located, LocatorNet, OutlineNet, ScanField, ScanNet
from posepipe.training.scan_corruption import ScanCorruption, epi_like
from posepipe.training.scan_task import ScanTask, center_errors, coordinate_nll, dice
from posepipe.training.scans import LOCATING, LOCATOR, POSING, CropKind, ScanBatch, ScanRecipe, ScanSynthesis, dilated
from posepipe.training.scenes import Scenes
from posepipe.training.sources import LEFT, SIDE, Sources
from posepipe.training.surroundings import Surroundings, simulate_acquisition
from posepipe.training.synthetic_heads import SUBJECTS, HeadSynthesis, PlacedHead, _distance

CALM = Surroundings(alone=0, decoys=0, faded=0, thick=0, moved=0, slab=0, bias=0, noise=0)
PLAIN = ScanRecipe(size=32, head=32, pool=4, scenes=0.0, deform=0, stretch=0, surroundings=CALM, corruption=ScanCorruption().none())


def supply(sources: Sources, real: Scenes | None = None, **options: object) -> ScanSynthesis:
    return ScanSynthesis(sources, replace(PLAIN, **options), seed=4, scenes=real)  # type: ignore[arg-type]


KINDS = dict(zip(("near", "far", "beside", "wide", "edge", "another"), (*LOCATING, *POSING), strict=True))


def only(kind: str) -> tuple[CropKind, ...]:
    return (replace(KINDS[kind], share=1.0),)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_shows_as_much_of_the_brain_as_its_kind_says(sources: Sources, kind: str) -> None:
    batch = supply(sources, kinds=only(kind)).batch(24)
    assert batch.image.shape == batch.brain.shape == (24, 1, 32, 32, 32)
    assert bool(batch.image.isfinite().all()) and float(batch.brain.min()) >= 0 and float(batch.brain.max()) <= 1
    share = batch.brain.flatten(1).mean(1)
    low, high = {"edge": (0.15, 0.6), "wide": (0.08, 0.3), "near": (0.02, 0.3), "far": (0, 0.05), "beside": (0, 0.25)}.get(kind, (0, 0.25))
    assert low < float(share.median()) < high
    assert bool(batch.whole.any()) is (kind in {"edge", "wide", "near"})
    assert (float(share.min()) < 0.02) is (kind in {"far", "beside", "another"})


@pytest.mark.parametrize("real", [0.0, 1.0])
def test_the_truth_is_where_each_part_of_the_brain_lies(sources: Sources, real: float) -> None:
    """The mean of the coordinates of all brain voxels is the brain's middle, their spread is its size, however the crop is turned."""
    turn = random_rotations(1, np.random.default_rng(3))[0]
    scenes = Scenes((scene(turn), scene(turn, flip=True, n=2)))
    batch = supply(sources, scenes, scenes=real, kinds=only("near")).batch(16)
    weight = batch.brain.flatten(2)
    position = batch.position(32).flatten(2)
    middle = (position * weight).sum(2) / weight.sum(2)
    assert float(middle.norm(dim=1).max()) < (0.12 if real else 0.3)
    spread = ((position - middle[..., None]) ** 2 * weight).sum(2) / weight.sum(2)
    assert torch.allclose((5 / 3 * spread.sum(1)).sqrt(), torch.ones(16), atol=0.25)
    if real:  # which is long ahead, and low
        long_and_low = (spread[:, 1] > 1.3 * spread[:, 0]) & (spread[:, 0] > 1.3 * spread[:, 2])
        assert int(long_and_low.sum()) >= 15  # one may be cut by its crop
        ahead = batch.image.flatten(2) * weight * position[:, 1:2]
        assert bool((ahead.sum(2)[long_and_low] > 0).all())  # bright ahead of the middle, mirrored or not, on a left-handed grid too


def test_synthetic_heads_are_padded_by_reflection_and_scans_by_zero(sources: Sources) -> None:
    volume = torch.full((2, 8, 8, 8), 170, dtype=torch.uint8)
    made = supply(sources)
    u = torch.tensor([[1.5, 0.0, 0.0]]).expand(32**3, 3)
    for endless, value in ((True, 1.0), (False, 0.0)):
        head = PlacedHead(volume, 6.0 * np.eye(3), np.full(3, 3.5), endless=endless)
        assert float(made._crop(head, u, np.eye(3), np.zeros(3), 1.0)[0].mean()) == pytest.approx(value)


def test_coarse_crops_are_of_means(sources: Sources) -> None:
    chequered = (np.indices((64, 64, 64)).sum(0) % 2 * 170).astype(np.uint8)
    head = PlacedHead(torch.as_tensor(np.stack([chequered, chequered])), 20.0 * np.eye(3), np.full(3, 31.5))
    made = supply(sources)
    u = made._distorted_points(cube_points(32).expand(1, -1, -1))[0]
    crop = made._crop(head, u, np.eye(3), np.zeros(3), 1.05)[0]
    assert float(crop[8:24, 8:24, 8:24].std()) < 0.1 and float(crop[8:24, 8:24, 8:24].mean()) == pytest.approx(0.5, abs=0.05)


def test_scans_of_all_datasets_are_sampled_small_datasets_more_often_than_their_share(sources: Sources) -> None:
    scenes = Scenes((*(scene(group="many", n=k) for k in range(9)), scene(np.eye(3), group="one")))
    made = supply(sources, scenes)
    drawn = [made._sample_scan(made._real).posed for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(0.25, abs=0.07)  # 1 : √9


def test_fluid_about_a_brain_is_that_of_its_contrast_and_a_fetus_s(sources: Sources) -> None:
    made = heads(sources)
    of = dict.fromkeys(("labels", "T2w", "T1w"), 0)
    for source, voxels, byte in zip(sources.volumes, sources.voxels, made._fluid, strict=True):
        if source.age >= 37:
            assert byte == -1
            continue
        of[source.kind] += 1
        brain = voxels[voxels > 0]
        if source.kind == "labels":  # what lies outermost
            inside = np.argwhere(voxels > 0)
            first = inside[np.abs(inside - inside.mean(0)).max(1).argmax()]
            assert voxels[tuple(first)] % LEFT == byte
        else:
            assert byte >= np.quantile(brain, 0.9) if source.kind == "T2w" else byte <= np.quantile(brain, 0.1)
    assert of["labels"] and of["T2w"]


def heads(sources: Sources, **options: object) -> HeadSynthesis:
    return HeadSynthesis(sources, PLAIN, replace(CALM, **options), seed=4)  # type: ignore[arg-type]


def test_masks_with_fluid_and_without_have_equal_chances(sources: Sources) -> None:
    made = heads(sources)
    fluid = np.flatnonzero(made._fluid >= 0)
    bare = np.flatnonzero(made._fluid < 0)[:1]
    assert len(fluid) > 2 and len(bare)
    drawn = made._balanced_rows(np.concatenate([fluid, bare]), 600)
    assert abs(float(np.isin(drawn, bare).mean()) - 0.5) < 0.1
    assert set(drawn) == set(fluid) | set(bare)
    assert set(made._balanced_rows(fluid, 100)) <= set(fluid)


def test_of_newborns_single_subjects_come_before_templates(sources: Sources) -> None:
    made = heads(sources)
    bare = np.flatnonzero(made._fluid < 0)[:2]
    made._sources = replace(
        sources, volumes=tuple(replace(p, name="sub-1" if i == bare[0] else "Atlas+40") for i, p in enumerate(sources.volumes))
    )
    assert abs(float((made._balanced_rows(bare, 600) == bare[0]).mean()) - SUBJECTS) < 0.1
    assert set(made._balanced_rows(bare[1:], 9)) == {bare[1]} and set(made._balanced_rows(bare[:1], 9)) == {bare[0]}


def test_some_heads_hold_no_brain(sources: Sources) -> None:
    (alone,) = heads(sources, alone=1.0).heads(1, 3.0)
    assert int(alone.volume[1].max()) == 0 and int(alone.volume[0].max()) > 0


def test_what_lies_outside_the_field_of_view_is_in_neither() -> None:
    ones = torch.ones(8, 1, 24, 24, 24)
    image, mask = simulate_acquisition(ones.clone(), ones.clone(), replace(CALM, slab=1.0), torch.Generator().manual_seed(0))
    assert torch.equal(image > 0, mask > 0)
    assert all(0 < float(m.mean()) < 1 for m in mask)


@pytest.mark.parametrize("kind", ["ghosts", "losses", "flat", "coarse"])
def test_echo_planar_images_lose_what_they_lose(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    brain = torch.zeros(6, 1, 24, 24, 24)
    brain[:, :, 6:18, 6:18, 6:18] = 1
    image = brain * (0.5 + 0.3 * (torch.rand(brain.shape, generator=generator) - 0.5)) + 0.1
    seen = epi_like(image.clone(), brain, replace(ScanCorruption().none(), **{kind: 1.0}), generator)
    inside = brain > 0
    if kind == "flat":
        assert all(float(s[i].std()) < 0.85 * float(b[i].std()) for s, b, i in zip(seen, image, inside, strict=True))
        assert torch.allclose(seen[~inside], image[~inside])
    elif kind == "losses":
        assert bool((seen <= image + 1e-6).all()) and float(seen.sum()) < 0.98 * float(image.sum())
    elif kind == "ghosts":
        assert bool((seen >= image - 1e-6).all()) and float(seen.sum()) > 1.02 * float(image.sum())
    else:
        assert float(seen[inside].std()) < float(image[inside].std())
    assert torch.equal(epi_like(image.clone(), brain, ScanCorruption().none(), generator), image)


def test_distortion_is_along_one_axis() -> None:
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    moved = replace(ScanCorruption().none(), distorted=1.0, distance=0.06).displacement(5, 12, rng, generator)
    assert moved.shape == (5, 12**3, 3)
    assert all(int((one.abs().amax(0) > 0).sum()) == 1 for one in moved) and 0 < float(moved.abs().max()) < 0.3
    assert float(ScanCorruption().none().displacement(5, 12, rng, generator).abs().max()) == 0


def test_a_seed_gives_the_same_crops(sources: Sources) -> None:
    one, other, third = supply(sources), supply(sources), ScanSynthesis(sources, PLAIN, seed=5)
    first = one.batch(3)
    assert torch.equal(first.image, other.batch(3).image) and not torch.equal(first.image, third.batch(3).image)
    state = one.state()  # of the generators; the pools are filled anew
    following = one._rng.random(), one._heads._rng.random(), float(torch.rand(1, generator=one._generator))
    one.restore(state)
    assert (one._rng.random(), one._heads._rng.random(), float(torch.rand(1, generator=one._generator))) == following


def answer(batch: ScanBatch) -> ScanField:
    """The truth, as a network would say it."""
    side = batch.image.shape[-1] // 2
    return ScanField(batch.position(side), torch.full((len(batch.image), 1, side, side, side), -3.0), 20 * batch.brain - 10)


def test_the_truth_solves_to_the_pose_and_only_known_poses_count(sources: Sources) -> None:
    batch = supply(sources, kinds=only("near")).batch(6)
    found = answer(batch)
    assert float(geodesic_distance(found.coordinates.solve().rotation, batch.rotation).max()) < 0.02
    best = float(coordinate_nll(found, batch))
    worse = found._replace(position=found.position + 0.2)
    assert float(coordinate_nll(worse, batch)) > best
    posed = torch.tensor([True, False] * 3)
    half = replace(batch, posed=posed)
    mixed = found._replace(position=found.position + torch.where(posed, 0.0, 0.5)[:, None, None, None, None])
    assert float(coordinate_nll(mixed, half)) == pytest.approx(float(coordinate_nll(found, half)), abs=1e-5)


def test_what_is_thought_to_be_brain_before_is_like_the_brain_and_not_the_brain(sources: Sources) -> None:
    batch = supply(sources, kinds=only("wide")).batch(24)
    overlap = dice(batch.previous_mask, batch.brain)
    assert 0.6 < float(overlap.mean()) < 0.95 and float(overlap.std()) > 0.03 and float(batch.previous_mask.max()) <= 1
    assert float(supply(sources, previous_mask=None).batch(4).previous_mask.abs().max()) == 0


def test_beside_a_brain_what_was_thought_to_be_brain_is_none(sources: Sources) -> None:
    batch = supply(sources, kinds=only("another")).batch(24)
    overlap = dice(batch.previous_mask, batch.brain)
    assert float(overlap.mean()) < 0.4 and float((batch.previous_mask.flatten(1).sum(1) > 20).float().mean()) > 0.5


def test_the_locator_learns_where_the_middle_of_each_brain_is_and_how_large_it_is(sources: Sources) -> None:
    recipe = replace(LOCATOR, size=32, head=32, pool=4)
    made = ScanSynthesis(sources, recipe, seed=4)
    task = ScanTask(LocatorNet(32, (2, 2, 2, 2)), made, [made.batch(16)], bf16=False)
    loss, figures = task.loss(8, "mse")
    loss.backward()
    grad = task.network.head.weight.grad.flatten(1).abs().amax(1)
    assert bool((grad > 0).all()) and "where" not in figures and {"away", "size"} <= set(figures)
    assert set(task.validate(task.network.eval())) <= {"dice", "dice10", "alarms", "away", "size"}


def test_what_points_to_the_middle_is_what_the_truth_says(sources: Sources) -> None:
    """A brain's voxels, moved by what the truth says of each, meet in one point: the origin of their coordinates."""
    batch = supply(sources, kinds=only("near")).batch(5)
    side = 16
    cells = cube_points(side) * side / HALF_SIDE  # in voxels of the crop, from its middle
    middle = batch.translation * side / HALF_SIDE
    offset = (middle[:, None] - cells).mT.reshape(5, 3, side, side, side)
    size = (batch.scale * side / HALF_SIDE).log().reshape(5, 1, 1, 1, 1).expand(-1, 1, side, side, side)
    true = Located(20 * batch.brain - 10, offset, size)
    assert [float(x) for x in center_errors(true, batch)] == pytest.approx([0, 0], abs=1e-5)
    radii = size.exp()
    away, wrong = center_errors(true._replace(offset=offset + 0.3 * radii, log_radius=size - 0.2), batch)
    assert (float(away), float(wrong)) == (pytest.approx(0.3, abs=1e-4), pytest.approx(0.2, abs=1e-4))
    nothing = center_errors(true, replace(batch, brain=torch.zeros_like(batch.brain)))
    assert [float(x) for x in nothing] == [0, 0]


def test_whole_scans_are_brighter_or_darker_than_their_crops(sources: Sources) -> None:
    plain, varied = (supply(sources, kinds=only("near"), gain=gain).batch(24).image.flatten(1) for gain in (0.0, 0.5))
    plain, varied = (torch.stack([one[one > 0].quantile(0.98) for one in images]).log() for images in (plain, varied))
    assert float(plain.std()) < 0.1 and float(varied.std()) > 0.2 and float(varied.mean()) < 0


@pytest.mark.parametrize("stage", ["mse", "geodesic"])
def test_every_part_of_the_network_learns(sources: Sources, stage: str) -> None:
    made = supply(sources)
    task = ScanTask(ScanNet(32, (2, 2, 2, 2)), made, [made.batch(8)], bf16=False)
    loss, figures = task.loss(8, stage)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in task.network.parameters())
    assert float(task.network.head.weight.grad[4:].abs().max()) > 0 and float(task.network.head.weight.grad[:3].abs().max()) > 0
    assert {"where", "entropy", "dice", "median", "seconds"} <= set(figures)
    assert {"median", "over15", "dice", "dice10"} <= set(task.validate(task.network.eval()))


def test_a_batch_of_which_no_pose_counts_teaches_where_the_brain_is(sources: Sources) -> None:
    made = supply(sources)
    task = ScanTask(ScanNet(32, (2, 2, 2, 2)), made, [made.batch(8)], bf16=False)
    nothing = replace(made.batch(4), posed=torch.zeros(4, dtype=torch.bool), whole=torch.zeros(4, dtype=torch.bool))
    made.timed = lambda n: (nothing, 0.0)  # type: ignore[method-assign]
    loss, figures = task.loss(4, "geodesic")
    loss.backward()
    assert bool(loss.isfinite()) and np.isnan(figures["median"])
    assert all(bool(p.grad.isfinite().all()) for p in task.network.parameters() if p.grad is not None)


def test_the_outline_network_is_trained_on_delineated_masks_alone(sources: Sources) -> None:
    scenes = Scenes((replace(scene(group="laid"), delineated=False), scene(group="delineated")))
    assert [s.name for s in scenes.delineated().scenes] == ["delineated-1"]
    made = ScanSynthesis(sources, replace(PLAIN, scenes=1.0, delineated=True, previous_mask=None), seed=1, scenes=scenes)
    assert set(made._real) == {"delineated"} and set(supply(sources, scenes)._real) == {"delineated", "laid"}
    around = ScanSynthesis(sources, replace(PLAIN, delineated=True, pasted=0.5), seed=1, scenes=scenes)
    assert set(around._around) == {"delineated", "laid"} and not made._around  # what lies around a made-up head needs no delineated mask


@pytest.mark.parametrize("width", [1, 3, 9])
def test_a_rim_is_the_greatest_within_a_cube(width: int) -> None:
    share = torch.rand(2, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(dilated(share, width), torch.nn.functional.max_pool3d(share, width, 1, width // 2))


def test_the_network_of_outlines_learns_and_is_validated_without_a_pose(sources: Sources) -> None:
    made = supply(sources, kinds=only("wide"), previous_mask=None)
    task = ScanTask(OutlineNet(32, (2, 2, 2, 2)), made, [made.batch(8)], bf16=False)
    loss, figures = task.loss(8, "mse")
    loss.backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in task.network.parameters())
    assert set(figures) == {"entropy", "dice", "seconds"} and set(task.validate(task.network.eval())) == {"dice", "dice10"}


def test_distances_change_sign_at_the_surface() -> None:
    mask = np.zeros((SIDE,) * 3, np.uint8)
    mask[20:60, 20:60, 20:60] = 255
    far = _distance(mask)
    assert far.shape == (SIDE // 2,) * 3 and far[20, 20, 20] < 0 < far[4, 20, 20]
    assert abs(float(far[9, 20, 20] + far[10, 20, 20])) < 0.05


def test_dice_counts_shares() -> None:
    half = torch.zeros(1, 1, 4, 4, 4)
    half[:, :, :2] = 1
    assert float(dice(half, torch.ones_like(half))) == pytest.approx(2 / 3, abs=0.01)
