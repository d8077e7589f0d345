"""``dataset_description.json`` and ``.bidsignore`` of the output dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from ..errors import BidsError
from ..files import alone, write_bytes
from .masks import parse_derivative
from .sidecars import read_json, write_json

logger = logging.getLogger(__name__)

BIDS_VERSION = "1.10.0"
LOCK = "logs/description.lock"
"""Held while the description is read, changed and written, as several runs may do so at once."""
HASHES = ("AtlasFiles", "Weights")
"""Keys of posepipe's entry under GeneratedBy: file or name → SHA-256."""
NO_LICENCE = "No licence is granted by posepipe; the terms of the data that these files were made from hold."
"""How posepipe's ``License`` begins, by which it is known from another's."""
ACKNOWLEDGE = (
    "Cite posepipe, the atlas and the software that logs/CITATION.md lists (for reference managers: logs/CITATION.bib); its text describes "
    "what was done."
)
IGNORED = (
    "*.html",
    "logs/",
    "failures.tsv",
    "group_*",
    "sub-*/**/log",  # the validator knows folders below sub-* without a slash at the end only
    # not in the standard yet: transforms, the cohort of a space, and the contrast that a mask was made from
    "*_xfm.*",
    "*_cohort-*",
    "*_mod-*_mask.*",
    "*_mod-*_dseg.*",
)


def write_dataset_description(
    out_dir: str | Path,
    *,
    version: str,
    source: str | Path,
    derivatives: Sequence[str | Path] = (),
    url: str | None = None,
    container: Mapping[str, str] | None = None,
    links: Mapping[str, Path] | None = None,
) -> Path:
    """Write or update ``dataset_description.json`` of the output dataset.

    Args:
        out_dir: the output dataset; what another tool has described there is kept.
        version: of posepipe.
        source: the input dataset, linked as ``raw`` (so ``bids:raw:…`` in sidecars resolves).
        derivatives: ``[NAME=]PATH`` of the derivative datasets used, linked by their names.
        url: of posepipe's code; left out if None.
        container: the container that posepipe runs in (``Type``, ``Tag``, ``URI``); left out if None.
        links: name → folder of what else BIDS URIs in sidecars name, such as the templates.

    Raises :class:`~posepipe.errors.BidsError` if ``out_dir`` is the input or a raw dataset, or its description broken.
    """
    path = Path(out_dir) / "dataset_description.json"
    old = read_json(path) if path.exists() else {}
    derived = old.get("DatasetType") == "derivative" or "GeneratedBy" in old or "PipelineDescription" in old
    if Path(out_dir).resolve() == Path(source).resolve() or (old and not derived):
        msg = f"{out_dir}: is an input dataset; give an output folder of its own, such as derivatives/posepipe"
        raise BidsError(msg)
    raw = Path(source).resolve().as_uri()
    given = {name: folder.resolve() for name, folder in map(parse_derivative, derivatives)}
    folders = {**given, **{name: folder.resolve() for name, folder in (links or {}).items()}}
    linked = {"raw": raw, **{name: folder.as_uri() for name, folder in folders.items()}}
    with alone(path.parent / LOCK):
        old = read_json(path) if path.exists() else {}
        sources = _list(old, "SourceDatasets", path)
        for entry in (_source(Path(source), raw), *(_source(folder, folder.as_uri()) for folder in given.values())):
            sources = _with(sources, entry)
        made_by = _list(old, "GeneratedBy", path)
        before = next((entry for entry in made_by if entry.get("Name") == "posepipe"), {})
        ours: dict[str, Any] = {"Name": "posepipe", "Version": version}
        if url:
            ours["CodeURL"] = url
        if container:
            ours["Container"] = dict(container)
        ours |= {key: before[key] for key in HASHES if key in before}
        others = [entry for entry in made_by if entry.get("Name") != "posepipe"]
        new = {
            "Name": "posepipe: fetal and newborn brain MRI in the space of an age-matched atlas",
            "BIDSVersion": BIDS_VERSION,
            **old,
            "DatasetType": "derivative",
            "GeneratedBy": [*others, ours],
            "SourceDatasets": sources,
            "DatasetLinks": {**_links(old, path), **linked},
        }
        return path if new == old else write_json(path, new)


def record_hashes(
    out_dir: str | Path, *, atlases: Mapping[str, str], weights: Mapping[str, str], terms: Sequence[str] | None = None
) -> Path:
    """Write the hashes of atlas files and weights into ``dataset_description.json``, beside the version of posepipe; with ``terms`` (of
    atlases, one sentence each) also ``License`` and ``HowToAcknowledge``, unless somebody else has written them.

    ``atlases`` are the templates' files and ``weights`` the networks', each with its SHA-256. Raises
    :class:`~posepipe.errors.BidsError` for a description that is missing or broken.
    """
    path = Path(out_dir) / "dataset_description.json"
    with alone(path.parent / LOCK):
        old = read_json(path)
        entries = _list(old, "GeneratedBy", path)
        ours = next((entry for entry in entries if entry.get("Name") == "posepipe"), {"Name": "posepipe"})
        named = dict(zip(HASHES, (dict(sorted(atlases.items())), dict(sorted(weights.items()))), strict=True))
        new_ours = {**{k: v for k, v in ours.items() if k not in HASHES}, **{k: v for k, v in named.items() if v}}
        made_by = [new_ours if entry is ours else entry for entry in entries] if ours in entries else [*entries, new_ours]
        new = {**old, "GeneratedBy": made_by}
        if terms is not None:
            said = (("License", _licence(_list(old, "SourceDatasets", path), terms, weights)), ("HowToAcknowledge", ACKNOWLEDGE))
            new |= {key: text for key, text in said if str(old.get(key) or text).startswith((NO_LICENCE, ACKNOWLEDGE))}
        return path if new == old else write_json(path, new)


def _licence(sources: Sequence[Mapping[str, Any]], terms: Sequence[str], weights: Mapping[str, str]) -> str:
    """What is known of the terms of the outputs. posepipe grants none itself: they derive from images that are not its own."""
    known = []
    for source in sources:
        folder = url2pathname(urlparse(str(source.get("URL", ""))).path)
        with suppress(BidsError):
            described = Path(folder) / "dataset_description.json"
            licence = read_json(described).get("License") if described.is_file() else None
            known.append(f"{Path(folder).name}: {licence or 'no licence stated'}.")
    networks = ["Weights of the networks: research only."] if weights else []
    return " ".join([NO_LICENCE, *dict.fromkeys(known), *terms, *networks])


def _links(description: dict[str, Any], path: Path) -> dict[str, Any]:
    value = description.get("DatasetLinks", {})
    if not isinstance(value, dict):
        msg = f"{path}: DatasetLinks must be an object; correct it, or remove the file"
        raise BidsError(msg)
    return value


def _list(description: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = description.get(key, [])
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        msg = f"{path}: {key} must be a list of objects; correct it, or remove the file"
        raise BidsError(msg)
    return value


def _source(source: Path, uri: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"URL": uri}
    described = source / "dataset_description.json"
    if described.exists():
        try:
            doi = read_json(described).get("DatasetDOI")
        except BidsError as error:
            logger.warning("%s; the source is named by its path", error)
        else:
            entry |= {"DOI": doi} if doi else {}
    return entry


def _with(entries: list[dict[str, Any]], entry: dict[str, Any]) -> list[dict[str, Any]]:
    return entries if entry in entries else [*entries, entry]


def write_bidsignore(out_dir: str | Path) -> Path:
    """Write ``.bidsignore``, or add posepipe's lines to the one that is there."""
    path = Path(out_dir) / ".bidsignore"
    lines = path.read_bytes().splitlines() if path.exists() else []  # whatever encoding they are in: they are kept as they are
    missing = [line.encode() for line in IGNORED if line.encode() not in lines]
    return write_bytes(path, b"\n".join([*lines, *missing]) + b"\n") if missing else path
