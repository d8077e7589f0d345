"""Small templates on disk, and a file server that counts, honours byte ranges and can break off."""

from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from posepipe.atlas import Cohort, Manifest, SourceFile
from posepipe.imaging.volume import Volume, save_volume
from posepipe.references import Reference

REPOSITORY, COMMIT = "someone/atlas", "0" * 40


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh cache folder (``tmp_path/cache``), no TEMPLATEFLOW_HOME, no POSEPIPE_ATLAS_PATH.

    Each test module imports it, to stay away from the machine's own caches.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TEMPLATEFLOW_HOME", raising=False)
    monkeypatch.delenv("POSEPIPE_ATLAS_PATH", raising=False)


def write_image(path: Path, *, seed: int = 0, labels: bool = False, affine=None) -> Path:
    """A small image (or label map) with a bright block in the middle of noise."""
    rng = np.random.default_rng(seed)
    data = rng.integers(1, 50, (9, 10, 11)).astype(np.int16)
    data[2:7, 2:8, 2:9] += 500
    if labels:
        data = (data > 400).astype(np.int16) * (1 + seed % 3)
    return save_volume(Volume(data, np.diag([0.8, 0.8, 0.8, 1]) if affine is None else affine), path)


def write_template(root: Path, atlas: str, cohort: str, *contrasts: str, mask=False, tissues=False, res="") -> Path:
    """Files of one cohort under ``root`` in TemplateFlow's layout; the last image's path."""
    folder = root / f"tpl-{atlas}" / f"cohort-{cohort}"
    stem = f"tpl-{atlas}_cohort-{cohort}" + (f"_res-{res}" if res else "")
    if mask:
        write_image(folder / f"{stem}_desc-brain_mask.nii.gz", labels=True)
    if tissues:
        write_image(folder / f"{stem}_desc-tissues_dseg.nii.gz", labels=True)
    for contrast in contrasts or ("T2w",):
        path = write_image(folder / f"{stem}_{contrast}.nii.gz")
    return path


class FileServer:
    """What a test may ask of the running server: its address, what was asked of it, and how it should behave."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.url = root, f"http://127.0.0.1:{port}"
        self.requests: list[tuple[str, str | None, int]] = []  # path, Range header, status
        self.ranges = True
        self.cut_after: int | None = None


@contextmanager
def file_server(root: Path):
    """Serve ``root`` on 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, wanted = root / self.path.lstrip("/"), self.headers.get("Range")
            if not path.is_file():
                self._head(404, 0)
                return
            body, start = path.read_bytes(), 0
            if wanted and state.ranges:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(body):
                    self._head(416, 0)
                    return
            self._head(206 if start else 200, len(body) - start, f"bytes {start}-{len(body) - 1}/{len(body)}")
            rest = body[start:]
            self.wfile.write(rest if state.cut_after is None else rest[: state.cut_after])

        def _head(self, status: int, length: int, content_range: str = "") -> None:
            state.requests.append((self.path, self.headers.get("Range"), status))
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            if status == 206:
                self.send_header("Content-Range", content_range)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = FileServer(root, server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def served_manifest(root: Path, *, name: str = "Tiny", **changes) -> Manifest:
    """Write originals of two cohorts under a server's ``root``, and the manifest that fetches them."""
    rows = []
    for seed, cohort in enumerate(("25", "26")):
        for file, labels in (("T2w", False), ("desc-tissues_dseg", True)):
            path = f"data/week{cohort}/{file}.nii.gz"
            full = write_image(root / REPOSITORY / COMMIT / path, seed=seed, labels=labels)
            content = full.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            rows.append(SourceFile(cohort, file, len(content), digest, REPOSITORY, COMMIT, path))
    fields = {
        "name": name,
        "title": "A tiny atlas",
        "stage": "fetal",
        "age_kind": "gestational weeks",
        "cohorts": (Cohort("25", 25.0), Cohort("26", 26.0)),
        "contrasts": ("T2w",),
        "licence": "test licence",
        "terms": "You may use it in tests.",
        "requires_acceptance": False,
        "reference": Reference("nobody2020", "misc", ("Nobody",), "A tiny atlas", "none", 2020, doi="10.0/0"),
        "home": "https://example.org",
        "source": "files",
        "sources": tuple(rows),
        "mask_from_tissues": True,
    }
    return Manifest(**(fields | changes))
