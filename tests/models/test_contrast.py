"""The generator and the discriminator: shapes, invalid options, and losses whose minima are known."""

from __future__ import annotations

import pytest
import torch

from posepipe.models.contrast import (
    ContrastNet,
    PatchDiscriminator,
    discriminator_loss,
    generator_adversarial_loss,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    masked_l1,
)

NARROW = (4, 4, 8, 8, 8)


@pytest.mark.parametrize("shape", [(32, 32), (64, 96)])
def test_a_synthesised_slice_has_the_size_of_the_input(shape: tuple[int, int]) -> None:
    network = ContrastNet(width=NARROW).eval()
    synthesised = network(torch.rand(2, 3, *shape)).detach()
    assert synthesised.shape == (2, 1, *shape)
    assert float(synthesised.min()) > 0 and float(synthesised.max()) < 1


def test_noise_is_for_learning_alone() -> None:
    network = ContrastNet(width=NARROW, dropout=0.5)
    slices = torch.rand(2, 3, 64, 64)
    assert not torch.equal(network.train()(slices), network(slices))
    assert torch.equal(network.eval()(slices), network(slices))


@pytest.mark.parametrize("options", [{"size": 40}, {"size": 0}, {"width": (4, 4, 8, 8)}])
def test_options_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        ContrastNet(**options)  # type: ignore[arg-type]


def test_an_untrained_network_can_be_initialised_as_an_inversion() -> None:
    torch.manual_seed(0)
    network = ContrastNet(width=NARROW).eval()
    slices = torch.rand(2, 3, 64, 64)
    together = [torch.corrcoef(torch.stack([network(slices).flatten(), slices[:, 1].flatten()]))[0, 1].item()]
    network.initialise_as_inversion()
    together.append(torch.corrcoef(torch.stack([network(slices).flatten(), slices[:, 1].flatten()]))[0, 1].item())
    assert together[0] > -0.9 > together[1]


def test_a_logit_of_the_discriminator_depends_on_one_patch() -> None:
    discriminator = PatchDiscriminator(1, 8).eval()
    plain = torch.zeros(1, 1, 128, 128)
    spot = plain.clone()
    spot[..., :8, :8] = 1
    changed = (discriminator(plain) - discriminator(spot)).abs()[0, 0] > 1e-6
    assert changed[0, 0] and not changed[6:, 6:].any()


def test_losses_are_least_where_they_should_be() -> None:
    sure, unsure = torch.full((1, 1, 2, 2), 9.0), torch.zeros(1, 1, 2, 2)
    assert discriminator_loss(sure, -sure) < 0.001 < discriminator_loss(unsure, unsure) < discriminator_loss(-sure, sure)
    assert generator_adversarial_loss(sure) < generator_adversarial_loss(unsure) < generator_adversarial_loss(-sure)
    one, none = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    best, middle, worst = (least_squares_discriminator_loss(*pair) for pair in ((one, none), (0.5 * one, 0.5 * one), (none, one)))
    assert best == 0 < middle == 0.25 < worst
    assert least_squares_generator_loss(one) == 0 < least_squares_generator_loss(0.5 * one) < least_squares_generator_loss(none) == 1
    half = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    assert float(masked_l1(half, 0 * half, half)) == 1 and float(masked_l1(half, half, 0 * half)) == 0
