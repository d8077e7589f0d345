"""A run that is stopped from outside leaves no process, and reports which images are done and which are not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import alive, start

from posepipe.cli.app import main as app
from posepipe.cli.stopping import SIGNALS, Stopped, stoppable


def wait_for(condition: Any, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda one: one.name)
def test_workers_end_with_the_run(raw_study: Any, tmp_path: Path, number: signal.Signals) -> None:
    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")
    run = start(study, "--nprocs", "2", "--participant-label", "01", "03")
    try:
        # the last one started is the second worker: the others are the run itself, the first and the tracker of what they share
        assert wait_for(lambda: len(alive(run.pid)) >= 4)
        run.send_signal(number)
        output, _ = run.communicate(timeout=60)
        assert wait_for(lambda: not alive(run.pid)), alive(run.pid)
    finally:
        if alive(run.pid):
            os.killpg(run.pid, signal.SIGKILL)
    if number == signal.SIGKILL:
        assert run.returncode == -number
        return
    assert run.returncode == 128 + number
    assert f"posepipe: stopped by {number.name}" in output
    assert "0 aligned" in output and "3 not reached" in output and output.count("not reached: ") == 3
    assert not list(study.out.rglob("*_xfm.json"))
    assert (study.out / "failures.tsv").read_text(encoding="utf-8").count("\n") == 1  # to be stopped is no failure of an image


@pytest.mark.slow
def test_one_process_stops_between_images(raw_study: Any, tmp_path: Path) -> None:
    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")
    run = start(study, "--participant-label", "01", "03")
    assert run.stdout is not None
    first = next(line for line in run.stdout if line.startswith("[1/3]"))
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130 and "sub-01" in first
    assert "1 aligned" in output and "2 not reached" in output and "stopped by SIGINT" in output and "FAILED" not in output
    code, output = study.main("--participant-label", "01", "--dry-run")
    assert code == 0 and "1 done already" in output


@pytest.mark.slow
def test_one_process_stops_in_the_midst_of_an_image(raw_study: Any, tmp_path: Path) -> None:
    """As a task of a job array is cancelled: Nipype catches what is raised in a node, and would go on with the next image."""
    study = replace(raw_study, out=tmp_path / "out", work=tmp_path / "work")
    run = start(study, "--participant-label", "01", "03")
    assert wait_for(lambda: list(study.work.rglob("mask/_inputs.pklz")))  # which Nipype writes before it starts a node
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 143, output
    assert "0 aligned" in output and "3 not reached" in output and "stopped by SIGTERM" in output and "FAILED" not in output
    assert (study.out / "failures.tsv").read_text(encoding="utf-8").count("\n") == 1


def test_a_stop_that_was_caught_is_raised_again() -> None:
    caught = []
    with pytest.raises(Stopped) as stopped, stoppable():
        Stopped.check()
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:  # as libraries do
            caught.append(error)
        Stopped.check()
    assert caught and stopped.value.code == 143
    Stopped.check()  # it is over


def test_signals_are_put_back_and_ignored_ones_stay_ignored() -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    kept = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.raises(Stopped) as stopped, stoppable():
            signal.raise_signal(signal.SIGHUP)  # as under nohup
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, kept)
    assert stopped.value.code == 143 and [signal.getsignal(one) for one in SIGNALS] == before


def test_a_second_signal_does_not_disturb_the_end() -> None:
    ended = []
    with pytest.raises(Stopped), stoppable():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGINT)
            ended.append(True)
    assert ended


def test_children_end_with_an_error() -> None:
    first, second = (multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,)) for _ in range(2))
    first.start()
    try:
        with pytest.raises(ValueError, match="on purpose"), stoppable():
            second.start()
            raise ValueError("on purpose")
        assert not second.is_alive()
        assert first.is_alive()  # whoever calls may have children of its own
    finally:
        first.kill()


def test_usage_errors_are_as_ever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app([str(tmp_path / "none"), str(tmp_path / "out"), "participant"]) == 2
    assert "posepipe: error: " in capsys.readouterr().err
