"""``posepipe-tools bench speed``: posepipe beside the registration tools that people use."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

from ..files import write_text
from ..paths import absolute_path
from .parser import whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench speed``."""
    parser.add_argument("data", type=absolute_path, help="folder with atlases/, ds-fetal, ds-neonates and ds-stacks")
    parser.add_argument(
        "-o", "--output", type=absolute_path, required=True, help="folder for CSV, tables, plot and logs; rows in it are not made again"
    )
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="default: all that can be run; an unknown name lists them")
    parser.add_argument("--names", nargs="+", help="only images whose name starts with one of these")
    parser.add_argument("--turns", type=whole_number, default=1, help="turns of each image in each of six bins (default 1)")
    parser.add_argument("--repeats", type=whole_number, default=1, help="registrations of each turned image (default 1)")
    parser.add_argument("--threads", type=whole_number, nargs="+", default=[1, 2], help="numbers of threads (default 1 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--weights", type=absolute_path, metavar="DIR", help="folder of network weights that come before those of the package"
    )
    parser.add_argument("--fireants-python", type=absolute_path, metavar="PATH", help="Python of an environment that has FireANTs")
    parser.add_argument(
        "--shared", action="store_true",
        help="the machine does other work meanwhile: the report says so, and processes are not kept to as many cores as threads",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure, write ``speed.csv``, ``speed.md`` and ``speed.png``; 0 if every method ended well."""
    from ..bench import rows, speed, speed_tables
    from ..bench.tools import TOOLS, Options
    from ..errors import UsageError

    chosen = args.methods or list(TOOLS)
    unknown = [m for m in chosen if m not in TOOLS]
    if unknown:
        msg = f"--methods: {', '.join(unknown)} is none of {', '.join(TOOLS)}"
        raise UsageError(msg)
    cases = speed.speed_cases(args.data, args.names or ())
    if not cases:
        msg = f"{args.data}: no image to measure; look at --names"
        raise UsageError(msg)
    options = [Options(n, args.data, args.weights, str(args.fireants_python or "")) for n in args.threads]
    missing = {m: why for m in chosen if (why := TOOLS[m].missing(options[0]))}
    for method, why in missing.items():
        print(f"{method}: not run, {why}", flush=True)
    chosen = [m for m in chosen if m not in missing]
    speed.write_scenes(cases, args.output / "scenes", turns=args.turns, seed=args.seed)
    scenes = list(speed.read_scenes(cases, args.output / "scenes", turns=args.turns, seed=args.seed))
    broken = []
    for one in options:
        for method in chosen:
            print(f"{method}, {one.threads} thread(s), {len(scenes)} images", flush=True)
            if speed.run_method(scenes, args.output, method, options=one, repeats=args.repeats, pinned=not args.shared):
                broken.append(method)
                print(f"{method}: ended with an error; see {args.output / 'logs'}", flush=True)
    found = rows.read_rows(speed.part_path(args.output, m, n) for n in args.threads for m in chosen)
    rows.write_rows(args.output / "speed.csv", found)
    measured = [speed.Row.of(row) for row in found]
    if not measured:
        return 1
    text = f"# Speed\n\n{speed_tables.report(measured, missing, machine(), shared=args.shared)}"
    speed_tables.plot(measured, args.output / "speed.png")
    write_text(args.output / "speed.md", text)
    print(text)
    return 1 if broken else 0


def machine() -> str:
    """The processor, its cores, and the load at this time."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    load = f", load at the end {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{model or platform.machine()}, {os.cpu_count()} cores{load}"
