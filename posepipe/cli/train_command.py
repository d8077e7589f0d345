"""``posepipe-tools train {sources,scenes,pose,correction,slice,slice-pose,scan,contrast,recipe}``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..paths import absolute_derivative, absolute_path

if TYPE_CHECKING:
    from pathlib import Path

    from ..atlas import AtlasLibrary
    from ..training.engine import Schedule
    from ..training.job import Job


def add_arguments(subparsers: Any) -> None:
    """Add the ``train`` command to the subparsers of ``posepipe-tools``."""
    train = subparsers.add_parser(
        "train",
        help="train networks from atlases and label maps",
        description="First gather sources, then train networks on images made from them on the fly. See docs/tutorials/training.md.",
    )
    actions = train.add_subparsers(
        dest="train_action", required=True, metavar="{sources,scenes,pose,correction,slice,slice-pose,scan,contrast,recipe}"
    )
    _add_sources(actions)
    _add_scenes(actions)
    _add_pose(actions)
    _add_correction(actions)
    _add_slices(actions)
    _add_scan(actions)
    _add_contrast(actions)
    _add_recipe(actions)


def _add_pose(actions: Any) -> None:
    parser = actions.add_parser("pose", help="train a network that finds the pose of one image")
    parser.add_argument(
        "--network", choices=("coordinates", "refiner", "posenet"), default="coordinates",
        help="coordinates: the default network; refiner: the same for nearly upright brains; posenet: the paper's",
    )  # fmt: skip
    parser.add_argument(
        "--curriculum", type=_count, metavar="STEPS",
        help="steps until all angles are sampled, small ones first (default: A/2; refiner: none)",
    )  # fmt: skip
    _add_image_options(parser)
    _add_sizes(parser)
    _add_training(parser)


def _add_correction(actions: Any) -> None:
    parser = actions.add_parser("correction", help="train the paper's Correction-Net, on pairs of images")
    parser.add_argument(
        "--translation-weight", type=float, default=20.0, metavar="LAMBDA", help="weight of the translation loss (default: 20)"
    )
    parser.add_argument(
        "--offsets", choices=("ours", "paper"), default="ours",
        help="paper: uniform angles about x, y and z and uniform shifts in mm, from the atlas's template of the age alone",
    )  # fmt: skip
    _add_image_options(parser)
    _add_sizes(parser)
    _add_training(parser)


def _add_slices(actions: Any) -> None:
    coordinates = actions.add_parser("slice", help="train a network that finds the pose of one slice, from coordinates of its pixels")
    _add_image_options(coordinates)
    _add_training(coordinates)
    pose = actions.add_parser("slice-pose", help="train the paper's slice network, which regresses the pose of one slice")
    pose.add_argument(
        "--curriculum", type=_count, metavar="STEPS", help="steps until all angles are sampled, small ones first (default: A/2)"
    )
    _add_image_options(pose)
    _add_training(pose)


def _add_scan(actions: Any) -> None:
    parser = actions.add_parser("scan", help="train the networks that find the brain and its pose in a scan without a mask")
    parser.add_argument(
        "--network", choices=("locator", "scan", "outline"), default="scan",
        help="locator: where in a whole scan; scan: mask and pose in a crop; outline: a finer mask of what is found",
    )  # fmt: skip
    parser.add_argument("--scenes", type=absolute_path, metavar="FILE.npz", help="output of `train scenes` (default: only synthetic heads)")
    parser.add_argument("--scene-share", type=float, metavar="SHARE", help="share of crops from scenes (default: 0.5)")
    parser.add_argument("--leave-fold", metavar="NAME", help="leave out the scenes of this fold of cross-validation")
    _add_training(parser)


def _add_contrast(actions: Any) -> None:
    parser = actions.add_parser("contrast", help="train a conditional GAN that makes T2-like slices of T1w ones")
    parser.add_argument(
        "--unpaired", action="store_true",
        help="learn without pairs (cycleGAN): slices of one contrast from some brains, of the other from others",
    )  # fmt: skip
    _add_training(parser)


def _add_recipe(actions: Any) -> None:
    parser = actions.add_parser("recipe", help="train a packaged network again, by its recipe in posepipe/training/recipes")
    parser.add_argument("name", metavar="NAME", help="the network")
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="...", help="--sources, --scenes, -o and options that override the recipe"
    )
    parser.set_defaults(commands=actions.choices)


def _add_image_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--contrast", choices=("T2w", "T1w"), help="images of this contrast alone, as in the paper (default: any contrast, and label maps)"
    )
    parser.add_argument(
        "--plain", action="store_true", help="images neither stretched, deformed nor corrupted, as in the paper"
    )
    parser.add_argument(
        "--foreground-offset", type=float, metavar="SDS",
        help="the paper's networks: constant added to the intensities inside the mask, in standard deviations, so that the outline of the "
        "mask is visible (default: 2.5; 0: none)",
    )  # fmt: skip


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sizes", choices=("mask", "age"), default="mask",
        help="the paper's networks: the image is as large as the brain's own mask, or as the atlas of its age, as in the paper",
    )  # fmt: skip


def _add_sources(actions: Any) -> None:
    parser = actions.add_parser("sources", help="gather atlases, subjects and label maps, upright, into one file")
    parser.add_argument("-o", "--output", type=absolute_path, required=True, metavar="FILE.npz", help="the file to write")
    parser.add_argument(
        "--atlas-dir", action="append", default=[], type=absolute_path, metavar="DIR", help="look for atlases here first (repeatable)"
    )
    parser.add_argument("--atlases", nargs="+", metavar="NAME", help="atlases to use (default: every atlas on this machine)")
    parser.add_argument(
        "--subjects", action="append", default=[], type=absolute_path, metavar="BIDS", help="a dataset of T2w and T1w images (repeatable)"
    )
    parser.add_argument(
        "-d", "--derivatives", type=absolute_derivative, action="append", default=[], metavar="[NAME=]PATH",
        help="brain masks of these subjects (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--labels", action="append", default=[], type=absolute_path, metavar="BIDS",
        help="a dataset of *_desc-tissues_dseg maps (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--reference", metavar="NAME", help="atlas that subjects, label maps and atlases of unknown pose are registered to"
    )
    parser.add_argument(
        "--references", action="append", default=[], type=absolute_path, metavar="TSV",
        help="poses of these subjects that `posepipe-tools reference` found and somebody accepted; others are left out (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--split", type=absolute_path, metavar="FILE", help="which brains validate and test (default: posepipe's own split)"
    )
    parser.add_argument("--voxels", type=_count, metavar="N", help="edge of the volumes (default: 80; for `train contrast`: 160)")
    parser.add_argument(
        "--terms", action="append", default=[], metavar="GROUP=TEXT", help="terms of use of a dataset that states none (repeatable)"
    )


def _add_scenes(actions: Any) -> None:
    parser = actions.add_parser("scenes", help="gather raw scans with known brain, including its surroundings, into one file")
    parser.add_argument(
        "datasets", nargs="+", type=absolute_path, metavar="BIDS", help="raw scans with brain masks (-d) or a landmarks.tsv"
    )
    parser.add_argument("-o", "--output", type=absolute_path, required=True, metavar="FILE.npz", help="the file to write")
    parser.add_argument(
        "-d", "--derivatives", type=absolute_derivative, action="append", default=[], metavar="[NAME=]PATH",
        help="brain masks of these scans (repeatable)",
    )  # fmt: skip
    parser.add_argument("--atlas-dir", action="append", default=[], type=absolute_path, metavar="DIR", help="searched first (repeatable)")
    parser.add_argument("--reference", metavar="NAME", help="atlas whose mask is placed by the landmarks in scans without a mask")
    parser.add_argument("--split", type=absolute_path, metavar="FILE", help="which scans validate and test (default: posepipe's own split)")


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sources", type=absolute_path, required=True, metavar="FILE.npz", help="output of `train sources`")
    parser.add_argument(
        "-o", "--output", type=absolute_path, required=True, metavar="DIR", help="checkpoint, log, plot, weights; resumed from there"
    )
    parser.add_argument(
        "--loss-stages", choices=("both", "mse"), default="both",
        help="both: mean squared error (dense networks: likelihood), then geodesic; mse: the first alone, for as many steps",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=_count, metavar="VOXELS",
        help="side of the cube, a multiple of 16 (default: 32), or of the slices (slice: of 16; slice-pose, "
        "contrast: of 32; default: 64; contrast: 128)",
    )  # fmt: skip
    parser.add_argument("--steps", type=_count, nargs=2, metavar=("A", "B"), help="steps of the first and second stage")
    parser.add_argument("--batch", type=_count, metavar="N", help="images per step")
    parser.add_argument("--rate", type=float, metavar="RATE", help="highest learning rate")
    parser.add_argument(
        "--optimizer", choices=("adamw", "sgd"), help="sgd: with Nesterov's momentum, as in the paper (default: adamw)"
    )
    parser.add_argument("--leave-out", nargs="+", default=[], metavar="GROUP", help="atlases or datasets not to use at all")
    parser.add_argument("--start", type=absolute_path, metavar="DIR", help="start from the network of the same name in this weights folder")
    parser.add_argument("--start-name", default="", metavar="NAME", help="name of the network in --start (default: that of --name)")
    parser.add_argument("--name", help="name of the weights (default: that of the network)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=_count, metavar="N", help="CPU threads (default: torch's choice)")
    parser.add_argument("--log-every", type=_count, metavar="STEPS", help="steps between lines of the log and checkpoints (default: 200)")
    parser.add_argument("--validate-every", type=_count, default=1000, metavar="STEPS", help="steps between validations (default: 1000)")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed ``args`` ask; 0 on success. Raises :class:`~posepipe.errors.PosepipeError`."""
    gather = {"sources": _sources, "scenes": _scenes, "recipe": _recipe}
    return gather.get(args.train_action, _train)(args)


def _recipe(args: argparse.Namespace) -> int:
    from ..training.recipes import recipe_stages

    stages = recipe_stages(args.name)
    before: Path | None = None
    for number, (command, *options) in enumerate(stages, start=1):
        _say(f"posepipe-tools train {' '.join([command, *options, *args.options])}")
        chosen = args.commands[command].parse_args([*options, *args.options])
        chosen.train_action = command
        if before is not None:
            chosen.start = before / "weights"
        if number < len(stages):
            chosen.output = before = chosen.output / f"stage-{number}"
        _train(chosen)
    return 0


def _scenes(args: argparse.Namespace) -> int:
    from ..atlas import AtlasLibrary
    from ..training.scene_files import add_scenes
    from ..training.scenes import Scenes
    from ..training.split import load_split
    from ..training.subjects import Reference

    reference = Reference(AtlasLibrary.default(args.atlas_dir), args.reference) if args.reference else None
    split = load_split(args.split)
    found = [add_scenes(folder, args.derivatives, split, reference, _say) for folder in args.datasets]
    scenes = Scenes.joined(found)
    path = scenes.save(args.output)
    _say(f"{path}: {len(scenes)} scenes, {path.stat().st_size / 1e6:.0f} MB")
    for group, terms in scenes.terms.items():
        _say(f"terms of {group}: {terms}")
    return 0


def _sources(args: argparse.Namespace) -> int:
    from ..atlas import AtlasLibrary
    from ..training.reference_table import References
    from ..training.sources import SIDE, Collector
    from ..training.split import load_split
    from ..training.subjects import Reference, add_imaged_subjects, add_label_maps, add_templates

    library = AtlasLibrary.default(args.atlas_dir)
    if (args.subjects or args.labels) and not args.reference:
        msg = "--subjects and --labels need --reference NAME: the atlas that they are registered to"
        raise UsageError(msg)
    if args.references and not args.subjects:
        msg = "--references holds poses of --subjects; name their datasets"
        raise UsageError(msg)
    accepted = References.load(*args.references) if args.references else None
    reference = Reference(library, args.reference) if args.reference else None
    if reference:
        reference.nearest(30.0)  # raises before the work begins if the atlas is missing
    collector = Collector(load_split(args.split), _say, side=args.voxels or SIDE)
    add_templates(collector, library, args.atlases or _on_this_machine(library), reference)
    for folder in args.subjects:
        assert reference is not None
        add_imaged_subjects(collector, folder, reference, args.derivatives, accepted)
    for folder in args.labels:
        assert reference is not None
        add_label_maps(collector, folder, reference)
    for group, text in _terms(args.terms).items():
        collector.terms(group, text)
    sources = collector.sources()
    path = sources.save(args.output)
    brains = {part: len({p.name for p in sources.volumes if p.part == part}) for part in ("train", "validation")}
    _say(
        f"{path}: {len(sources.volumes)} volumes of {brains['train']} brains to train and {brains['validation']} to validate with, "
        f"{path.stat().st_size / 1e6:.0f} MB"
    )
    for group, terms in sources.terms.items():
        _say(f"terms of {group}: {terms}")
    return 0


def _on_this_machine(library: AtlasLibrary) -> list[str]:
    return [status.name for status in library.available() if status.found]


def _terms(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if not all(group and terms.strip() for group, _, terms in pairs):
        msg = "--terms takes GROUP=TEXT, such as ds-neonates='non-commercial research'"
        raise UsageError(msg)
    return {group: terms.strip() for group, _, terms in pairs}


def _train(args: argparse.Namespace) -> int:
    import torch

    from ..training.job import run_job

    if args.threads:
        torch.set_num_threads(args.threads)
    job = _job(args, "cuda" if torch.cuda.is_available() else "cpu")
    try:
        run_job(job, _say)
    except KeyboardInterrupt:
        if (job.output / "checkpoint.pt").is_file():
            _say(f"{job.output}: the last checkpoint is complete; the same command continues from it")
        raise
    return 0


def _job(args: argparse.Namespace, best_device: str) -> Job:
    """The job of the parsed command line. Raises :class:`~posepipe.errors.UsageError` for options that do not go together."""
    from dataclasses import replace

    from ..training.job import PRESETS, Job

    network = {
        "correction": "correction",
        "slice": "slice",
        "slice-pose": "slice-pose",
        "contrast": "contrast-unpaired" if getattr(args, "unpaired", False) else "contrast",
    }.get(args.train_action) or args.network
    preset = PRESETS[network]
    given = {"batch": args.batch, "rate": args.rate, "every": args.log_every, "optimizer": args.optimizer}
    given["steps"] = tuple(args.steps) if args.steps else None
    schedule = replace(preset.schedule, **{k: v for k, v in given.items() if v is not None})
    curriculum = getattr(args, "curriculum", None)
    wrong = _contradiction(args, network, best_device) or _too_short(args, schedule)
    if curriculum is not None and preset.start is None:
        wrong = f"--curriculum is for networks that see all angles; {network} sees small ones only"
    if wrong:
        raise UsageError(wrong)
    if curriculum is None:
        curriculum = schedule.steps[0] // 2 if preset.start else 0
    if args.loss_stages == "mse":
        schedule = replace(schedule, steps=(schedule.total, 0))
    only_some = (
        "translation_weight", "scenes", "scene_share", "leave_fold", "contrast", "plain", "foreground_offset", "sizes", "offsets",
    )  # fmt: skip
    return Job(
        network=network,
        sources=args.sources,
        output=args.output,
        # a short run must reach its full rate too
        schedule=replace(schedule, warmup=min(schedule.warmup, schedule.total // 10)),
        size=args.size or preset.size,
        leave_out=tuple(args.leave_out),
        seed=args.seed,
        device=best_device if args.device == "auto" else args.device,
        curriculum=curriculum,
        validate_every=args.validate_every,
        name=args.name or network,
        start=args.start,
        start_name=args.start_name,
        **{name: getattr(args, name) for name in only_some if hasattr(args, name)},
    )


def _contradiction(args: argparse.Namespace, network: str, best_device: str) -> str:
    """Options that are not for ``network`` or this machine, in words; empty if there are none."""
    if getattr(args, "foreground_offset", None) is not None and network not in {"posenet", "correction", "slice-pose"}:
        return f"--foreground-offset is for the paper's networks (pose --network posenet, correction, slice-pose), not for {network}"
    if getattr(args, "sizes", "mask") == "age" and network not in {"posenet", "correction"}:
        return f"--sizes age is for the paper's networks (pose --network posenet, correction); {network} goes by the mask"
    if args.start and network == "contrast-unpaired":
        return "--start is for one network, and learning without pairs trains two; leave it out"
    if args.device == "cuda" and best_device != "cuda":
        return "--device cuda: torch finds no CUDA device here; use --device cpu"
    return ""


def _too_short(args: argparse.Namespace, schedule: Schedule) -> str:
    """What makes a training impossible, in words; empty if nothing does."""
    if min(schedule.total, schedule.every, args.validate_every) < 1 or schedule.batch < 2 or not schedule.rate > 0:
        return "training needs at least one step, two images a batch, a rate above 0, and a log and validation now and then"
    return ""


def _count(text: str) -> int:
    """A whole number from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def _say(text: str) -> None:
    print(text, flush=True)
