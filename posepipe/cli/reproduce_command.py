"""``posepipe-tools reproduce``: a table or figure of the paper by one command, ours beside the paper's."""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..files import write_text
from ..paths import absolute_path
from .parser import whole_number

if TYPE_CHECKING:
    from ..bench.paper import Error


@dataclass(frozen=True)
class Piece:
    """A table or figure from the poses of ``posepipe-tools bench`` ``table``, stored in the file ``rows``; ``plot``: grouping variable and
    value of a box plot."""

    table: str
    rows: str
    what: str
    plot: tuple[str, str] | None = None


PIECES = {
    "table1": Piece("slice", "slice.csv", "errors of slices by bin"),
    "table2": Piece("volume", "volume.csv", "errors of volumes by bin"),
    "table3": Piece("volume", "volume.csv", "seconds per volume"),
    "figure2": Piece("slice", "slice.csv", "angles of the slices (figure2.png)"),
    "figure3": Piece("slice", "slice.csv", "errors of slices by bin (figure3.png)"),
    "figure4": Piece("volume", "volume.csv", "errors of volumes by bin", ("bin", "degrees")),
    "figure5": Piece("volume", "volume.csv", "displacements of volumes by bin", ("bin", "mm")),
    "figure7": Piece("volume", "volume.csv", "errors of volumes by age", ("weeks", "degrees")),
    "figure8": Piece("contrast", "poses.csv", "errors of T1w newborns, unconverted and converted, and of T2w", ("way", "degrees")),
}


def add_arguments(subparsers: Any) -> None:
    """Register ``reproduce`` with the parser of ``posepipe-tools``."""
    parser = subparsers.add_parser(
        "reproduce", help="reproduce a table or figure of the paper (Salehi et al. 2018), our results beside the paper's",
        description="Run the measurement for the table or figure (rows that are already in the output folder are not measured again), and "
        "write NAME.md and, for a figure, NAME.png. " + "; ".join(f"{name}: {piece.what}" for name, piece in PIECES.items()) + ".",
    )  # fmt: skip
    parser.add_argument("piece", choices=PIECES, metavar="NAME", help=f"one of {', '.join(PIECES)}")
    parser.add_argument("data", type=absolute_path, help="folder with atlases/, ds-fetal and ds-neonates")
    parser.add_argument("-o", "--output", type=absolute_path, required=True, help="folder for rows, table and plot")
    parser.add_argument("--trials", type=whole_number, default=1, help="volumes: poses drawn for each brain in each bin (default: 1)")
    parser.add_argument("--slices", type=int, default=480, help="slices: minimum number (default: 480, as in the results)")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="volumes: only these (default: the paper's and posepipe's own)")
    parser.add_argument("--names", nargs="+", help="only images whose name starts with one of these")
    parser.add_argument(
        "--weights", type=absolute_path, metavar="DIR", help="folder of network weights that replace those of the package"
    )


def run(args: argparse.Namespace) -> int:
    """Measure what is not measured yet, write table and plot; 0 on success."""
    from ..bench import paper

    piece = PIECES[args.piece]
    if code := _measured(piece, args):
        return code
    with (args.output / piece.rows).open(newline="", encoding="utf-8") as file:
        errors = paper.errors_of(list(csv.DictReader(file)))
    text = f"{args.piece}: {piece.what}\n\n{_table(args.piece, piece, errors)}\n"
    if piece.plot:
        plotted = paper.plot_boxes(errors, *piece.plot, args.output / f"{args.piece}.png")
        text += f"\n![{piece.what}]({plotted.name})\n"
    write_text(args.output / f"{args.piece}.md", text)
    print(f"\n{text}")
    return 0


def _table(name: str, piece: Piece, errors: list[Error]) -> str:
    from ..bench import paper

    if name == "table3":
        return paper.table_of_seconds(errors)
    if piece.table == "contrast":
        ways = dict.fromkeys(e.way for e in errors)
        return "\n\n".join(f"**{way}**\n\n{paper.table_of_degrees([e for e in errors if e.way == way], {})}" for way in ways)
    return paper.table_of_degrees(errors, paper.TABLE_1 if piece.table == "slice" else paper.TABLE_2)


def _measured(piece: Piece, args: argparse.Namespace) -> int:
    """Run the bench; its exit code."""
    from ..bench import paper
    from . import bench_command

    parser = argparse.ArgumentParser()
    bench_command.add_arguments(parser.add_subparsers())
    command = ["bench", piece.table, str(args.data), "-o", str(args.output)]
    command += ["--names", *args.names] if args.names else []
    command += ["--weights", str(args.weights)] if args.weights else []
    if piece.table == "slice":
        command += ["--slices", str(args.slices), "--slabs", "1"]
    elif piece.table == "volume":
        command += ["--groups", "fetus", "newborn-T2w", "--trials", str(args.trials), "--methods", *(args.methods or paper.VOLUME_METHODS)]
    else:
        command += ["--trials", str(args.trials), "--ways", *paper.CONTRAST_WAYS, "--methods", *(args.methods or paper.CONTRAST_METHODS)]
    print(f"posepipe-tools {' '.join(command)}", flush=True)
    return bench_command.run(parser.parse_args(command))
