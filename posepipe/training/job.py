"""One training job from its options to a weights folder: what ``posepipe-tools train`` does for each network."""

from __future__ import annotations

import csv
import datetime
import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._version import __version__
from ..errors import UsageError
from ..files import write_text
from ..models import load_network, save_network
from ..models.coordinates import CoordinateNet
from ..models.inputs import FOREGROUND_OFFSET
from ..models.scans import ScanNet
from ..models.weights import build, hashes
from .card import TrainingSummary, card_text, data_terms, terms_line
from .conversion import CyclePair, PairedTask, UnpairedTask
from .coordinates import CoordinateTask
from .engine import Schedule, Task, train
from .paper import AS_PAPER, CORRECTION, POSENET, CorrectionTask, PoseTask, ReferenceImages
from .plot import plot_log
from .scan_task import ScanTask
from .scans import LEAST, LOCATOR, OUTLINE, ScanRecipe, ScanSynthesis
from .scenes import Scenes
from .slabs import SlabRecipe, Slabs
from .slices import SLICE_POSENET, SliceCoordinateTask, SlicePoseTask, SliceRecipe, SliceSynthesis
from .sources import SIDE, Sources
from .split import load_folds
from .synthesis import Batch, Recipe, Synthesis
from .task import Curriculum

VALIDATION_BATCHES = 4
DISCRIMINATOR_RATE, UNPAIRED_DISCRIMINATOR_RATE = 2e-4, 5e-4
"""Learning rates of the discriminators in training with pairs (pix2pix's value) and without pairs. The latter is higher: without pairs
only the discriminators keep the generators from copying their input."""


@dataclass(frozen=True)
class Preset:
    """A network that can be trained: its class, options of the constructor besides ``size``, recipe of the training images, and default
    schedule.

    ``start`` is the largest rotation angle (degrees) at the start of a curriculum; ``hold`` is the share of the curriculum's steps during
    which the angle stays there. ``size`` is the side of the network input in voxels or pixels.
    """

    architecture: str
    options: Mapping[str, Any]
    recipe: Recipe | SlabRecipe
    schedule: Schedule
    start: float | None = None
    hold: float = 0.0
    size: int = 32


PRESETS: Mapping[str, Preset] = {
    "coordinates": Preset("CoordinateNet", {"residual": True}, Recipe(), Schedule((2000, 4000)), start=40.0, hold=0.6),
    "refiner": Preset(
        "CoordinateNet", {"residual": True}, Recipe(max_angle=40.0, shift=0.06, log_scale=0.06), Schedule()
    ),
    # batch normalisation of the dense layers needs batches of 32; the geodesic stage needs a rate of a few 1e-4 that falls to nearly 0
    "posenet": Preset("PoseNet", {}, POSENET, Schedule((40000, 20000), batch=32, rate=1e-3), start=30.0),
    "correction": Preset("CorrectionNet", {}, CORRECTION, Schedule((20000, 10000), batch=32, rate=1e-3)),
    "slice": Preset("SliceCoordinateNet", {}, SliceRecipe(), Schedule((4000, 2000), batch=64, rate=2e-3), size=64),
    "slice-pose": Preset(
        "SlicePoseNet", {"width": 0.5}, SLICE_POSENET, Schedule((10000, 5000), batch=64, rate=1e-3), start=30.0, size=64
    ),
    "locator": Preset("LocatorNet", {}, LOCATOR, Schedule((2000, 0), batch=32)),
    "scan": Preset("ScanNet", {}, ScanRecipe(), Schedule((1500, 1500), batch=32, rate=1e-3)),
    "outline": Preset("OutlineNet", {}, OUTLINE, Schedule((400, 0), batch=16, rate=3e-4), size=64),
    "contrast": Preset("ContrastNet", {}, SlabRecipe(), Schedule((12000, 0), batch=8, rate=5e-4), size=128),
    "contrast-unpaired": Preset("ContrastNet", {}, SlabRecipe(), Schedule((6000, 0), batch=4, rate=5e-4), size=128),
}
"""Name on the command line → preset."""


@dataclass(frozen=True)
class Job:
    """One training of ``network``, a key of :data:`PRESETS`, with network inputs of ``size`` voxels or pixels a side.

    - ``sources``: file of training volumes; ``leave_out``: groups of it that are not used; ``output``: folder of the results.
    - ``curriculum``: number of steps until the largest rotation angle is reached.
    - ``translation_weight``: λ of Correction-Net's loss. ``offsets``: "ours" or "paper", the distribution of the poses that
      Correction-Net learns and the reference images they are relative to.
    - ``scenes``: file of real scans for the scan network; ``scene_share``: share of crops from them; ``leave_fold``: fold of
      cross-validation whose scans are left out.
    - ``start``: weights folder with initial weights, those of the network ``start_name`` (default: the name of the trained network).
    - ``contrast``: train a pose network on images of this contrast alone; ``plain``: without deformation and corruption.
    - ``foreground_offset`` and ``sizes`` ("mask" or "age"): options of the paper's networks.
    - ``device``: ``cpu`` or ``cuda``; ``validate_every``: steps between validations; ``name``: name of the weights.
    """

    network: str
    sources: Path
    output: Path
    schedule: Schedule
    size: int = 32
    leave_out: tuple[str, ...] = ()
    seed: int = 0
    device: str = "cpu"
    curriculum: int = 0
    translation_weight: float = 20.0
    validate_every: int = 1000
    name: str = ""
    scenes: Path | None = None
    scene_share: float | None = None
    leave_fold: str | None = None
    start: Path | None = None
    start_name: str = ""
    contrast: str | None = None
    plain: bool = False
    foreground_offset: float | None = None
    sizes: str = "mask"
    offsets: str = "ours"

    @property
    def preset(self) -> Preset:
        """What is trained."""
        return PRESETS[self.network]

    @property
    def recipe(self) -> Recipe | SlabRecipe:
        """Recipe of the training images; label maps are taken out of it later if the sources have none."""
        recipe = replace(self.preset.recipe, size=self.size)
        if isinstance(recipe, ScanRecipe) and self.scene_share is not None:
            return replace(recipe, scenes=self.scene_share)
        if isinstance(recipe, Recipe) and self.contrast:
            recipe = replace(recipe, contrast=self.contrast, labels=0.0)
        if isinstance(recipe, Recipe):
            recipe = replace(recipe, sizes=self.sizes)
            if self.offsets == "paper":
                recipe = replace(recipe, xyz=AS_PAPER["xyz"], shift_mm=AS_PAPER["shift_mm"])
        return recipe.clean() if isinstance(recipe, Recipe) and self.plain else recipe

    @property
    def start_network(self) -> str:
        """Name of the network in the folder ``start`` whose weights are the initial weights."""
        return self.start_name or self.name or self.network

    @property
    def options(self) -> dict[str, Any]:
        """Options of the network's constructor."""
        own = {} if self.foreground_offset is None else {"foreground_offset": self.foreground_offset}
        sizes = {} if self.sizes == "mask" else {"sizes": self.sizes}
        return {"size": self.size, **self.preset.options, **own, **sizes}


def run_job(job: Job, say: Callable[[str], None] = print) -> Path:
    """Train, or resume training, and write ``weights/``, ``log.csv`` and ``log.png`` into ``job.output``. Returns the path of the weights.

    The same job on the same machine with the same number of threads gives the same weights, whether it was interrupted or not. Raises
    :class:`~posepipe.errors.UsageError` for sources that lack the needed volumes, and for a folder with the state of another job.
    """
    sources = Sources.load(job.sources)
    recipe = _recipe(job, sources, say)
    _same_job(job, recipe)
    scenes = _scenes(job)
    terms = data_terms(sources, job.leave_out, scenes)
    say(f"terms of use: {terms_line(terms)}")
    task = make_task(job, sources, recipe)
    before = _last_step(job.output)
    grid = f"{job.size}² pixels" if isinstance(recipe, SliceRecipe) else f"{job.size}³ voxels"
    say(f"{job.network}, {grid}, {job.device}: {job.schedule.total} steps of {job.schedule.batch} images" + (
        f"; going on from step {before}" if before else ""
    ))
    try:
        averaged = train(task, job.schedule, job.output, say=say, validate_every=job.validate_every)
    finally:
        if _last_step(job.output):
            plot_log(job.output / "log.csv", job.output / "log.png")
    name = job.name or job.network
    path = save_network(
        averaged.t1w_to_t2w if isinstance(averaged, CyclePair) else averaged,
        name,
        job.output / "weights",
        architecture=job.preset.architecture,
        options=job.options,
        card=card_text(_summary(job, recipe), sources, scenes),
        terms=terms_line(terms),
    )
    say(f"weights: {path}, card beside them; use them with --weights {path.parent}")
    return path


def make_task(job: Job, sources: Sources, recipe: Recipe | SlabRecipe) -> Task:
    """The training task of ``job``, with a network initialised from ``job.seed``."""
    if isinstance(recipe, SlabRecipe):
        return _contrast_task(job, sources, recipe)
    if sources.side != SIDE:
        msg = f"{job.sources}: its volumes have {sources.side} voxels a side, {job.network} needs {SIDE}; gather sources without --voxels"
        raise UsageError(msg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        network: nn.Module = build(job.preset.architecture, job.options, where=f"--network {job.network} --size {job.size}")
    network = _with_start_weights(job, network)
    if isinstance(recipe, ScanRecipe):
        return _scan_task(job, sources, recipe, network)
    training = _supply(recipe)(sources, recipe, leave_out=job.leave_out, seed=job.seed + 1, device=job.device)
    validation = _validation(job, sources, recipe)
    curriculum = Curriculum(job.preset.start or 0.0, job.curriculum, int(job.preset.hold * job.curriculum))
    foreground_offset = FOREGROUND_OFFSET if job.foreground_offset is None else job.foreground_offset
    if job.network == "posenet":
        return PoseTask(network, training, validation, curriculum=curriculum, foreground_offset=foreground_offset)
    if job.network == "slice-pose":
        return SlicePoseTask(network, training, validation, curriculum=curriculum, foreground_offset=foreground_offset)
    if job.network == "slice":
        return SliceCoordinateTask(network, training, validation)
    if job.network == "correction":
        own = job.offsets == "paper"
        references = ReferenceImages(sources, training, leave_out=job.leave_out, seed=job.seed + 2, atlas=own)
        return CorrectionTask(
            network, training, validation, references=references, translation_weight=job.translation_weight,
            foreground_offset=foreground_offset,
        )  # fmt: skip
    return CoordinateTask(network, training, validation, curriculum=curriculum)


def _with_start_weights(job: Job, network: nn.Module) -> nn.Module:
    """``network`` on the device of ``job``, with the weights of ``job.start_network`` if ``job.start`` is given."""
    if job.start:
        before = load_network(job.start_network, weights_dir=job.start).module
        if isinstance(network, ScanNet) and isinstance(before, CoordinateNet):
            network.initialise_from(before)
        else:
            network.load_state_dict(before.state_dict())
    return network.to(job.device)


def _scenes(job: Job) -> Scenes | None:
    """The real scans of ``job`` without those of the fold ``job.leave_fold``."""
    if job.scenes is None:
        return None
    folds = load_folds()
    if job.leave_fold is not None and job.leave_fold not in folds:
        msg = f"--leave-fold {job.leave_fold}: there are folds {', '.join(folds)}"
        raise UsageError(msg)
    return Scenes.load(job.scenes).without(folds[job.leave_fold] if job.leave_fold else ())


def _scan_task(job: Job, sources: Sources, recipe: ScanRecipe, network: nn.Module) -> ScanTask:
    training = ScanSynthesis(sources, recipe, scenes=_scenes(job), leave_out=job.leave_out, seed=job.seed + 1)
    supply = ScanSynthesis(sources, replace(recipe, pool=LEAST), part="validation", leave_out=job.leave_out, seed=9)
    return ScanTask(network, training, [supply.batch(32) for _ in range(VALIDATION_BATCHES)])


def _contrast_task(job: Job, sources: Sources, recipe: SlabRecipe) -> Task:
    slabs = Slabs(sources, recipe, leave_out=job.leave_out, seed=job.seed + 1, device=job.device)
    supply = Slabs(sources, recipe.plain(), part="validation", leave_out=job.leave_out, seed=9, device=job.device)
    validation = [supply.slab(16) for _ in range(VALIDATION_BATCHES)]
    torch.manual_seed(job.seed)  # dropout uses torch's global generator
    if job.network == "contrast-unpaired":
        pair = CyclePair(**job.options).to(job.device)
        return UnpairedTask(pair, slabs, validation, rate=UNPAIRED_DISCRIMINATOR_RATE, device=job.device)
    network = _with_start_weights(job, build(job.preset.architecture, job.options, where=f"--size {job.size}"))
    return PairedTask(network, slabs, validation, rate=DISCRIMINATOR_RATE, device=job.device)


def _validation(job: Job, sources: Sources, recipe: Recipe) -> list[Batch]:
    """Validation images, with and without corruption. They do not depend on ``job.seed``, so that trainings can be compared."""
    batches = []
    for i, one in enumerate((replace(recipe.clean(), labels=0.0), recipe)):
        supply = _supply(recipe)(sources, one, part="validation", leave_out=job.leave_out, seed=9 + i, device=job.device)
        batches += [supply.batch(32) for _ in range(VALIDATION_BATCHES)]
    return batches


def _supply(recipe: Recipe) -> type[Synthesis]:
    return SliceSynthesis if isinstance(recipe, SliceRecipe) else Synthesis


def _recipe(job: Job, sources: Sources, say: Callable[[str], None]) -> Recipe | SlabRecipe:
    """The recipe of ``job``; with ``labels`` 0 where label maps are missing in the training or the validation part of the sources."""
    if isinstance(job.recipe, SlabRecipe):
        return job.recipe
    kinds = [{"labels" if p.kind == "labels" else "images" for p in sources.volumes if p.part == part and p.group not in job.leave_out}
             for part in ("train", "validation")]  # fmt: skip
    if all("labels" in k for k in kinds):
        return job.recipe
    say("label maps are missing in the training or the validation part: training images are synthesised from T2w and T1w volumes alone")
    return replace(job.recipe, labels=0.0)


def _same_job(job: Job, recipe: Recipe | SlabRecipe) -> None:
    """Write ``job.json``, or compare with it if an earlier start of the job wrote it.

    Raises :class:`~posepipe.errors.UsageError` where they differ.
    """
    about = {
        "network": job.network,
        "size": job.size,
        "sources": hashlib.sha256(job.sources.read_bytes()).hexdigest(),
        **({"start": hashes([job.start_network], job.start)} if job.start else {}),
        **({"scenes": hashlib.sha256(job.scenes.read_bytes()).hexdigest()} if job.scenes else {}),
        **({"leave_fold": job.leave_fold} if job.leave_fold else {}),
        "leave_out": sorted(job.leave_out),
        "seed": job.seed,
        **({} if job.foreground_offset is None else {"foreground_offset": job.foreground_offset}),
        "offsets": job.offsets,
        "curriculum": job.curriculum,
        "translation_weight": job.translation_weight,
        "recipe": asdict(recipe),
        "schedule": asdict(job.schedule),
    }
    about = json.loads(json.dumps(about))  # as it is read back: lists in place of tuples
    path = job.output / "job.json"
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            msg = f"{path}: cannot be read ({error}); give another output folder"
            raise UsageError(msg) from error
        other = [key for key in about if before.get(key) != about[key]]
        if other:
            msg = f"{job.output}: holds another training, with other {', '.join(other)}; give the same options, or another folder"
            raise UsageError(msg)
        return
    write_text(path, json.dumps(about, indent=1) + "\n")


def _log(folder: Path) -> list[dict[str, str]]:
    path = folder / "log.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _last_step(folder: Path) -> int:
    return max((int(row["step"]) for row in _log(folder)), default=0)


def _summary(job: Job, recipe: Recipe | SlabRecipe) -> TrainingSummary:
    """The content of the model card, from the job and its log."""
    rows = _log(job.output)
    steps = [int(row["step"]) for row in rows]
    images = [(b - a) * job.schedule.batch for a, b in zip([0, *steps], steps, strict=False)]
    seconds = [n / float(row["images_s"]) for n, row in zip(images, rows, strict=True)]
    making = sum(s * float(row["generation_share"]) for s, row in zip(seconds, rows, strict=True))
    extra: dict[str, object] = {}
    if job.curriculum:
        extra["curriculum"] = f"of {job.curriculum} steps"
    if job.start:
        extra["initial weights"] = hashes([job.start_network], job.start)[job.start_network][:12]
    if job.foreground_offset is not None:
        extra["foreground offset"] = job.foreground_offset
    if job.network == "correction":
        extra["translation weight"] = job.translation_weight
    return TrainingSummary(
        network=job.network,
        size=job.size,
        recipe=recipe,
        schedule=job.schedule,
        leave_out=job.leave_out,
        seed=job.seed,
        extra=extra,
        figures={k.removeprefix("val_"): float(v) for k, v in rows[-1].items() if k.startswith("val_") and v},
        hours=sum(seconds) / 3600,
        images_s=sum(images) / sum(seconds),
        generation_share=making / sum(seconds),
        machine=_machine(job.device),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        version=__version__,
    )


def _machine(device: str) -> str:
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    n = torch.get_num_threads()
    threads = f"{n} thread{'s' * (n > 1)}"
    return f"{threads} of a {os.cpu_count()}-core {platform.machine()} CPU, torch {torch.__version__}"
