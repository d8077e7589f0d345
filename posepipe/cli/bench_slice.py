"""``posepipe-tools bench slice``: poses of single slices, the paper's Table 1, and of slabs of neighbouring slices; ``bench stacks``: of
all slices of moving stacks."""

from __future__ import annotations

import argparse
from dataclasses import replace

from .bench_deep import add_common, add_install, named, run_all, write_report
from .parser import whole_number

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


def add_stacks(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench stacks``."""
    add_common(parser)
    parser.add_argument(
        "--groups", nargs="+", choices=(*SLICE_GROUPS, "validation", "real"), default=["fetus", "newborn-T2w", "real"],
        help="whose still volumes are made to move: brains kept for testing, some held for development, or those that networks were "
        "validated with; real: the six raw stacks",
    )  # fmt: skip
    parser.add_argument("--trials", type=whole_number, default=4, help="stacks of each brain at each level of motion (default 4)")
    parser.add_argument(
        "--fit", action="store_true", help="fit the confidence of slices to the rows (of validation), write calibration.toml with it"
    )
    add_install(parser)


def stacks(args: argparse.Namespace) -> int:
    """Measure; write ``stacks.csv`` and ``stacks.md``; with ``--fit`` also ``calibration.toml``."""
    from ..bench import moving_stacks, real_stacks, rows
    from ..bench.slices import slice_cases
    from ..errors import UsageError
    from ..models.calibration import NAME, load_calibration, write_calibration
    from ..models.weights import SLICE_NETWORK, hashes

    simulated = [g for g in args.groups if g != "real"]
    parts = []
    if simulated:
        known = moving_stacks.validation_cases(args.data) if "validation" in simulated else []
        cases = named(slice_cases(args.data, simulated) + known, args.names)
        run_all(moving_stacks.run_task, [(c, args.output, args.trials, args.seed, args.weights) for c in cases], args.jobs)
        weights = hashes((SLICE_NETWORK,), args.weights)
        found = rows.read_rows(moving_stacks.part_path(args.output, c, weights) for c in cases)
        rows.write_rows(args.output / "stacks.csv", found)
        before = load_calibration(args.weights)
        model = None if before.others(weights) else before.slices
        if args.fit:
            if set(simulated) != {"validation"}:
                msg = "--fit: it is fitted to brains that networks were validated with; give --groups validation"
                raise UsageError(msg)
            fit = moving_stacks.fit_slices(found)
            model, made = fit.model, {**before.made, "slices": fit.made}
            after = replace(before, slices=model, made=made, weights={**before.weights, **weights})
            for folder in filter(None, (args.output, args.install)):
                write_calibration(after, folder / NAME)
            parts.append(f"Confidence: {fit.made}.")
        parts += [moving_stacks.report(found, model), moving_stacks.limits(found)]
    if "real" in args.groups:
        parts.append(real_stacks.report(real_stacks.real_stacks(args.data, args.weights)))
    return write_report("\n\n".join(parts), args.output / "stacks.md")


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
    return write_report(text, args.output / "slice.md")
