"""The loss of each training task: units of its targets, weights of its terms, and which term is used in which stage."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posepipe.geometry import so3_torch
from posepipe.models.contrast import ContrastNet
from posepipe.models.coordinates import CoordinateField
from posepipe.training.conversion import CyclePair, PairedTask, UnpairedTask
from posepipe.training.coordinates import CoordinateTask, coordinate_loss
from posepipe.training.corruption import Corruption, corrupt
from posepipe.training.paper import CORRECTION, CorrectionTask, PoseTask, ReferenceImages
from posepipe.training.slabs import SlabRecipe, Slabs
from posepipe.training.sources import Sources, SourceVolume
from posepipe.training.synthesis import Batch, Recipe, Synthesis
from posepipe.training.task import in_degrees

from .conftest import Blob

NONE = Corruption().none()


class Same(Synthesis):
    """The same images again and again."""

    def batch(self, n: int) -> Batch:
        if not hasattr(self, "_kept"):
            self._kept = super().batch(n)
        return self._kept


class Answering(nn.Module):
    """Gives the answers that ``answer`` makes of the cubes it is shown."""

    def __init__(self, answer: Callable[..., tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.unused, self.answer = nn.Parameter(torch.zeros(1)), answer

    def forward(self, *cubes: Tensor) -> tuple[Tensor, Tensor]:
        return self.answer(*cubes)


RADIUS_MM, HALF_SIDES = 30.0, 1.6
"""Radius of the blob's brain, and half the side of the cube in such radii, as the networks' documentation has it."""


@pytest.mark.parametrize(("unit", "right"), [(RADIUS_MM * HALF_SIDES, True), (RADIUS_MM, False)])
def test_correction_net_is_taught_shifts_in_halves_of_the_cube_s_side(
    centroids: Callable[[Tensor], Tensor], unit: float, right: bool
) -> None:
    """Shifts are measured in millimetres on the images themselves: divided by half the cube's side they have hardly any loss, and
    divided by the brain's radius they have a large one."""
    blob = Blob(center=(0.0, -0.2, 0.3))  # in the plane of symmetry: mirrored images show it at the same place
    assert {p.radius_mm for p in blob.sources.volumes} == {RADIUS_MM}
    recipe = replace(CORRECTION, corruption=NONE, deform=0, stretch=0, log_scale=0)
    supply = Same(blob.sources, recipe, seed=3)
    truth = supply.batch(16)

    def answer(reference: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        before, after = (RADIUS_MM * centroids(cube) for cube in (reference, moving))
        shift_mm = after - (truth.rotation @ before[..., None])[..., 0]
        return so3_torch.log(truth.rotation), shift_mm / unit

    task = CorrectionTask(
        Answering(answer), supply, [], references=ReferenceImages(blob.sources, supply), translation_weight=1000.0, bf16=False
    )
    loss = float(task.loss(16, "mse")[0])
    assert loss < 0.1 if right else loss > 1.0


def test_figures_of_a_step_are_median_and_mean_in_degrees(sources: Sources) -> None:
    """Of an answer that is always the identity: the angles of the truth themselves, of which few are small."""
    supply = Same(sources, Recipe(size=16, corruption=NONE, deform=0, stretch=0), seed=1)
    angles = np.degrees(so3_torch.log(supply.batch(15).rotation).norm(dim=1).numpy())

    class Identity(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.zero = nn.Parameter(torch.zeros(3))

        def forward(self, cubes: Tensor) -> Tensor:
            return self.zero.expand(len(cubes), 3)

    figures = PoseTask(Identity(), supply, [], bf16=False).loss(15, "mse")[1]
    assert figures["median"] == pytest.approx(np.median(angles), abs=0.1)
    assert figures["mean"] == pytest.approx(np.mean(angles), abs=0.1)
    assert abs(np.median(angles) - np.mean(angles)) > 2


SIDE, NARROW = 48, (4, 6, 8, 8, 8)
CALM = SlabRecipe(size=64, spacing=(1.0, 1.0), gamma=0.0, gain=0.0, bias=0.0, noise=0.0, rim=(0.5, 0.5))


@pytest.fixture(scope="module")
def pairs() -> Sources:
    """Balls with a slope of brightness, and the inverted one in the other contrast."""
    axis = (np.arange(SIDE) + 0.5) / SIDE * 3.2 - 1.6
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    inside = x**2 + y**2 + z**2 < 1.2
    first = (128 + 100 * x).clip(1, 255)
    volumes = [SourceVolume("ball", "balls", "train", 40.0, kind, 0, 30.0) for kind in ("T1w", "T2w")]
    voxels = [np.where(inside, values, 0).astype(np.uint8) for values in (first, 256 - first)]
    return Sources(tuple(volumes), np.stack(voxels), (255 * inside[None]).astype(np.uint8), {"balls": "CC0"})


def test_the_l1_term_counts_a_hundred_times_the_adversarial_one(pairs: Sources) -> None:
    """pix2pix (Isola et al. 2017): the generator minimises its adversarial loss + 100 · L1; here all of it over 100."""
    torch.manual_seed(0)
    task = PairedTask(ContrastNet(64, NARROW, 0.0), Slabs(pairs, CALM, seed=1), [], rate=2e-4, bf16=False)
    loss, figures = task.loss(4, "mse")
    assert figures["adversarial"] > 0.1 and figures["l1"] > 0.05
    assert 100 * float(loss.detach()) == pytest.approx(figures["adversarial"] + 100 * figures["l1"], rel=1e-5)


def test_the_l1_term_is_the_mean_difference_inside_the_brain(pairs: Sources) -> None:
    class Grey(nn.Module):
        """Returns 0.5 at every pixel."""

        def __init__(self) -> None:
            super().__init__()
            self.level = nn.Parameter(torch.tensor(0.5))

        def forward(self, slices: Tensor) -> Tensor:
            return self.level.expand(len(slices), 1, *slices.shape[2:])

    slab = Slabs(pairs, CALM, seed=1).slab(4)
    inside = slab.middle > 0
    expected = float((slab.t2w[inside] - 0.5).abs().mean())
    figures = PairedTask(Grey(), Slabs(pairs, CALM, seed=1), [], rate=2e-4, bf16=False).loss(4, "mse")[1]
    assert figures["l1"] == pytest.approx(expected, rel=1e-4)


def test_the_discriminator_sees_the_slice_that_was_converted(pairs: Sources) -> None:
    """Of three neighbouring slices the generator converts the middle one, which is the first channel of the input of the discriminator."""
    torch.manual_seed(0)
    slabs = Slabs(pairs, CALM, seed=1)
    task = PairedTask(ContrastNet(64, NARROW, 0.0), slabs, [], rate=2e-4, bf16=False)
    seen: list[Tensor] = []
    discriminator = task._discriminators.networks[0]
    discriminator.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach().clone()))
    slab = Slabs(pairs, CALM, seed=1).slab(4)
    task.loss(4, "mse")
    both, again = seen
    for part in (both[:4], both[4:], again):
        assert torch.allclose(part[:, :1], slab.network_input[:, 1:2])
    assert torch.allclose(both[:4, 1:], slab.t2w) and torch.equal(both[4:, 1:], again[:, 1:])


def test_without_pairs_the_terms_have_their_weights(pairs: Sources) -> None:
    """Weights: cycle consistency 1, brightness 3, adversarial losses a third (docs/decisions/020-contrast-without-pairs.md)."""
    torch.manual_seed(0)
    task = UnpairedTask(CyclePair(size=64, width=NARROW, dropout=0.0), Slabs(pairs, CALM, seed=1), [], rate=2e-4, bf16=False)
    loss, figures = task.loss(3, "mse")
    assert figures["adversarial"] > 0.3
    assert float(loss.detach()) == pytest.approx(figures["cycle"] + 3 * figures["bright"] + figures["adversarial"] / 3, rel=1e-5)


class Turned(nn.Module):
    """Finds the true coordinates of a batch, turned by ``degrees`` about x."""

    def __init__(self, batch: Batch, degrees: float) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        turn = so3_torch.exp(torch.tensor([math.radians(degrees), 0.0, 0.0]))
        position = torch.einsum("ij,bjxyz->bixyz", turn, batch.position(8))
        brain = nn.functional.avg_pool3d(batch.brain, batch.brain.shape[-1] // 8)
        self.field = CoordinateField(position, torch.full_like(brain, math.log(0.05)), torch.logit(brain, eps=1e-4))

    def forward(self, x: Tensor) -> CoordinateField:
        return self.field


@pytest.mark.parametrize(("degrees", "added"), [(20.0, 0.4189), (90.0, 1.3142)])
def test_the_angle_counts_in_the_second_stage_alone_and_large_ones_hardly_more(
    sources: Sources, degrees: float, added: float
) -> None:
    """Angles count 1.2 times up to 1 rad, and 0.2 times what is beyond it."""
    supply = Same(sources, Recipe(size=16, corruption=NONE, deform=0, stretch=0), seed=1)
    batch = supply.batch(2)
    network = Turned(batch, degrees)
    task = CoordinateTask(network, supply, [], bf16=False)
    dense = float(coordinate_loss(network.field, batch))
    assert float(task.loss(2, "mse")[0]) == pytest.approx(dense, abs=1e-5)
    assert float(task.loss(2, "geodesic")[0]) == pytest.approx(dense + added, abs=1e-3)


def test_figures_of_errors_are_in_degrees() -> None:
    """Of 0.5°, 1.5° … 99.5°: half lie below 50°, a twentieth above 94.5°, and 85 of 100 above 15°."""
    figures = in_degrees(torch.deg2rad(torch.arange(100) + 0.5))
    assert figures["median"] == pytest.approx(49.5, abs=0.6)
    assert figures["p95"] == pytest.approx(94.55, abs=0.1)
    assert figures["mean"] == pytest.approx(50.0, abs=0.01)
    assert figures["over15"] == pytest.approx(0.85)
    skewed = in_degrees(torch.deg2rad(torch.tensor([1.0, 1.0, 1.0, 1.0, 96.0])))
    assert skewed["median"] == pytest.approx(1.0, abs=1e-4) and skewed["mean"] == pytest.approx(20.0, abs=1e-3)


def test_references_are_at_most_two_weeks_older_or_younger() -> None:
    """Brains of 1.9 weeks more are compared with, brains of 2.1 weeks more are not while there are nearer ones."""
    voxels = np.zeros((4, 16, 16, 16), np.uint8)
    ages = {"mine": 30.0, "near": 30.1, "inside": 31.9, "outside": 32.1}
    volumes = tuple(SourceVolume(name, "made", "train", age, "T2w", 0, 30.0) for name, age in ages.items())
    made = Sources(volumes, voxels, voxels[:1], {"made": "CC0"})
    chosen = ReferenceImages(made, Synthesis(made, Recipe(size=16, labels=0.0), seed=0))
    drawn = {volumes[chosen._one(0)].name for _ in range(60)}
    assert drawn == {"near", "inside"}


def test_a_thick_slice_is_the_mean_of_a_voxel_and_both_neighbours() -> None:
    image = torch.zeros(1, 1, 9, 9, 9)
    image[..., 4, 4, 4] = 3.0
    seen = corrupt(image, torch.ones_like(image), replace(NONE, thick=1.0), torch.Generator().manual_seed(0))[0]
    where = seen.nonzero()[:, 2:]
    assert len(where) == 3 and torch.allclose(seen[seen > 0], torch.ones(3))
    (axis,) = (where != 4).any(0).nonzero()[:, 0].tolist()
    assert sorted(where[:, axis].tolist()) == [3, 4, 5]


@pytest.mark.parametrize("radius", [15.0, 25.0])
def test_slices_are_cut_in_millimetres(pairs: Sources, radius: float) -> None:
    """The balls reach √1.2 brain radii from their centre; a pixel is 1 mm, and the largest of many slices goes through the middle."""
    made = Sources(tuple(replace(p, radius_mm=radius) for p in pairs.volumes), pairs.voxels, pairs.masks, pairs.terms)
    slab = Slabs(made, replace(CALM, shift=0.0), seed=3).slab(24)
    largest = float(slab.middle.sum((1, 2, 3)).max())
    assert largest == pytest.approx(math.pi * 1.2 * radius**2, rel=0.06)
