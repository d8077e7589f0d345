"""The training loop: two stages, averaged weights, checkpoints to resume from, a log with an estimate of the time left."""

from __future__ import annotations

import copy
import csv
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import TrainingError, UsageError
from ..files import replacing

STAGES = ("mse", "geodesic")
OPTIMIZERS = ("adamw", "sgd")
"""``sgd``: stochastic gradient descent with Nesterov's momentum, :data:`MOMENTUM`, as in the paper's public code (Salehi et al. 2018)."""
MOMENTUM = 0.9


@dataclass(frozen=True)
class Schedule:
    """Training schedule: ``steps`` (first stage, second stage) with ``batch`` images each.

    The learning rate rises linearly over ``warmup`` steps to ``rate`` and then falls by a cosine to ``rate`` / 100. ``decay``: weight
    decay; ``average``: decay of the exponential moving average of the weights. Every ``every`` steps a line is added to the log and the
    checkpoint is written. ``optimizer``: one of :data:`OPTIMIZERS`.
    """

    steps: tuple[int, int] = (4000, 4000)
    batch: int = 16
    rate: float = 2e-3
    warmup: int = 200
    decay: float = 1e-4
    average: float = 0.998
    every: int = 200
    optimizer: str = "adamw"

    @property
    def total(self) -> int:
        """Steps of both stages."""
        return sum(self.steps)

    def stage(self, step: int) -> str:
        """Name of the stage of ``step`` (counted from 0)."""
        return STAGES[step >= self.steps[0]]

    def rate_at(self, step: int) -> float:
        """Learning rate at ``step`` (counted from 0).

        >>> s = Schedule(steps=(50, 50), warmup=10, rate=1.0)
        >>> round(s.rate_at(9), 2), round(s.rate_at(99), 2)
        (1.0, 0.01)
        """
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(self.total - self.warmup - 1, 1)
        return self.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class Task(Protocol):
    """A training task: a network, its loss on a new batch, validation of the averaged network, and the state of the random generators."""

    network: nn.Module

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """Loss of a new batch of ``n`` images in ``stage``, and quantities for the log; ``seconds`` among them is the time spent on the
        batch."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Metrics of ``network`` on the validation data."""

    def state(self) -> dict[str, Any]:
        """State of the random generators."""

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from such a state."""


def train(
    task: Task, schedule: Schedule, folder: Path, *, say: Callable[[str], None] = print, validate_every: int = 1000
) -> nn.Module:
    """Train ``task`` and return the network with averaged weights, in evaluation mode.

    ``checkpoint.pt`` and ``log.csv`` are written to ``folder`` every ``schedule.every`` steps, by atomic replace, so that an interrupted
    process leaves a complete checkpoint. With a checkpoint in ``folder``, training resumes from it and ends with the same weights as
    without the interruption. Validation: at logged steps that are multiples of ``validate_every``, and at the end. A line of the log
    holds means over the steps since the previous line; ``images_s`` and ``generation_share`` (share of the time spent on batches) leave
    out validation. Denormal numbers are flushed to 0 (``torch.set_flush_denormal``) during training, which is several times faster.

    Raises :class:`~posepipe.errors.UsageError` if the checkpoint has another schedule or network or cannot be read, and
    :class:`~posepipe.errors.TrainingError` if the loss or its gradient is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = _flushed()
    torch.set_flush_denormal(True)
    try:
        return _train(_Run(task, schedule, folder), task, say, validate_every)
    finally:
        torch.set_flush_denormal(before)


def _train(run: _Run, task: Task, say: Callable[[str], None], validate_every: int) -> nn.Module:
    schedule = run.schedule
    start, first = time.perf_counter(), run.step
    window = _Window()
    while run.step < schedule.total:
        window.add(run.advance())
        if run.step % schedule.every == 0 or run.step == schedule.total:
            line = window.means(schedule.batch)
            if run.step % validate_every == 0 or run.step == schedule.total:
                line |= {f"val_{k}": v for k, v in task.validate(run.averaged.eval()).items()}
            run.log(line)
            run.save()
            left = (schedule.total - run.step) * (time.perf_counter() - start) / (run.step - first)
            shown = ", ".join(f"{k} {v:.4g}" for k, v in line.items())
            say(f"step {run.step} of {schedule.total} ({schedule.stage(run.step - 1)}): {shown}; {_duration(left)} left")
            window = _Window()
    return run.averaged.eval()


def _flushed() -> bool:
    """Whether denormal numbers are flushed to 0 in this thread; torch has no query for it."""
    return float(torch.tensor([1e-40]) * 0.5) == 0.0


def _optimizer(network: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), schedule.rate, momentum=MOMENTUM, nesterov=True, weight_decay=schedule.decay)
    return torch.optim.AdamW(network.parameters(), lr=schedule.rate, weight_decay=schedule.decay)


class _Window:
    """Sums of the logged quantities, and the time, since the previous line of the log."""

    def __init__(self) -> None:
        self._start, self._n = time.perf_counter(), 0
        self._sums: dict[str, float] = {}

    def add(self, figures: dict[str, float]) -> None:
        self._n += 1
        for key, value in figures.items():
            self._sums[key] = self._sums.get(key, 0.0) + value

    def means(self, batch: int) -> dict[str, float]:
        spent = time.perf_counter() - self._start
        line = {k: v / self._n for k, v in self._sums.items() if k != "seconds"}
        return line | {"images_s": self._n * batch / spent, "generation_share": self._sums.get("seconds", 0.0) / spent}


def _duration(seconds: float) -> str:
    """
    >>> _duration(20), _duration(1000), _duration(90000)
    ('20 s', '17 min', '25.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Run:
    """The state of a training run."""

    def __init__(self, task: Task, schedule: Schedule, folder: Path) -> None:
        self.task, self.schedule, self.folder = task, schedule, folder
        self.averaged = copy.deepcopy(task.network)
        self.optimizer = _optimizer(task.network, schedule)
        self.step = 0
        self.rows: list[dict[str, object]] = []
        if (folder / "checkpoint.pt").is_file():
            self._resume(folder / "checkpoint.pt")

    def advance(self) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate_at(self.step)
        network = self.task.network.train()
        loss, figures = self.task.loss(self.schedule.batch, self.schedule.stage(self.step))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        length = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        if not bool(torch.isfinite(loss) & torch.isfinite(length)):
            msg = (
                f"{self.folder}: at step {self.step} the loss ({float(loss.detach()):g}) or its gradient is no longer finite; train again "
                "with a lower rate into another folder"
            )
            raise TrainingError(msg)
        self.optimizer.step()
        self.step += 1
        self._average()
        return {"loss": float(loss.detach()), **figures}

    @torch.no_grad()
    def _average(self) -> None:
        # a lower decay in the first steps, so that the random initial weights have no lasting effect
        decay = min(self.schedule.average, (1 + self.step) / (10 + self.step))
        for mine, theirs in zip(self.averaged.state_dict().values(), self.task.network.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)

    def log(self, line: dict[str, float]) -> None:
        self.rows.append({"step": self.step, "stage": self.schedule.stage(self.step - 1), **line})
        fields = list(dict.fromkeys(k for row in self.rows for k in row))
        with replacing(self.folder / "log.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(self.rows)

    def save(self) -> None:
        state = {
            "schedule": asdict(self.schedule),
            "step": self.step,
            "rows": self.rows,
            "network": self.task.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "task": self.task.state(),
        }
        with replacing(self.folder / "checkpoint.pt") as temporary:
            torch.save(state, temporary)

    def _resume(self, path: Path) -> None:
        again = "give the same options as before, or another output folder"
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            if state["schedule"] != asdict(self.schedule):
                msg = f"{path}: this run had another schedule ({state['schedule']}); {again}"
                raise UsageError(msg)
            self.step, self.rows = state["step"], state["rows"]
            self.task.network.load_state_dict(state["network"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.task.restore(state["task"])
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:200]
            msg = f"{path}: not a checkpoint of this network and task ({reason}); {again}"
            raise UsageError(msg) from error
