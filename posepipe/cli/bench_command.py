"""``posepipe-tools bench``: measurements on real data, as CSV and Markdown tables."""

from __future__ import annotations

import argparse
from typing import Any

from ..files import write_text
from ..paths import absolute_path
from . import bench_age, bench_contrast, bench_decisions, bench_deep, bench_growth, bench_scans, bench_slice, bench_speed
from .parser import whole_number

GROUPS = ("fetus", "templates", "newborn-T2w", "newborn-T1w", "stacks")


def add_arguments(subparsers: Any) -> None:
    """Register ``bench`` with the parser of ``posepipe-tools``."""
    bench = subparsers.add_parser("bench", help="measure poses on real data with known truth")
    tables = bench.add_subparsers(dest="table", metavar="TABLE", required=True)
    _add_classical(tables.add_parser("classical", help="initial poses without networks, and their refinements"))
    bench_deep.add_volume(tables.add_parser("volume", help="the paper's comparison, with clean or corrupted images"))
    bench_deep.add_calibration(tables.add_parser("calibration", help="calibrate the thresholds and the confidence"))
    bench_age.add_arguments(tables.add_parser("age", help="ages estimated from images"))
    bench_contrast.add_arguments(tables.add_parser("contrast", help="T1-weighted newborns, converted to T2-like contrast and unconverted"))
    bench_decisions.add_precision(tables.add_parser("precision", help="masks, poses and verdicts in different precisions"))
    bench_decisions.add_negative(tables.add_parser("negative", help="images that show no fetal or newborn brain"))
    bench_slice.add_arguments(tables.add_parser("slice", help="single slices, as in the paper, and slabs of neighbouring slices"))
    bench_slice.add_stacks(tables.add_parser("stacks", help="moving stacks, slice by slice and as volumes, and six raw stacks"))
    bench_scans.add_arguments(tables.add_parser("scans", help="brains and poses found without a mask"))
    bench_speed.add_arguments(tables.add_parser("speed", help="time, error and memory beside other registration tools"))
    bench_growth.add_arguments(tables.add_parser("growth", help="time and memory by the number of images, voxels, slices and participants"))


def _add_classical(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=absolute_path, help="folder with atlases/ and ds-fetal, ds-neonates, ds-stacks")
    parser.add_argument("-o", "--output", type=absolute_path, required=True, help="folder for the CSV and the tables")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--names", nargs="+", help="only images whose name starts with one of these")
    parser.add_argument("--init", nargs="+", default=["center", "axes", "search"], choices=["center", "axes", "search"])
    parser.add_argument("--refine", nargs="+", default=["none", "torch", "ants"], choices=["none", "torch", "ants"])
    parser.add_argument("--damage", nargs="+", default=["none"], help="none, cut, leak, bias, noise, all; NAME:STRENGTH scales it")
    parser.add_argument("--trials", type=whole_number, default=24, help="rotations of each image, spread over six 30-degree bins")
    parser.add_argument("--jobs", type=whole_number, default=2, help="processes, one thread each; with 1, one process and --threads")
    parser.add_argument("--threads", type=whole_number, default=2, help="threads of torch and ITK when --jobs is 1")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Make the table that ``args`` names."""
    made_by = {
        "classical": _classical,
        "volume": bench_deep.volume,
        "calibration": bench_deep.calibration,
        "age": bench_age.run,
        "slice": bench_slice.run,
        "stacks": bench_slice.stacks,
        "scans": bench_scans.run,
        "precision": bench_decisions.precision,
        "negative": bench_decisions.negative,
        "contrast": bench_contrast.run,
        "speed": bench_speed.run,
        "growth": bench_growth.run,
    }
    return made_by[args.table](args)


def _classical(args: argparse.Namespace) -> int:
    """Measure, print the tables, write ``classical.csv`` and ``classical.md``."""
    import multiprocessing

    from tqdm import tqdm

    from ..bench import classical

    args.output.mkdir(parents=True, exist_ok=True)
    cases = classical.cases(args.data, tuple(args.groups))
    if args.names:
        cases = [c for c in cases if c.name.startswith(tuple(args.names))]
    tasks = [(case, damage, args) for case in cases for damage in args.damage]
    rows: list[classical.Row] = []
    if args.jobs > 1:
        context = multiprocessing.get_context("spawn")
        with context.Pool(args.jobs) as pool:
            for some in tqdm(pool.imap_unordered(_one, tasks), total=len(tasks), mininterval=10):
                rows += some
                classical.write_rows(args.output / "classical.csv", rows)
    else:
        for task in tqdm(tasks, mininterval=10):
            rows += _one(task)
            classical.write_rows(args.output / "classical.csv", rows)
    order = {(c.group, c.name): k for k, c in enumerate(cases)}
    rows.sort(key=lambda r: (order[r.group, r.name], args.damage.index(_spec(r.damage, r.strength, args.damage)), r.trial))
    text = classical.tables(rows)
    stacks = [c for c in cases if c.group == "stacks"]
    if stacks:
        text += "\n\n" + classical.stack_disagreement(stacks, threads=args.threads)
    write_text(args.output / "classical.md", text + "\n")
    print(text)
    return 0


def _one(task: tuple[Any, str, argparse.Namespace]) -> list[Any]:
    from ..bench import classical

    case, damage, args = task
    name, _, strength = damage.partition(":")
    runner = classical.Runner(case, threads=1 if args.jobs > 1 else args.threads)
    return list(
        runner.rows(args.trials, tuple(args.init), tuple(args.refine), name, float(strength or 1), args.seed)
    )


def _spec(name: str, strength: float, specs: list[str]) -> str:
    return next(s for s in specs if s.partition(":")[0] == name and float(s.partition(":")[2] or 1) == strength)
