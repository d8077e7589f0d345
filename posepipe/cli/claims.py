"""Locks on the images of a run, so that two runs never process the same image at the same time."""

from __future__ import annotations

import fcntl
import hashlib
import logging
from pathlib import Path
from types import TracebackType

from ..bids import InputImage
from ..files import name_stem

logger = logging.getLogger(__name__)


class Claims:
    """Locks on the images that this process works on in one output folder.

    An image corresponds to one byte of a lock file, at an offset from the hash of its name. The lock is held by the operating system, for
    all machines that share the folder, and is released when the process ends for any reason. On file systems without locks every request is
    granted, and this is logged.
    """

    def __init__(self, out_dir: Path) -> None:
        path = out_dir / "logs" / "running.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def take(self, image: InputImage) -> bool:
        """Lock ``image``; False if another run holds the lock."""
        name = name_stem(image.path)
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
