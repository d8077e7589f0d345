"""The networks' estimate of the brain's size, their inputs, and the combination of their votes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from posepipe.geometry import rotations_in_bin, so3
from posepipe.imaging.volume import Volume
from posepipe.matching.brain import Brain
from posepipe.matching.target import SPACING
from posepipe.pose.coordinate_networks import PoseNetworks, _grouped, _mean, _turns, _Votes


@pytest.mark.parametrize("factor", [0.75, 1.3])
def test_the_size_is_that_of_the_template_over_the_image_s(head, target, factor):
    """A head that is drawn smaller makes the template larger beside it."""
    grow = np.diag([factor, factor, factor, 1.0])
    image, mask = (Volume(v.data, grow @ v.affine, v.source) for v in (head.image, head.mask))
    networks = PoseNetworks()
    sizes = []
    for brain in (head.brain, Brain.prepare(image, mask, SPACING)):
        placement = networks.place(brain)[0]
        sizes.append(placement.log_scale(target.brain))
        assert sizes[-1] == pytest.approx(target.log_scale(brain), abs=0.12)
    assert sizes[1] - sizes[0] == pytest.approx(-np.log(factor), abs=0.06)


@pytest.mark.parametrize("better", [0, 1])
def test_of_votes_that_agree_the_one_with_the_least_error_leads(better):
    """A group of two has no centre: residual and expected error decide."""
    rotation = torch.as_tensor(np.stack([np.eye(3), rotations_in_bin(1, 5, 10, np.random.default_rng(0))[0]]), dtype=torch.float32)
    zero, one = torch.zeros(2, 3), torch.ones(2)
    small = torch.tensor([0.1, 0.1]).index_fill(0, torch.tensor([better]), 0.02)
    for residual, error in ((small, 0.05 * one), (0.05 * one, small)):
        votes = _Votes(rotation, zero, one, residual, error, one)
        assert _grouped(votes.rotation, votes.trust) == [[better, 1 - better]]


def test_the_first_network_is_shown_the_brain_turned_four_quite_different_ways():
    turns = _turns()
    assert turns.shape == (4, 3, 3)
    np.testing.assert_allclose(turns[0], np.eye(3), atol=1e-12)
    assert min(np.degrees(so3.geodesic_distance(a, b)) for a, b in combinations(turns, 2)) > 75


def test_votes_are_averaged_as_rotations_shifts_and_sizes():
    """Two votes either side of the truth: their mean is the truth."""
    truth, way = so3.exp([0.4, -1.0, 2.0]), np.array([0.1, 0.15, -0.05])
    rotation = torch.as_tensor(np.stack([truth @ so3.exp(way), truth @ so3.exp(-way), np.eye(3)]), dtype=torch.float32)
    shift = torch.tensor([[0.1, 0.0, 0.3], [0.3, 0.2, 0.1], [9.0, 9.0, 9.0]])
    scale = torch.tensor([0.5, 2.0, 9.0])
    found = _mean(_Votes(rotation, shift, scale, scale, scale, scale), [0, 1])
    np.testing.assert_allclose(found[0].numpy(), truth, atol=1e-5)
    torch.testing.assert_close(found[1], torch.tensor([0.2, 0.1, 0.2]))
    assert float(found[2]) == pytest.approx(1.0)
