"""Floating-point precision of networks.

Inference is in single precision on every device: its outputs are compared with thresholds, and bfloat16 changed brain scores by more than
the distance to the thresholds (docs/decisions/023-single-precision.md). Training is in bfloat16 where that is faster on the device. The
environment variable :data:`VARIABLE` forces one precision for both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ..errors import UsageError

VARIABLE = "POSEPIPE_PRECISION"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Valid values of :data:`VARIABLE` → dtype."""


def forced_precision() -> torch.dtype | None:
    """The precision that the environment variable :data:`VARIABLE` forces; None if it is not set or empty.

    Raises :class:`~posepipe.errors.UsageError` for anything but ``float32`` and ``bfloat16``.
    """
    name = os.environ.get(VARIABLE, "")
    if name and name not in PRECISIONS:
        msg = f"the environment variable {VARIABLE} is {name!r}: set it to {' or '.join(PRECISIONS)}, or unset it"
        raise UsageError(msg)
    return PRECISIONS.get(name)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has native bfloat16 multiplication. On a CPU without it bfloat16 is several times slower than float32."""
    if device.type != "cpu":
        return device.type == "cuda"
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(known()) if known is not None else False


def autocast(device: torch.device, *, wanted: bool = True) -> torch.autocast:
    """Autocast context for training: to bfloat16 if ``wanted`` and fast on ``device``, or if forced by :data:`VARIABLE`."""
    forced = forced_precision()
    use = wanted and (fast_bfloat16(device) if forced is None else forced == torch.bfloat16)
    return torch.autocast(device.type, torch.bfloat16, enabled=use)


@contextmanager
def inference_context(device: torch.device) -> Iterator[None]:
    """Context for inference, without gradients: in float32 (on CUDA without TF32, which is about as coarse as bfloat16), unless
    :data:`VARIABLE` forces bfloat16."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if device.type == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=forced_precision() == torch.bfloat16))
        yield
