"""Atlas manifests: the metadata of each atlas, read from the package's data files."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import AtlasError
from ..geometry import exp
from ..references import Reference

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WEEKS_AT_BIRTH = 40.0
"""Postmenstrual age at term, weeks, from which atlases in months after birth count."""
WEEKS_PER_MONTH = 4.345
"""365.25 / 12 / 7."""


def weeks_from_months(months: float) -> float:
    """Postmenstrual weeks of an infant of ``months``, assuming birth at 40 weeks.

    >>> weeks_from_months(3)
    53.035
    """
    return WEEKS_AT_BIRTH + WEEKS_PER_MONTH * months


@dataclass(frozen=True)
class Cohort:
    """One age of an atlas: ``label`` as in the folder name, ``age`` in weeks, ``months`` where that is its own unit."""

    label: str
    age: float
    months: float | None = None


@dataclass(frozen=True)
class SourceFile:
    """One file to download, and the file of the cohort it becomes (``T2w``, ``desc-brain_mask`` …)."""

    cohort: str
    file: str
    size: int
    sha256: str
    repository: str
    commit: str
    path: str

    def url(self, base: str = "https://raw.githubusercontent.com") -> str:
        """Where to download it, under ``base``."""
        return f"{base.rstrip('/')}/{self.repository}/{self.commit}/{self.path}"


@dataclass(frozen=True)
class Manifest:
    """Metadata of an atlas, independent of whether it is on this machine.

    ``stage`` is ``fetal`` or ``neonatal``; ``source`` says how :func:`~posepipe.atlas.fetch` gets it: ``files`` (the
    list in ``sources``), ``templateflow`` (that package's archive) or ``none`` (by hand from ``home``). ``tissues``
    and ``regions`` name the labels of ``desc-tissues_dseg`` and ``desc-regions_dseg``. ``caution`` is a warning that is shown if
    this atlas was chosen automatically.
    """

    name: str
    title: str
    stage: str
    age_kind: str
    cohorts: tuple[Cohort, ...]
    contrasts: tuple[str, ...]
    licence: str
    terms: str
    requires_acceptance: bool
    reference: Reference
    home: str
    source: str
    sources: tuple[SourceFile, ...] = ()
    mask_from_tissues: bool = False
    caution: str = ""
    note: str = ""
    tissues: Mapping[int, str] = field(default_factory=dict, compare=False)
    regions: Mapping[int, str] = field(default_factory=dict, compare=False)

    @property
    def citation(self) -> str:
        """The reference of this atlas in one line."""
        return self.reference.text

    @property
    def ages(self) -> dict[str, float]:
        """Cohort label → age in weeks."""
        return {c.label: c.age for c in self.cohorts}

    @property
    def how_to_get(self) -> str:
        """Instruction for installing this atlas, one sentence."""
        if self.source == "none":
            return (
                f"download it from {self.home}, then give its images to `posepipe-tools atlas add {self.name}` "
                "(or name its TemplateFlow-style folder with --atlas-dir)"
            )
        accept = " --accept-license" if self.requires_acceptance else ""
        return f"`posepipe-tools atlas fetch {self.name}{accept}`"


def load_manifests() -> dict[str, Manifest]:
    """All manifests of the package, by atlas name.

    >>> crl = load_manifests()["CRL"]
    >>> crl.stage, crl.ages["29"], crl.requires_acceptance
    ('fetal', 29.0, True)
    """
    folder = resources.files("posepipe.atlases")
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith(".toml") and f.name != "canonical.toml")
    return {m.name: m for m in (_load(folder, name.removesuffix(".toml")) for name in names)}


@dataclass(frozen=True, eq=False)
class CanonicalRotation:
    """``rotation`` (3, 3) of a template's RAS world to the canonical frame, **x_canonical = R x_template**, and the SHA-256 of the image
    files (T2w, T1w) for which it was measured: other images with the same name may have another orientation."""

    rotation: npt.NDArray[np.float64]
    images: frozenset[str]


def load_canonical() -> dict[tuple[str, str], CanonicalRotation]:
    """Rotation of each template to the canonical frame, by (atlas, cohort label).

    Raises :class:`~posepipe.errors.AtlasError` for an entry without three finite numbers or without the hashes of its images.
    """
    text = resources.files("posepipe.atlases").joinpath("canonical.toml").read_text(encoding="utf-8")
    return parse_canonical(text)


def parse_canonical(text: str) -> dict[tuple[str, str], CanonicalRotation]:
    """As :func:`load_canonical`, from the text of such a file.

    >>> known = parse_canonical("[CRL.21]\\nrotvec_degrees = [0, 0, 90]\\nimages = ['0a1b']")["CRL", "21"]
    >>> (known.rotation @ [1, 0, 0]).round(6) + 0, sorted(known.images)
    (array([0., 1., 0.]), ['0a1b'])
    """
    rotations = {}
    for atlas, cohorts in tomllib.loads(text).items():
        for label, entry in cohorts.items():
            rotvec = np.asarray(entry.get("rotvec_degrees", ()), dtype=float)
            images = entry.get("images", ())
            if rotvec.shape != (3,) or not np.isfinite(rotvec).all() or not images:
                needs = "rotvec_degrees = [x, y, z] and images = [SHA-256, …]"
                msg = f"canonical.toml: [{atlas}.{label}] needs {needs}; generate the file again"
                raise AtlasError(msg)
            rotation = np.asarray(exp(np.radians(rotvec)), dtype=float)
            rotation.setflags(write=False)
            rotations[atlas, label] = CanonicalRotation(rotation, frozenset(images))
    return rotations


def _load(folder: Any, name: str) -> Manifest:
    data = tomllib.loads(folder.joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    listing = folder.joinpath(f"{name}_sources.tsv")
    sources = parse_sources(listing.read_text(encoding="utf-8")) if data["source"] == "files" else ()
    return Manifest(
        name=data["name"],
        title=data["title"],
        stage=data["stage"],
        age_kind=data["age_kind"],
        cohorts=_cohorts(data),
        contrasts=tuple(data["contrasts"]),
        licence=data["licence"],
        terms=folder.joinpath(f"{name}_terms.txt").read_text(encoding="utf-8"),
        requires_acceptance=data["requires_acceptance"],
        reference=Reference.from_table(data["reference"]),
        home=data["home"],
        source=data["source"],
        sources=sources,
        mask_from_tissues=data.get("mask_from_tissues", False),
        caution=data.get("caution", ""),
        note=data.get("note", ""),
        tissues={int(k): v for k, v in data.get("tissues", {}).items()},
        regions={int(k): v for k, v in data.get("regions", {}).items()},
    )


def _cohorts(data: Mapping[str, Any]) -> tuple[Cohort, ...]:
    """Cohorts of a manifest: ``weeks = [first, last]``, one a week, or a table each in ``months``."""
    if "weeks" in data:
        first, last = data["weeks"]
        return tuple(Cohort(str(week), float(week)) for week in range(first, last + 1))
    months = {label: float(entry["months"]) for label, entry in data["cohorts"].items()}
    cohorts = (Cohort(label, weeks_from_months(m), m) for label, m in months.items())
    return tuple(sorted(cohorts, key=lambda c: c.age))


def parse_sources(text: str) -> tuple[SourceFile, ...]:
    """The rows of a ``NAME_sources.tsv``."""
    rows = csv.DictReader(io.StringIO(text), delimiter="\t")
    return tuple(
        SourceFile(r["cohort"], r["file"], int(r["bytes"]), r["sha256"], r["repository"], r["commit"], r["path"])
        for r in rows
    )


def is_age(value: float) -> bool:
    """Whether ``value`` is finite and in the range of ages in weeks (0 to 1000)."""
    return math.isfinite(value) and 0 < value < 1000
