"""A full disk at every stage: a message that says what to do, no traceback, no incomplete file; the same command continues when there
is room."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest

from posepipe.phantom.demo_data import DemoDataset, write_demo

_APP = "import sys; from posepipe.cli.app import main; sys.exit(main())"
_TRY = """
out=$1; size=$2; full=$3; shift 3
mkdir -p "$out" "$full"
mount -t tmpfs -o size=${size}k none "$full" || exit 99
"$@"; echo "EXIT $?"
cp -a "$out" "$out.full"
mount -o remount,size=200m "$full"
"$@"; echo "EXIT $?"
cp -a "$out" "$out.done"
"""


@pytest.fixture(scope="module")
def apart() -> list[str]:
    """A command that starts another where file systems may be mounted that nobody else sees."""
    for user in ([], ["--map-root-user"]):
        command = ["unshare", "--mount", *user]
        trial = [*command, "mount", "-t", "tmpfs", "none", "/mnt"]
        if shutil.which("unshare") and subprocess.run(trial, capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("no mount namespace can be made here (unshare --mount)")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, home: Path) -> DemoDataset:
    return write_demo(tmp_path_factory.mktemp("full"), n_subjects=1, spacing=2.5)


def read(folder: Path) -> dict[str, bytes]:
    """Images and transforms by their paths, of which each can be read."""
    found = {}
    for path in sorted(folder.rglob("*")):
        assert not path.name.endswith(".tmp") and ".tmp." not in path.name, path
        if path.name.endswith(".nii.gz"):
            found[path.name] = nib.load(path).get_fdata().tobytes()
        elif path.name.endswith("_xfm.txt"):
            found[path.name] = path.read_bytes()
            assert found[path.name].startswith(b"#Insight Transform File") and b"FixedParameters" in found[path.name]
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("which", "size"), [*(("out", kb) for kb in (4, 12, 24, 32, 60, 120, 200)), ("work", 4), ("work", 60)])
def test_a_full_disk_is_reported_and_the_same_command_continues(
    apart: list[str], demo: DemoDataset, tmp_path: Path, which: str, size: int
) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable, "-c", _APP, str(demo.bids_dir), str(out), "participant", "--atlas-dir", str(demo.atlas_dir), "--atlas", "Phantom",
        "-w", str(tmp_path / "work"), "--refine", "none", "--nprocs", "1",
    ]  # fmt: skip
    done = subprocess.run(
        [*apart, "bash", "-c", _TRY, "bash", str(out), str(size), str(tmp_path / which), *command],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    first, second, _ = done.stdout.split("EXIT ")
    assert "Traceback" not in done.stdout, done.stdout
    assert second.startswith("1\n") and "No space left on device" in first and "make room in OUT_DIR" in first, done.stdout
    assert done.stdout.endswith("EXIT 0\n"), done.stdout
    before, after = read(tmp_path / "out.full"), read(tmp_path / "out.done")
    assert len(after) == 5 and before.items() <= after.items()  # what was there is what comes of it
