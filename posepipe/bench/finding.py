"""Sensitivity of the brain finder to its constants: all held-out raw scans, with one constant changed at a time.

``python -m posepipe.bench.finding DATA OUT.csv a=DIR b=DIR c=DIR``, with the weights folders of networks that were trained without the
scans of a fold (``posepipe/training/scans.toml``). For each setting it prints the number of brains found (centre within 10 mm of that of
the delineated mask or of the landmark) and of brains refused, Dice with delineated masks, the number of network poses within 30°, and
seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ..brainmask import finder
from ..errors import MaskError
from ..geometry import so3
from ..imaging.mask import given_mask
from ..imaging.moments import moments
from ..imaging.volume import load_volume
from .constants import constants_set
from .rows import PartFile
from .scans import RIGHT_DEGREES, ScanCase, overlap, scan_cases

NEAR_MM = 10.0
SETTINGS: Mapping[str, Mapping[str, float]] = {
    "as it is": {},
    "overview every 3 mm": {"brainmask.finder.OVERVIEW_MM": 3.0},
    "overview every 5 mm": {"brainmask.finder.OVERVIEW_MM": 5.0},
    "one candidate": {"brainmask.finder.CANDIDATES": 1},
    "two candidates": {"brainmask.finder.CANDIDATES": 2},
    "six candidates": {"brainmask.finder.CANDIDATES": 6},
    "fullness 0.05": {"brainmask.finder.LEAST_SHARE": 0.05},
    "fullness 0.2": {"brainmask.finder.LEAST_SHARE": 0.2},
    "crops of 1.45 radii": {"brainmask.finder.WIDE": 1.45},
    "crops of 1.75 radii": {"brainmask.finder.WIDE": 1.75},
    "outlines of 1.1 radii": {"brainmask.finder.OUTLINED": 1.1},
    "outlines of 1.3 radii": {"brainmask.finder.OUTLINED": 1.3},
    "outlines of 1.4 radii": {"brainmask.finder.OUTLINED": 1.4},
    "one round": {"brainmask.finder.ROUNDS": 1},
    "two rounds": {"brainmask.finder.ROUNDS": 2},
    "three rounds": {"brainmask.finder.ROUNDS": 3},
    "five rounds": {"brainmask.finder.ROUNDS": 5},
    "one copy": {"brainmask.finder.COPIES": 1},
    "four copies": {"brainmask.finder.COPIES": 4},
    "sixteen copies": {"brainmask.finder.COPIES": 16},
    "cells from 0.2": {"brainmask.detection.LEAST_P": 0.2},
    "cells from 0.5": {"brainmask.detection.LEAST_P": 0.5},
    "peaks of 3 cells": {"brainmask.detection.PEAK": 3},
    "peaks of 7 cells": {"brainmask.detection.PEAK": 7},
    "same within 0.4 radii": {"brainmask.detection.SAME": 0.4},
    "same within 0.8 radii": {"brainmask.detection.SAME": 0.8},
}


def measured(case: ScanCase, of: finder.BrainFinder) -> dict[str, object]:
    """Distance (mm) of the found from the true brain centre, Dice with the delineated mask, error of the network's rotation (degrees),
    and seconds; None where the truth is unknown."""
    image = load_volume(case.image)
    manual_mask = given_mask(load_volume(case.mask), image).volume if case.mask else None
    center = case.center if manual_mask is None else moments(manual_mask).center
    begun = time.perf_counter()
    try:
        mask = of.find(image)
    except MaskError:
        return {"mm": None, "dice": None if manual_mask is None else 0.0, "degrees": 180.0, "seconds": time.perf_counter() - begun}
    seconds = time.perf_counter() - begun
    assert center is not None and mask.found is not None
    return {
        "mm": float(np.linalg.norm(moments(mask.volume).center - center)),
        "dice": None if manual_mask is None else overlap(manual_mask.data, mask.volume.data),
        "degrees": None if case.rotation is None else float(np.degrees(so3.geodesic_distance(mask.found.rotation, case.rotation))),
        "seconds": seconds,
    }  # fmt: skip


def line(title: str, rows: list[dict[str, str]]) -> str:
    """One line of the table."""
    mm, dice, degrees = (np.array([float(r[key]) for r in rows if r[key]]) for key in ("mm", "dice", "degrees"))
    cells = (
        title, len(rows), int((mm <= NEAR_MM).sum()), sum(not r["mm"] for r in rows), f"{dice.mean():.3f}", f"{dice.min():.3f}",
        f"{int((degrees <= RIGHT_DEGREES).sum())} of {len(degrees)}", f"{np.median(degrees):.1f}°",
        f"{np.median([float(r['seconds']) for r in rows]):.2f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def main(data: Path, output: Path, folds: Mapping[str, Path]) -> None:
    """Write a row for each scan and setting to ``output``, skip rows that exist, and print the table. Uses one thread."""
    torch.set_num_threads(1)
    finders = {fold: finder.BrainFinder(folder) for fold, folder in folds.items()}
    cases = [case for case in scan_cases(data, ("epi", "scans", "stacks")) if case.fold in finders]
    part = PartFile(output)
    done = {(r["setting"], r["name"]) for r in part.rows}
    print("| set otherwise | scans | within 10 mm | refused | Dice mean | Dice min | within 30° | median | s |\n" + "|---" * 9 + "|")
    for title, values in SETTINGS.items():
        with constants_set(values):
            for case in cases:
                if (title, case.name) not in done:
                    part.add({"setting": title, "name": case.name} | measured(case, finders[case.fold]))
        print(line(title, [r for r in part.rows if r["setting"] == title]), flush=True)


if __name__ == "__main__":
    of_folds = (text.partition("=") for text in sys.argv[3:])
    main(Path(sys.argv[1]), Path(sys.argv[2]), {fold: Path(folder) for fold, _, folder in of_folds})
