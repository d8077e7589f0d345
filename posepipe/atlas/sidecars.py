"""Ages of atlases without a manifest: TemplateFlow's ``template_description.json``, posepipe's ``atlas.toml``."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import AtlasError
from ..files import parse_json, write_text
from .manifest import Cohort, weeks_from_months

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ATLAS_TOML = "atlas.toml"
DESCRIPTION = "template_description.json"
FETCHED = "fetched.json"
"""File beside images that :func:`~posepipe.atlas.fetch.fetch` converted from originals with valid checksums: file name → SHA-256."""


@dataclass(frozen=True)
class Description:
    """Description of an atlas folder: title, stage and licence if stated, and the cohorts with their ages in weeks."""

    title: str = ""
    stage: str = ""
    licence: str = ""
    cohorts: dict[str, Cohort] = field(default_factory=dict)


def read_description(folder: Path) -> Description | None:
    """The description beside the images of ``folder`` (a ``tpl-NAME``), ``atlas.toml`` before TemplateFlow's file.

    None when neither is there. Raises :class:`~posepipe.errors.AtlasError` for a file that cannot be read.
    """
    if (folder / ATLAS_TOML).is_file():
        return _from_toml(folder / ATLAS_TOML)
    if (folder / DESCRIPTION).is_file() and (folder / DESCRIPTION).stat().st_size:
        return _from_json(folder / DESCRIPTION)
    return None


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's content; an empty string for one that cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def write_fetched(images: Iterable[Path]) -> Path:
    """Record the hashes of the ``images`` of one cohort (in one folder), converted from originals with valid checksums."""
    images = list(images)
    hashes = {path.name: file_sha256(path) for path in images}
    return write_text(images[0].parent / FETCHED, json.dumps(hashes, indent=2) + "\n")


def read_fetched(folder: Path) -> frozenset[str]:
    """The hashes recorded by :func:`write_fetched` in ``folder``; empty if the file is missing or invalid."""
    try:
        content = parse_json((folder / FETCHED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return frozenset()
    return frozenset(map(str, content.values())) if isinstance(content, dict) else frozenset()


def write_atlas_toml(folder: Path, description: Description) -> Path:
    """Write ``atlas.toml`` into ``folder`` by atomic replace."""
    lines = [
        "# Written by `posepipe-tools atlas add`. Ages are postmenstrual (gestational) weeks.",
        f"title = {json.dumps(description.title)}",
        f"stage = {json.dumps(description.stage)}",
        f"licence = {json.dumps(description.licence)}",
    ]
    for cohort in sorted(description.cohorts.values(), key=lambda c: c.age):
        lines += ["", f"[cohorts.{cohort.label}]", f"age = {float(cohort.age)!r}"]
    return write_text(folder / ATLAS_TOML, "\n".join(lines) + "\n")


def _from_toml(path: Path) -> Description:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        cohorts = {label: Cohort(label, float(entry["age"])) for label, entry in data.get("cohorts", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = (
            f"{path}: not an atlas description ({error}); repair it, or make it again with `posepipe-tools atlas add`"
        )
        raise AtlasError(msg) from error
    return Description(data.get("title", ""), data.get("stage", ""), data.get("licence", ""), cohorts)


def _from_json(path: Path) -> Description:
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        cohorts = {}
        for label, entry in data.get("cohort", {}).items():
            weeks = _weeks(entry)
            if weeks is not None:
                cohorts[label] = Cohort(label, weeks)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        msg = f"{path}: not a TemplateFlow description ({error}); repair or remove it"
        raise AtlasError(msg) from error
    return Description(data.get("Name", ""), "", data.get("License", ""), cohorts)


def _weeks(entry: dict[str, Any]) -> float | None:
    """Age of a TemplateFlow cohort in postmenstrual weeks: the middle of a range; months and years count from birth.

    >>> _weeks({"age": [38.0, 46.0], "units": "weeks"}), _weeks({"age": 3, "units": "months"})
    (42.0, 53.035)
    """
    age, unit = entry.get("age"), str(entry.get("units", "")).lower()
    if age is None:
        return None
    values = [float(a) for a in (age if isinstance(age, list) else [age])]
    if not values:
        return None
    middle = (min(values) + max(values)) / 2
    if unit.startswith("w"):
        return middle
    if unit.startswith("m"):
        return weeks_from_months(middle)
    return weeks_from_months(12 * middle) if unit.startswith("y") else None
