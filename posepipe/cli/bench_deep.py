"""``posepipe-tools bench volume`` and ``bench calibration``: comparison of the networks with other methods, and the calibration of the
thresholds and models that depend on their weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..files import write_text
from ..paths import absolute_path
from .parser import whole_number

VOLUME_GROUPS = ("fetus", "newborn-T2w", "newborn-T1w", "templates")
CONFIDENCE_GROUPS = ("validation", "train")


def add_volume(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench volume``."""
    add_common(parser)
    parser.add_argument("--groups", nargs="+", choices=VOLUME_GROUPS, default=["fetus", "newborn-T2w"], help="which brains")
    parser.add_argument("--left-out", metavar="ATLAS", help="of the templates all of this atlas alone, which --weights never saw")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="default: those of the table; an unknown name lists them")
    parser.add_argument(
        "--damage", nargs="*", metavar="SPEC", help="none, or KIND[:STRENGTH] joined by +; without SPEC the whole second table"
    )
    parser.add_argument("--trials", type=whole_number, default=10, help="draws of each image in each of seven bins (default 10)")


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench calibration``."""
    add_common(parser)
    parser.add_argument(
        "--groups", nargs="+", choices=CONFIDENCE_GROUPS, default=["validation"],
        help="brains kept for validation; newborns that the networks were trained on",
    )  # fmt: skip
    parser.add_argument("--trials", type=whole_number, default=51, help="trials of each brain; corruptions take turns in 17 (default 51)")
    add_folds(parser)
    add_install(parser)


def add_folds(parser: argparse.ArgumentParser) -> None:
    """The option for the networks of cross-validation folds."""
    parser.add_argument(
        "--folds", nargs="+", default=[], metavar="FOLD=DIR",
        help="weights folders of networks that did not see a fold of the real scans (`bench calibration` writes its file into them too)",
    )  # fmt: skip


def folds_of(args: argparse.Namespace) -> dict[str, Path]:
    """Fold → weights folder, as given."""
    return {name: absolute_path(folder) for name, _, folder in (text.partition("=") for text in args.folds)}


def add_install(parser: argparse.ArgumentParser) -> None:
    """The option for a folder to which the fitted model is also written."""
    parser.add_argument(
        "--install", type=absolute_path, metavar="DIR",
        help="also write what was fitted into this folder: of weights of your own, or posepipe/models/data in a checkout of the source",
    )  # fmt: skip


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options that tables with networks share."""
    parser.add_argument("data", type=absolute_path, help="folder with atlases/, ds-fetal and ds-neonates")
    parser.add_argument(
        "-o", "--output", type=absolute_path, required=True, help="folder for CSV, tables and plots; rows in it are not made again"
    )
    parser.add_argument("--names", nargs="+", help="only images whose name starts with one of these")
    parser.add_argument(
        "--weights", type=absolute_path, metavar="DIR", help="folder of network weights that come before those of the package"
    )
    parser.add_argument("--jobs", type=whole_number, default=1, help="processes, one thread each")
    parser.add_argument("--seed", type=int, default=0)


def volume(args: argparse.Namespace) -> int:
    """Measure, write ``volume.csv``, ``volume.md`` and the plots."""
    from ..bench import methods, rows, trials, volume_plots, volume_tables
    from ..bench import volume as bench
    from ..errors import UsageError
    from ..models.weights import POSE_NETWORKS, hashes

    corruptions = ["none"] if args.damage is None else args.damage or list(bench.CORRUPTIONS)
    for spec in corruptions:
        trials.parse_corruption(spec)
    chosen = tuple(args.methods or (bench.CLEAN_METHODS if corruptions == ["none"] else bench.CORRUPTED_METHODS))
    unknown = [m for m in chosen if m not in methods.METHODS]
    if unknown:
        msg = f"--methods: {', '.join(unknown)} is none of {', '.join(methods.METHODS)}"
        raise UsageError(msg)
    missing = methods.missing_networks(chosen, args.weights)
    for method, network in missing.items():
        print(f"{method}: not run, there is no {network} in these weights", flush=True)
    chosen = tuple(m for m in chosen if m not in missing)
    cases = named(bench.volume_cases(args.data, tuple(args.groups), left_out=args.left_out), args.names)
    tasks = [(case, spec, args.output, chosen, args.trials, args.seed, args.weights) for spec in corruptions for case in cases]
    run_all(bench.run_task, tasks, args.jobs)
    weights = hashes(POSE_NETWORKS, args.weights)
    found = rows.read_rows(bench.part_path(args.output, case, spec, weights) for spec in corruptions for case in cases)
    rows.write_rows(args.output / "volume.csv", found)
    measured = [volume_tables.Row.of(r) for r in found]
    measured = [r for m in chosen for r in measured if r.method == m]  # in the order of the table
    parts = [volume_tables.table_by_corruption(measured)]
    if corruptions == ["none"]:
        parts = [volume_tables.table_by_bin(measured, missing), volume_tables.table_by_age(measured)]
        volume_plots.plot_all(measured, args.output)
    parts += [volume_tables.table_of_flags(measured), volume_tables.note_on_vvr(measured)]
    return write_report("\n".join(parts), args.output / "volume.md")


def calibration(args: argparse.Namespace) -> int:
    """Measure, fit, write ``confidence.csv``, ``brains.csv``, ``calibration.toml``, ``calibration.md`` and ``reliability.png``."""
    import torch

    from ..bench import brains, consensus, methods, rows, scans
    from ..bench import confidence as bench
    from ..bench.data_digests import data_digests, other_data
    from ..models.calibration import NAME, Calibration, load_calibration, write_calibration
    from ..models.weights import POSE_NETWORKS, SCAN_NETWORKS, hashes

    cases = named(bench.confidence_cases(args.data, tuple(args.groups)), args.names)
    tasks = [(case, args.output, args.trials, args.seed, args.weights) for case in cases]
    run_all(bench.run_task, tasks, args.jobs)
    weights = hashes(POSE_NETWORKS, args.weights)
    folds, of_scans = folds_of(args), hashes(SCAN_NETWORKS, args.weights)
    key = methods.networks_key({**of_scans, **{f: hashes(SCAN_NETWORKS, d)["scan"] for f, d in folds.items()}})
    places, poses = (rows.PartFile(args.output / "parts" / f"{what}_{key}.csv") for what in ("brains", "poses"))
    brains.measure_brains(args.data, places, args.weights, folds)
    rows.write_rows(args.output / "brains.csv", places.rows)
    brain, brain_made = brains.fit_brain(places.rows)
    torch.set_num_threads(args.jobs)
    of_folds = scans.ScanBench(args.data, args.weights, folds, threads=args.jobs, brain=brain)
    bench.measure_scans(of_folds, methods.BenchmarkRunner(args.weights), poses)
    found = [*rows.read_rows(bench.part_path(args.output, case, weights) for case in cases), *poses.rows]
    rows.write_rows(args.output / "confidence.csv", found)

    fit = bench.fit_confidence(found)
    agreement, agreement_made = consensus.fit_consensus(found)
    before = load_calibration(args.weights)
    all_weights = {**weights, **of_scans}
    kept = {name: sha256 for name, sha256 in before.weights.items() if name not in all_weights}
    made = {**before.made, "brain": brain_made, "sureness": agreement_made, "confidence": fit.made}
    after = Calibration({**kept, **all_weights}, brain, agreement, fit.model, made, before.slices, data_digests(args.data))
    write_calibration(after, args.output / NAME)
    for folder in folds.values():  # so that verdicts by networks of a fold can be measured
        write_calibration(replace(after, weights={**after.weights, **hashes(SCAN_NETWORKS, folder)}), folder / NAME)
    bench.plot_reliability(fit, args.output / "reliability.png")
    if args.install:
        write_calibration(after, args.install / NAME)
    parts = (
        f"Network consensus: {agreement_made}; error {agreement.error:g}.", f"Brain: {brain_made}; refused below {brain.fail:.3g}.",
        other_data(before.data, after.data), fit.report(),
    )  # fmt: skip
    return write_report("\n\n".join(filter(None, parts)), args.output / "calibration.md")


def named(cases: list[Any], names: list[str] | None) -> list[Any]:
    """The ``cases`` whose name starts with one of ``names``; raises :class:`~posepipe.errors.UsageError` where none does."""
    from ..errors import UsageError

    chosen = [c for c in cases if not names or c.name.startswith(tuple(names))]
    if not chosen:
        msg = f"no brain to measure: the selected groups have {', '.join(c.name for c in cases) or 'none'}"
        raise UsageError(msg)
    return chosen


def run_all(work: Callable[[Any], None], tasks: list[Any], jobs: int) -> None:
    """Run ``work`` on each task, ``jobs`` at a time."""
    import multiprocessing

    from tqdm import tqdm

    if jobs == 1:
        for task in tqdm(tasks, mininterval=10):
            work(task)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for _ in tqdm(pool.imap_unordered(work, tasks), total=len(tasks), mininterval=10):
            continue


def write_report(text: str, output: Path) -> int:
    """Print ``text`` and write it to ``output``; the exit code 0."""
    write_text(output, text.strip() + "\n")
    print(text)
    return 0
