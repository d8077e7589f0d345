"""``posepipe``: the BIDS App."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress


def main(argv: Sequence[str] | None = None) -> int:
    """Run the BIDS App with the arguments ``argv`` (default: the command line); the exit code.

    0 if every selected image was processed (group level: every file was read), 1 if any failed, 2 for a
    usage error, 128 + its number for a signal that ended the run.
    """
    from ..errors import NO_ROOM, AtlasError, BidsError, PosepipeError, UsageError, advised
    from .parser import parse_settings
    from .stopping import Stopped, stoppable

    stay_offline()
    escape_unencodable()
    try:
        with stoppable():
            settings = parse_settings(sys.argv[1:] if argv is None else argv)
            set_up_logging(settings.verbose)
            if settings.analysis_level == "group":
                from .group_run import run_group

                return run_group(settings)
            from .run import run_app

            return run_app(settings)
    except (UsageError, BidsError, AtlasError) as error:
        print(f"posepipe: error: {error}", file=sys.stderr)
        return 2
    except PosepipeError as error:
        print(f"posepipe: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"posepipe: error: {advised(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        stop = Stopped.of(interrupt)
        with suppress(OSError):  # the terminal may have been closed
            print(f"posepipe: stopped by {stop}; finished images are kept, the same command continues from there", file=sys.stderr)
        return stop.code


def stay_offline() -> None:
    """Prevent Nipype from querying a server for its latest version at import, as it does in notebooks, with ``python -c``, and in workers
    of such a process. The variable must be set before the import and is inherited by the workers."""
    os.environ["NIPYPE_NO_ET"] = "1"


def escape_unencodable() -> None:
    """Write characters that the encoding of standard output or error lacks as escapes (``\\xfc`` for ü), so that a file name cannot stop a
    run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def set_up_logging(verbose: int) -> None:
    """Log to standard error: warnings; with ``-v`` information, with ``-vv`` debug messages."""
    import logging

    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logger = logging.getLogger("posepipe")
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)
