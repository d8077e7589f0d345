"""Inference in single precision, training in bfloat16 where that is faster; the environment variable forces either."""

from __future__ import annotations

import pytest
import torch

from posepipe.errors import UsageError
from posepipe.models.layers import for_inference
from posepipe.models.precision import VARIABLE, autocast, fast_bfloat16, forced_precision, inference_context
from posepipe.models.scans import ScanNet

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def linear() -> torch.dtype:
    return torch.nn.Linear(3, 2)(torch.ones(1, 3)).dtype


@pytest.mark.parametrize("native", [True, False])
def test_networks_learn_in_bfloat16_only_where_the_cpu_is_fast_at_it(native: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    assert fast_bfloat16(CPU) is native
    with autocast(CPU):
        assert linear() == (torch.bfloat16 if native else torch.float32)
    with autocast(CPU, wanted=False):
        assert linear() == torch.float32


@pytest.mark.parametrize("native", [True, False])
def test_networks_answer_in_single_precision_on_every_processor(native: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    with inference_context(CPU):
        assert linear() == torch.float32 and torch.is_inference_mode_enabled()


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_environment_forces_either(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, name)
    assert forced_precision() == dtype
    for context in (inference_context, autocast):
        with context(CPU):
            assert linear() == dtype


@pytest.mark.parametrize(("name", "forced"), [("", None), ("half", UsageError)])
def test_what_is_not_a_precision_is_refused(name: str, forced: type | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, name)
    if forced is None:
        assert forced_precision() is None
        return
    with pytest.raises(forced, match="POSEPIPE_PRECISION is 'half': set it to float32 or bfloat16"):
        forced_precision()


def test_a_torch_without_the_query_gets_float32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert not fast_bfloat16(CPU)
    assert fast_bfloat16(torch.device("cuda")) and not fast_bfloat16(torch.device("mps"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_made_ready_answers_in_either_precision(precision: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = ScanNet(16, (4, 4, 8, 8)).eval(), torch.rand(1, 2, 16, 16, 16)
    with torch.inference_mode():
        exact = net(x).position
    with inference_context(CPU):
        found = for_inference(net)(x).position
    assert found.dtype == torch.float32
    error = float((found - exact).abs().max() / exact.abs().max())
    assert error < (1e-5 if precision == "float32" else 0.05)
    assert (error > 1e-5) == (precision == "bfloat16")
