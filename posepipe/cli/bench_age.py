"""``posepipe-tools bench age``: accuracy of the age estimation, and fit of its constants."""

from __future__ import annotations

import argparse

from ..files import write_text
from ..paths import absolute_path
from .bench_deep import add_install

PARTS = ("calibration", "test", "stacks")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench age``."""
    parser.add_argument("data", type=absolute_path, help="folder with atlases/, ds-neonates, ds-fetal and ds-stacks")
    parser.add_argument(
        "-o", "--output", type=absolute_path, required=True, help="folder for CSV and tables; rows in it are not made again"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=["calibration"],
        help="calibration: cohorts on other atlases, and newborns not kept for testing; test: brains that are; stacks: six of one "
        "fetus of unknown age (default: calibration)",
    )  # fmt: skip
    parser.add_argument("--names", nargs="+", help="only images whose name starts with one of these")
    parser.add_argument(
        "--weights", type=absolute_path, metavar="DIR", help="folder of network weights that come before those of the package"
    )
    add_install(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, fit where calibration brains are among the rows, write ``age.csv``, ``age.md`` and ``age.toml``."""
    import torch
    from tqdm import tqdm

    from ..age.curves import PACKAGED, load_age_model, save_age_model
    from ..bench import age as bench
    from ..bench.methods import networks_key
    from ..bench.rows import PartFile, read_rows, write_rows
    from ..errors import UsageError
    from ..models.weights import POSE_NETWORKS, hashes

    cases = [c for c in bench.age_cases(args.data, tuple(args.parts)) if not args.names or c.name.startswith(tuple(args.names))]
    if not cases:
        msg = f"no brain to measure: none of {', '.join(args.parts)} is named {', '.join(args.names)}"
        raise UsageError(msg)
    torch.set_num_threads(1)
    made, key = bench.AgeBench(args.data, args.weights), networks_key(hashes(POSE_NETWORKS, args.weights))
    paths = [args.output / "parts" / f"{case.name}_{key}.csv" for case in cases]
    for case, path in tqdm(list(zip(cases, paths, strict=True)), mininterval=10):
        made.measure(case, PartFile(path))
    rows = read_rows(paths)
    write_rows(args.output / "age.csv", rows)
    known = bench.age_records(rows)
    model, left_out = bench.fit_ages(known) if "calibration" in args.parts else (load_age_model(), {})
    if left_out:
        save_age_model(model, args.output / "age.toml")
    if args.install and left_out:
        save_age_model(model, args.install / PACKAGED.name)
    text = bench.report(known, model, left_out)
    write_text(args.output / "age.md", text)
    print(text)
    return 0
