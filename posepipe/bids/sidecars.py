"""JSON files: atomic writing, and reading by the inheritance principle of BIDS."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import BidsError
from ..files import write_text
from ..settings import FULL
from .entities import split_name
from .image import InputImage
from .names import FURTHER_KEY, OutputNames, requested
from .reading import read_object

logger = logging.getLogger(__name__)

HASH_KEY = "ParametersHash"


def write_json(path: str | Path, obj: Any) -> Path:
    """Write ``obj`` as JSON, atomically; numpy scalars and arrays, paths and sets are converted, NaN becomes null."""
    return write_text(path, json.dumps(plain(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object. Raises :class:`~posepipe.errors.BidsError` if it is missing, broken, or not an object."""
    content = read_object(path)
    if content is None:
        msg = f"{path}: cannot be read as JSON (no such file)"
        raise BidsError(msg)
    return content


def plain(obj: Any) -> Any:
    """``obj`` in the types that JSON knows.

    >>> plain({"a": (1, float("nan")), 2: Path("x")})
    {'a': [1, None], '2': 'x'}
    """
    if isinstance(obj, Mapping):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [plain(value) for value in obj]
    if isinstance(obj, (set, frozenset)):
        return sorted(plain(value) for value in obj)
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if hasattr(obj, "tolist"):  # numpy scalars and arrays, torch tensors
        return plain(obj.tolist())
    return obj


def parameters_hash(parameters: Mapping[str, Any], image: InputImage) -> str:
    """SHA-256 (hex) of the parameters of an image and of the contents of the image and its mask.

    Independent of the order of the parameters, of file times, and of the dataset's location.
    """
    digest = hashlib.sha256(json.dumps(plain(parameters), sort_keys=True, default=str).encode())
    digest.update(image.relative.as_posix().encode())
    for path in (image.path, image.mask):
        digest.update(b"\0" if path is None else _file_digest(path))
    return digest.hexdigest()


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.digest()


def is_done(
    names: OutputNames,
    parameters: Mapping[str, Any],
    *,
    synth: bool = False,
    slices: bool = False,
    formats: Iterable[str] = (),
    labels: Mapping[str, Mapping[str, str]] | None = None,
    level: str = FULL,
) -> bool:
    """Whether an earlier run finished this image with these settings: all outputs are there, and the hash that
    the forward transform's sidecar holds under ``ParametersHash`` is equal.

    ``synth``: the converted contrast is among the outputs; ``slices``: the poses of its slices are; ``formats`` and
    ``labels`` are outputs on request, ``level`` is the ``--level`` (:meth:`OutputNames.files`). The image is not done if an input was
    replaced since, or if the sidecar does not list a requested output, which may then be of another pose. Other existing files are ignored.
    """
    formats, labels = [form for form in formats if form != "itk"], labels or {}
    if not all(path.is_file() for path in names.files(synth=synth, slices=slices, formats=formats, labels=labels, level=level)):
        return False
    try:
        sidecar = read_json(names.sidecar(names.forward))
    except BidsError as error:
        logger.warning("%s; the image is processed again", error)
        return False
    written, there = sidecar.get(HASH_KEY), requested(sidecar)
    if not set(formats) <= set(there["formats"]) or any(there["labels"].get(kind) != request for kind, request in labels.items()):
        return False
    if (sidecar.get(FURTHER_KEY) is True) != names.further:  # its files have other names
        return False
    return written is not None and written == parameters_hash(parameters, names.image)


class Metadata:
    """JSON metadata of images by the inheritance principle, read on demand; each folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[tuple[dict[str, str], Path]]]] = {}

    def of(self, image: InputImage) -> dict[str, Any]:
        """Metadata of ``image``; sidecars in lower folders override those further up.

        Raises :class:`~posepipe.errors.BidsError` for a sidecar that is not valid JSON.
        """
        merged: dict[str, Any] = {}
        for depth in range(len(image.relative.parts)):
            folder = image.root.joinpath(*image.relative.parts[:depth])
            sidecars = self._listing(folder).get(image.suffix, [])
            fitting = [(len(e), path) for e, path in sidecars if e.items() <= image.entities.items()]
            for _, path in sorted(fitting):
                merged |= read_json(path)
        return merged

    def _listing(self, folder: Path) -> dict[str, list[tuple[dict[str, str], Path]]]:
        if folder not in self._folders:
            found: dict[str, list[tuple[dict[str, str], Path]]] = defaultdict(list)
            try:
                names = [name for name in os.listdir(folder) if name.endswith(".json")]  # noqa: PTH208
            except OSError as error:
                msg = f"{folder}: its sidecars cannot be read ({error.strerror}); make the folder readable"
                raise BidsError(msg) from error
            for name in names:
                # sidecars further up have no participant entity; one is added for parsing
                split = split_name(name) or split_name(f"sub-x_{name}")
                if split is not None and not split.unparsed:
                    entities = {k: v for k, v in split.entities.items() if k != "sub" or name.startswith("sub-")}
                    found[split.suffix].append((entities, folder / name))
            self._folders[folder] = dict(found)
        return self._folders[folder]
