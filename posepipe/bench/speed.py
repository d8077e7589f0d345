"""Speed and error of posepipe beside the registration tools that people use, on the same images with the same number of threads.

The parent process turns each image as in the other benches and writes image and template, both brain-extracted, uncompressed and of mean
:data:`MEAN` within the brain, to a folder. Each tool then works in a process of its own (:mod:`posepipe.bench.speed_worker`) on as many
processors as it may have threads. Start-up, reading and registration are timed apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import replacing, write_text
from ..geometry import Rigid
from ..imaging.volume import Volume, save_volume
from .baselines import brain_of
from .classical import BINS, Case, cases
from .rows import typed
from .tools.base import Options
from .trials import LAST_BINS, TrialGenerator, parse_corruption
from .volume import volume_cases

MEAN = 100.0
"""Mean of the brain in the files, the same for image and template, as ``mrregister`` compares intensities by their difference. Any value
would do."""
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One registration; the fields are the columns of the CSV. ``degrees``, ``mm``: error of the rotation and of the template's centre,
    empty if it failed, with the reason in ``failure``; ``determinant`` of the linear map; ``seconds`` of the registration alone, ``start``
    of the tool, ``read`` of both images (empty: within ``seconds``); ``parts``: stages of ``seconds``; ``processor``: seconds of processor
    time, reading included, which other work on the machine hardly changes; ``peak_mb`` of the process so far."""

    method: str
    threads: int
    group: str
    name: str
    trial: int
    bin: int
    repeat: int
    degrees: float | None
    mm: float | None
    determinant: float | None
    seconds: float | None
    start: float
    read: float | None
    parts: str
    processor: float
    peak_mb: float
    failure: str

    @classmethod
    def of(cls, row: dict[str, str]) -> Row:
        """From a row of the CSV."""
        return typed(cls, row)


@dataclass(frozen=True, eq=False)
class Scene:
    """An image to be registered: files of the brain-extracted ``image`` and ``template``, and the ``truth`` (template → image, RAS mm) with
    the template's ``center``."""

    group: str
    name: str
    trial: int
    bin: int
    image: Path
    template: Path
    truth: Rigid
    center: tuple[float, float, float]


def speed_cases(data: Path, names: Sequence[str] = ()) -> list[Case]:
    """The fetus, the newborns that the split keeps for testing (T2w), and the first raw stack; only those that start with ``names``."""
    found = volume_cases(data, ("fetus", "newborn-T2w"))
    if not names or any(name.startswith("sub-01") for name in names):
        found += cases(data, ("stacks",))[:1]
    return [case for case in found if not names or case.name.startswith(tuple(names))]


def write_scenes(found: Sequence[Case], folder: Path, *, turns: int, seed: int) -> None:
    """Write the scenes of all cases, ``turns`` in each of the six bins; those that are there are left."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in found:
        numbers = [n for n in range(turns * len(LAST_BINS)) if n % len(LAST_BINS) < len(BINS)]
        wanted = [n for n in numbers if not (folder / f"{case.name}_{seed}_{n}.json").is_file()]
        generator = TrialGenerator(case) if wanted else None
        for number in wanted:
            assert generator is not None
            _write_scene(generator, case, folder, number, seed)


def _write_scene(generator: TrialGenerator, case: Case, folder: Path, number: int, seed: int) -> None:
    trial, which = generator.trial(number, parse_corruption("none"), seed)
    target, about = trial.target, case.template
    template = folder / f"{about.space}_{about.contrast}.nii"
    if not template.is_file():
        known = {"atlas": about.atlas, "cohort": about.cohort, "contrast": about.contrast}
        write_text(template.with_suffix(".json"), json.dumps(known))
        save_volume(_scaled(brain_of(target.volume, target.mask)), template, np.float32)
    stem = f"{case.name}_{seed}_{number}"
    save_volume(_scaled(brain_of(trial.image, trial.mask)), folder / f"{stem}.nii", np.float32)
    record = {
        "group": case.group, "name": case.name, "trial": number, "bin": which, "template": template.name,
        "truth": trial.truth.matrix.tolist(), "center": list(map(float, target.brain.center)),
    }  # fmt: skip
    write_text(folder / f"{stem}.json", json.dumps(record))


def _scaled(brain: Volume) -> Volume:
    return brain.with_data((brain.data * (MEAN / brain.data[brain.data > 0].mean())).astype(np.float32))


def read_scenes(found: Sequence[Case], folder: Path, *, turns: int, seed: int) -> Iterator[Scene]:
    """The scenes that :func:`write_scenes` wrote, in the same order."""
    for case in found:
        for number in range(turns * len(LAST_BINS)):
            if number % len(LAST_BINS) < len(BINS):
                yield scene_of(folder / f"{case.name}_{seed}_{number}.json")


def scene_of(path: Path) -> Scene:
    """The scene in the file ``path``."""
    about = json.loads(path.read_text(encoding="utf-8"))
    x, y, z = about["center"]
    return Scene(
        about["group"], about["name"], about["trial"], about["bin"], path.with_suffix(".nii"), path.parent / about["template"],
        Rigid.from_matrix(about["truth"]), (x, y, z),
    )  # fmt: skip


def part_path(folder: Path, method: str, threads: int) -> Path:
    """Path of the rows of one method."""
    return folder / "parts" / f"{method}_{threads}.csv"


def run_method(scenes: Sequence[Scene], folder: Path, method: str, *, options: Options, repeats: int, pinned: bool = True) -> int:
    """Measure one method in a process of its own, ``pinned`` to as many processors as it has threads; rows go to :func:`part_path`, its
    messages to ``logs/``. The exit status."""
    log = folder / "logs" / f"{method}_{options.threads}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    job = {
        "method": method, "threads": options.threads, "data": str(options.data), "weights": str(options.weights or ""), "repeats": repeats,
        "pinned": pinned, "fireants_python": options.fireants_python, "rows": str(part_path(folder, method, options.threads)),
        "scenes": [str(scene.image.with_suffix(".json")) for scene in scenes],
    }  # fmt: skip
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(options.threads))}
    with replacing(log) as temporary, temporary.open("w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "posepipe.bench.speed_worker", json.dumps(job)]
        return subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, check=False).returncode
