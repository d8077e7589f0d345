"""bfloat16 only where it is the faster."""

from __future__ import annotations

import pytest
import torch

from posepipe.models.precision import autocast, fast_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize("native", [True, False])
def test_networks_compute_in_bfloat16_only_where_the_cpu_does(native: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    assert fast_bfloat16(CPU) is native
    with autocast(CPU):
        assert torch.nn.Linear(3, 2)(torch.ones(1, 3)).dtype == (torch.bfloat16 if native else torch.float32)
    with autocast(CPU, wanted=False):
        assert torch.nn.Linear(3, 2)(torch.ones(1, 3)).dtype == torch.float32


def test_a_torch_that_cannot_tell_gets_float32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert not fast_bfloat16(CPU)
    assert fast_bfloat16(torch.device("cuda")) and not fast_bfloat16(torch.device("mps"))
