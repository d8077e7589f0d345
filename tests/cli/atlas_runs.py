"""Runs over a phantom at one or two atlases, of which the second is the first in another place, and what they wrote."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posepipe.bids import read_json
from posepipe.geometry import Rigid
from posepipe.imaging.volume import load_volume, save_volume

PHANTOM, OTHER = "Phantom", "Other"
TURN = Rigid.from_rotvec([0.0, 0.0, 0.3], [4.0, -2.0, 1.0])
"""The pose of the second atlas's templates in the world of the first."""
TIMES = ("Seconds", "PeakMemoryMB")


def write_other(atlases: Path, folder: Path, cohorts: tuple[str, ...]) -> Path:
    """The phantoms' atlas under another name, turned and shifted, with these cohorts alone."""
    other = folder / f"tpl-{OTHER}"
    shutil.copytree(atlases / f"tpl-{PHANTOM}", other)
    for path in other.glob("cohort-*"):
        if path.name.removeprefix("cohort-") not in cohorts:
            shutil.rmtree(path)
    for path in sorted(other.rglob(f"*{PHANTOM}*")):
        path.rename(path.with_name(path.name.replace(PHANTOM, OTHER)))
    for path in other.rglob("*.nii.gz"):
        volume = load_volume(path, None)
        save_volume(volume.moved(TURN), path, volume.data.dtype)
    return folder


@dataclass(frozen=True)
class Runs:
    """A dataset, its two atlases, and the program."""

    folder: Path
    bids: Path
    atlases: tuple[Path, Path]
    program: Any

    def __call__(self, out: str, *options: str, level: str = "participant", work: str = "work") -> tuple[int, str]:
        places = [str(self.bids), str(self.folder / out), level]
        if level == "group":
            return self.program([*places, "--nprocs", "1", *options])
        dirs = [option for folder in self.atlases for option in ("--atlas-dir", str(folder))]
        fast = ["--init", "axes", "--refine", "none", "--nprocs", "1"]
        return self.program([*places, "-w", str(self.folder / work), *dirs, *fast, *options])

    def anat(self, out: str, subject: str) -> Path:
        return self.folder / out / f"sub-{subject}" / "anat"


def stem(runs: Runs, out: str, subject: str = "01") -> str:
    return str(runs.anat(out, subject) / f"sub-{subject}_rec-svr")


def content(path: Path) -> Any:
    """What a file holds, without the times that differ from run to run."""
    if path.suffix != ".json":
        return path.read_bytes()
    return json.dumps({key: value for key, value in read_json(path).items() if key not in TIMES})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
