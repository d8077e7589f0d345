"""Where bfloat16 is worth computing in."""

from __future__ import annotations

import torch


def fast_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 natively: on a CPU that does not, it is several times slower than float32."""
    if device.type != "cpu":
        return device.type == "cuda"
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(known()) if known is not None else False


def autocast(device: torch.device, *, wanted: bool = True) -> torch.autocast:
    """A context in which networks compute in bfloat16 where torch deems that safe, if ``wanted`` and fast on ``device``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and fast_bfloat16(device))
