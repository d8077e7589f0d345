"""No run uses the network: shown in a network of its own that has none, by what the kernel counted there, and by what Python tried."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from posepipe.phantom.demo_data import DemoDataset, write_demo

_WATCH = """
import os, sys
_EVENTS = {f"socket.{name}" for name in
           ("connect", "sendto", "sendmsg", "getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo")}
def _note(event, args):
    if event in _EVENTS:
        shown = [arg for arg in args if not hasattr(arg, "fileno")]
        if not (event == "socket.connect" and isinstance(shown[0], (str, bytes))):  # a socket in the file system
            with open(os.environ["NETWORK_LOG"], "a") as file:
                file.write(f"{event} {shown!r}\\n")
sys.addaudithook(_note)
"""
"""As ``sitecustomize``: every process of Python, workers too, writes down each look-up of a name and each connection."""
_APP = "import sys; from posepipe.cli.app import main; sys.exit(main())"
_TOOLS = "import sys; from posepipe.cli.tools import main; sys.exit(main())"


@pytest.fixture(scope="module")
def unshared() -> list[str]:
    """A command that starts another in a network of its own, of which all there is, the loop-back, is down."""
    for command in (["unshare", "--net"], ["unshare", "--net", "--map-root-user"]):
        if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("no network namespace can be made here (unshare --net)")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, home: Path) -> DemoDataset:
    return write_demo(tmp_path_factory.mktemp("offline"), n_subjects=3, spacing=2.0)


class Offline:
    """Runs commands without a network; ``tried`` are the packets that the kernel had no way for, ``log`` what Python tried."""

    def __init__(self, unshared: list[str], folder: Path) -> None:
        self._unshared = unshared
        self._log = folder / "network.log"
        (folder / "sitecustomize.py").write_text(_WATCH, encoding="utf-8")
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._environment = {**os.environ, "PYTHONPATH": path, "NETWORK_LOG": str(self._log)}

    def __call__(self, code: str, *arguments: str) -> tuple[int, str]:
        """Exit code, and what was printed."""
        counted = f"{sys.executable} -c \"$1\" \"${{@:2}}\"; code=$?; echo COUNTED; cat /proc/net/snmp /proc/net/snmp6; exit $code"
        done = subprocess.run(
            [*self._unshared, "bash", "-c", counted, "bash", code, *arguments], env=self._environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        output, _, counts = done.stdout.rpartition("COUNTED\n")
        self.tried = _no_route(counts)
        return done.returncode, output

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8") if self._log.is_file() else ""


def _no_route(counts: str) -> int:
    lines = [line.split() for line in counts.splitlines()]
    names, values = (line for line in lines if line and line[0] == "Ip:")
    six = next(int(line[1]) for line in lines if line and line[0] == "Ip6OutNoRoutes")
    return int(values[names.index("OutNoRoutes")]) + six


@pytest.fixture
def offline(unshared: list[str], tmp_path: Path) -> Offline:
    return Offline(unshared, tmp_path)


def test_an_attempt_would_be_seen(offline: Offline) -> None:
    """Of a connection by number, and of a look-up in a process that is started by another."""
    offline("import contextlib, socket\nwith contextlib.suppress(OSError): socket.create_connection(('192.0.2.1', 80), 2)")
    assert offline.tried >= 1 and "socket.connect [('192.0.2.1', 80)]" in offline.log
    look_up = "import urllib.request; urllib.request.urlopen('http://example.org')"
    offline(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {look_up!r}])")
    assert "socket.getaddrinfo ['example.org', 80" in offline.log


@pytest.mark.slow
def test_a_whole_run_tries_nothing(offline: Offline, demo: DemoDataset, tmp_path: Path) -> None:
    """With all defaults, in workers: networks for poses, masks and contrast, ANTs, pages; then the group level, one image by itself, and
    one in Python."""
    out, bids, atlases = tmp_path / "out", str(demo.bids_dir), ["--atlas", "Phantom", "--atlas-dir", str(demo.atlas_dir)]
    options = ["-w", str(tmp_path / "work"), "--nprocs", "2", "--participant-label", "01", "03", "--mask", "network", "-v"]
    code, output = offline(_APP, bids, str(out), "participant", *options, *atlases)
    assert "3 images to align" in output and code == 0, output
    assert (offline.tried, offline.log) == (0, "")
    code, output = offline(_APP, bids, str(out), "group")
    assert code == 0 and (offline.tried, offline.log) == (0, ""), output
    image = next(demo.bids_dir.glob("sub-01/anat/*_T2w.nii.gz"))
    code, output = offline(_TOOLS, "align", str(image), "--age", "estimate", "-o", str(tmp_path / "one"), *atlases)
    assert code == 0 and (offline.tried, offline.log) == (0, ""), output
    one = "import sys, posepipe\nposepipe.align(sys.argv[1], age=24.3, atlas='Phantom', atlas_dirs=[sys.argv[2]]).save(sys.argv[3], 'one')"
    code, output = offline(one, str(image), str(demo.atlas_dir), str(tmp_path / "python"))
    assert code == 0 and (offline.tried, offline.log) == (0, ""), output


def test_atlases_that_are_not_here_are_reported_and_not_fetched(offline: Offline, demo: DemoDataset, tmp_path: Path) -> None:
    folders = (str(demo.bids_dir), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "work"))
    code, output = offline(_APP, *folders, "--atlas", "dhcpVol")
    assert code == 2 and "the atlas dhcpVol is not on this machine" in output
    code, output = offline(_TOOLS, "atlas", "list")
    assert code == 0 and "dhcpVol" in output
    assert (offline.tried, offline.log) == (0, "")


@pytest.mark.slow
def test_fetching_is_what_does(offline: Offline, tmp_path: Path) -> None:
    """Else the watch would be blind."""
    code, output = offline(_TOOLS, "atlas", "fetch", "FidonSBA", "--atlas-dir", str(tmp_path / "atlases"))
    assert code != 0 and "socket.getaddrinfo" in offline.log, output
