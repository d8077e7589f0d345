"""Peak memory of the stages of processing by image size: ``python -m posepipe.bench.memory DATA -o FOLDER``.

These measurements are the source of the memory that the workflow assigns to its nodes (:mod:`posepipe.workflows.memory`). Each case is
two images in one process of ``posepipe participant`` with default options, one after the other, so that the second includes memory
retained from the first, as in a MultiProc worker. The peaks are read from the sidecars.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..bids import read_json, write_json
from ..files import copy_file, write_text
from ..imaging.volume import Volume, load_volume, save_volume
from .rows import read_rows, write_rows

_RUN = "import sys; from posepipe.cli.app import main; sys.exit(main())"
_NEWBORN, _STACK = "sub-A02", "sub-01_run-1_T2w"


@dataclass(frozen=True)
class Case:
    """Images of one size. ``images``: (file in the data folder, contrast); ``mask``: file of the mask of the first image; ``weeks``: age.

    ``edge``: edge (mm) of the voxels to which the images are resampled by linear interpolation, in a field of view of ``field`` mm with
    noise about the brain; of a stack only in the plane of its slices.
    """

    name: str
    images: tuple[tuple[str, str], ...]
    weeks: float
    mask: str = ""
    edge: float = 0.0
    field: float = 0.0
    options: tuple[str, ...] = ()


def cases() -> list[Case]:
    """The measured sizes: real images, and real images resampled to finer grids."""
    newborn, fetus, epi = "ds-neonates/{0}/anat/{0}_{1}.nii.gz", "ds-fetal/sub-f234/anat/sub-f234_rec-svr_T2w.nii.gz", "ds-epi/sub-E01/anat"
    both = tuple((newborn.format(_NEWBORN, c), c) for c in ("T1w", "T2w"))
    small = tuple((newborn.format("sub-A01", c), c) for c in ("T1w", "T2w"))
    stack = ((f"ds-stacks/sub-01/anat/{_STACK}.nii.gz", "T2w"),) * 2
    mask = f"ds-stacks/derivatives/manual_masks/sub-01/anat/{_STACK}_desc-brain_mask.nii.gz"
    return [
        Case("fetus", ((fetus, "T2w"),) * 2, 29),
        Case("newborn", small, 41, options=("--convert", "always")),
        Case("newborn-network", small, 41, options=("--convert", "always", "--mask", "network")),
        Case("epi", ((f"{epi}/sub-E01_acq-epi_T2w.nii.gz", "T2w"),) * 2, 31),
        Case("stack", stack, 24, mask=mask),
        Case("stack-fine", stack, 24, mask=mask, edge=0.5625),
        Case("newborn-200", both, 44, edge=0.8, field=160, options=("--convert", "always")),
        Case("newborn-320", both, 44, edge=0.5, field=160, options=("--convert", "always")),
    ]


def main(argv: list[str] | None = None) -> int:
    """Measure, and write ``memory.csv`` (a row for each image and stage) and ``memory.md``. Cases that the CSV holds are not measured
    again."""
    parser = argparse.ArgumentParser(prog="python -m posepipe.bench.memory")
    parser.add_argument("data", type=Path, help="folder with atlases/ and ds-*")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the CSV and the tables")
    parser.add_argument("--names", nargs="+", help="only these cases")
    args = parser.parse_args(argv)
    table = args.output / "memory.csv"
    rows = read_rows([table])
    for case in cases():
        if case.name in {row["case"] for row in rows} or (args.names and case.name not in args.names):
            continue
        with tempfile.TemporaryDirectory(prefix="posepipe-memory-") as folder:
            rows += measure(case, args.data.resolve(), Path(folder))
        args.output.mkdir(parents=True, exist_ok=True)
        write_rows(table, rows)
    text = tables(rows)
    write_text(args.output / "memory.md", text + "\n")
    print(text)
    return 0


def measure(case: Case, data: Path, folder: Path) -> list[dict[str, str]]:
    """Run posepipe on the images of ``case`` in ``folder``; a row for each image and stage. Raises RuntimeError if it fails."""
    bids, masks = folder / "bids", folder / "masks"
    for place, kind in ((bids, "raw"), (masks, "derivative")):
        place.mkdir()
        about = {"Name": case.name, "BIDSVersion": "1.9.0", "DatasetType": kind, "GeneratedBy": [{"Name": "posepipe.bench.memory"}]}
        write_json(place / "dataset_description.json", about)
    for n, (image, contrast) in enumerate(case.images, start=1):
        name = f"sub-{n:02d}/anat/sub-{n:02d}"
        _put(case, data / image, bids / f"{name}_{contrast}.nii.gz", order=1)
        if case.mask:
            _put(case, data / case.mask, masks / f"{name}_desc-brain_mask.nii.gz", order=0)
    command = [sys.executable, "-c", _RUN, str(bids), str(folder / "out"), "participant", "--age", str(case.weeks)]
    command += ["-w", str(folder / "work"), "--atlas-dir", str(data / "atlases"), "--nprocs", "1", *case.options]
    command += ["-d", str(masks)] if case.mask else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, flush=True)
    rows = []
    for path in sorted((folder / "out").glob("sub-*/anat/*_mode-image_xfm.json")):
        sidecar = read_json(path)
        if "PeakMemoryMB" not in sidecar:
            continue
        image = bids / sidecar["Sources"][0].removeprefix("bids:raw:")
        voxels = int(np.prod(load_volume(image).shape))
        about = {"case": case.name, "image": image.name, "megavoxels": f"{voxels / 1e6:.3f}"}
        rows += [
            about | {"stage": stage, "peak_mb": f"{peak:.1f}", "seconds": f"{sidecar['Seconds'][stage]:.2f}"}
            for stage, peak in sidecar["PeakMemoryMB"].items()
        ]
    if done.returncode or len({row["image"] for row in rows}) < len(case.images):
        msg = f"{case.name}: posepipe ended with {done.returncode}\n{done.stdout}{done.stderr}"
        raise RuntimeError(msg)
    return rows


def _put(case: Case, source: Path, path: Path, order: int) -> None:
    """Write the image ``source`` to its place in the dataset, on the case's grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not case.edge:
        copy_file(source, path)
        return
    volume = load_volume(source)
    save_volume(_regridded(volume, case.edge, case.field, order), path, np.int16)


def _regridded(volume: Volume, edge: float, field: float, order: int) -> Volume:
    """``volume`` with voxels of ``edge`` mm in a cube of ``field`` mm about its centre; with ``field`` 0 only the in-plane spacing
    changes."""
    spacing = np.where(volume.spacing == volume.spacing.max(), volume.spacing.max(), edge) if not field else np.full(3, edge)
    shape = np.round(np.full(3, field) / edge if field else np.array(volume.shape) * volume.spacing / spacing).astype(int)
    step = spacing / volume.spacing
    first = (np.array(volume.shape) - 1) / 2 - step * (shape - 1) / 2
    data = ndimage.affine_transform(volume.data, np.diag(step), first, tuple(shape), order=order, output=np.float32)
    if field:
        data += np.random.default_rng(0).rayleigh(20, data.shape).astype(np.float32)
    affine = volume.affine @ np.vstack([np.column_stack([np.diag(step), first]), [0, 0, 0, 1]])
    return Volume(data, affine, source=volume.source)


def line_above(points: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The line (intercept, slope; both non-negative) that is on or above all ``points`` (x, y) with the smallest sum of distances to
    them.

    >>> line_above([(1, 2), (2, 2), (3, 4)])
    (1.0, 1.0)
    >>> line_above([(1, 2), (1, 3)])
    (3.0, 0.0)
    """
    points = [(float(x), float(y)) for x, y in points]
    slopes = {0.0, *((b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points, 2) if a[0] != b[0])}
    lines = [(max(0.0, *(y - slope * x for x, y in points)), slope) for slope in slopes if slope >= 0]
    return min(lines, key=lambda line: sum(line[0] + line[1] * x - y for x, y in points))


def tables(rows: list[dict[str, str]]) -> str:
    """Markdown: the larger peak (GB) of the images of a case by stage, and for each stage the line above all images."""
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    names = list(dict.fromkeys(row["case"] for row in rows))
    lines = [f"| case | 10⁶ voxels | {' | '.join(stages)} |", "|---" * (len(stages) + 2) + "|"]
    for name in names:
        own = [row for row in rows if row["case"] == name]
        peaks = {s: max((float(r["peak_mb"]) for r in own if r["stage"] == s), default=None) for s in stages}
        size = max(float(row["megavoxels"]) for row in own)
        lines.append(f"| {name} | {size:.2f} | " + " | ".join("–" if p is None else f"{p / 1000:.2f}" for p in peaks.values()) + " |")
    lines += ["", "| stage | images | GB at 0 voxels | GB for 10⁶ voxels |", "|---|---|---|---|"]
    for stage in stages:
        own = [row for row in rows if row["stage"] == stage]
        base, slope = line_above((float(r["megavoxels"]), float(r["peak_mb"]) / 1000) for r in own)
        lines.append(f"| {stage} | {len(own)} | {base:.3f} | {slope:.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
