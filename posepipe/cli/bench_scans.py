"""``posepipe-tools bench scans``: brains and poses found without a mask."""

from __future__ import annotations

import argparse

from ..files import write_text
from ..paths import absolute_path
from .bench_deep import add_folds, folds_of
from .parser import whole_number

PARTS = ("epi", "scans", "stacks", "heads", "cut", "twins")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench scans``."""
    parser.add_argument("data", type=absolute_path, help="folder with atlases/, ds-stacks, ds-epi, ds-neonates and ds-fetal")
    parser.add_argument(
        "-o", "--output", type=absolute_path, required=True, help="folder for CSV and tables; rows in it are not made again"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS),
        help="epi: whole-uterus stacks with landmarks; scans, stacks: raw scans with delineated masks; heads: brains in synthetic heads "
        "and bodies; cut: pieces of the whole-uterus stacks without the brain; twins: two of these stacks side by side",
    )  # fmt: skip
    parser.add_argument("--names", nargs="+", help="only images whose name starts with one of these")
    add_folds(parser)
    parser.add_argument("--trials", type=whole_number, default=4, help="times each brain is put into each surroundings (default: 4)")
    parser.add_argument(
        "--weights", type=absolute_path, metavar="DIR", help="folder of network weights that come before those of the package"
    )
    parser.add_argument("--threads", type=whole_number, default=2, help="threads of torch (default: 2; 1 on a busy machine)")


def run(args: argparse.Namespace) -> int:
    """Measure; write ``scans.csv`` and ``scans.md``."""
    import torch
    from tqdm import tqdm

    from ..bench import scans as bench
    from ..bench.methods import networks_key
    from ..bench.rows import PartFile, read_rows, write_rows
    from ..errors import UsageError
    from ..models.weights import POSE_NETWORKS, SCAN_NETWORKS, hashes

    cases = [c for c in bench.scan_cases(args.data, tuple(args.parts)) if not args.names or c.name.startswith(tuple(args.names))]
    if not cases:
        msg = "no image to measure: --parts and --names leave none"
        raise UsageError(msg)
    torch.set_num_threads(args.threads)
    made = bench.ScanBench(args.data, args.weights, folds_of(args), threads=args.threads)
    paths = []
    for case in tqdm(cases, mininterval=10):
        key = networks_key(hashes((*SCAN_NETWORKS, *POSE_NETWORKS), made.weights_of(case)))
        paths.append(args.output / "parts" / f"{case.part}_{case.name}_{key}.csv")
        made.measure(case, PartFile(paths[-1]), trials=args.trials)
    rows = read_rows(paths)
    write_rows(args.output / "scans.csv", rows)
    text = bench.report(rows)
    write_text(args.output / "scans.md", text)
    print(text)
    return 0
