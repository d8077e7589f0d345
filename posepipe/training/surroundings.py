"""Synthetic surroundings of a brain in a scan, and simulated effects of the acquisition.

Surroundings: skull, scalp, face and fluid, a body or a uterus of random shapes, or air. Acquisition: motion and fading of slices, a
limited field of view, bias field and noise. As in SynthStrip (Hoopes et al. 2022) the training images vary more than real scans do, so
that networks generalise to real scans. Distances are in brain radii from the surface of the brain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .ellipsoids import Ellipsoids
from .fields import blurred, chance, smooth_field, uniform
from .heads import BODY, FACE, SPINE, T1W, add_eyes, add_parts

SHAPES = 24
"""Number of tissue intensities in the surroundings of one image."""


@dataclass(frozen=True)
class Surroundings:
    """Shares of images, and strengths.

    Surroundings: ``stripped``, only a rim about the brain (reconstructions); ``air``, a head in air (newborns); the others, a head in a
    body (fetuses); ``alone``, surroundings without a brain. ``decoys``: probability of each of three ellipsoids of a brain's size;
    ``alike``: probability that such a one is as bright as the brain and close to it. ``grain``: number of nodes of the smooth fields
    that shape the tissue, relative to one node in three voxels. ``fluid``: share with an added layer of extra-axial CSF, among brains
    whose masks include it.

    Acquisition: ``faded``, slices of varying brightness; ``thick``, three neighbouring slices averaged; ``moved``, motion between
    slices; ``slab``, a limited field of view along the slice direction. ``bias``: largest standard deviation of the logarithm of the bias
    field; ``noise``: largest standard deviation as a share of that of the image.
    """

    stripped: float = 0.3
    air: float = 0.25
    alone: float = 0.04
    decoys: float = 0.5
    alike: float = 0.0
    grain: float = 1.0
    fluid: float = 0.5
    faded: float = 0.35
    thick: float = 0.4
    moved: float = 0.25
    slab: float = 0.3
    bias: float = 0.5
    noise: float = 0.12


def add_surroundings(
    image: Tensor,
    mask: Tensor,
    far: Tensor,
    where: Tensor,
    how: Surroundings,
    generator: torch.Generator,
    fluid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``image`` (B, 1, S, S, S), brain intensities 0–1 inside ``mask`` (alike), with synthetic surroundings; and the true brain mask of
    the result, which includes added fluid, and is 0 in images without a brain.

    ``far`` (alike): signed distance from the brain's surface, negative inside; ``where`` (B, 3, S, S, S): canonical coordinates (RAS,
    brain radii); ``fluid`` (B, 1, 1, 1, 1): intensity of the extra-axial CSF if the mask includes it, negative if not.
    """
    n, side = len(image), image.shape[-1]
    nodes = int(torch.randint(side // 10, int(side // 3 * how.grain), (1,), generator=generator, device=image.device))
    wave = smooth_field(n, 4, side, nodes, generator)
    broad = smooth_field(n, 3, side, max(side // 9, 3), generator)
    kinds = torch.rand(n, SHAPES, generator=generator, device=image.device)
    if fluid is not None:
        voxel = (where[:, :, 0, 0, 1] - where[:, :, 0, 0, 0]).norm(dim=1)[:, None, None, None, None]
        image, mask, far = _with_fluid(image, mask, far, fluid, voxel, wave[:, 3:4], broad[:, :1], how.fluid, generator)
    out = _shapes(wave[:, :2], broad[:, :1], kinds)
    amniotic = uniform(n, 0, 1, generator)
    # amniotic fluid up to a random, uneven distance; none in some images
    out = torch.where(far < uniform(n, -0.5, 1.3, generator) + 0.5 * broad[:, 1:2], amniotic.expand_as(out), out)
    kind = torch.rand(n, 1, 1, 1, 1, generator=generator, device=image.device)
    stripped, air = kind < how.stripped, (kind >= how.stripped) & (kind < how.stripped + how.air)
    bodies = Ellipsoids(where)
    own = (image * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp_min(1)
    out = _decoys(out, bodies, wave[:, 3:4], kinds, how, own[:, None, None], generator)
    out = torch.where(air, torch.zeros_like(out), out)
    out = _head(out, far * (1 + 0.2 * wave[:, 2:3]).clamp(0.4, 1.8), bodies, generator)
    out = out + uniform(n, 0, 0.25, generator) * wave[:, 3:4] * (out > 0)
    # skull-stripped images keep a rim of uneven width
    rim = uniform(n, -0.02, 0.6, generator) * (1 + 0.5 * broad[:, 2:3])
    out = torch.where(stripped & (far > rim), torch.zeros_like(out), out)
    alone = chance(n, how.alone, generator)
    out = out.clamp_min(0)
    return out + (1 - alone) * mask * (image - out), mask * (1 - alone)


def _with_fluid(
    image: Tensor, mask: Tensor, far: Tensor, fluid: Tensor, voxel: Tensor, wave: Tensor, broad: Tensor, share: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Image, mask and distance after a layer of extra-axial CSF of random width was added about a ``share`` of the brains. ``fluid``
    (B, 1, 1, 1, 1): its intensity, negative for brains without it. Manually delineated masks include more CSF than those of atlases.
    ``voxel`` (alike): spacing in brain radii.
    """
    n = len(image)
    width = (fluid >= 0) * chance(n, share, generator) * uniform(n, 0, 0.15, generator) * (1 + 0.4 * broad).clamp(0, 2)
    beyond = far - width
    layer = (0.5 - beyond / voxel).clamp(0, 1) * (width > 0)
    textured = fluid + uniform(n, 0, 0.15, generator) * wave
    return textured + mask * (image - textured), torch.maximum(mask, layer), beyond


def _shapes(two: Tensor, broad: Tensor, kinds: Tensor) -> Tensor:
    """Random tissue map (B, 1, S, S, S): intensities ``kinds`` (B, K), indexed by the quantised levels of two smooth fields ``two``."""
    index = (two[:, :1] * 1.5).floor().clamp(-2, 1) + 2 + 4 * ((two[:, 1:] * 1.2 + broad).floor().clamp(-2, 1) + 2)
    return torch.gather(kinds, 1, index.flatten(1).long()).reshape(index.shape)


def _decoys(
    out: Tensor, bodies: Ellipsoids, wave: Tensor, kinds: Tensor, how: Surroundings, own: Tensor, generator: torch.Generator
) -> Tensor:
    """``out`` with up to three ellipsoids at random places about the brain, each with a rim and a texture: simulated trunk, bladder,
    maternal bones. Some are close to the brain and as bright as it, ``own`` (B, 1, 1)."""
    n, count = len(out), 3
    place = torch.randn(n, count, 3, generator=generator, device=out.device)
    distance = 1.5 + 3.5 * torch.rand(n, count, 1, generator=generator, device=out.device)
    size = 0.4 + 0.8 * torch.rand(n, count, 3, generator=generator, device=out.device)
    level = kinds[:, count : 2 * count, None]
    if how.alike:
        alike = torch.rand(n, count, 1, generator=generator, device=out.device) < how.alike
        level = torch.where(alike, own, level)
        # bodies close to the brain are more easily segmented with it than distant ones
        distance = torch.where(alike, 1.3 + (distance - 1.5) / 3, distance)
    depths = bodies.depth(place / place.norm(dim=-1, keepdim=True) * distance, size)
    for i in range(count):
        depth = depths[:, i : i + 1] + 0.2 * wave
        some = chance(n, how.decoys, generator) > 0
        rim = kinds[:, i, None, None, None, None]
        inner = level[:, i, :, None, None, None] + uniform(n, 0, 0.4, generator) * wave
        out = torch.where(some & (depth < 1), rim.expand_as(out), out)
        out = torch.where(some & (depth < uniform(n, 0.6, 1.0, generator)), inner, out)
    return out


def _head(out: Tensor, far: Tensor, bodies: Ellipsoids, generator: torch.Generator) -> Tensor:
    """``out`` with trunk, neck and face; fluid, skull and scalp in shells about the brain; spine and eyes."""
    n = len(out)
    flip = chance(n, T1W, generator) > 0
    out = add_parts(out, BODY, bodies, flip, generator)
    out = add_parts(out, FACE, bodies, flip, generator)
    gap, bone, skin = uniform(n, 0, 0.06, generator), uniform(n, 0.02, 0.14, generator), uniform(n, 0.02, 0.18, generator)
    shells = chance(n, 0.85, generator) > 0
    out = torch.where(shells & (far < gap + bone + skin), uniform(n, 0.1, 1, generator).expand_as(out), out)
    # bone is mostly dark
    dark = uniform(n, 0, 1, generator).pow(2) * 0.6
    out = torch.where(shells & (far < gap + bone), dark.expand_as(out), out)
    out = torch.where(shells & (far < gap), uniform(n, 0, 1, generator).expand_as(out), out)
    out = add_parts(out, SPINE, bodies, flip, generator)
    return add_eyes(out, bodies, far > 0, flip, generator)


def simulate_acquisition(image: Tensor, mask: Tensor, how: Surroundings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``image`` and ``mask`` (B, 1, S, S, S) with simulated effects of the acquisition by ``how``; both are 0 outside the field of view."""
    n, side = len(image), image.shape[-1]
    device = image.device
    axis = torch.randint(3, (n,), generator=generator, device=device)
    index = torch.arange(side, device=device)
    # one blur for all images of a batch
    image = blurred(image, 1.2 * float(torch.rand(1, generator=generator, device=device)) ** 2)
    image = image * torch.exp(uniform(n, 0, how.bias, generator) * smooth_field(n, 1, side, 3, generator))
    image, mask = _moved(image, mask, axis, how.moved, generator)
    inside = torch.ones_like(image)
    depth = 0.35 * torch.rand(n, 1, generator=generator, device=device)
    fade = torch.exp(depth * torch.randn(n, side, generator=generator, device=device))
    # in some scans all odd slices are darker than the even ones (interleaved acquisition)
    odd = 1 - 0.3 * torch.rand(n, 1, generator=generator, device=device) * (index % 2)
    faded = torch.rand(n, generator=generator, device=device)
    fade = torch.where((faded < how.faded / 2)[:, None], fade, torch.where((faded < how.faded)[:, None], odd, torch.ones_like(fade)))
    thick, slab = chance(n, how.thick, generator).flatten() > 0, chance(n, how.slab, generator).flatten() > 0
    reach = side * (0.25 + 0.6 * torch.rand(n, 1, generator=generator, device=device))
    first = (torch.rand(n, 1, generator=generator, device=device) * 1.2 - 0.1) * (side - reach)
    in_view = (((index >= first) & (index < first + reach)) | ~slab[:, None]).float()
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
        inside[mine] = in_view[mine].reshape(shape).expand_as(some)
    level = uniform(n, 0, how.noise, generator) * (image * inside).flatten(1).std(1)[:, None, None, None, None]
    noise = torch.randn(image.shape, generator=generator, device=device).mul_(level * (1 + 2 * chance(n, 0.2, generator)))
    # in most images voxels of exactly 0 stay 0, as in reconstructions and zero-filled scans
    speckled = torch.maximum((image > 0).float(), chance(n, 0.3, generator))
    image = (image + noise * speckled).clamp_min(0)
    return image * inside, mask * inside


def _moved(image: Tensor, mask: Tensor, axis: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``image`` and ``mask``; in a ``share`` of the batch slices are shifted within their plane: a slow drift, and an offset between odd
    and even slices, as of motion during interleaved acquisition. ``axis`` (B,): slice direction."""
    n, side = len(image), image.shape[-1]
    index = torch.arange(side, device=image.device)
    drift = torch.randn(n, 2, side, generator=generator, device=image.device).cumsum(2)
    drift = drift * 0.15 * torch.rand(n, 1, 1, generator=generator, device=image.device)
    apart = torch.randn(n, 2, 1, generator=generator, device=image.device) * 0.6 * (index % 2)
    shift = (drift + apart).round().long()
    both = torch.cat([image, mask], 1)
    for i in (torch.rand(n, generator=generator, device=image.device) < share).nonzero().flatten().tolist():
        slices = both[i].movedim(1 + int(axis[i]), 0)
        rows = (index - shift[i, 0, :, None]).clamp(0, side - 1)
        columns = (index - shift[i, 1, :, None]).clamp(0, side - 1)
        slices = slices[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        both[i] = slices.movedim(-1, 1).movedim(0, 1 + int(axis[i]))
    return both[:, :1].contiguous(), both[:, 1:].contiguous()
