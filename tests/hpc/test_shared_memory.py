"""Without semaphores, as in containers without a writable /dev/shm, the run uses one process instead of several."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from posepipe.phantom.demo_data import write_demo

_APP = "import sys; from posepipe.cli.app import main; sys.exit(main())"
_LOCKED = "mount -t tmpfs -o ro none /dev/shm && exec \"$@\""


@pytest.fixture(scope="module")
def locked() -> list[str]:
    """A command that starts another where /dev/shm cannot be written."""
    for user in ([], ["--map-root-user"]):
        command = ["unshare", "--mount", *user, "sh", "-c", _LOCKED, "sh"]
        if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("no mount namespace can be made here (unshare --mount)")


def test_one_process_does_it_all_and_says_so(locked: list[str], tmp_path: Path, home: Path) -> None:
    demo = write_demo(tmp_path, n_subjects=2, spacing=2.5)
    done = subprocess.run(
        [*locked, sys.executable, "-c", _APP, str(demo.bids_dir), str(tmp_path / "out"), "participant", "--atlas-dir", str(demo.atlas_dir),
         "--atlas", "Phantom", "-w", str(tmp_path / "work"), "--refine", "none", "--nprocs", "2"],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "/dev/shm: no semaphore can be made there" in done.stdout and "one after another" in done.stdout
    assert "Traceback" not in done.stdout and " aligned, 0 done before, 0 failed" in done.stdout
