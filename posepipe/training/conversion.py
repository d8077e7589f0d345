"""Training of contrast conversion: with paired images (pix2pix), or without (cycleGAN).

Salehi et al. 2018, §3.3, after Isola et al. 2017 and Zhu et al. 2017. The training engine optimises the generator. The discriminators have
an optimiser of their own; in each step they are updated first, on the images that the generator has just synthesised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.contrast import (
    SLICES,
    ContrastNet,
    PatchDiscriminator,
    discriminator_loss,
    generator_adversarial_loss,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    masked_l1,
)
from ..models.precision import autocast
from .slabs import Slab, Slabs

BRIGHTNESS, QUANTILES = 3.0, 32
"""Training without pairs: weight of :func:`brightness_gap` over the cycle-consistency loss, and the number of quantiles that it compares.
With the adversarial loss alone synthesised images were far too bright (docs/decisions/020-contrast-without-pairs.md)."""
PIXELS = 100.0
"""λ of pix2pix: weight of the L1 loss over the adversarial loss."""
CYCLE = 3.0
IDENTITY = 1.0
"""Weights of the cycle-consistency loss and of the identity loss over the adversarial loss. With cycleGAN's values, 10 and 5, from the
first step on, the generators learnt to copy their input (docs/decisions/020-contrast-without-pairs.md). So the identity loss is added in
the second stage only."""
POOL_SIZE = 50
"""Number of earlier synthesised images kept for the update of each discriminator in training without pairs (cycleGAN's value)."""


class _Discriminators:
    """Discriminators of one training, and their optimiser (Adam)."""

    def __init__(self, *discriminators: PatchDiscriminator, rate: float, device: str) -> None:
        self.networks = nn.ModuleList(discriminators).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = torch.optim.Adam(self.networks.parameters(), lr=rate, betas=(0.5, 0.999))

    def update(self, loss: Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()

    def state(self) -> dict[str, Any]:
        return {"networks": self.networks.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        self._optimizer.load_state_dict(state["optimizer"])


class _ContrastTask:
    """Base of paired and unpaired training: slabs, precision, state, and validation against the real T2w slices."""

    def __init__(
        self, network: nn.Module, slabs: Slabs, validation: list[Slab], discriminators: _Discriminators, *, bf16: bool = True
    ) -> None:
        self.network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._slabs, self._validation, self._discriminators, self._bf16 = slabs, validation, discriminators, bf16

    def state(self) -> dict[str, Any]:
        """See :class:`~posepipe.training.engine.Task`."""
        return {**self._slabs.state(), "discriminators": self._discriminators.state(), "dropout": torch.get_rng_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """See :class:`~posepipe.training.engine.Task`."""
        self._slabs.restore(state)
        self._discriminators.restore(state["discriminators"])
        torch.set_rng_state(state["dropout"])

    def _run(self, network: nn.Module, x: Tensor) -> Tensor:
        with autocast(x.device, wanted=self._bf16):
            out: Tensor = network(x.contiguous(memory_format=torch.channels_last))
        return out.float()

    def _figures(self, generator: nn.Module) -> dict[str, float]:
        synthesised = [self._run(generator, s.network_input) * s.middle for s in self._validation]
        pairs = list(zip(synthesised, self._validation, strict=True))
        errors = [masked_l1(image, s.t2w, s.middle) for image, s in pairs]
        squares = [(((image - s.t2w) ** 2 * s.middle).sum() / s.middle.sum().clamp_min(1)) for image, s in pairs]
        return {"mae": float(torch.stack(errors).mean()), "psnr": float(-10 * torch.stack(squares).mean().log10())}


class PairedTask(_ContrastTask):
    """Training of a :class:`~posepipe.models.contrast.ContrastNet` on slices that exist in both contrasts (pix2pix)."""

    def __init__(
        self, network: nn.Module, slabs: Slabs, validation: list[Slab], *, rate: float, device: str = "cpu", bf16: bool = True
    ) -> None:
        super().__init__(network, slabs, validation, _Discriminators(PatchDiscriminator(2), rate=rate, device=device), bf16=bf16)

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`. L1 loss plus adversarial loss over :data:`PIXELS`; the same in both stages."""
        slab, seconds = self._slabs.timed(n)
        discriminator = self._discriminators.networks[0]
        synthesised = self._run(self.network, slab.network_input) * slab.middle
        middle_t1w = slab.network_input[:, SLICES // 2, None]
        real, fake = torch.cat([middle_t1w, slab.t2w], 1), torch.cat([middle_t1w, synthesised], 1)
        logits = self._run(discriminator, torch.cat([real, fake.detach()]))
        loss_d = discriminator_loss(logits[:n], logits[n:])
        self._discriminators.update(loss_d)
        pixels = masked_l1(synthesised, slab.t2w, slab.middle)
        adversarial = generator_adversarial_loss(self._run(discriminator, fake))
        return pixels + adversarial / PIXELS, {
            "l1": float(pixels.detach()), "adversarial": float(adversarial.detach()), "discriminator": float(loss_d.detach()),
            "seconds": seconds,
        }  # fmt: skip

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Mean absolute error and PSNR (dB) inside the brain, of intensities in [0, 1]."""
        return self._figures(network)


def brightness_gap(synthesised: Tensor, mask: Tensor, real: Tensor, real_mask: Tensor) -> Tensor:
    """Earth mover's distance between the intensity histograms of ``synthesised`` inside ``mask`` and of ``real`` inside ``real_mask``.

    All are (B, 1, H, W) and paired by index. The distance of a pair is the mean absolute difference of :data:`QUANTILES` quantiles. The
    result is the mean over pairs, weighted by the smaller number of pixels of the two masks.

    >>> one = torch.ones(1, 1, 2, 2)
    >>> brightness_gap(0.5 * one, one, torch.eye(2)[None, None], one).round(decimals=3)
    tensor(0.5000)
    """
    at = (torch.arange(QUANTILES, device=synthesised.device) + 0.5) / QUANTILES
    total, weight = synthesised.sum() * 0, 0
    for i in range(len(synthesised)):
        some = [x[i][inside[i] > 0].sort().values for x, inside in ((synthesised, mask), (real, real_mask))]
        count = min(len(x) for x in some)
        if count:
            a, b = (x[(at * len(x)).long()] for x in some)
            total, weight = total + count * (a - b).abs().mean(), weight + count
    return total / max(weight, 1)


class ImagePool:
    """Earlier synthesised images of a generator, on which its discriminator is still trained (Shrivastava et al. 2017; Zhu et al. 2017,
    §4)."""

    def __init__(self, size: int = POOL_SIZE, seed: int = 0) -> None:
        self._size, self._rng = size, np.random.default_rng(seed)
        self._kept: list[Tensor] = []

    def query(self, synthesised: Tensor) -> Tensor:
        """Images (B, 1, H, W) to train the discriminator on, from the new ``synthesised`` (alike).

        While the pool is not full, the new images are returned, and copies are kept. After that each new image is returned with a
        probability of ½; otherwise a random image of the pool is returned, and the new image replaces it there.
        """
        out = []
        for one in synthesised.detach().clone():
            if len(self._kept) < self._size:
                self._kept.append(one)
            elif self._rng.random() < 0.5:
                at = int(self._rng.integers(self._size))
                self._kept[at], one = one, self._kept[at]
            out.append(one)
        return torch.stack(out)

    def state(self) -> dict[str, Any]:
        """The images in the pool, and the state of the random generator."""
        return {"kept": list(self._kept), "rng": self._rng.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a state of :meth:`state`."""
        self._kept, self._rng.bit_generator.state = list(state["kept"]), state["rng"]


class CyclePair(nn.Module):
    """The two generators of a cycleGAN, ``t1w_to_t2w`` and ``t2w_to_t1w``, each a :class:`~posepipe.models.contrast.ContrastNet` with
    ``options``. Both are initialised so that they invert the brightness of their input."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.t1w_to_t2w, self.t2w_to_t1w = ContrastNet(**options), ContrastNet(**options)
        self.t1w_to_t2w.initialise_as_inversion()
        self.t2w_to_t1w.initialise_as_inversion()


class UnpairedTask(_ContrastTask):
    """Training of a :class:`CyclePair` on T1w slices of some brains and T2w slices of others (cycleGAN).

    A generator takes three neighbouring slices and returns the middle one. In the cycle the synthesised slice is repeated three times as
    the input of the other generator. T1w and T2w slices come from the same data sets, but from different brains. The discriminators are
    trained by least squares, on new and on earlier synthesised images (:class:`ImagePool`).
    """

    def __init__(
        self, network: CyclePair, slabs: Slabs, validation: list[Slab], *, rate: float, device: str = "cpu", bf16: bool = True
    ) -> None:
        discriminators = _Discriminators(PatchDiscriminator(1), PatchDiscriminator(1), rate=rate, device=device)
        super().__init__(network, slabs, validation, discriminators, bf16=bf16)
        self._pools = (ImagePool(seed=0), ImagePool(seed=1))

    def state(self) -> dict[str, Any]:
        """See :class:`~posepipe.training.engine.Task`."""
        return {**super().state(), "pools": [pool.state() for pool in self._pools]}

    def restore(self, state: dict[str, Any]) -> None:
        """See :class:`~posepipe.training.engine.Task`."""
        super().restore(state)
        for pool, kept in zip(self._pools, state["pools"], strict=True):
            pool.restore(kept)

    def loss(self, n: int, stage: str) -> tuple[Tensor, dict[str, float]]:
        """See :class:`~posepipe.training.engine.Task`. The cycle-consistency loss has weight 1; the identity loss is added in the second
        stage."""
        one, other, seconds = self._slabs.timed_unpaired(n)
        pair = self.network
        assert isinstance(pair, CyclePair)
        t1w_input, t2w_input = one.network_input, other.t2w.expand(-1, SLICES, -1, -1)
        synthesised_t2w = self._run(pair.t1w_to_t2w, t1w_input) * one.middle
        synthesised_t1w = self._run(pair.t2w_to_t1w, t2w_input) * other.middle
        real_t1w = t1w_input[:, SLICES // 2, None]
        both = ((other.t2w, synthesised_t2w), (real_t1w, synthesised_t1w))
        logits = [self._logits(i, real, self._pools[i].query(synthesised)) for i, (real, synthesised) in enumerate(both)]
        loss_d = least_squares_discriminator_loss(*logits[0]) + least_squares_discriminator_loss(*logits[1])
        self._discriminators.update(loss_d)
        cycled_t1w = self._run(pair.t2w_to_t1w, synthesised_t2w.expand(-1, SLICES, -1, -1)) * one.middle
        cycled_t2w = self._run(pair.t1w_to_t2w, synthesised_t1w.expand(-1, SLICES, -1, -1)) * other.middle
        cycle = masked_l1(cycled_t1w, real_t1w, one.middle) + masked_l1(cycled_t2w, other.t2w, other.middle)
        adversarial = sum((least_squares_generator_loss(self._logits(i, *two)[1]) for i, two in enumerate(both)), torch.zeros(()))
        bright = brightness_gap(synthesised_t2w, one.middle, other.t2w, other.middle)
        bright = bright + brightness_gap(synthesised_t1w, other.middle, real_t1w, one.middle)
        same = torch.zeros(())
        if stage != "mse":
            same = masked_l1(self._run(pair.t1w_to_t2w, t2w_input) * other.middle, other.t2w, other.middle)
            same = same + masked_l1(self._run(pair.t2w_to_t1w, t1w_input) * one.middle, real_t1w, one.middle)
        return cycle + BRIGHTNESS * bright + (IDENTITY * same + adversarial) / CYCLE, {
            "cycle": float(cycle.detach()), "bright": float(bright.detach()), "adversarial": float(adversarial.detach()),
            "discriminator": float(loss_d.detach()), "seconds": seconds,
        }  # fmt: skip

    def _logits(self, discriminator: int, real: Tensor, synthesised: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of one discriminator for real and for synthesised images. Both pass through it as one batch: batch normalisation over
        images of one kind would hide how bright they are."""
        logits = self._run(self._discriminators.networks[discriminator], torch.cat([real, synthesised]))
        return logits[: len(real)], logits[len(real) :]

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Mean absolute error and PSNR (dB) of ``t1w_to_t2w`` of the pair, as of :class:`PairedTask`."""
        assert isinstance(network, CyclePair)
        return self._figures(network.t1w_to_t2w)
