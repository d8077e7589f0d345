"""``posepipe-tools bench precision`` and ``bench negative``: comparison of decisions between precisions, and negative controls."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files import write_text
from ..paths import absolute_path


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench precision``."""
    _add_common(parser)


def add_negative(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench negative``."""
    from ..settings import INIT_CHOICES

    _add_common(parser)
    parser.add_argument("--init", nargs="+", choices=INIT_CHOICES, default=list(INIT_CHOICES), help="default: all")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=absolute_path, help="folder with atlases/, ds-epi, ds-stacks, ds-neonates and ds-negative")
    parser.add_argument("-o", "--output", type=absolute_path, required=True, help="folder for tables; what is in it is not measured again")
    parser.add_argument("--names", nargs="+", help="only images of these names, * and ? stand for any signs")


def precision(args: argparse.Namespace) -> int:
    """Measure, print, write ``precision.csv`` and ``precision.md``."""
    from ..bench import precision as bench

    found = bench.run_all(args.data, args.output, tuple(args.names) if args.names else None)
    bench.write_csv(found, args.output / "precision.csv")
    return _write_report(bench.report(found), args.output / "precision.md")


def negative(args: argparse.Namespace) -> int:
    """Measure, print, write ``negative.csv`` and ``negative.md``."""
    from ..bench import negative as bench
    from ..bench.rows import PartFile

    part = PartFile(args.output / "negative.csv")
    bench.measure(args.data, part, tuple(args.init), tuple(args.names) if args.names else None)
    return _write_report(bench.report(part.rows), args.output / "negative.md")


def _write_report(text: str, output: Path) -> int:
    write_text(output, text.strip() + "\n")
    print(text)
    return 0
