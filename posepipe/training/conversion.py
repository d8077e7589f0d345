"""Learning to convert contrast: with pairs (pix2pix), or without (cycleGAN).

Salehi et al. 2018, §3.3, after Isola et al. 2017 and Zhu et al. 2017. The engine optimises the generator; the discriminators have an
optimiser of their own and take their turn first, on the same drawing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.contrast import (
    SLICES,
    ContrastNet,
    PatchNet,
    critic_loss,
    fooling_loss,
    masked_l1,
    square_critic_loss,
    square_fooling_loss,
)
from ..models.precision import autocast
from .slabs import Slab, Slabs

BRIGHTNESS, QUANTILES = 3.0, 32
"""Without pairs: weight of drawing as bright as the other contrast is, over the way back, and how finely that is compared. Critics alone
let drawings be far too bright (docs/experiments-contrast.md, 7 and 8)."""
PIXELS = 100.0
"""λ: weight of the L1 loss over the adversarial one (pix2pix's)."""
CYCLE = 3.0
IDENTITY = 1.0
"""Weights of finding the way back, and of leaving alone what has the right contrast already, over the adversarial loss. With cycleGAN's
own, 10 and 5, from the beginning the generators learnt to copy (docs/experiments-contrast.md): so the latter waits for the second stage."""
POOL = 50
"""Earlier drawings that a critic is still shown without pairs, in half of the cases (cycleGAN's)."""


class _Critics:
    """Discriminators that learn beside a generator."""

    def __init__(self, *critics: PatchNet, rate: float, device: str) -> None:
        self.networks = nn.ModuleList(critics).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = torch.optim.Adam(self.networks.parameters(), lr=rate, betas=(0.5, 0.999))

    def learn(self, loss: Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()

    def state(self) -> dict[str, Any]:
        return {"networks": self.networks.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self._optimizer.load_state_dict(state["optimizer"])


class _ContrastTask:
    """What both ways of learning share: slabs, precision, validation against the truth."""

    def __init__(
        self, network: nn.Module, slabs: Slabs, validation: list[Slab], critics: _Critics, *, bf16: bool = True
    ) -> None:
        self.network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._slabs, self._validation, self._critics, self._bf16 = slabs, validation, critics, bf16

    def state(self) -> dict[str, Any]:
        """See :class:`~posepipe.training.engine.Task`."""
        return {**self._slabs.state(), "critics": self._critics.state(), "dropout": torch.get_rng_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """See :class:`~posepipe.training.engine.Task`."""
        self._slabs.restore(state)
        self._critics.restore(state["critics"])
        torch.set_rng_state(state["dropout"])

    def _run(self, network: nn.Module, x: Tensor) -> Tensor:
        with autocast(x.device, wanted=self._bf16):
            out: Tensor = network(x.contiguous(memory_format=torch.channels_last))
        return out.float()

    def _figures(self, generator: nn.Module) -> dict[str, float]:
        drawn = [self._run(generator, s.start) * s.middle for s in self._validation]
        errors = [masked_l1(d, s.second, s.middle) for d, s in zip(drawn, self._validation, strict=True)]
        squares = [
            (((d - s.second) ** 2 * s.middle).sum() / s.middle.sum().clamp_min(1)) for d, s in zip(drawn, self._validation, strict=True)
        ]
        return {"mae": float(torch.stack(errors).mean()), "psnr": float(-10 * torch.stack(squares).mean().log10())}


class PairedTask(_ContrastTask):
    """A :class:`~posepipe.models.contrast.ContrastNet` on slices that exist in both contrasts."""

    def __init__(
        self, network: nn.Module, slabs: Slabs, validation: list[Slab], *, rate: float, device: str = "cpu", bf16: bool = True
    ) -> None:
        super().__init__(network, slabs, validation, _Critics(PatchNet(2), rate=rate, device=device), bf16=bf16)

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`; the same in both stages. Scaled so that the L1 term has weight 1."""
        slab, seconds = self._slabs.timed(n)
        critic = self._critics.networks[0]
        drawn = self._run(self.network, slab.start) * slab.middle
        seen = slab.start[:, SLICES // 2, None]
        real, unreal = torch.cat([seen, slab.second], 1), torch.cat([seen, drawn], 1)
        judged = self._run(critic, torch.cat([real, unreal.detach()]))
        against = critic_loss(judged[:n], judged[n:])
        self._critics.learn(against)
        pixels = masked_l1(drawn, slab.second, slab.middle)
        fooled = fooling_loss(self._run(critic, unreal))
        return pixels + fooled / PIXELS, {
            "l1": float(pixels.detach()), "fooled": float(fooled.detach()), "critic": float(against.detach()), "seconds": seconds
        }  # fmt: skip

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Mean absolute error and PSNR (dB) inside the brain, of intensities in [0, 1]."""
        return self._figures(network)


def brightness_gap(drawn: Tensor, where: Tensor, real: Tensor, there: Tensor) -> Tensor:
    """How far the brightness of each of ``drawn`` inside ``where`` is from that of its fellow in ``real`` inside ``there`` (all
    (B, 1, H, W)): mean difference of their quantiles, which is the earth mover's distance; those that show more count for more.

    >>> one = torch.ones(1, 1, 2, 2)
    >>> brightness_gap(0.5 * one, one, torch.eye(2)[None, None], one).round(decimals=3)
    tensor(0.5000)
    """
    at = (torch.arange(QUANTILES, device=drawn.device) + 0.5) / QUANTILES
    total, weight = drawn.sum() * 0, 0
    for i in range(len(drawn)):
        some = [x[i][inside[i] > 0].sort().values for x, inside in ((drawn, where), (real, there))]
        count = min(len(x) for x in some)
        if count:
            a, b = (x[(at * len(x)).long()] for x in some)
            total, weight = total + count * (a - b).abs().mean(), weight + count
    return total / max(weight, 1)


class Pool:
    """The last drawings of a generator, so that its critic does not forget them (Shrivastava et al. 2017; Zhu et al. 2017, §4)."""

    def __init__(self, size: int = POOL, seed: int = 0) -> None:
        self._size, self._rng = size, np.random.default_rng(seed)
        self._kept: list[Tensor] = []

    def shown(self, drawn: Tensor) -> Tensor:
        """``drawn`` (B, 1, H, W); once the pool is full, in half of the cases one of it instead, whose place the drawing then takes."""
        out = []
        for one in drawn.detach().clone():
            if len(self._kept) < self._size:
                self._kept.append(one)
            elif self._rng.random() < 0.5:
                at = int(self._rng.integers(self._size))
                self._kept[at], one = one, self._kept[at]
            out.append(one)
        return torch.stack(out)

    def state(self) -> dict[str, Any]:
        """What is kept, and the state of the random generator."""
        return {"kept": list(self._kept), "rng": self._rng.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Back to a state of :meth:`state`."""
        self._kept, self._rng.bit_generator.state = list(state["kept"]), state["rng"]


class CyclePair(nn.Module):
    """``there`` converts T1w to T2w, ``back`` the other way: each a :class:`~posepipe.models.contrast.ContrastNet` of the ``options`` that
    begins by turning brightness over."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.there, self.back = ContrastNet(**options), ContrastNet(**options)
        self.there.begin_inverted()
        self.back.begin_inverted()


class UnpairedTask(_ContrastTask):
    """A :class:`CyclePair` on T1w slices of some brains and T2w slices of others, as where no brain was imaged in both.

    A generator sees three slices and draws one; for the way back the drawing stands for all three. Both kinds of slices are from the same
    data sets, though of different brains. The critics learn by least squares, from drawings of now and of before (:class:`Pool`).
    """

    def __init__(
        self, network: CyclePair, slabs: Slabs, validation: list[Slab], *, rate: float, device: str = "cpu", bf16: bool = True
    ) -> None:
        super().__init__(network, slabs, validation, _Critics(PatchNet(1), PatchNet(1), rate=rate, device=device), bf16=bf16)
        self._pools = (Pool(seed=0), Pool(seed=1))

    def state(self) -> dict[str, Any]:
        """See :class:`~posepipe.training.engine.Task`."""
        return {**super().state(), "pools": [pool.state() for pool in self._pools]}

    def restore(self, state: dict[str, Any]) -> None:
        """See :class:`~posepipe.training.engine.Task`."""
        super().restore(state)
        for pool, kept in zip(self._pools, state["pools"], strict=True):
            pool.restore(kept)

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`; the identity loss comes in the second stage. The way back has weight 1."""
        one, other, seconds = self._slabs.timed_apart(n)
        pair = self.network
        assert isinstance(pair, CyclePair)
        t1, t2 = one.start, other.second.expand(-1, SLICES, -1, -1)
        drawn_t2 = self._run(pair.there, t1) * one.middle
        drawn_t1 = self._run(pair.back, t2) * other.middle
        real_t1 = t1[:, SLICES // 2, None]
        both = ((other.second, drawn_t2), (real_t1, drawn_t1))
        judged = [self._judged(i, real, self._pools[i].shown(drawn)) for i, (real, drawn) in enumerate(both)]
        against = square_critic_loss(*judged[0]) + square_critic_loss(*judged[1])
        self._critics.learn(against)
        back_t1 = self._run(pair.back, drawn_t2.expand(-1, SLICES, -1, -1)) * one.middle
        back_t2 = self._run(pair.there, drawn_t1.expand(-1, SLICES, -1, -1)) * other.middle
        cycle = masked_l1(back_t1, real_t1, one.middle) + masked_l1(back_t2, other.second, other.middle)
        fooled = sum((square_fooling_loss(self._judged(i, *two)[1]) for i, two in enumerate(both)), torch.zeros(()))
        bright = brightness_gap(drawn_t2, one.middle, other.second, other.middle)
        bright = bright + brightness_gap(drawn_t1, other.middle, real_t1, one.middle)
        same = torch.zeros(())
        if stage != "mse":
            same = masked_l1(self._run(pair.there, t2) * other.middle, other.second, other.middle)
            same = same + masked_l1(self._run(pair.back, t1) * one.middle, real_t1, one.middle)
        return cycle + BRIGHTNESS * bright + (IDENTITY * same + fooled) / CYCLE, {
            "cycle": float(cycle.detach()), "bright": float(bright.detach()), "fooled": float(fooled.detach()),
            "critic": float(against.detach()), "seconds": seconds,
        }  # fmt: skip

    def _judged(self, critic: int, real: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """What a critic says of both. They are shown together: in batches of one kind its normalisation would hide
        how bright they are."""
        judged = self._run(self._critics.networks[critic], torch.cat([real, drawn]))
        return judged[: len(real)], judged[len(real) :]

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """As of :class:`PairedTask`, of the way there."""
        assert isinstance(network, CyclePair)
        return self._figures(network.there)
