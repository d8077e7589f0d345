"""``posepipe-tools bench growth``: time and memory by the number of images, voxels, slices and participants."""

from __future__ import annotations

import argparse

from ..files import write_text
from ..paths import absolute_path
from .bench_speed import machine
from .parser import whole_number

NAMES = ("images", "voxels", "slices", "subjects", "page")
SPACING = 1.0
"""Voxel edge of the phantom, mm: that of the demonstration (``posepipe-tools demo --spacing``)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench growth``."""
    parser.add_argument(
        "-o", "--output", type=absolute_path, required=True, help="folder for CSV, table, plot and logs; rows in it are not made again"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="QUANTITY", help=f"some of: {', '.join(NAMES)}")
    parser.add_argument(
        "--largest", type=whole_number, metavar="N", help="largest size of each (voxels: N³); default: those of a large study"
    )
    parser.add_argument("--repeats", type=whole_number, default=1, help="runs of each size (default 1)")
    parser.add_argument("--shared", action="store_true", help="the machine does other work meanwhile: the report says so")


def run(args: argparse.Namespace) -> int:
    """Measure, write ``growth.csv``, ``growth.md`` and ``growth.png``; 1 if a command failed, which is told, else 0."""
    from ..bench import growth, growth_data, growth_run, growth_tables, rows

    args.output.mkdir(parents=True, exist_ok=True)
    study = growth_data.write_study(args.output / "study", SPACING)
    failed = False
    for name in (n for n in NAMES if n in args.only):
        try:
            for row in growth.measure(study, args.output, name, growth.sizes_of(name, args.largest), args.repeats):
                about = f"{row.seconds:.1f} s, processor {row.processor:.1f} s, {row.peak_mb:.0f} MB"
                print(f"{growth.QUANTITIES[name].title}, {row.size}: {about}", flush=True)
        except growth_run.GrowthError as error:
            failed = True
            print(f"{name}: {error}", flush=True)
    measured = [growth.Row.of(row) for row in rows.read_rows(growth.part_path(args.output, name) for name in NAMES)]
    if not measured:
        return 1
    rows.write_rows(args.output / "growth.csv", growth_tables.summary_rows(measured))
    text = f"# Growth\n\n{growth_tables.report(measured, machine(), shared=args.shared)}"
    growth_tables.plot(measured, args.output / "growth.png")
    write_text(args.output / "growth.md", text)
    print(text)
    return 1 if failed else 0
