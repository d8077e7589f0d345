"""Datasets that something is wrong with: two healthy participants beside a bad one, a dry run over them, and what must hold of any.

What must hold: no error but posepipe's own, each message names a file or an option and says what to do, the healthy are planned with
their right ages, and every file that looks like an image is reported.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from posepipe.cli.app import main

BY_SCANS, BY_PARTICIPANTS = "02", "03"
"""Labels of the healthy: one whose age is in a table of its own, one whose age is in the table of all."""
AGES = {BY_SCANS: 31.0, BY_PARTICIPANTS: 24.5}
BOTH = (BY_SCANS, BY_PARTICIPANTS)
IMAGES = (".nii", ".mgz", ".mgh", ".img", ".hdr", ".nrrd", ".mha", ".mhd", ".dcm", ".mnc")
SECONDS = 100
"""No plan takes as long, on however busy a machine; one that waits for a pipe never ends."""
REMEDY = re.compile(
    r"\b(rename|remove|give|repair|correct|save|keep|fetch|add|convert|check|choose|use|write|move|make|split|copy|separate|point|replace|"
    r"shorten|name|there are|near names)\b",
    re.IGNORECASE,
)
_PLANNED = re.compile(r"^  (sub-\S.*?)(?: \(done: nothing to do\))?\n    age +([\d.]+)", re.MULTILINE)
_FAILED = re.compile(r"^  (sub-.*)\n    CANNOT BE PROCESSED \((\w+)\): (.*)", re.MULTILINE)


@cache
def image_bytes(edge: float = 2.0) -> bytes:
    """A small image, whose header is all that a plan looks at."""
    image = nib.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), np.diag([2.0, 2.0, edge, 1.0]))
    return image.to_bytes()


def put(path: Path, content: bytes | str | dict | list = "") -> Path:
    """Write a file, and the folders that it lies in; what is no text becomes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, (dict, list)):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def image(root: Path, relative: str) -> Path:
    return put(root / relative, image_bytes())


def first(root: Path, name: str = "T2w.nii") -> Path:
    """Path of the bad participant's image."""
    return root / "sub-01" / "anat" / f"sub-01_{name}"


def make_dataset(root: Path) -> Path:
    """A dataset of three participants, of which nothing is wrong yet: 01 (29 weeks, by ``participants.tsv``) and the healthy."""
    put(root / "dataset_description.json", {"Name": "test", "BIDSVersion": "1.10.0"})
    put(root / "participants.tsv", table(("participant_id", "ga_weeks"), ("sub-01", "29"), ("sub-03", "24.5")))
    put(root / "sub-02" / "sub-02_scans.tsv", table(("filename", "ga_weeks"), ("anat/sub-02_T2w.nii", "31")))
    for label in ("01", *BOTH):
        image(root, f"sub-{label}/anat/sub-{label}_T2w.nii")
    return root


def table(*rows: Iterable[str]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


@dataclass(frozen=True)
class DryRun:
    """What a dry run came to: exit code, all that it said, ages by image, failures by image (stage, message)."""

    code: int
    text: str
    warnings: tuple[str, ...]
    ages: dict[str, float] = field(default_factory=dict)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def all(self) -> str:
        return "\n".join((self.text, *self.warnings))


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _too_long(*_: object) -> None:
    msg = f"no plan after {SECONDS} s"
    raise AssertionError(msg)


def dry_run(root: Path, atlas: Path, *options: str, out: Path | None = None) -> DryRun:
    """The app's own dry run, in this process."""
    command = [str(root), str(out or root.parent / "out"), "participant", "--dry-run", "--atlas", "Phantom", "--atlas-dir", str(atlas)]
    output, kept = io.StringIO(), _Kept()
    logger = logging.getLogger("posepipe")
    logger.addHandler(kept)
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        with redirect_stdout(output), redirect_stderr(output):
            try:
                code = main([*command, *options])
            except SystemExit as stop:  # argparse
                code = int(stop.code or 0)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        logger.removeHandler(kept)
    text = output.getvalue()
    ages = {found[1]: float(found[2]) for found in _PLANNED.finditer(text)}
    failures = {found[1]: (found[2], found[3]) for found in _FAILED.finditer(text)}
    return DryRun(code, text, tuple(kept.messages), ages, failures)


def image_like(root: Path) -> list[str]:
    """Files below the folders that are, or were meant for, participants', by their extensions alone; links in a circle are not followed."""
    found = []
    for top in sorted(os.listdir(root)):  # noqa: PTH208 - names that are no text too
        if os.path.isdir(root / top) and not top.lower().startswith(("sub", "ses", "anat")):  # noqa: PTH112 - Path's raises
            continue
        for folder, folders, files in os.walk(root / top):
            folders[:] = [name for name in folders if name != "log"]
            names = files + [name for name in folders if "." in name]
            found += [os.path.relpath(os.path.join(folder, name), root) for name in names]  # noqa: PTH118
        if not os.path.isdir(root / top):  # noqa: PTH112
            found.append(top)
    return [name for name in found if name.lower().strip().removesuffix(".gz").endswith(IMAGES)]


def shown(text: str) -> str:
    """Text as the app shows it: signs that cannot be printed are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def check(root: Path, run: DryRun, *, right: Iterable[str] = BOTH, some: bool = False) -> None:
    """What must hold of any dataset; ``right`` are the participants that nothing is wrong with; ``some``: not all were asked for."""
    assert run.code in {0, 1, 2} and "Traceback" not in run.all, run.all
    for name, (stage, message) in run.failures.items():
        assert (str(root) in message or "--" in message or str(root.parent) in message) and REMEDY.search(message), (name, stage, message)
        assert len(message) < 3000, message[:3000]
    if run.code == 2:
        error = run.text.partition("error: ")[2]
        assert error and (str(root) in error or "-" in error) and REMEDY.search(error), run.text
    assert (run.code == 1) is ("CANNOT BE PROCESSED" in run.text or "LACKING" in run.text), run.text
    for label in right:
        assert run.ages.get(f"sub-{label}/anat/sub-{label}_T2w.nii") == AGES[label], run.all
    if run.code != 2 and not some:
        lost = [name for name in image_like(root) if shown(name) not in run.text and not _in_a_lacking_folder(name, run.text)]
        assert not lost, f"{lost} of {run.all}"


def _in_a_lacking_folder(name: str, text: str) -> bool:
    folders = re.findall(r"^LACKING: (\S+?):", text, re.MULTILINE)
    return any(name == folder or name.startswith(f"{folder}/") for folder in folders)


@dataclass(frozen=True)
class Case:
    """A way to spoil a dataset: ``first`` is the age that the bad participant's image then has, ``"fails"``, or ``"gone"`` where it is
    no input any more; ``says`` is a pattern of what must be said; ``right`` are the participants that must be planned as ever;
    ``code`` 2: the whole dataset is refused."""

    name: str
    spoil: Callable[[Path], object]
    first: float | str | None = None
    says: str = ""
    right: tuple[str, ...] = BOTH
    options: tuple[str, ...] = ()
    code: int | None = None


def hold(case: Case, root: Path, atlas: Path) -> DryRun:
    """Spoil a new dataset at ``root`` by ``case``, and see what a dry run says of it."""
    case.spoil(make_dataset(root))
    run = dry_run(root, atlas, *(option.replace("ROOT", str(root)) for option in case.options))
    check(root, run, right=() if case.code == 2 else case.right)
    if case.says:
        assert re.search(case.says, run.all), run.all
    if case.code is not None:
        assert run.code == case.code, run.all
    name = "sub-01/anat/sub-01_T2w.nii"
    if isinstance(case.first, float):
        assert run.ages.get(name) == case.first, run.all
    elif case.first == "fails":
        assert name in run.failures, run.all
    elif case.first == "gone":
        assert name not in run.failures and name not in run.ages, run.all
    return run


def folder_for_all() -> Path:
    """A new folder that every user may enter: those of a temporary folder of one's own may not."""
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    open_ones = [p for p in places if p.is_dir() and all(f.stat().st_mode & 0o001 for f in (p, *p.parents))]
    if not open_ones:
        pytest.skip("no temporary folder here that every user may enter")
    folder = Path(tempfile.mkdtemp(dir=open_ones[0]))
    folder.chmod(0o755)
    return folder
