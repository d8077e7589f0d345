"""Training tasks: losses are smallest at the truth, targets follow the stated convention, and eight images can be overfitted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posepipe.errors import UsageError
from posepipe.geometry import so3_torch
from posepipe.models.coordinates import HALF_SIDE, CoordinateField, CoordinateNet
from posepipe.models.correction import CorrectionNet
from posepipe.models.inputs import FOREGROUND_OFFSET, with_foreground_offset
from posepipe.models.posenet import PoseNet
from posepipe.training.coordinates import CoordinateTask, coordinate_loss
from posepipe.training.corruption import Corruption
from posepipe.training.paper import CORRECTION, CorrectionTask, PoseTask, ReferenceImages
from posepipe.training.sources import Sources
from posepipe.training.synthesis import Batch, Recipe, Synthesis
from posepipe.training.task import Curriculum

NONE = Corruption().none()
CLEAN = Recipe(size=16, corruption=NONE, deform=0, stretch=0)


class Same(Synthesis):
    """The same images again and again."""

    def batch(self, n: int) -> Batch:
        if not hasattr(self, "_kept"):
            self._kept = super().batch(n)
        return self._kept


def learn(task: Any, steps: int, n: int = 8, stages: tuple[str, ...] = ("mse", "geodesic"), rate: float = 3e-3) -> float:
    """Mean error in degrees of the last step."""
    optimizer = torch.optim.Adam(task.network.parameters(), rate)
    figures: dict[str, float] = {}
    for stage in stages:
        for _ in range(steps):
            loss, figures = task.loss(n, stage)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return figures["mean"]


def seeded(make: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def true_field(batch: Batch, side: int, error: float = 0.05) -> CoordinateField:
    brain = nn.functional.avg_pool3d(batch.brain, batch.brain.shape[-1] // side)
    return CoordinateField(batch.position(side), torch.full_like(brain, np.log(error)), torch.logit(brain, eps=1e-4))


def test_the_loss_of_coordinates_is_least_at_the_truth(sources: Sources) -> None:
    batch = Synthesis(sources, Recipe(size=16), seed=1).batch(4)
    truth = true_field(batch, 8)
    least = float(coordinate_loss(truth, batch))
    assert float(torch.rad2deg(so3_torch.geodesic_distance(truth.solve().rotation, batch.rotation)).max()) < 0.05
    generator = torch.Generator().manual_seed(0)
    for size in (0.01, 0.1, 1.0):
        moved = truth._replace(position=truth.position + size * torch.randn(truth.position.shape, generator=generator))
        other = truth._replace(foreground=truth.foreground + size * torch.randn(truth.foreground.shape, generator=generator))
        assert float(coordinate_loss(moved, batch)) > least and float(coordinate_loss(other, batch)) > least


def test_the_expected_error_is_learnt_as_it_is(sources: Sources) -> None:
    """With every voxel e off, the loss is least where the scale of the density is e/3 (three dimensions)."""
    batch = Synthesis(sources, CLEAN, seed=1).batch(2)
    shift = torch.zeros(2, 3, 8, 8, 8)
    shift[:, 0] = 0.3
    losses = {}
    for error in (0.05, 0.08, 0.1, 0.12, 0.2):
        field = true_field(batch, 8, error)
        losses[error] = float(coordinate_loss(field._replace(position=field.position + shift), batch))
    assert min(losses, key=losses.__getitem__) == 0.1


def test_the_outline_shows(sources: Sources) -> None:
    batch = Synthesis(sources, CLEAN, seed=1).batch(4)
    seen = with_foreground_offset(batch.input)
    mask = batch.input[:, 1:]
    assert seen.shape == (4, 1, 16, 16, 16) and bool((seen[mask == 0] == 0).all())
    inside = (seen * mask).sum((1, 2, 3, 4)) / mask.sum((1, 2, 3, 4))
    assert bool((inside > 0.6 * FOREGROUND_OFFSET).all())


@pytest.mark.parametrize("foreground_offset", [0.0, FOREGROUND_OFFSET])
def test_the_paper_s_pair_is_taught_with_the_outline_or_without(sources: Sources, foreground_offset: float) -> None:
    seen: list[Tensor] = []

    class Watching(Still):
        def forward(self, *cubes: Tensor) -> Any:
            seen.extend(cubes)
            return super().forward(*cubes)

    supply = Synthesis(sources, replace(CORRECTION, size=16), seed=3)
    PoseTask(Watching(), supply, [], bf16=False, foreground_offset=foreground_offset).loss(4, "mse")
    references = ReferenceImages(sources, supply)
    CorrectionTask(Watching(), supply, [], references=references, bf16=False, foreground_offset=foreground_offset).loss(4, "mse")
    assert len(seen) == 3
    for cubes in seen:
        inside = float(cubes.sum() / (cubes != 0).sum())
        assert inside > 0.6 * FOREGROUND_OFFSET if foreground_offset else abs(inside) < 0.3


@pytest.mark.slow
def test_eight_images_are_overfitted(sources: Sources) -> None:
    supply = Same(sources, CLEAN, seed=1)
    dense = CoordinateTask(seeded(lambda: CoordinateNet(16, (12, 24, 32, 32))), supply, [], bf16=False)
    assert learn(dense, 60, rate=1e-2) < 15


@pytest.mark.slow
def test_the_paper_s_pair_can_overfit_eight_images(sources: Sources) -> None:
    supply = Same(sources, CLEAN, seed=1)
    rotation = PoseTask(seeded(lambda: PoseNet(16, 0.25)), supply, [], bf16=False)
    assert learn(rotation, 80, rate=2e-3) < 15
    near = Same(sources, replace(CORRECTION, size=16, corruption=NONE), seed=1)
    pair = CorrectionTask(
        seeded(lambda: CorrectionNet(16, 0.25)), near, [], references=ReferenceImages(sources, near), bf16=False
    )
    assert learn(pair, 140, rate=2e-3) < 10


def test_the_curriculum_lets_angles_grow_and_continues_where_it_was(sources: Sources) -> None:
    def task() -> PoseTask:
        return PoseTask(
            seeded(lambda: PoseNet(16, 0.1)), Synthesis(sources, CLEAN, seed=1), [], curriculum=Curriculum(20, 4), bf16=False
        )

    one = task()
    assert [one.loss(4, "mse")[1]["largest"] for _ in range(6)] == [20, 60, 100, 140, 180, 180]
    first, second = task(), task()
    for _ in range(2):
        first.loss(4, "mse")
    second.restore(first.state())
    assert second.loss(4, "mse")[1]["largest"] == 100
    # small angles are small
    small = PoseTask(seeded(lambda: Still()), Synthesis(sources, CLEAN, seed=1), [], curriculum=Curriculum(10, 10**6))
    assert small.loss(32, "mse")[1]["mean"] < 10


class Still(nn.Module):
    """Always finds the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(3))

    def forward(self, *cubes: Tensor) -> Any:
        vector = self.zero.expand(len(cubes[0]), 3)
        return vector if len(cubes) == 1 else (vector, vector)


def test_the_target_of_correction_maps_the_reference_to_the_image(blob: Any, centroids: Any) -> None:
    """x_moving = exp([x]×) x_reference + t, in halves of the side, seen on the blob's own place in both cubes."""
    seen: dict[str, Tensor] = {}

    class Watching(Still):
        def forward(self, *cubes: Tensor) -> Any:
            seen["reference"], seen["moving"] = (centroids(c) / HALF_SIDE for c in cubes)
            return super().forward(*cubes)

    recipe = replace(CORRECTION, corruption=NONE, deform=0, stretch=0, log_scale=0)
    supply = Same(blob.sources, recipe, seed=3)
    task = CorrectionTask(Watching(), supply, [], references=ReferenceImages(blob.sources, supply), bf16=False)
    task.loss(16, "geodesic")
    batch = supply.batch(16)
    # intensities weigh the blob unevenly: equal volumes do so equally, up to the mirror
    errors = []
    for mirror in (1.0, -1.0):
        point = (seen["reference"] * torch.tensor([mirror, 1, 1]))[..., None]
        errors.append(((batch.rotation @ point)[..., 0] + batch.translation / HALF_SIDE - seen["moving"]).norm(dim=1))
    assert float(torch.minimum(*errors).max()) < 0.01


def test_errors_of_correction_are_of_rotation_and_translation(sources: Sources) -> None:
    supply = Synthesis(sources, replace(CORRECTION, size=16), seed=3)
    references = ReferenceImages(sources, supply)
    validation = [supply.batch(8)]
    task = CorrectionTask(Still(), supply, validation, references=references, translation_weight=0.0)
    heavy = CorrectionTask(Still(), supply, validation, references=references, translation_weight=50.0)
    figures = task.validate(task.network)
    truth = validation[0]
    assert figures["shift"] == pytest.approx(float(truth.translation.norm(dim=1).mean()), rel=1e-4)
    assert figures["mean"] == pytest.approx(float(torch.rad2deg(so3_torch.log(truth.rotation).norm(dim=1)).mean()), abs=0.01)
    state = supply.state()
    light = float(task.loss(8, "mse")[0])
    supply.restore(state)
    assert float(heavy.loss(8, "mse")[0]) > light + 0.01


def test_references_are_of_the_contrast_requested(sources: Sources) -> None:
    kinds = {}
    for contrast in ("T2w", "T1w", None):
        chosen = ReferenceImages(sources, Synthesis(sources, replace(CLEAN, contrast=contrast, labels=0.0), seed=0))
        kinds[contrast] = {sources.volumes[row].kind for row in chosen._rows}
    assert kinds == {"T2w": {"T2w"}, "T1w": {"T1w"}, None: {"T2w", "T1w"}}


def test_references_are_near_in_age_and_of_another_brain(blob: Any, sources: Sources) -> None:
    supply = Synthesis(blob.sources, CLEAN, seed=0)
    chosen = ReferenceImages(blob.sources, supply)
    volumes = blob.sources.volumes
    young, old = (next(i for i, p in enumerate(volumes) if p.part == "validation" and p.age == age) for age in (25.0, 35.0))
    assert volumes[chosen._one(young)].name == "train25" and volumes[chosen._one(old)].name == "train35"
    # of itself only where there is nothing else: here the other brain is ten weeks older, but another
    mine = next(i for i, p in enumerate(volumes) if p.name == "train25")
    assert volumes[chosen._one(mine)].name == "train35"
    phantoms = ReferenceImages(sources, Synthesis(sources, CLEAN, seed=0), leave_out=("bids",))
    state = phantoms.state()
    rows = np.arange(len(sources.volumes))
    drawn = phantoms.of(rows)
    phantoms.restore(state)
    assert torch.equal(phantoms.of(rows), drawn) and drawn.shape == (len(rows), 2, 16, 16, 16)


def test_the_atlas_alone_is_the_reference_of_the_paper_s_offsets(blob: Any, sources: Sources) -> None:
    """The template nearest in age, of another brain; without ``atlas`` any brain within two weeks, templates or not."""
    known = {"train25": ("blobs+29", 29.0), "train35": ("blobs+30", 30.0), "validation25": ("one", 29.2), "validation35": ("another", 31.0)}
    near = [replace(v, name=known[v.name][0], age=known[v.name][1], part="train") for v in blob.sources.volumes]
    close = replace(blob.sources, volumes=tuple(near))
    row = next(i for i, v in enumerate(near) if v.name == "another")
    for atlas, expected in ((True, {"blobs+30"}), (False, {"blobs+29", "blobs+30", "one"})):
        chosen = ReferenceImages(close, Synthesis(close, CLEAN, seed=0), atlas=atlas)
        assert {near[chosen._one(row)].name for _ in range(40)} == expected
    chosen = ReferenceImages(sources, Synthesis(sources, CLEAN, seed=0), atlas=True)
    volumes = sources.volumes
    for row, source in enumerate(volumes):
        reference = volumes[chosen._one(row)]
        gaps = {abs(p.age - source.age) for p in volumes if p.template and p.part == "train" and p.name != source.name}
        assert reference.template and reference.name != source.name and abs(reference.age - source.age) == min(gaps)
    with pytest.raises(UsageError, match="needs templates of an atlas"):
        ReferenceImages(blob.sources, Synthesis(blob.sources, CLEAN, seed=0), atlas=True)
