"""``posepipe-tools bench slice``: poses of single slices, the paper's Table 1, and of slabs of neighbouring slices."""

from __future__ import annotations

import argparse

from .bench_deep import add_common, named, run_all, told

SLICE_GROUPS = ("fetus", "newborn-T2w", "CHN", "development")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench slice``."""
    add_common(parser)
    parser.add_argument(
        "--groups", nargs="+", choices=SLICE_GROUPS, default=list(SLICE_GROUPS[:3]),
        help="which brains, in equal shares: those kept for testing (default), or some held for development",
    )  # fmt: skip
    parser.add_argument(
        "--pose-weights", nargs="*", metavar="NAME", default=["slice-pose-mse", "slice-pose"],
        help="the paper's networks by the names of their weights; SVR-Deep begins with the last (default: slice-pose-mse slice-pose)",
    )  # fmt: skip
    parser.add_argument("--slices", type=int, default=480, help="at least so many of each of two samplings (default 480)")
    parser.add_argument("--slabs", type=int, default=240, help="at least so many of 3, and of 5, neighbouring slices (default 240)")


def run(args: argparse.Namespace) -> int:
    """Measure; write ``slice.csv``, ``slice.md``, ``figure2.png`` and ``figure3.png``."""
    from ..bench import rows, slice_plots, slice_tables
    from ..bench import slices as bench

    some, missing = bench.runnable(args.pose_weights, args.weights)
    for method, network in missing.items():
        print(f"{method}: not run, there is no {network} in these weights", flush=True)
    cases = named(bench.slice_cases(args.data, args.groups), args.names)
    single, slabs = bench.trials(cases, args.slices), bench.trials(cases, args.slabs)
    tasks = []
    for case in cases:
        counts = {name: (single if s.slices == 1 else slabs)[case.name] for name, s in bench.SAMPLINGS.items()}
        tasks.append((case, args.output, some, counts, args.seed, args.weights))
    run_all(bench.run_task, tasks, args.jobs)
    found = slice_tables.with_bins(bench.read_parts(args.output, cases, some, args.weights))
    rows.write_rows(args.output / "slice.csv", found)
    measured = [slice_tables.SliceRow.of(r) for r in found]
    slice_plots.plot_all(measured, args.output)
    text = "\n".join([slice_tables.table_by_bin(measured, missing), slice_tables.summary(measured)])
    return told(text, args.output / "slice.md")
