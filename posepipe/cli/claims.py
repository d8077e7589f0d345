"""Which images this run works on, told to other runs: two of them at one image would take away each other's files."""

from __future__ import annotations

import fcntl
import hashlib
import logging
from pathlib import Path
from types import TracebackType

from ..bids import InputImage

logger = logging.getLogger(__name__)


class Claims:
    """The images that this process works on in one output folder.

    An image is one byte of a lock file, by the digest of its name; the operating system holds the lock, for all machines that share the
    folder, and lets go of it when the process ends, whatever ends it. Where the file system knows no locks, every image is granted, and
    that is logged.
    """

    def __init__(self, out_dir: Path) -> None:
        path = out_dir / "logs" / "running.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def take(self, image: InputImage) -> bool:
        """Claim ``image``; False if another run has it."""
        name = image.path.name.partition(".")[0]
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            logger.info("%s: no locks on this file system (%s); do not run the same images twice at once", self._file.name, error.strerror)
        return True

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
