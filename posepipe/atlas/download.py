"""Resumable downloads with checksums, by pooch."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import AtlasError

_CHUNK = 1 << 13  # an interrupted chunk is lost, so chunks are small
_TIMEOUT = 30.0
"""Seconds without an answer after which a download fails."""


def download(
    url: str, target: Path, sha256: str, *, retries: int = 2, advance: Callable[[int], Any] | None = None
) -> bool:
    """Download ``url`` to ``target``; True if anything was downloaded, False if the file existed already.

    The file is moved to ``target`` only after its SHA-256 was verified. An interrupted download leaves a ``.part`` file, which the
    next attempt continues if the server supports it (HTTP Range). ``advance`` is called with the number of bytes received.

    Raises :class:`~posepipe.errors.AtlasError` when the server cannot be reached or what it sends has another checksum.
    """
    import pooch
    import requests.exceptions

    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and pooch.file_hash(str(target)) == sha256:
        return False
    store = pooch.create(
        target.parent,
        base_url="",
        registry={target.name: f"sha256:{sha256}"},
        urls={target.name: url},
        retry_if_failed=retries,
    )
    try:
        with _quiet(pooch.get_logger()):
            store.fetch(target.name, downloader=_Resume(target.with_name(target.name + ".part"), advance))
    except (requests.exceptions.RequestException, OSError) as error:
        msg = f"{url}: download failed ({error}); run the same command again, it continues where this one stopped"
        raise AtlasError(msg) from error
    except ValueError as error:  # pooch: the checksum is another
        msg = (
            f"{url}: what the server sent is not the file expected (SHA-256 {sha256[:12]}…); nothing was kept. "
            "Try again later; if it stays, the file was changed at its source"
        )
        raise AtlasError(msg) from error
    return True


class _Resume:
    """A pooch downloader that writes to ``part`` first and continues it when it is already there."""

    def __init__(self, part: Path, advance: Callable[[int], Any] | None) -> None:
        self.part, self.advance = part, advance

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        import requests

        have = self.part.stat().st_size if self.part.is_file() else 0
        # with transfer compression, byte ranges would not refer to the file's bytes
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if (
                have and response.status_code == 416
            ):  # the part has at least the length of the file: verify the checksum
                shutil.move(self.part, output_file)
                return
            response.raise_for_status()
            sent = response.headers.get("Content-Range", "")
            goes_on = response.status_code == 206 and sent.startswith(f"bytes {have}-")
            if goes_on and self.advance is not None:
                self.advance(have)
            with self.part.open("ab" if goes_on else "wb") as file:
                came = 0
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    came += len(chunk)
                    if self.advance is not None:
                        self.advance(len(chunk))
            # urllib3 before 2 does not detect a truncated body
            if came < int(response.headers.get("Content-Length", came)):
                msg = f"only {came} bytes came"
                raise requests.exceptions.ConnectionError(msg)
        shutil.move(self.part, output_file)


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Context without pooch's log line per file; its log level is restored."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
