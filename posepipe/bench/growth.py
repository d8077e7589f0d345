"""How time and memory grow with the number of images, voxels, slices, participants, and images on the group page: ``posepipe-tools bench
growth``.

Each row is one command of posepipe in a fresh process with one thread, on a dataset made of one phantom
(:mod:`posepipe.bench.growth_data`).
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..imaging.volume import load_volume
from .growth_data import WEEKS, Study, write_dataset, write_outputs, write_regridded
from .growth_run import GrowthError, Used, run_command
from .rows import PartFile, typed

_APP = [sys.executable, "-c", "import sys; from posepipe.cli.app import main; sys.exit(main())"]
_TOOLS = [sys.executable, "-c", "import sys; from posepipe.cli.tools import main; sys.exit(main())"]
AGE = str(WEEKS[1])
MATRIX = 256
"""Pixels of a slice along each edge, a usual matrix of a scanner; the pixels are smaller than half of the slice distance, so that the
image is taken for a stack, up to about 120 slices."""


@dataclass(frozen=True)
class Job:
    """A ``command`` to be measured, and ``done``, which counts afterwards what it did (must be the size)."""

    command: list[str]
    done: Callable[[Path], int]


@dataclass(frozen=True)
class Quantity:
    """Something that grows: ``title`` for tables, ``sizes``, ``prepare`` (study, folder for the data, folder for the outputs, size) → job,
    and ``dimensions``: the work is expected to be proportional to the size to this power."""

    title: str
    sizes: tuple[int, ...]
    prepare: Callable[[Study, Path, Path, int], Job]
    dimensions: int = 1


@dataclass(frozen=True)
class Row:
    """One command; the fields are the columns of the CSV files in ``parts/``."""

    quantity: str
    size: int
    repeat: int
    seconds: float
    processor: float
    peak_mb: float

    @classmethod
    def of(cls, row: dict[str, str]) -> Row:
        """From a row of the CSV."""
        return typed(cls, row)


def _images(study: Study, data: Path, out: Path, size: int) -> Job:
    bids = write_dataset(study, data / "bids", size)
    command = [*_APP, str(bids), str(out), "participant", *study.options, "-w", str(data / "work"), "--nprocs", "1"]
    return Job(command, lambda _: len(list(out.glob("sub-*/anat/*_from-T2w_to-*_xfm.txt"))))


def _subjects(study: Study, data: Path, out: Path, size: int) -> Job:
    bids = write_dataset(study, data / "bids", size)
    command = [*_APP, str(bids), str(out), "participant", *study.options, "-w", str(data / "work"), "--dry-run"]
    return Job(command, lambda log: sum(line.startswith("  sub-") for line in log.read_text(encoding="utf-8").splitlines()))


def _page(study: Study, data: Path, out: Path, size: int) -> Job:
    bids = write_dataset(study, data / "bids", size)
    write_outputs(study, finished(study), out, size)
    command = [*_APP, str(bids), str(out), "group", "--nprocs", "1"]
    return Job(command, lambda _: len((out / "group_pose.tsv").read_text(encoding="utf-8").splitlines()) - 1)


def _slices(study: Study, data: Path, out: Path, size: int) -> Job:
    image = write_regridded(study, data / "stack.nii.gz", (MATRIX, MATRIX, size))
    command = [*_TOOLS, "align", str(image), "--age", AGE, "-o", str(out), *study.options]
    return Job(command, lambda _: len(next(out.glob("*_desc-slices_pose.tsv")).read_text(encoding="utf-8").splitlines()) - 1)


def _voxels(study: Study, data: Path, out: Path, size: int) -> Job:
    image = write_regridded(study, data / "image.nii.gz", (size, size, size))
    command = [*_TOOLS, "align", str(image), "--age", AGE, "-o", str(out), *study.options]
    return Job(command, lambda _: round(math.prod(load_volume(next(out.glob("*reoriented*.nii.gz"))).shape) ** (1 / 3)))


QUANTITIES = {
    "images": Quantity("images in a job", (1, 4, 16, 64), _images),
    "voxels": Quantity("voxels of an image (n³)", (64, 128, 256, 512), _voxels, dimensions=3),
    "slices": Quantity("slices of a stack", (10, 30, 100), _slices),
    "subjects": Quantity("participants in the dataset, planned", (10, 100, 1000, 3000), _subjects),
    "page": Quantity("images on the group page", (10, 100, 1000, 5000), _page),
}
"""By name. First and last sizes are those that a large study has; those between are evenly spread on a logarithmic scale."""


def sizes_of(name: str, largest: int | None) -> list[int]:
    """The sizes of a quantity: those below ``largest``, and it (or the last size, if that is less).

    >>> sizes_of("images", None), sizes_of("images", 8), sizes_of("page", 4)
    ([1, 4, 16, 64], [1, 4, 8], [4])
    """
    sizes = QUANTITIES[name].sizes
    top = sizes[-1] if largest is None else min(largest, sizes[-1])
    return [*(size for size in sizes if size < top), top]


def finished(study: Study) -> Path:
    """The output dataset of the study's one participant, computed if it is not there."""
    out = study.folder / "out"
    if not (out / "sub-01.html").is_file():
        command = [*_APP, str(study.bids_dir), str(out), "participant", *study.options, "-w", str(study.folder / "work"), "--nprocs", "1"]
        run_command(command, study.folder / "out.txt")
    return out


def part_path(output: Path, name: str) -> Path:
    """Path of the rows of one quantity."""
    return output / "parts" / f"{name}.csv"


def measure(study: Study, output: Path, name: str, sizes: Sequence[int], repeats: int) -> Iterator[Row]:
    """Measure what ``parts/NAME.csv`` does not hold yet, repeat by repeat, and yield each new row."""
    part = PartFile(part_path(output, name))
    done = {(row["size"], row["repeat"]) for row in part.rows}
    for repeat in range(repeats):
        for size in sizes:
            if (str(size), str(repeat)) not in done:
                used = _measured(study, output, name, size)
                row = Row(name, size, repeat, used.seconds, used.processor, used.peak_mb)
                part.add(vars(row))
                yield row


def _measured(study: Study, output: Path, name: str, size: int) -> Used:
    log = output / "logs" / f"{name}_{size}.txt"
    with tempfile.TemporaryDirectory(prefix=".data-", dir=output) as folder:
        out = Path(folder) / "out"
        job = QUANTITIES[name].prepare(study, Path(folder), out, size)
        used = run_command(job.command, log)
        if (number := job.done(log)) != size:
            msg = f"{name}: of {size} only {number} were done; see {log}"
            raise GrowthError(msg)
    return used


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Exponent of growth: least-squares slope of log value over log size; 1 is linear.

    >>> round(slope([1, 10, 100], [2, 20, 200]), 3), round(slope([10, 100], [3, 300]), 3)
    (1.0, 2.0)
    """
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
