"""Recorded time and memory of a stage, measured in processes of known memory."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from posepipe.interfaces import resources
from posepipe.interfaces.resources import measured, resident_mb

pytestmark = pytest.mark.skipif(resident_mb() is None, reason="the memory of a process is read from /proc (Linux), which is not here")

STAGES = """
import json, time
from posepipe.interfaces.resources import measured, resident_mb

def held(mb, seconds):  # filled in one call that lets no other thread run
    content = b"x" * (mb * 1_000_000)
    if seconds:
        time.sleep(seconds)

records, before = [{}, {}, {}, {}], resident_mb()
for record, (mb, seconds) in zip(records, [(0, 0.05), (300, 0), (100, 0.4), (400, 0)]):
    with measured(record):
        held(mb, seconds)
print(json.dumps([r["peak_memory_mb"] - before for r in records] + [r["seconds"] for r in records]))
"""


def test_each_stage_has_a_peak_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", STAGES], capture_output=True, text=True, check=True)
    nothing, large, small, larger, *seconds = json.loads(done.stdout)
    assert nothing == pytest.approx(0, abs=10)
    assert large == pytest.approx(300, abs=20)  # gone before anything could look: the process's own peak tells it
    assert small == pytest.approx(100, abs=20)  # not what the stage before it took
    assert larger == pytest.approx(400, abs=20)
    assert seconds[2] >= 0.4 > seconds[0] >= 0.05


def test_a_stage_that_fails_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="on purpose"), measured({}):
        msg = "on purpose"
        raise ValueError(msg)
    assert threading.active_count() == before


def test_without_system_information_there_is_no_peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resources, "_SELF", tmp_path)
    record: dict[str, float] = {}
    with measured(record):
        pass
    assert set(record) == {"seconds"}
