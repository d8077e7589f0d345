"""``posepipe-tools bench masks``: brain masks by network, and poses without any mask given."""

from __future__ import annotations

import argparse

from ..files import write_text
from ..paths import absolute_path

PARTS = ("stacks", "epi", "dressed", "brainless")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench masks``."""
    parser.add_argument("data", type=absolute_path, help="folder with atlases/, ds-stacks, ds-epi, ds-neonates and ds-fetal")
    parser.add_argument(
        "-o", "--output", type=absolute_path, required=True, help="folder for CSV and tables; rows in it are not made again"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS),
        help="stacks: raw stacks with drawn masks; epi: whole-uterus stacks with landmarks; dressed: brains in made-up heads and "
        "bodies; brainless: pieces of the whole-uterus stacks without the brain",
    )  # fmt: skip
    parser.add_argument("--names", nargs="+", help="only images whose name starts with one of these")
    parser.add_argument("--kept", choices=("train", "test"), help="only images that trained, or that are kept for testing")
    parser.add_argument("--trials", type=int, default=4, help="times each brain is dressed, in each kind of surroundings (default: 4)")
    parser.add_argument(
        "--weights", type=absolute_path, metavar="DIR", help="folder of network weights that come before those of the package"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2; 1 on a busy machine)")


def run(args: argparse.Namespace) -> int:
    """Measure; write ``masks.csv`` and ``masks.md``."""
    import torch
    from tqdm import tqdm

    from ..bench import masks as bench
    from ..bench.methods import networks_key
    from ..bench.rows import PartFile, read_rows, write_rows
    from ..errors import UsageError

    cases = [c for c in bench.mask_cases(args.data, tuple(args.parts)) if not args.names or c.name.startswith(tuple(args.names))]
    cases = [c for c in cases if args.kept in {None, c.kept}]
    if not cases:
        msg = "no image to measure: --parts, --names and --kept leave none"
        raise UsageError(msg)
    torch.set_num_threads(args.threads)
    made = bench.MaskBench(args.data, args.weights, threads=args.threads)
    key = networks_key(made.weights)
    paths = [args.output / "parts" / f"{case.part}_{case.name}_{key}.csv" for case in cases]
    for case, path in tqdm(list(zip(cases, paths, strict=True)), mininterval=10):
        made.measure(case, PartFile(path), trials=args.trials)
    rows = read_rows(paths)
    write_rows(args.output / "masks.csv", rows)
    text = bench.report(rows)
    write_text(args.output / "masks.md", text)
    print(text)
    return 0
