"""Single steps of the training loop: gradients are clipped to a norm of 1, and all weights and buffers are averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posepipe.training.engine import Schedule, train

SCHEDULE = Schedule(steps=(8, 0), batch=8, rate=0.05, warmup=2, average=0.9, every=8)


class Line:
    """Fits y = 2 x + 1 with a batch normalisation; its loss is ``factor`` times too large. Before each step it notes the network's
    numbers, and the length of the gradient that the step before was made with."""

    def __init__(self, factor: float = 1.0) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.factor, self.generator = factor, torch.Generator().manual_seed(0)
        self.numbers: list[dict[str, Tensor]] = []
        self.lengths: list[float] = []

    def note(self) -> None:
        self.numbers.append({k: v.clone() for k, v in self.network.state_dict().items()})
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        if gradients:
            self.lengths.append(float(torch.cat([g.flatten() for g in gradients]).norm()))

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        self.note()
        x = torch.randn(n, 1, generator=self.generator)
        return self.factor * (self.network(x) - 2 * x - 1).square().mean(), {"seconds": 0.0}

    def validate(self, network: nn.Module) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


@pytest.mark.parametrize(("factor", "longest"), [(1e6, 1.0), (1e-3, 0.05)])
def test_long_gradients_are_shortened_to_1_and_short_ones_are_left(tmp_path: Path, factor: float, longest: float) -> None:
    task = Line(factor)
    train(task, SCHEDULE, tmp_path, say=lambda _: None)
    task.note()
    assert len(task.lengths) == 8
    assert max(task.lengths) <= longest + 1e-4
    assert max(task.lengths) == pytest.approx(1.0, abs=1e-3) if factor > 1 else min(task.lengths) > 0


def test_weights_biases_and_running_statistics_are_all_averaged(tmp_path: Path) -> None:
    task = Line()
    averaged = train(task, SCHEDULE, tmp_path, say=lambda _: None).state_dict()
    task.note()
    first, *after = task.numbers
    expected = {k: v for k, v in first.items() if v.is_floating_point()}
    for step, numbers in enumerate(after, start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = {k: decay * v + (1 - decay) * numbers[k] for k, v in expected.items()}
    assert {"1.running_mean", "1.running_var", "0.bias", "2.weight"} <= set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name], value, atol=1e-5, rtol=0, msg=name)
    assert not torch.allclose(expected["1.running_mean"], after[-1]["1.running_mean"], atol=1e-3)
