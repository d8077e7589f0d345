"""Contrast conversion: a conditional GAN that synthesises T2-like slices from T1w slices (Salehi et al. 2018, §3.3).

The networks of pix2pix (Isola et al. 2017): a U-Net as generator and a PatchGAN discriminator. For training without pairs the
discriminator takes the synthesised slice alone, and a second generator converts it back (cycleGAN, Zhu et al. 2017).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HALVINGS = 5
"""Levels of the U-Net, each of half the resolution."""
SLICES = 3
"""Neighbouring slices in the generator's input; it synthesises the middle one."""


class ContrastNet(nn.Module):
    """Generator: ``slices`` (B, 3, H, W) in [0, 1] → the middle one in the other contrast (B, 1, H, W) in [0, 1].

    H and W are multiples of 32 (five halvings). ``width`` gives the channels from fine to coarse. The noise z of the paper is dropout in
    the three deepest layers of the decoder, with probability ``dropout``, in training only; inference is deterministic. ``size`` is the
    side in pixels of the slices that it was trained on.

    >>> ContrastNet(width=(4, 4, 4, 4, 4)).eval()(torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 1, 64, 32])
    """

    def __init__(
        self, size: int = 128, width: tuple[int, int, int, int, int] = (20, 40, 80, 96, 96), dropout: float = 0.3
    ) -> None:
        super().__init__()
        if size < 32 or size % 32 or len(width) != HALVINGS:
            msg = f"size must be a multiple of 32, not {size}, and width hold {HALVINGS} numbers"
            raise ValueError(msg)
        self.size = size
        into = (SLICES, *width[:-1])
        self.down = nn.ModuleList(DownBlock(a, b) for a, b in zip(into, width, strict=True))
        # the input of each level but the deepest: decoder features and skip connection, concatenated
        rising = tuple(width[i] * (1 if i == HALVINGS - 1 else 2) for i in range(HALVINGS))
        out = (12, *width[:-1])
        self.up = nn.ModuleList(UpBlock(a, b, dropout if i >= 2 else 0.0) for i, (a, b) in enumerate(zip(rising, out, strict=True)))
        self.head = nn.Conv2d(out[0] + SLICES, 1, 3, 1, 1)

    @torch.no_grad()
    def initialise_as_inversion(self, slope: float = 4.0) -> None:
        """Set the last layer so that the untrained network returns sigmoid(``slope`` · (½ − x)) of the middle input slice x, plus a small
        contribution of the other layers. Training without pairs starts from here: from random weights it learns to copy the input."""
        own = self.head.weight.shape[1] - SLICES
        self.head.weight[:, :own] *= 0.1
        self.head.weight[:, own:] = 0.0
        self.head.weight[:, own + SLICES // 2, 1, 1] = -slope
        assert self.head.bias is not None
        self.head.bias.fill_(slope / 2)

    def forward(self, slices: Tensor) -> Tensor:
        """See the class."""
        falling = []
        x = slices
        for layer in self.down:
            x = layer(x)
            falling.append(x)
        for i in reversed(range(HALVINGS)):
            x = self.up[i](x if i == HALVINGS - 1 else torch.cat([x, falling[i]], 1))
        synthesised: Tensor = self.head(torch.cat([x, slices], 1))
        return torch.sigmoid(synthesised.float())


class PatchDiscriminator(nn.Module):
    """PatchGAN discriminator: logits of being real (B, 1, h, w), one for each patch of about 46 × 46 pixels of ``x`` (B, C, H, W).

    ``channels`` C: 2 for T1w slice and T2w slice (pairs), 1 for one slice alone (no pairs).
    """

    def __init__(self, channels: int = 2, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True),
            DownBlock(width, 2 * width), DownBlock(2 * width, 4 * width),
            nn.Conv2d(4 * width, 1, 4, 1, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.layers(x)
        return logits.float()


def discriminator_loss(real: Tensor, synthesised: Tensor) -> Tensor:
    """½ (−E log D(real) − E log(1 − D(synthesised))) of logits: the discriminator's loss (paper eq. 13)."""
    return 0.5 * (F.softplus(-real).mean() + F.softplus(synthesised).mean())


def generator_adversarial_loss(synthesised: Tensor) -> Tensor:
    """−E log D(synthesised) of logits: the generator's non-saturating adversarial loss (Goodfellow et al. 2014)."""
    return F.softplus(-synthesised).mean()


def least_squares_discriminator_loss(real: Tensor, synthesised: Tensor) -> Tensor:
    """½ E (D(real) − 1)² + ½ E D(synthesised)²: the discriminator's loss in cycleGAN (Mao et al. 2017; Zhu et al. 2017, §4)."""
    return 0.5 * (((real - 1) ** 2).mean() + (synthesised**2).mean())


def least_squares_generator_loss(synthesised: Tensor) -> Tensor:
    """E (D(synthesised) − 1)²: the generator's adversarial loss in cycleGAN."""
    return ((synthesised - 1) ** 2).mean()


def masked_l1(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Mean ``|a − b|`` where ``mask`` is 1; all (B, 1, H, W).

    >>> masked_l1(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.eye(2)[None, None])
    tensor(1.)
    """
    return ((a - b).abs() * mask).sum() / mask.sum().clamp_min(1.0)


class DownBlock(nn.Sequential):
    """Convolution that halves the grid, batch normalisation, leaky ReLU."""

    def __init__(self, inside: int, outside: int) -> None:
        convolution = nn.Conv2d(inside, outside, 4, 2, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outside), nn.LeakyReLU(0.2, inplace=True))


class UpBlock(nn.Sequential):
    """Transposed convolution that doubles the grid, batch normalisation, dropout, ReLU."""

    def __init__(self, inside: int, outside: int, dropout: float) -> None:
        convolution = nn.ConvTranspose2d(inside, outside, 4, 2, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outside), nn.Dropout2d(dropout), nn.ReLU(inplace=True))
