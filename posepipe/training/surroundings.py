"""What surrounds a brain in a scan, made up: skull, scalp, face and fluid about it, a body or a uterus of random shapes, air; and what a
scanner does to it all: slices that fade, a cut field of view, bias, noise.

The idea is SynthStrip's (Hoopes et al. 2022): what the network sees is more varied than any real scan, so real scans are nothing new.
Distances are in brain radii from the surface of the brain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .fields import blurred, chance, smooth_field, uniform

SHAPES = 24
"""Kinds of tissue in the far surroundings of one image."""


@dataclass(frozen=True)
class Surroundings:
    """Shares of images: ``stripped`` keep only a rim of what surrounds the brain (reconstructions), ``air`` have a head in air
    (newborns), the others lie in a body (fetuses). ``alone``: no brain at all. ``decoys``: chance of each of three round bodies of a
    brain's size. ``faded``, ``thick``: slices of uneven brightness, averaged; ``slab``: few slices; ``bias`` and
    ``noise`` are shares of the contrast."""

    stripped: float = 0.3
    air: float = 0.25
    alone: float = 0.04
    decoys: float = 0.5
    faded: float = 0.35
    thick: float = 0.4
    slab: float = 0.3
    bias: float = 0.5
    noise: float = 0.12


def surrounded(
    image: Tensor, mask: Tensor, far: Tensor, where: Tensor, how: Surroundings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """``image`` (B, 1, S, S, S), brain intensities of 0–1 where ``mask`` (alike) is 1, with surroundings put about it; and what is left of
    the mask: nothing where there is to be no brain.

    ``far``: distance from the brain, below 0 inside; ``where`` (B, 3, S, S, S): canonical coordinates (RAS, brain radii).
    """
    n, side = len(image), image.shape[-1]
    nodes = int(torch.randint(side // 10, side // 3, (1,), generator=generator, device=image.device))
    wave = smooth_field(n, 4, side, nodes, generator)
    broad = smooth_field(n, 3, side, max(side // 9, 3), generator)
    kinds = torch.rand(n, SHAPES, generator=generator, device=image.device)
    out = _shapes(wave[:, :2], broad[:, :1], kinds)
    fluid = uniform(n, 0, 1, generator)
    # amniotic fluid out to an uneven distance; none in some
    out = torch.where(far < uniform(n, -0.5, 1.3, generator) + 0.5 * broad[:, 1:2], fluid.expand_as(out), out)
    kind = torch.rand(n, 1, 1, 1, 1, generator=generator, device=image.device)
    stripped, air = kind < how.stripped, (kind >= how.stripped) & (kind < how.stripped + how.air)
    out = _decoys(out, where, wave[:, 3:4], kinds, how.decoys, generator)
    out = torch.where(air, torch.zeros_like(out), out)
    out = _head(out, far * (1 + 0.2 * wave[:, 2:3]).clamp(0.4, 1.8), where, kinds, generator)
    out = out + uniform(n, 0, 0.25, generator) * wave[:, 3:4] * (out > 0)
    # a rim of uneven width is left of what was stripped, or nothing beyond a ball
    rim = uniform(n, -0.02, 0.6, generator) * (1 + 0.5 * broad[:, 2:3])
    out = torch.where(stripped & (far > rim), torch.zeros_like(out), out)
    alone = chance(n, how.alone, generator)
    out = out.clamp_min(0)
    return out + (1 - alone) * mask * (image - out), mask * (1 - alone)


def _shapes(two: Tensor, broad: Tensor, kinds: Tensor) -> Tensor:
    """Random shapes (B, 1, S, S, S): where two smooth fields cross their levels, tissue changes."""
    index = (two[:, :1] * 1.5).floor().clamp(-2, 1) + 2 + 4 * ((two[:, 1:] * 1.2 + broad).floor().clamp(-2, 1) + 2)
    return torch.gather(kinds, 1, index.flatten(1).long()).reshape(index.shape)


def _decoys(out: Tensor, where: Tensor, wave: Tensor, kinds: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Up to three ellipsoids somewhere about the brain, each with a rim and a texture of its own: trunk, bladder, mother's bones."""
    n = len(out)
    for i in range(3):
        place = torch.randn(n, 3, 1, 1, 1, generator=generator, device=out.device)
        place = place / place.norm(dim=1, keepdim=True) * uniform(n, 1.5, 5, generator)
        axes = 0.4 + 0.8 * torch.rand(n, 3, 1, 1, 1, generator=generator, device=out.device)
        depth = ((where - place) / axes).square().sum(1, keepdim=True) + 0.2 * wave
        some = chance(n, share, generator) > 0
        rim = kinds[:, i, None, None, None, None]
        inner = kinds[:, i + 3, None, None, None, None] + uniform(n, 0, 0.4, generator) * wave
        out = torch.where(some & (depth < 1), rim.expand_as(out), out)
        out = torch.where(some & (depth < uniform(n, 0.6, 1.0, generator)), inner, out)
    return out


def _head(out: Tensor, far: Tensor, where: Tensor, kinds: Tensor, generator: torch.Generator) -> Tensor:
    """Fluid, skull and scalp about the brain, a face and neck below and before it, and two eyes."""
    n = len(out)
    for _ in range(4):
        # the face lies before and below, the neck below and behind: y from −0.8 to 1.1, z from −1.5 to −0.6
        low, high = torch.tensor([-0.5, -0.8, -1.6], device=out.device), torch.tensor([0.5, 1.1, -0.6], device=out.device)
        center = low + (high - low) * torch.rand(n, 3, generator=generator, device=out.device)
        size = uniform(n, 0.25, 0.7, generator)
        inside = (where - center[:, :, None, None, None]).square().sum(1, keepdim=True) < size**2
        out = torch.where(inside, uniform(n, 0.05, 0.9, generator).expand_as(out), out)
    gap, bone, skin = uniform(n, 0, 0.06, generator), uniform(n, 0.02, 0.14, generator), uniform(n, 0.02, 0.18, generator)
    shells = chance(n, 0.85, generator) > 0
    out = torch.where(shells & (far < gap + bone + skin), uniform(n, 0.1, 1, generator).expand_as(out), out)
    # mostly dark, as bone is
    dark = uniform(n, 0, 1, generator).pow(2) * 0.6
    out = torch.where(shells & (far < gap + bone), dark.expand_as(out), out)
    out = torch.where(shells & (far < gap), uniform(n, 0, 1, generator).expand_as(out), out)
    eyes = uniform(n, 0, 1, generator)
    spot = torch.tensor([0.42, 1.0, -0.5], device=out.device)[:, None, None, None]
    spot = spot + 0.12 * torch.randn(n, 3, 1, 1, 1, generator=generator, device=out.device)
    both = torch.cat([where[:, :1].abs(), where[:, 1:]], 1)
    seen = (both - spot).square().sum(1, keepdim=True) < uniform(n, 0.1, 0.2, generator) ** 2
    return torch.where(seen & (far > 0), eyes.expand_as(out), out)


def scanned(image: Tensor, mask: Tensor, how: Surroundings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``image`` and ``mask`` (B, 1, S, S, S) as a scanner sees them: what lies outside the field of view is 0 in both."""
    n, side = len(image), image.shape[-1]
    device = image.device
    axis = torch.randint(3, (n,), generator=generator, device=device)
    index = torch.arange(side, device=device)
    # of one batch all are equally sharp
    image = blurred(image, 1.2 * float(torch.rand(1, generator=generator, device=device)) ** 2)
    image = image * torch.exp(uniform(n, 0, how.bias, generator) * smooth_field(n, 1, side, 3, generator))
    inside = torch.ones_like(image)
    depth = 0.35 * torch.rand(n, 1, generator=generator, device=device)
    fade = torch.exp(depth * torch.randn(n, side, generator=generator, device=device))
    # the odd slices of some scans are all darker than the even
    odd = 1 - 0.3 * torch.rand(n, 1, generator=generator, device=device) * (index % 2)
    faded = torch.rand(n, generator=generator, device=device)
    fade = torch.where((faded < how.faded / 2)[:, None], fade, torch.where((faded < how.faded)[:, None], odd, torch.ones_like(fade)))
    thick, slab = chance(n, how.thick, generator).flatten() > 0, chance(n, how.slab, generator).flatten() > 0
    reach = side * (0.25 + 0.6 * torch.rand(n, 1, generator=generator, device=device))
    first = (torch.rand(n, 1, generator=generator, device=device) * 1.2 - 0.1) * (side - reach)
    seen = (((index >= first) & (index < first + reach)) | ~slab[:, None]).float()
    for a in range(3):
        mine = (axis == a).nonzero().flatten()
        if not len(mine):
            continue
        shape = [len(mine), 1, 1, 1, 1]
        shape[2 + a] = side
        some = image[mine]
        averaged = (some + some.roll(1, 2 + a) + some.roll(-1, 2 + a)) / 3
        some = torch.where(thick[mine][:, None, None, None, None], averaged, some)
        image[mine] = some * fade[mine].reshape(shape)
        inside[mine] = seen[mine].reshape(shape).expand_as(some)
    level = uniform(n, 0, how.noise, generator) * (image * inside).flatten(1).std(1)[:, None, None, None, None]
    noise = torch.randn(image.shape, generator=generator, device=device).mul_(level * (1 + 2 * chance(n, 0.2, generator)))
    # exactly empty stays so in most: reconstructions and zero-filled scans
    speckled = torch.maximum((image > 0).float(), chance(n, 0.3, generator))
    image = (image + noise * speckled).clamp_min(0)
    return image * inside, mask * inside
