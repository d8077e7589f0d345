"""``posepipe-tools``: the commands beside the BIDS App."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from contextlib import suppress

COMMANDS = ("align", "demo", "convert", "reorient", "restore", "atlas", "array", "reference", "train", "bench", "reproduce")
"""Each is a module ``<name>_command`` beside this one, with ``add_arguments(subparsers)`` and ``run(args) -> int``."""


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    from .._version import __version__

    parser = argparse.ArgumentParser(
        prog="posepipe-tools", description="One image without BIDS, a demonstration, atlases, job arrays, training, measurements."
    )
    parser.add_argument("--version", action="version", version=f"posepipe {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    for name in COMMANDS:
        importlib.import_module(f".{name}_command", __package__).add_arguments(subparsers)
    return parser


def _parted(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split ``argv`` into the options of the command, and those after ``--``, which ``array`` passes to posepipe.

    >>> _parted(["array", "in", "out", "--", "--age", "29"])
    (['array', 'in', 'out'], ['--age', '29'])
    """
    if argv[:1] != ["array"] or "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command with the arguments ``argv`` (default: the command line); the exit code.

    2 for a usage error, 128 + its number for a signal that ended it.
    """
    from ..errors import NO_ROOM, AtlasError, PosepipeError, UsageError, advised
    from .app import escape_unencodable, stay_offline
    from .stopping import Stopped, stoppable

    stay_offline()
    escape_unencodable()
    argv = list(sys.argv[1:] if argv is None else argv)
    own, rest = _parted(argv)
    args = build_parser().parse_args(own)
    args.argv, args.rest = argv, rest  # argv is recorded in the page, rest is passed to posepipe
    try:
        with stoppable():
            code: int = importlib.import_module(f".{args.command}_command", __package__).run(args)
    except (UsageError, AtlasError) as error:
        print(f"posepipe-tools {args.command}: error: {error}", file=sys.stderr)
        return 2
    except PosepipeError as error:
        print(f"posepipe-tools {args.command}: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"posepipe-tools {args.command}: error: {advised(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        stop = Stopped.of(interrupt)
        with suppress(OSError):
            print(f"posepipe-tools: stopped by {stop}", file=sys.stderr)
        return stop.code
    return code
