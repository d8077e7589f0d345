"""A small study of phantoms with some broken images among them, and the BIDS App run over it once."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from posepipe.cli.app import main
from posepipe.phantom.demo_data import DemoDataset, write_demo


@dataclass(frozen=True)
class Study:
    """A dataset with its atlas, and where the app's outputs and work go; ``main`` runs the app over it."""

    demo: DemoDataset
    out: Path
    work: Path

    @property
    def bids(self) -> Path:
        return self.demo.bids_dir

    def command(self, *options: str) -> list[str]:
        """The command line: the fast methods, one process, everything this study needs."""
        return [
            str(self.bids), str(self.out), "participant", "-w", str(self.work),
            "--atlas", "Phantom", "--atlas-dir", str(self.demo.atlas_dir), "-d", str(self.demo.masks_dir),
            "--init", "search", "--refine", "torch", "--nprocs", "1", *options,
        ]  # fmt: skip

    def main(self, *options: str) -> tuple[int, str]:
        """Exit code and what was printed."""
        return run_main(self.command(*options))

    def copy(self, folder: Path) -> Study:
        """The same study elsewhere, outputs and work included, so that a test may change it."""
        for source in (self.bids, self.out, self.work):
            if source.exists():
                shutil.copytree(source, folder / source.name)
        demo = replace(self.demo, bids_dir=folder / "bids", masks_dir=folder / "bids" / "derivatives" / "masks")
        return Study(demo, folder / "out", folder / "work")


def run_main(command: list[str]) -> tuple[int, str]:
    """Exit code of the app, and all that it printed."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            code = main(command)
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
    return code, output.getvalue()


@pytest.fixture(scope="session")
def run_posepipe() -> Callable[[list[str]], tuple[int, str]]:
    return run_main


@pytest.fixture(scope="session")
def raw_study(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Study:
    """The study before anything ran: 01–04 in order, 05 without an age, 06 damaged (a wrong checksum), 07 no image at all."""
    folder = tmp_path_factory.mktemp("study")
    demo = write_demo(folder, spacing=1.5)
    good = demo.bids_dir / "sub-01" / "anat" / "sub-01_rec-svr_T2w.nii.gz"
    packed = good.read_bytes()
    for label, content in {
        "05": good.read_bytes(),
        "06": packed[:-8] + bytes(4) + packed[-4:],
        "07": b"no image at all",
    }.items():
        anat = demo.bids_dir / f"sub-{label}" / "anat"
        anat.mkdir(parents=True)
        (anat / f"sub-{label}_T2w.nii.gz").write_bytes(content)
    with (demo.bids_dir / "participants.tsv").open("a") as table:
        table.write("sub-05\tn/a\nsub-06\t24.3\nsub-07\t24.3\n")
    return Study(demo, folder / "out", folder / "work")


@dataclass(frozen=True)
class FirstRun:
    study: Study
    code: int
    output: str


@pytest.fixture(scope="session")
def first_run(raw_study: Study, tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    """The app over the whole study, once, on a copy that stays the raw one; tests that change anything work on a copy of this."""
    study = raw_study.copy(tmp_path_factory.mktemp("first"))
    code, output = study.main()
    return FirstRun(study, code, output)


@pytest.fixture(scope="session")
def small_atlas(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A folder with the phantoms' atlas of 24 and 31 weeks, coarse: for plans, in which nothing is aligned."""
    return write_demo(tmp_path_factory.mktemp("small"), n_subjects=1, weeks=[24, 31], spacing=6.0).atlas_dir
