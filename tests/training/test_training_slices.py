"""Synthesised slices: correct true poses, corruptions, and that eight slices can be overfitted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posepipe.cli.tools import main
from posepipe.geometry import so3_torch
from posepipe.models import load_network
from posepipe.models.coordinates import HALF_SIDE
from posepipe.models.slices import NUMBERS, SliceCoordinateNet, SliceField, SlicePoseNet, slice_offset, slice_points
from posepipe.models.twin import twin, twin_distance
from posepipe.training.slice_corruption import SliceCorruption, corrupt_slice
from posepipe.training.slices import (
    SLICE_POSENET,
    SliceBatch,
    SliceCoordinateTask,
    SlicePoseTask,
    SliceRecipe,
    SliceSynthesis,
    slice_loss,
)
from posepipe.training.sources import Sources

NONE = SliceCorruption().none()
CLEAN = SliceRecipe(size=32, corruption=NONE, deform=0, stretch=0, labels=0)
TINY = ["--size", "32", "--steps", "2", "2", "--batch", "4"]
TINY += ["--log-every", "2", "--validate-every", "4", "--device", "cpu", "--threads", "1"]


class Same(SliceSynthesis):
    """The same slices again and again."""

    def batch(self, n: int) -> SliceBatch:
        if not hasattr(self, "_kept"):
            self._kept = super().batch(n)
        return self._kept


def true_field(batch: SliceBatch, side: int, error: float = 0.05) -> SliceField:
    brain = torch.nn.functional.avg_pool2d(batch.brain, batch.brain.shape[-1] // side)
    return SliceField(batch.position(side), torch.full_like(brain, np.log(error)), torch.logit(brain, eps=1e-4))


def mirrored(field: SliceField, some: slice = slice(None)) -> SliceField:
    position = field.position.clone()
    position[some, 0] *= -1
    return field._replace(position=position)


def centres(mask: Tensor) -> Tensor:
    """Centres of mass (B, 2), in radii, of (B, 1, S, S)."""
    weight = mask.flatten(1)
    return weight @ slice_points(mask.shape[-1])[:, :2] / weight.sum(1, keepdim=True)


def test_a_blob_is_at_the_position_of_its_pose(blob: Any) -> None:
    """Through the plane w = 0 of ``u = s R x + t``; mirrored in half of the slices, which the truth does not follow."""
    recipe = replace(CLEAN, size=64, middle=0.2, thickness=(2.0, 2.0))
    batch = SliceSynthesis(blob.sources, recipe, seed=4).batch(64)
    places = []
    for sign in (1, -1):
        center = torch.tensor(blob.center) * torch.tensor([sign, 1.0, 1.0])
        places.append((batch.scale[:, None, None] * batch.rotation @ center[:, None])[..., 0] + batch.translation)
    apart = torch.stack([(centres(batch.brain) - p[:, :2]).norm(dim=1) for p in places])
    assert float(apart.amin(0).max()) < 0.05
    # and the plane goes through the blob, in the middle fifth of its extent
    nearer = torch.stack(places)[apart.argmin(0), torch.arange(64)]
    assert float(nearer[:, 2].abs().max()) < 0.3
    assert 10 < int(apart.argmin(0).sum()) < 54


@settings(max_examples=8)
@given(seed=st.integers(0, 99), labels=st.sampled_from([0.0, 1.0]), size=st.sampled_from([32, 64]))
def test_the_true_field_gives_the_true_pose(sources: Sources, seed: int, labels: float, size: int) -> None:
    recipe = SliceRecipe(size=size, labels=labels)
    batch = SliceSynthesis(sources, recipe, seed=seed).batch(5)
    assert batch.input.shape == (5, 2, size, size) and batch.brain.shape == (5, 1, size, size)
    found = true_field(batch, size // 2)._replace(foreground=torch.zeros(5, 1, size // 2, size // 2)).solve(None)
    assert float(torch.rad2deg(so3_torch.geodesic_distance(found.rotation, batch.rotation)).max()) < 0.1
    torch.testing.assert_close(found.translation, batch.translation, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.scale, batch.scale, atol=1e-3, rtol=0)
    assert bool(batch.input.isfinite().all())


def test_slices_lie_in_the_middle_of_the_brain(sources: Sources) -> None:
    supply = SliceSynthesis(sources, CLEAN, seed=2)
    batch = supply.batch(64)
    assert 0 <= float(batch.number.min()) < 3 and NUMBERS - 4 < float(batch.number.max()) <= NUMBERS - 1
    # the number says where the plane is, −t_w / s along the normal; half are of mirrored brains, a little otherwise
    low, high = supply._extent(batch.rows, batch.rotation[:, 2])
    torch.testing.assert_close(slice_offset(batch.number, low, high), -batch.translation[:, 2] / batch.scale, atol=0.08, rtol=0)
    assert bool((batch.brain.flatten(1).sum(1) > 20).all())


def test_half_of_all_orientations_holds_one_of_each_pair_of_twins(sources: Sources) -> None:
    half = SliceSynthesis(sources, replace(CLEAN, half=True), seed=2).batch(64).rotation
    assert bool((half[:, 2, 2] >= 0).all())
    assert bool((twin(half, torch.zeros(64, 3))[0][:, 2, 2] <= 0).all())
    every = SliceSynthesis(sources, CLEAN, seed=2).batch(64).rotation
    assert 16 < int((every[:, 2, 2] < 0).sum()) < 48
    assert SLICE_POSENET.half and not SliceRecipe().half


def test_thick_slices_are_blurred_along_their_normal(sources: Sources) -> None:
    def seen(thickness: float) -> Tensor:
        recipe = replace(CLEAN, size=64, thickness=(thickness, thickness))
        return SliceSynthesis(sources, recipe, seed=5).batch(16).input[:, 0]

    thin, thick, thicker = seen(0.1), seen(4.0), seen(20.0)
    assert 0 < float((thin - thick).abs().mean()) < float((thin - thicker).abs().mean())


def test_a_seed_gives_the_same_slices_and_they_go_on(sources: Sources) -> None:
    one, other = (SliceSynthesis(sources, SliceRecipe(size=32), seed=7) for _ in range(2))
    one.batch(4)
    state = one.state()
    other.restore(state)
    assert torch.equal(one.batch(4).input, other.batch(4).input)


def test_uncorrupted_slices_are_as_they_were() -> None:
    generator = torch.Generator().manual_seed(0)
    image, mask = torch.rand(8, 1, 32, 32, generator=generator), torch.ones(8, 1, 32, 32)
    seen, observed, brain = corrupt_slice(image, mask, NONE, generator)
    for a, b in ((seen, image), (observed, mask), (brain, mask)):
        torch.testing.assert_close(a, b)
    assert not any(vars(NONE).values())


@pytest.mark.parametrize("kind", ["bands", "voids", "moved", "soft", "noise", "bias", "absent", "rim", "cut"])
def test_each_kind_of_corruption_does_something(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    u = slice_points(32)
    mask = (u.norm(dim=1) < 1.0).float().reshape(1, 1, 32, 32).repeat(16, 1, 1, 1)
    image = mask * torch.rand(16, 1, 32, 32, generator=generator)
    seen, observed, brain = corrupt_slice(image, mask, replace(NONE, **{kind: 1.0, "rim_radii": 0.1}), generator)
    inside = mask > 0
    changed = not torch.allclose(seen[inside], image[inside], atol=1e-4)
    assert changed == (kind in {"bands", "voids", "moved", "soft", "noise", "bias"})
    assert torch.equal(observed, mask) == (kind not in {"absent", "rim", "cut"})
    if kind in {"bands", "voids"}:
        assert float((seen - image)[inside].max()) <= 1e-6  # darker, never brighter
    if kind == "absent":
        assert bool((observed == 1).all()) and torch.equal(brain, mask)
        assert bool((seen[:, 0, 0, 0] > 0).any()) and bool((seen[:, 0, 0, 0] == 0).any())


def test_where_no_mask_is_known_its_channel_is_1(sources: Sources) -> None:
    recipe = replace(CLEAN, corruption=replace(NONE, absent=1.0))
    batch = SliceSynthesis(sources, recipe, seed=1).batch(8)
    assert bool((batch.input[:, 1] == 1).all()) and float(batch.brain.mean()) < 0.6
    torch.testing.assert_close(batch.input[:, 0].mean((1, 2)), torch.zeros(8), atol=0.1, rtol=0)


def test_the_loss_is_least_at_the_truth_and_at_its_twin(sources: Sources) -> None:
    batch = SliceSynthesis(sources, CLEAN, seed=1).batch(8)
    truth = true_field(batch, 16)
    least = float(slice_loss(truth, batch))
    assert float(slice_loss(mirrored(truth), batch)) == pytest.approx(least, abs=1e-5)
    assert float(slice_loss(mirrored(truth, slice(0, 4)), batch)) == pytest.approx(least, abs=1e-5)  # each slice chooses for itself
    generator = torch.Generator().manual_seed(0)
    for size in (0.01, 0.1, 1.0):
        moved = truth._replace(position=truth.position + size * torch.randn(truth.position.shape, generator=generator))
        assert float(slice_loss(moved, batch)) > least
    # one half of a slice in one twin and one in the other is neither
    torn = truth.position.clone()
    torn[:, 0, :8] *= -1
    assert float(slice_loss(truth._replace(position=torn), batch)) > least + 0.5


def test_validation_reports_errors_to_the_nearer_twin_and_to_the_truth(sources: Sources) -> None:
    batch = SliceSynthesis(sources, CLEAN, seed=1).batch(8)

    class Twins(torch.nn.Module):
        def forward(self, x: Tensor) -> SliceField:
            return mirrored(true_field(batch, 16))

    task = SliceCoordinateTask(Twins(), SliceSynthesis(sources, CLEAN), [batch], bf16=False)
    figures = task.validate(task.network)
    other = torch.rad2deg(twin_distance(batch.rotation, batch.rotation)[1])
    assert figures["median"] < 0.1 and figures["over15"] == 0 and figures["shift"] < 0.12
    assert figures["outright"] == pytest.approx(float(other.median()), abs=0.2)
    assert figures["outright_over15"] == pytest.approx(float((other > 15).float().mean()))


def learn(task: Any, steps: int, rate: float) -> dict[str, float]:
    optimizer = torch.optim.Adam(task.network.parameters(), rate)
    figures: dict[str, float] = {}
    for stage in ("mse", "geodesic"):
        for _ in range(steps):
            loss, figures = task.loss(8, stage)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return figures


def seeded(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


@pytest.mark.slow
def test_eight_slices_are_overfitted(sources: Sources) -> None:
    dense = SliceCoordinateTask(seeded(lambda: SliceCoordinateNet(32, (8, 16, 24, 24))), Same(sources, CLEAN, seed=1), [], bf16=False)
    assert learn(dense, 80, 1e-2)["mean"] < 15


@pytest.mark.slow
def test_the_paper_s_net_can_overfit_eight_slices(sources: Sources) -> None:
    supply = Same(sources, replace(CLEAN, half=True), seed=1)
    paper = SlicePoseTask(seeded(lambda: SlicePoseNet(32, 0.25)), supply, [supply.batch(8)], bf16=False)
    figures = learn(paper, 120, 2e-3)
    assert figures["mean"] < 20 and figures["slices"] < 4
    assert {"median", "outright", "slices"} <= set(paper.validate(paper.network))


@pytest.mark.parametrize(("kind", "words"), [("slice", "pose of one slice"), ("slice-pose", "number of one slice")])
def test_from_sources_to_weights(gathered: Any, tmp_path: Path, monkeypatch: Any, capsys: Any, kind: str, words: str) -> None:
    monkeypatch.setattr("posepipe.training.job.VALIDATION_BATCHES", 1)
    command = ["train", kind, "--sources", str(gathered.path), "-o", str(tmp_path), "--leave-out", "bids", "--name", "mine", *TINY]
    assert main(command) == 0
    assert "32² pixels" in capsys.readouterr().out
    loaded = load_network("mine", weights_dir=tmp_path / "weights")
    assert loaded.options["size"] == 32 and type(loaded.module) is (SliceCoordinateNet if kind == "slice" else SlicePoseNet)
    card = (tmp_path / "weights" / "mine.md").read_text(encoding="utf-8")
    for text in (words, "a slice of 32² pixels", "Left out on purpose: bids", "the true pose", "thickness 2.0 + 6.0"):
        assert text in card
    recipe = json.loads((tmp_path / "job.json").read_text(encoding="utf-8"))["recipe"]
    assert recipe["half"] == (kind == "slice-pose") and recipe["corruption"]["bands"] > 0
    assert main(command) == 0  # nothing is left to do


def test_a_slice_reaches_as_far_as_the_cube() -> None:
    assert float(slice_points(64)[:, :2].max()) == pytest.approx(HALF_SIDE * (1 - 1 / 64))
