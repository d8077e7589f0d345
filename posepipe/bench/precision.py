"""Reproducibility of decisions across floating-point precisions and CPUs: the same images with each setting, in a process of its own.

Settings: single precision (posepipe's default), single precision without AVX-512, and bfloat16. Images: those of
:func:`posepipe.bench.brains.brain_images`, none of a test: real scans with and without a brain, newborns with synthetic surroundings,
noise.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..aligner import Aligner
from ..errors import MaskError
from ..files import replacing
from ..geometry import so3
from ..models.precision import VARIABLE
from .brains import brain_images
from .scans import overlap

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "float32": {VARIABLE: "float32"},
    "float32-avx2": {VARIABLE: "float32", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "bfloat16": {VARIABLE: "bfloat16"},
}
"""Setting → environment variables. The second makes oneDNN and torch compute as on a CPU without AVX-512."""
WEEKS = 31.0
INITS = ("auto", "deep")


@dataclass(frozen=True)
class Answer:
    """The result for an image: ``verdict`` (QC, or ``refused``), ``mask`` (X, Y, Z) bool, rotation vectors (radians) of the poses by each
    of :data:`INITS`, and seconds for the mask and in total."""

    verdict: str
    mask: np.ndarray
    poses: tuple[np.ndarray, ...]
    seconds: tuple[float, float]


def answers(data: Path, folder: Path, names: tuple[str, ...] | None = None) -> None:
    """Write the result for each image as ``folder/NAME.npz``; existing files are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    aligners = [Aligner(atlas_dirs=[data / "atlases"], init=init, refine="torch", mask="network", threads=1) for init in INITS]
    for one in brain_images(data, names):
        name, image = one.name, one.image
        path = folder / f"{name.replace(' ', '_')}.npz"
        if path.exists():
            continue
        begun = time.perf_counter()
        try:
            brain = aligners[0].finder.find(image)
            masked = time.perf_counter() - begun
            auto, deep = (aligner.align_masked(image, brain, WEEKS, contrast="T2w") for aligner in aligners)
            verdict, mask = auto.quality.qc, auto.mask.volume.data
            poses = [one.initial.pose.rotvec for one in (auto, deep)]
        except MaskError:
            masked = time.perf_counter() - begun
            verdict, mask, poses = "refused", np.zeros(image.shape, bool), [np.full(3, np.nan)] * len(INITS)
        seconds = (masked, time.perf_counter() - begun)
        with replacing(path) as temporary:
            np.savez_compressed(temporary, name=name, verdict=verdict, mask=mask, poses=np.stack(poses), seconds=seconds)


def run_all(data: Path, output: Path, names: tuple[str, ...] | None = None) -> dict[str, dict[str, Answer]]:
    """Setting → image → result, with one process for each setting in turn."""
    for setting, environment in SETTINGS.items():
        command = [sys.executable, "-m", "posepipe.bench.precision", str(data), str(output / setting), *(names or ())]
        subprocess.run(command, check=True, env={**os.environ, **environment})
    return {setting: read_answers(output / setting) for setting in SETTINGS}


def read_answers(folder: Path) -> dict[str, Answer]:
    """Image → result, from the files of :func:`answers`."""
    found = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as content:
            masked, whole = content["seconds"]
            poses = tuple(content["poses"])
            found[str(content["name"])] = Answer(str(content["verdict"]), content["mask"], poses, (float(masked), float(whole)))
    return found


def report(found: Mapping[str, Mapping[str, Answer]]) -> str:
    """Markdown: each setting compared with the first."""
    first, *others = found
    head = ["images", "verdicts that differ", "masks, least Dice", "poses: auto, most", "deep, most", "mask, median s", "all, median s"]
    lines = [f"| setting | {' | '.join(head)} |", "|" + "---|" * (len(head) + 1), _line(first, found[first], found[first])]
    lines += [_line(name, found[first], found[name]) for name in others]
    differ = [
        f"{name}, {image}: {found[first][image].verdict} → {answer.verdict}"
        for name in others for image, answer in found[name].items() if answer.verdict != found[first][image].verdict
    ]  # fmt: skip
    return "\n".join([*lines, "", *(f"- {d}" for d in differ)])


def _line(name: str, base: Mapping[str, Answer], these: Mapping[str, Answer]) -> str:
    both = [(base[image], answer) for image, answer in these.items()]
    kept = [(a, b) for a, b in both if a.verdict != "refused" and b.verdict != "refused"]
    verdicts = sum(a.verdict != b.verdict for a, b in both)
    dice = min((overlap(a.mask, b.mask) for a, b in kept), default=float("nan"))
    apart = np.array([[_degrees(x, y) for x, y in zip(a.poses, b.poses, strict=True)] for a, b in kept]).reshape(-1, len(INITS))
    most = apart.max(0) if len(apart) else np.full(len(INITS), np.nan)
    masked, whole = np.median([b.seconds for _, b in both], axis=0)
    cells = [len(both), verdicts, f"{dice:.4f}", *(f"{m:.3f}°" for m in most), f"{masked:.2f}", f"{whole:.2f}"]
    return f"| {name} | {' | '.join(map(str, cells))} |"


def _degrees(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(so3.geodesic_distance(so3.exp(a), so3.exp(b))))


def write_csv(found: Mapping[str, Mapping[str, Answer]], path: Path) -> None:
    """Write a row for each image and setting."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "setting", "verdict", "voxels", "seconds_mask", "seconds_all"])
        for setting, images in found.items():
            for image, a in images.items():
                writer.writerow([image, setting, a.verdict, int(a.mask.sum()), *(f"{s:.2f}" for s in a.seconds)])


if __name__ == "__main__":
    answers(Path(sys.argv[1]), Path(sys.argv[2]), tuple(sys.argv[3:]) or None)
