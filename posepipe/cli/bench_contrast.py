"""``posepipe-tools bench contrast``: T1w images of newborns, with and without conversion to T2-like contrast."""

from __future__ import annotations

import argparse

from ..files import write_text
from ..paths import absolute_path
from .parser import whole_number

WAYS = ("T1w", "GAN", "cycleGAN", "T2w", "T1w on T1w")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench contrast``."""
    parser.add_argument("data", type=absolute_path, help="folder with atlases/ and ds-neonates")
    parser.add_argument(
        "-o", "--output", type=absolute_path, required=True, help="folder for CSV, tables and plots; rows in it are not made again"
    )
    parser.add_argument("--names", nargs="+", help="subjects whose name starts with one of these (default: those kept for testing)")
    parser.add_argument("--methods", nargs="+", help="methods of `bench volume` (default: those of the paper's Figure 8 and posepipe's)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="contrasts and conversions that are compared (default: all)")
    parser.add_argument("--trials", type=whole_number, default=2, help="turns of each brain in each bin (default: 2, 14 in all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--weights", type=absolute_path, metavar="DIR", help="folder of network weights that come before those of the package"
    )
    parser.add_argument("--threads", type=whole_number, default=2, help="threads of torch and ITK (default: 2)")


def run(args: argparse.Namespace) -> int:
    """Measure; write ``likeness.csv``, ``poses.csv``, ``contrast.md``, a plot of errors by bin and a montage of each subject."""
    import torch
    from tqdm import tqdm

    from ..bench import contrast as bench
    from ..bench import volume_plots, volume_tables
    from ..bench.methods import METHODS, missing_networks
    from ..bench.rows import PartFile, read_rows, write_rows
    from ..errors import UsageError

    torch.set_num_threads(args.threads)
    chosen = tuple(args.methods or bench.METHODS)
    unknown = [m for m in chosen if m not in METHODS]
    if unknown:
        msg = f"--methods {' '.join(unknown)}: choose from {', '.join(METHODS)}"
        raise UsageError(msg)
    missing = missing_networks(chosen, args.weights)
    for method, network in missing.items():
        print(f"{method}: not run, there is no {network} in these weights", flush=True)
    chosen = tuple(m for m in chosen if m not in missing)
    subjects = bench.contrast_subjects(args.data, args.names)
    if not subjects:
        msg = "no brain to measure: --names leaves none"
        raise UsageError(msg)
    made = bench.ContrastBench(args.data, args.weights)
    ways = [way for way in made.ways if not args.ways or way in args.ways]
    for subject in subjects:
        drawn = made.similarity(subject, PartFile(made.part_path(args.output, subject)))
        bench.montage(drawn, args.output / f"montage_{subject}.png")
    for subject, way in tqdm([(s, w) for s in subjects for w in ways], mininterval=10):
        part = PartFile(made.part_path(args.output, subject, way))
        made.poses(subject, way, part, methods=chosen, trials=args.trials, seed=args.seed)
    images = read_rows(made.part_path(args.output, s) for s in subjects)
    found = read_rows(made.part_path(args.output, s, w) for w in ways for s in subjects)
    write_rows(args.output / "likeness.csv", images)
    write_rows(args.output / "poses.csv", found)
    every = [volume_tables.Row.of(r) for r in found]
    measured = [r for way in ways for m in chosen for r in every if (r.group, r.method) == (way, m)]
    volume_plots.plot_all(measured, args.output)
    text = "\n".join([bench.similarity_table(images), volume_tables.table_by_bin(measured, missing), ""])
    write_text(args.output / "contrast.md", text)
    print(text)
    return 0
