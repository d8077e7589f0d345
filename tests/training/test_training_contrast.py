"""Slabs show one brain in two contrasts at the same place; both methods learn the conversion, and resume after an interruption."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posepipe.errors import UsageError
from posepipe.models import load_network
from posepipe.models.contrast import ContrastNet
from posepipe.models.coordinates import HALF_SIDE
from posepipe.training.conversion import CyclePair, ImagePool, PairedTask, UnpairedTask
from posepipe.training.engine import Schedule
from posepipe.training.job import PRESETS, Job, run_job
from posepipe.training.slabs import SlabRecipe, Slabs
from posepipe.training.sources import Sources, SourceVolume

SIDE = 48
NARROW = (4, 6, 8, 8, 8)
CALM = SlabRecipe(size=64, spacing=(1.0, 1.0), gamma=0.0, gain=0.0, bias=0.0, noise=0.0, rim=(0.5, 0.5))


@pytest.fixture(scope="module")
def pairs() -> Sources:
    """Balls that are brightest at the right in T1w and inverted in T2w, to train and to validate with."""
    axis = (np.arange(SIDE) + 0.5) / SIDE * 2 * HALF_SIDE - HALF_SIDE
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    inside = x**2 + y**2 + z**2 < 1.2
    first = (128 + 100 * x).clip(1, 255)
    volumes, voxels = [], []
    for part in ("train", "validation"):
        for kind, values in (("T1w", first), ("T2w", 256 - first)):
            volumes.append(SourceVolume(part, "balls", part, 40.0, kind, 0, 30.0))
            voxels.append(np.where(inside, values, 0).astype(np.uint8))
    return Sources(tuple(volumes), np.stack(voxels), (255 * inside[None]).astype(np.uint8), {"balls": "CC0"})


def test_slabs_show_both_contrasts_at_one_place(pairs: Sources) -> None:
    slab = Slabs(pairs, CALM, seed=3).slab(12)
    assert slab.network_input.shape == slab.mask.shape == (12, 3, 64, 64)
    middle = slab.middle[:, 0] > 0
    # the one is the inverted other, on any plane
    total = (slab.t1w + slab.t2w)[:, 0][middle]
    assert middle.any() and total.mean() == pytest.approx(1.0, abs=0.02) and total.std() < 0.02
    assert torch.allclose(slab.network_input[:, 1], slab.t1w[:, 0], atol=1e-3)
    assert not slab.t1w[:, 0][~middle].any() and not slab.network_input[slab.mask == 0].any()


def test_slices_lie_every_way_and_differ_from_their_neighbours(pairs: Sources) -> None:
    slab = Slabs(pairs, CALM, seed=4).slab(24)
    across = [(s[:, 40:] - s[:, :24].mean()).mean() for s in slab.t1w[:, 0]]
    assert min(across) < 0 < max(across)
    assert not torch.equal(slab.network_input[:, 0], slab.network_input[:, 2])


def test_disturbance_spares_the_truth(pairs: Sources) -> None:
    calm, rough = (Slabs(pairs, r, seed=5).slab(6) for r in (CALM, replace(CALM, gamma=0.4, bias=0.3, noise=0.05)))
    assert torch.equal(calm.t2w, rough.t2w) and torch.equal(calm.t1w, rough.t1w)
    assert float((calm.network_input - rough.network_input).abs().mean()) > 0.003
    assert not rough.network_input[rough.mask == 0].any()


def test_a_brain_in_one_contrast_alone_teaches_nothing(pairs: Sources) -> None:
    lonely = Sources(pairs.volumes[:1], pairs.voxels[:1], pairs.masks, pairs.terms)
    with pytest.raises(UsageError, match="both a T1w and a T2w"):
        Slabs(lonely, CALM)


@pytest.mark.slow
def test_pairs_teach_the_other_contrast(pairs: Sources) -> None:
    torch.manual_seed(0)
    validation = [Slabs(pairs, CALM.plain(), part="validation", seed=9).slab(8)]
    task = PairedTask(ContrastNet(64, NARROW, 0.0), Slabs(pairs, CALM, seed=1), validation, rate=2e-4, bf16=False)
    optimizer = torch.optim.Adam(task.network.parameters(), lr=5e-3)
    pixels = []
    for _ in range(60):
        optimizer.zero_grad()
        loss, figures = task.loss(4, "mse")
        loss.backward()
        optimizer.step()
        pixels.append(figures["l1"])
    assert set(figures) == {"l1", "adversarial", "discriminator", "seconds"}
    # half as far from the truth as a uniform grey is
    assert np.mean(pixels[-10:]) < 0.6 * np.mean(pixels[:5]) and set(task.validate(task.network.eval())) == {"mae", "psnr"}


def test_slices_apart_are_of_other_brains_of_the_same_group() -> None:
    def of(values: list[int], groups: list[str]) -> Sources:
        inside = np.ones((SIDE,) * 3, np.uint8) * 255
        volumes = tuple(SourceVolume(f"{i}", g, "train", 40.0, kind, i, 30.0) for i, g in enumerate(groups) for kind in ("T1w", "T2w"))
        voxels = np.stack([np.full((SIDE,) * 3, v, np.uint8) for v in values for _ in range(2)])
        return Sources(volumes, voxels, np.stack([inside] * len(values)))

    levels = [40, 80, 160, 240]
    one, other = Slabs(of(levels, ["a", "a", "b", "b"]), CALM, seed=2).unpaired(16)
    brains = [[int(np.abs(np.array(levels) - 1 - 254 * s[0].max().item()).argmin()) for s in slab.t2w] for slab in (one, other)]
    assert all(a != b and a // 2 == b // 2 for a, b in zip(*brains, strict=True))
    lonely, same = Slabs(of([40], ["a"]), CALM, seed=2).unpaired(2)
    assert float(lonely.t2w.max()) == pytest.approx(float(same.t2w.max()))


@pytest.mark.slow
def test_without_pairs_both_ways_are_learnt(pairs: Sources) -> None:
    torch.manual_seed(0)
    validation = [Slabs(pairs, CALM.plain(), part="validation", seed=9).slab(4)]
    task = UnpairedTask(CyclePair(size=64, width=NARROW, dropout=0.0), Slabs(pairs, CALM, seed=1), validation, rate=2e-4, bf16=False)
    optimizer = torch.optim.Adam(task.network.parameters(), lr=5e-3)
    cycles = []
    for _ in range(25):
        optimizer.zero_grad()
        loss, figures = task.loss(3, "mse")
        loss.backward()
        assert all(p.grad is not None for p in task.network.parameters())
        optimizer.step()
        cycles.append(figures["cycle"])
    assert np.mean(cycles[-5:]) < 0.8 * np.mean(cycles[:5])
    assert set(task.validate(task.network.eval())) == {"mae", "psnr"}


def test_what_has_the_right_contrast_is_to_be_left_alone_in_the_second_stage(pairs: Sources) -> None:
    torch.manual_seed(0)
    task = UnpairedTask(CyclePair(size=64, width=NARROW, dropout=0.0), Slabs(pairs, CALM, seed=1), [], rate=2e-4, bf16=False)
    begun = copy.deepcopy(task.state())
    first = float(task.loss(3, "mse")[0].detach())
    task.restore(begun)
    # an inverted brightness is far from the identity
    assert float(task.loss(3, "geodesic")[0].detach()) > first + 0.05


def test_a_discriminator_is_trained_on_earlier_images_too() -> None:
    """All new ones until the pool is full, then one of the pool in half of the cases, which leaves it: none is returned twice."""
    pool = ImagePool(size=10, seed=3)
    first = [float(x) for x in pool.query(torch.arange(10.0).reshape(10, 1, 1, 1))]
    assert first == list(range(10))
    kept = pool.state()
    seen = [float(pool.query(torch.tensor(float(i)).reshape(1, 1, 1, 1))) for i in range(10, 410)]
    earlier = [i for i, value in enumerate(seen, start=10) if value != i]
    assert 160 < len(earlier) < 240 and len(set(seen)) == len(seen)
    assert all(value < i for i, value in enumerate(seen, start=10) if i in set(earlier))
    pool.restore(kept)
    assert [float(pool.query(torch.tensor(float(i)).reshape(1, 1, 1, 1))) for i in range(10, 410)] == seen


@pytest.mark.parametrize("network", ["contrast", "contrast-unpaired"])
def test_an_interrupted_job_ends_as_an_uninterrupted_one(
    pairs: Sources, tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posepipe.training.job.VALIDATION_BATCHES", 1)
    path = pairs.save(tmp_path / "pairs.npz")
    schedule = Schedule(steps=(4, 0), batch=2, every=2, warmup=1)
    assert PRESETS[network].architecture == "ContrastNet"
    job = Job(network, path, tmp_path / "whole", schedule, size=32, name="converter")

    def stop(text: str) -> None:
        if text.startswith("step 2 of 4"):
            raise KeyboardInterrupt

    whole = run_job(job, lambda _: None)
    cut = replace(job, output=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        run_job(cut, stop)
    torch.manual_seed(77)  # what else happened in between does not matter
    assert run_job(cut, lambda _: None).read_bytes() == whole.read_bytes()
    loaded = load_network("converter", weights_dir=whole.parent)
    assert isinstance(loaded.module, ContrastNet) and loaded.options["size"] == 32
    card = whole.with_suffix(".md").read_text(encoding="utf-8")
    assert "three neighbouring slices" in card and "PSNR inside the brain" in card and "geodesic" not in card
