"""In which precision networks compute.

Answers decide (is this a brain, which pose, is it sure), so they are in single precision on every processor: bfloat16 moved likenesses by
more than the thresholds that they are compared with (docs/experiments-precision.md). Training is in bfloat16 where the device is faster
at it. The environment variable :data:`VARIABLE` forces one of the two for both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ..errors import UsageError

VARIABLE = "POSEPIPE_PRECISION"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""What :data:`VARIABLE` may hold."""


def forced_precision() -> torch.dtype | None:
    """What the environment variable :data:`VARIABLE` forces; None where it is not set or empty.

    Raises :class:`~posepipe.errors.UsageError` for anything but ``float32`` and ``bfloat16``.
    """
    name = os.environ.get(VARIABLE, "")
    if name and name not in PRECISIONS:
        msg = f"the environment variable {VARIABLE} is {name!r}: set it to {' or '.join(PRECISIONS)}, or unset it"
        raise UsageError(msg)
    return PRECISIONS.get(name)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 natively: on a CPU that does not, it is several times slower than float32."""
    if device.type != "cpu":
        return device.type == "cuda"
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(known()) if known is not None else False


def autocast(device: torch.device, *, wanted: bool = True) -> torch.autocast:
    """A context for training: bfloat16 where torch deems that safe, if ``wanted`` and fast on ``device``, or forced."""
    forced = forced_precision()
    use = wanted and (fast_bfloat16(device) if forced is None else forced == torch.bfloat16)
    return torch.autocast(device.type, torch.bfloat16, enabled=use)


@contextmanager
def inference_context(device: torch.device) -> Iterator[None]:
    """A context in which networks answer, without gradients: in float32 (on CUDA without TF32, which rounds like bfloat16), unless
    bfloat16 is forced."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if device.type == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=forced_precision() == torch.bfloat16))
        yield
