"""The training loop on a small fit: an interrupted run ends like an uninterrupted one; averages and rates are as stated."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posepipe.errors import TrainingError, UsageError
from posepipe.training.engine import Schedule, train

SHORT = Schedule(steps=(6, 6), batch=8, rate=0.05, warmup=3, average=0.9, every=4)


class Line:
    """Fits y = 2 x + 1, with a batch normalisation; on request, stops or makes its loss invalid at a step."""

    def __init__(self, seed: int = 0, stop: int | None = None, spoil: float | None = None) -> None:
        torch.manual_seed(seed)
        self.network: nn.Module = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.generator = torch.Generator().manual_seed(seed)
        self.stop, self.spoil, self.seen, self.stages = stop, spoil, 0, []  # type: ignore[var-annotated]
        self.weights: list[Tensor] = []

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        self.weights.append(self.network.state_dict()["2.weight"].clone())
        if self.seen == self.stop:
            raise KeyboardInterrupt
        self.seen += 1
        self.stages.append(stage)
        x = torch.randn(n, 1, generator=self.generator)
        loss = (self.network(x) - 2 * x - 1).square().mean()
        factor = self.spoil if self.spoil is not None and self.seen > 5 else 1.0
        return loss * factor, {"seen": float(self.seen), "seconds": 0.0}

    def validate(self, network: nn.Module) -> dict[str, float]:
        assert not network.training
        return {"bias": float(network(torch.zeros(1, 1)).detach())}

    def state(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


def silent(_: str) -> None:
    """A ``say`` that ignores its messages."""


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    first = train(Line(), SHORT, tmp_path / "a", say=silent)
    assert same(first, train(Line(), SHORT, tmp_path / "b", say=silent))
    assert not same(first, train(Line(seed=1), SHORT, tmp_path / "c", say=silent))


@pytest.mark.parametrize("stop", [3, 4, 9])
def test_interrupted_and_resumed_ends_as_uninterrupted(tmp_path: Path, stop: int) -> None:
    whole = Line()
    expected = train(whole, SHORT, tmp_path / "whole", say=silent)
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop=stop), SHORT, tmp_path / "cut", say=silent)
    resumed = Line()
    assert same(train(resumed, SHORT, tmp_path / "cut", say=silent), expected)
    assert resumed.seen == 12 - 4 * (stop // 4)
    logged, fresh = rows(tmp_path / "cut"), rows(tmp_path / "whole")
    assert [r["loss"] for r in logged] == [r["loss"] for r in fresh] and [r["step"] for r in logged] == ["4", "8", "12"]
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["checkpoint.pt", "log.csv"]
    # what is done stays done
    done = Line()
    assert same(train(done, SHORT, tmp_path / "cut", say=silent), expected) and done.seen == 0


def test_stages_rates_and_log(tmp_path: Path) -> None:
    task, messages = Line(), []
    train(task, SHORT, tmp_path, say=messages.append, validate_every=8)
    assert task.stages == ["mse"] * 6 + ["geodesic"] * 6
    logged = rows(tmp_path)
    assert [r["stage"] for r in logged] == ["mse", "geodesic", "geodesic"]
    assert [float(r["seen"]) for r in logged] == [2.5, 6.5, 10.5]  # means over four steps
    assert [bool(r["val_bias"]) for r in logged] == [False, True, True]
    assert all(float(r["images_s"]) > 0 and r["generation_share"] == "0.0" for r in logged)
    assert len(messages) == 3 and messages[0].startswith("step 4 of 12 (mse): ") and messages[-1].endswith("0 s left")
    rates = [SHORT.rate_at(s) for s in range(12)]
    assert rates[:3] == pytest.approx([0.05 / 3, 0.1 / 3, 0.05]) and rates[-1] == pytest.approx(0.0005)
    assert all(a >= b for a, b in pairwise(rates[2:]))
    # numbers too small for full precision count again afterwards
    assert float(torch.tensor([1e-40]) * 0.5) > 0


def test_time_is_counted_by_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by a second a batch, half of it in the making, and by an hour in the validation."""
    now = [0.0]
    monkeypatch.setattr("posepipe.training.engine.time.perf_counter", lambda: now[0])

    class Timed(Line):
        def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
            now[0] += 1
            loss, figures = super().loss(n, stage)
            return loss, {**figures, "seconds": 0.5}

        def validate(self, network: nn.Module) -> dict[str, float]:
            now[0] += 3600
            return super().validate(network)

    train(Timed(), SHORT, tmp_path, say=silent, validate_every=4)
    assert all(float(r["images_s"]) == 8 and float(r["generation_share"]) == 0.5 for r in rows(tmp_path))


def test_averages_of_weights_and_buffers(tmp_path: Path) -> None:
    task = Line()
    averaged = train(task, SHORT, tmp_path, say=silent)
    expected = task.weights[0]
    after = [*task.weights[1:], task.network.state_dict()["2.weight"]]
    for step, weight in enumerate(after, start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    assert torch.allclose(averaged.state_dict()["2.weight"], expected, atol=1e-6)
    state = averaged.state_dict()
    assert int(state["1.num_batches_tracked"]) == 12 and not torch.equal(state["1.running_mean"], torch.zeros(4))


def test_nesterov_steps_are_those_of_the_formula(tmp_path: Path) -> None:
    """v ← 0.9 v + g; w ← w − rate (g + 0.9 v) of the clipped gradient g, as Sutskever et al. 2013; and a run goes on with its v."""
    schedule = replace(SHORT, optimizer="sgd", decay=0.0)
    task = Line()
    train(task, schedule, tmp_path / "whole", say=silent)
    whole = [*task.weights, task.network.state_dict()["2.weight"].clone()]
    again, velocity = Line(), None
    names = [name for name, _ in again.network.named_parameters()]
    for step in range(schedule.total):
        loss, _ = again.loss(8, "mse")
        again.network.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(again.network.parameters(), 1.0)
        slopes = [p.grad for p in again.network.parameters()]
        velocity = slopes if velocity is None else [0.9 * v + g for v, g in zip(velocity, slopes, strict=True)]
        with torch.no_grad():
            for p, g, v in zip(again.network.parameters(), slopes, velocity, strict=True):
                p -= schedule.rate_at(step) * (g + 0.9 * v)
        assert torch.allclose(again.network.get_parameter(names[2 * 2]), whole[step + 1], atol=1e-6)
    stopped = Line(stop=7)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, schedule, tmp_path / "parts", say=silent)
    rest = Line()
    train(rest, schedule, tmp_path / "parts", say=silent)
    assert torch.equal(rest.network.state_dict()["2.weight"], whole[-1])


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    train(Line(), SHORT, tmp_path, say=silent)
    with pytest.raises(UsageError, match="another schedule"):
        train(Line(), Schedule(steps=(6, 7), batch=8, every=4), tmp_path, say=silent)
    other = Line()
    other.network = nn.Linear(1, 1)
    with pytest.raises(UsageError, match="not a checkpoint of this network"):
        train(other, SHORT, tmp_path, say=silent)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UsageError, match=r"checkpoint\.pt: not a checkpoint"):
        train(Line(), SHORT, tmp_path, say=silent)


@pytest.mark.parametrize("spoil", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_training(tmp_path: Path, spoil: float) -> None:
    with pytest.raises(TrainingError, match=r"step 5 .*lower rate"):
        train(Line(spoil=spoil), SHORT, tmp_path, say=silent)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4 and all(bool(v.isfinite().all()) for v in state["network"].values())
