"""The check of gradients: the difference that it attributes to rounding comes from rounding."""

from __future__ import annotations

import torch

from posepipe.bench.gradients import of_a_convolution, of_a_network
from posepipe.models.scans import ScanNet


def test_bfloat16_is_no_worse_than_rounding():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for side in (3, 4):
            assert of_a_convolution(side, 1, 8) < 0.01
        blurred, rounded = of_a_network(ScanNet(32, (4, 4, 8, 8)), 32)
    assert 0 < rounded < 0.5
    assert blurred < 2 * rounded
