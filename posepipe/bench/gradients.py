"""Accuracy of gradients in bfloat16: ``python -m posepipe.bench.gradients``. Needs no data.

First for one 3 × 3 × 3 convolution by the side of its grid, without the safeguard of :class:`~posepipe.models.layers.Layer`. Then for the
scan network by the side of its cube, compared with the effect of rounding alone: single precision with weights, activations and their
gradients rounded to bfloat16. Where the two agree, the error is that of the number format.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.scans import ScanNet
from ..models.weights import load_network

SIDES, SIZES = (1, 2, 3, 4, 6, 8), (16, 32, 48, 64)


def of_a_convolution(side: int, stride: int, channels: int = 64) -> float:
    """Relative error of the weight gradient of a 3³ kernel in bfloat16, on a grid of ``side`` voxels along each axis."""
    x, w = torch.randn(2, channels, side, side, side), torch.randn(channels, channels, 3, 3, 3) * 0.03
    gradients, seed = [], None
    for dtype in (torch.float32, torch.bfloat16):
        a, b = x.bfloat16().to(dtype), w.bfloat16().to(dtype).requires_grad_()
        y = F.conv3d(a, b, stride=stride, padding=1)
        seed = torch.randn_like(y).bfloat16().float() if seed is None else seed
        (gradient,) = torch.autograd.grad(y, b, seed.to(dtype))
        gradients.append(gradient.float())
    return _apart(gradients[1], gradients[0])


def of_a_network(network: nn.Module, size: int) -> tuple[float, float]:
    """Relative errors of all gradients of the scan network on cubes of ``size`` voxels a side: in bfloat16, and with rounding alone."""
    x = F.avg_pool3d(torch.rand(4, 1, size, size, size), 5, 1, 2)
    x = (x - x.min()) / (x.max() - x.min())
    x = torch.cat([x, (x > 0.5).float()], 1)  # second channel: the true mask as previous mask
    exact = _gradients(network.double(), x.double(), lambda net, x: net(x))
    network.float()

    def blurred(net: nn.Module, x: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return net(x)

    return _apart(_gradients(network, x, blurred), exact), _apart(_gradients(_rounded(network), x, lambda net, x: net(x)), exact)


def _gradients(network: nn.Module, x: Tensor, forward: Callable[[nn.Module, Tensor], Any]) -> Tensor:
    network = copy.deepcopy(network).train()
    found = forward(network, x)
    brain = F.binary_cross_entropy_with_logits(found.foreground, x[:, 1:].to(found.foreground.dtype))
    (brain + found.position.abs().mean() + found.log_error.mean() / 3).backward()
    return torch.cat([p.grad.double().flatten() for p in network.parameters() if p.grad is not None])


def _rounded(network: nn.Module) -> nn.Module:
    """A copy of ``network`` whose convolutions round weights, inputs, outputs and their gradients to bfloat16."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.bfloat16().float()
            module.register_forward_pre_hook(lambda _, given: (_Rounded.apply(given[0]),))
            module.register_forward_hook(lambda _, given, answer: _Rounded.apply(answer))
    return copied


class _Rounded(torch.autograd.Function):
    """Rounding to bfloat16 in the forward and in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.bfloat16().float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.bfloat16().float()


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def main() -> int:
    """Print both tables."""
    torch.manual_seed(0)
    print("| stride | " + " | ".join(f"side {side}" for side in SIDES) + " |\n|" + "---|" * (len(SIDES) + 1))
    for stride in (1, 2):
        print(f"| {stride} | " + " | ".join(f"{of_a_convolution(side, stride):.3f}" for side in SIDES) + " |")
    print("\n| cube | fresh: bfloat16 | rounding alone | trained: bfloat16 | rounding alone |\n|" + "---|" * 5)
    for size in SIZES:
        found = (*of_a_network(ScanNet(size), size), *of_a_network(load_network("scan").module, size))
        print(f"| {size} | " + " | ".join(f"{100 * e:.1f} %" for e in found) + " |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
