"""Converting contrast: a conditional GAN that makes T2-like slices of T1 slices (Salehi et al. 2018, §3.3).

The pair of networks of pix2pix (Isola et al. 2017): a U-Net that draws, and a critic that looks at patches. Without pairs the critic sees
the drawing alone, and a second U-Net must find the way back (cycleGAN, Zhu et al. 2017).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HALVINGS = 5
SLICES = 3
"""Neighbouring slices the generator sees; it draws the middle one."""


class ContrastNet(nn.Module):
    """Generator: ``slices`` (B, 3, H, W) in [0, 1] → the middle one in the other contrast (B, 1, H, W) in [0, 1].

    H and W are multiples of 32 (five halvings). ``width`` gives the channels from fine to coarse. The noise z of the paper is the dropout
    of its three deepest layers while it learns (``dropout`` is the share); in use it is off, so that one image has one conversion.
    ``size`` is the side of the slices it was trained on.

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
        self.down = nn.ModuleList(Halved(a, b) for a, b in zip(into, width, strict=True))
        # each level but the deepest gets what came up and what went down, side by side
        rising = tuple(width[i] * (1 if i == HALVINGS - 1 else 2) for i in range(HALVINGS))
        out = (12, *width[:-1])
        self.up = nn.ModuleList(Doubled(a, b, dropout if i >= 2 else 0.0) for i, (a, b) in enumerate(zip(rising, out, strict=True)))
        self.head = nn.Conv2d(out[0] + SLICES, 1, 3, 1, 1)

    @torch.no_grad()
    def begin_inverted(self, slope: float = 4.0) -> None:
        """Let the fresh network draw its input with brightness turned over, ``slope`` times as steep as a logit; what the layers say adds
        little yet. Where there are no pairs this is a better place to begin than chance, from which a copy is learnt."""
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
        drawn: Tensor = self.head(torch.cat([x, slices], 1))
        return torch.sigmoid(drawn.float())


class PatchNet(nn.Module):
    """Discriminator: one judgement (B, 1, h, w), a logit of being real, for each patch of about 46 pixels of ``x`` (B, C, H, W).

    ``channels`` C: the drawing and what it was drawn from (2), or the drawing alone (1, unpaired).
    """

    def __init__(self, channels: int = 2, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True),
            Halved(width, 2 * width), Halved(2 * width, 4 * width),
            nn.Conv2d(4 * width, 1, 4, 1, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.layers(x)
        return logits.float()


def critic_loss(real: Tensor, drawn: Tensor) -> Tensor:
    """What the discriminator minimises: −E log D(real) − E log(1 − D(drawn)), of logits, halved (paper eq. 13)."""
    return 0.5 * (F.softplus(-real).mean() + F.softplus(drawn).mean())


def fooling_loss(drawn: Tensor) -> Tensor:
    """What the generator minimises of the adversarial game: −E log D(drawn), of logits, whose gradient does not fade while the
    discriminator wins (Goodfellow et al. 2014), as E log(1 − D) does."""
    return F.softplus(-drawn).mean()


def square_critic_loss(real: Tensor, drawn: Tensor) -> Tensor:
    """The same by least squares, ½ E (D(real) − 1)² + ½ E D(drawn)², as cycleGAN has it (Mao et al. 2017; Zhu et al. 2017, §4)."""
    return 0.5 * (((real - 1) ** 2).mean() + (drawn**2).mean())


def square_fooling_loss(drawn: Tensor) -> Tensor:
    """What the generator minimises then: E (D(drawn) − 1)²."""
    return ((drawn - 1) ** 2).mean()


def masked_l1(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Mean ``|a − b|`` where ``mask`` is 1; all (B, 1, H, W).

    >>> masked_l1(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.eye(2)[None, None])
    tensor(1.)
    """
    return ((a - b).abs() * mask).sum() / mask.sum().clamp_min(1.0)


class Halved(nn.Sequential):
    """Convolution that halves the grid, batch normalisation, leaky ReLU."""

    def __init__(self, inside: int, outside: int) -> None:
        convolution = nn.Conv2d(inside, outside, 4, 2, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outside), nn.LeakyReLU(0.2, inplace=True))


class Doubled(nn.Sequential):
    """Transposed convolution that doubles the grid, batch normalisation, dropout, ReLU."""

    def __init__(self, inside: int, outside: int, dropout: float) -> None:
        convolution = nn.ConvTranspose2d(inside, outside, 4, 2, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outside), nn.Dropout2d(dropout), nn.ReLU(inplace=True))
