"""The generator and the critic: shapes, what they refuse, and losses whose best answers are known."""

from __future__ import annotations

import pytest
import torch

from posepipe.models.contrast import (
    ContrastNet,
    PatchNet,
    critic_loss,
    fooling_loss,
    masked_l1,
    square_critic_loss,
    square_fooling_loss,
)

NARROW = (4, 4, 8, 8, 8)


@pytest.mark.parametrize("shape", [(32, 32), (64, 96)])
def test_a_drawing_has_the_size_of_its_slice(shape: tuple[int, int]) -> None:
    network = ContrastNet(width=NARROW).eval()
    drawn = network(torch.rand(2, 3, *shape)).detach()
    assert drawn.shape == (2, 1, *shape)
    assert float(drawn.min()) > 0 and float(drawn.max()) < 1


def test_noise_is_for_learning_alone() -> None:
    network = ContrastNet(width=NARROW, dropout=0.5)
    slices = torch.rand(2, 3, 64, 64)
    assert not torch.equal(network.train()(slices), network(slices))
    assert torch.equal(network.eval()(slices), network(slices))


@pytest.mark.parametrize("options", [{"size": 40}, {"size": 0}, {"width": (4, 4, 8, 8)}])
def test_options_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        ContrastNet(**options)  # type: ignore[arg-type]


def test_a_fresh_network_can_begin_with_brightness_turned_over() -> None:
    torch.manual_seed(0)
    network = ContrastNet(width=NARROW).eval()
    slices = torch.rand(2, 3, 64, 64)
    together = [torch.corrcoef(torch.stack([network(slices).flatten(), slices[:, 1].flatten()]))[0, 1].item()]
    network.begin_inverted()
    together.append(torch.corrcoef(torch.stack([network(slices).flatten(), slices[:, 1].flatten()]))[0, 1].item())
    assert together[0] > -0.9 > together[1]


def test_a_critic_looks_at_patches() -> None:
    critic = PatchNet(1, 8).eval()
    plain = torch.zeros(1, 1, 128, 128)
    spot = plain.clone()
    spot[..., :8, :8] = 1
    changed = (critic(plain) - critic(spot)).abs()[0, 0] > 1e-6
    assert changed[0, 0] and not changed[6:, 6:].any()


def test_losses_are_least_where_they_should_be() -> None:
    sure, unsure = torch.full((1, 1, 2, 2), 9.0), torch.zeros(1, 1, 2, 2)
    assert critic_loss(sure, -sure) < 0.001 < critic_loss(unsure, unsure) < critic_loss(-sure, sure)
    assert fooling_loss(sure) < fooling_loss(unsure) < fooling_loss(-sure)
    one, none = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    assert square_critic_loss(one, none) == 0 < square_critic_loss(0.5 * one, 0.5 * one) == 0.25 < square_critic_loss(none, one)
    assert square_fooling_loss(one) == 0 < square_fooling_loss(0.5 * one) < square_fooling_loss(none) == 1
    half = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    assert float(masked_l1(half, 0 * half, half)) == 1 and float(masked_l1(half, half, 0 * half)) == 0
