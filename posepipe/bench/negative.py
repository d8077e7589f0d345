"""Negative controls: the outcome for images that show no fetal or newborn brain, by every initial pose. None may pass.

Images: noise without background; balls of noise with a background of exactly 0, like extracted brains; parts of whole-uterus scans beside
the brain; brains of a child of six years and of an adult; and templates of newborns and of infants of three months (BCP), with an age of
40 weeks and with an estimated age. The newborn templates may pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..aligner import Aligner
from ..errors import MaskError
from ..imaging.volume import Volume, load_volume
from ..settings import ESTIMATE
from .brains import brain_images, chosen, smooth_noise
from .rows import PartFile

BALLS = 4
WEEKS: dict[str, float | str] = {"noise": 30.0, "ball": 30.0, "piece": 31.0, "older": 40.0, "older, age estimated": ESTIMATE}


def images(data: Path, names: tuple[str, ...] | None = None) -> Iterator[tuple[str, str, Volume]]:
    """Kind, name and image of the controls; those of ``names`` and some others."""
    for one in brain_images(data, names):
        if one.center is None:
            yield "noise" if one.name.startswith("noise") else "piece", one.name, one.image
    for seed in range(BALLS):
        noise = smooth_noise(seed)
        offset = np.moveaxis(np.indices(noise.shape), 0, -1) - (np.array(noise.shape) - 1) / 2
        # ellipsoids of the size and shape of a brain at 30 weeks, 240 ml
        inside = np.linalg.norm(offset * noise.spacing / [34.0, 42.0, 40.0], axis=-1) < 1
        yield "ball", f"ball {seed}", noise.with_data(noise.data * inside)
    older = [*sorted((data / "ds-negative").rglob("*_T1w.nii.gz")), *sorted((data / "atlases/tpl-BCP").rglob("*_T?w.nii.gz"))]
    for path in older:
        yield "older", path.name, load_volume(path)
        yield "older, age estimated", f"{path.name}, age estimated", load_volume(path)


def measure(data: Path, part: PartFile, inits: tuple[str, ...], names: tuple[str, ...] | None = None) -> None:
    """Add to ``part`` a row for each image and initial pose: its outcome, ``refused`` (no brain was found) or the verdict."""
    done = {(r["name"], r["init"]) for r in part.rows}
    aligners = {init: Aligner(atlas_dirs=[data / "atlases"], init=init, refine="torch", threads=1) for init in inits}
    for kind, name, image in images(data, names):
        for init, aligner in aligners.items():
            if (name, init) in done or not chosen(name, names):
                continue
            outcome = why = ""
            try:
                found = aligner.align(image, WEEKS[kind])
                outcome, why = found.quality.qc, "; ".join(found.quality.reasons)
            except MaskError as error:
                outcome, why = "refused", str(error)
            part.add({"kind": kind, "name": name, "init": init, "outcome": outcome, "why": why.replace("\n", " ")})


def report(rows: list[dict[str, str]]) -> str:
    """Markdown: outcomes by kind of image and initial pose, and the images whose outcome depends on the initial pose."""
    outcomes = ("refused", "fail", "review", "pass")
    lines = [f"| images | n | --init | {' | '.join(outcomes)} |", "|" + "---|" * (3 + len(outcomes))]
    for kind, init in dict.fromkeys((r["kind"], r["init"]) for r in rows):
        mine = [r["outcome"] for r in rows if (r["kind"], r["init"]) == (kind, init)]
        lines.append(f"| {kind} | {len(mine)} | {init} | {' | '.join(str(mine.count(o)) for o in outcomes)} |")
    by_name = {name: {r["init"]: r["outcome"] for r in rows if r["name"] == name} for name in dict.fromkeys(r["name"] for r in rows)}
    lines.append("")
    lines += [f"- {name}: {by}" for name, by in by_name.items() if len(set(by.values())) > 1]
    return "\n".join(lines)
