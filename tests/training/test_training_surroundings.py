"""Surroundings of a brain: fluid counts as brain, ellipsoids are at their positions, and masks move with the heads."""

from __future__ import annotations

import torch

from posepipe.models.coordinates import HALF_SIDE
from posepipe.training.ellipsoids import Ellipsoids
from posepipe.training.surroundings import Surroundings, _decoys, _moved, _with_fluid, add_surroundings

SIDE = 32
VOXEL = torch.full((3, 1, 1, 1, 1), 2 * HALF_SIDE / SIDE)


def ball() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three brains like balls of radius 1, bright at the rim alone: image, mask, distance, places."""
    axis = (torch.arange(SIDE) + 0.5) / SIDE * 2 * HALF_SIDE - HALF_SIDE
    where = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))[None].expand(3, -1, -1, -1, -1)
    far = where.norm(dim=1, keepdim=True) - 1
    mask = (0.5 - far * SIDE / (2 * HALF_SIDE)).clamp(0, 1)
    return torch.where(far > -0.3, 0.8, 0.2), mask, far, where


def test_fluid_is_as_bright_as_it_is_and_is_brain() -> None:
    image, mask, far, _ = ball()
    still, level = torch.zeros_like(image), torch.tensor([0.9, 0.0, 0.8])[:, None, None, None, None]
    seen, grown, beyond = _with_fluid(image, mask, far, level, VOXEL, still, still, 1.0, torch.Generator().manual_seed(1))
    gained = grown.flatten(1).sum(1) / mask.flatten(1).sum(1)
    assert bool((grown >= mask).all()) and bool((gained > 1).all()) and float(gained.mean()) > 1.02 and float(gained.max()) < 1.2**3
    layer = (grown > 0) & (mask == 0)
    assert torch.equal(seen[layer], level.expand_as(seen)[layer])
    assert torch.allclose(seen[mask == 1], image[mask == 1])
    # the surface is where the new mask's is
    assert bool((grown[beyond < -0.1] == 1).all()) and bool((grown[beyond > 0.1] == 0).all())


def test_without_fluid_nothing_changes() -> None:
    image, mask, far, where = ball()
    still, level = torch.zeros_like(image), torch.full((3, 1, 1, 1, 1), 0.8)
    # no share of them, or masks that do not take it in
    for fluid, share in ((level, 0.0), (-level, 1.0)):
        _, same, beyond = _with_fluid(image, mask, far, fluid, VOXEL, still, still, share, torch.Generator().manual_seed(1))
        assert torch.equal(same, mask) and torch.equal(beyond, far)
    how = Surroundings(alone=0, fluid=1)
    assert torch.equal(add_surroundings(image, mask, far, where, how, torch.Generator().manual_seed(2))[1], mask)
    grown = add_surroundings(image, mask, far, where, how, torch.Generator().manual_seed(2), level)[1]
    assert float(grown.sum()) > 1.02 * float(mask.sum())


def test_what_is_put_about_a_brain_leaves_it_as_it_is() -> None:
    image, mask, far, where = ball()
    how = Surroundings(alone=0, fluid=0)
    whole, left = add_surroundings(image, mask, far, where, how, torch.Generator().manual_seed(2))
    assert torch.equal(left, mask)
    assert torch.allclose(whole[mask == 1], image[mask == 1]) and float(whole[far > 0.3].std()) > 0.05


def test_round_bodies_may_be_as_bright_as_the_brain_and_close_to_it() -> None:
    where = ball()[3]
    still, kinds, own = torch.zeros(3, 1, SIDE, SIDE, SIDE), torch.full((3, 24), 0.9), torch.full((3, 1, 1), 0.43)
    seen = []
    for alike in (0.0, 1.0):
        how, generator = Surroundings(decoys=1, alike=alike), torch.Generator().manual_seed(7)
        seen.append(torch.cat([_decoys(still, Ellipsoids(where), still, kinds, how, own, generator) for _ in range(4)]))
    other, like = seen
    assert bool((other == 0.9).any()) and not bool((other == 0.43).any())
    assert bool((like == 0.43).any()) and float((like > 0).float().mean()) > 1.5 * float((other > 0).float().mean())


def test_grain_makes_finer_shapes() -> None:
    image, mask, far, where = ball()
    rough = []
    for grain in (1.0, 2.0):
        how = Surroundings(alone=0, fluid=0, stripped=0, air=0, decoys=0, grain=grain)
        bodies = torch.cat([add_surroundings(image, mask, far, where, how, torch.Generator().manual_seed(i))[0] for i in range(8)])
        rough.append(float(bodies.diff(dim=2).abs().mean()))
    assert rough[1] > 1.1 * rough[0]


def test_ellipsoids_are_deep_where_they_should_be() -> None:
    where = ball()[3]
    generator = torch.Generator().manual_seed(3)
    center, axes = torch.randn(3, 2, 3, generator=generator), 0.2 + torch.rand(3, 2, 3, generator=generator)
    bodies = Ellipsoids(where)
    direct = ((where[:, None] - center[..., None, None, None]) / axes[..., None, None, None]).square().sum(2)
    assert torch.allclose(bodies.depth(center, axes), direct, rtol=1e-3, atol=1e-2)
    both = torch.cat([where[:, :1].abs(), where[:, 1:]], 1)
    direct = ((both[:, None] - center[..., None, None, None]) / axes[..., None, None, None]).square().sum(2)
    assert torch.allclose(bodies.depth(center, axes, paired=True), direct, rtol=1e-3, atol=1e-2)


def test_heads_that_move_take_their_masks_along() -> None:
    _, mask, _, _ = ball()
    axis = torch.tensor([0, 1, 2])
    image, moved = _moved(mask.clone(), mask.clone(), axis, 1.0, torch.Generator().manual_seed(5))
    assert torch.equal(image, moved) and not torch.equal(moved, mask)
    for i in range(3):
        # slices are shifted in their planes: as much in each as before, elsewhere
        other = [a for a in range(3) if a != i]
        assert torch.allclose(moved[i, 0].sum(other), mask[i, 0].sum(other), rtol=0.02)
    image, still = _moved(mask.clone(), mask.clone(), axis, 0.0, torch.Generator().manual_seed(5))
    assert torch.equal(image, mask) and torch.equal(still, mask)
