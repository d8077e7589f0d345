"""The split of brains into training, validation and test: one file, ``split.toml``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..geometry import so3
from ..geometry.so3 import Array

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Split:
    """Names (``CRL+27``, ``sub-A11``) of the validation and test brains; all others are for training. A subject's name stands for all its
    sessions and runs."""

    validation: frozenset[str]
    test: frozenset[str]

    def part(self, name: str) -> str:
        """``train``, ``validation`` or ``test``.

        >>> load_split().part("sub-A13_ses-2"), load_split().part("CRL+30")
        ('test', 'train')
        """
        names = {name, name.partition("_")[0]}
        return "test" if names & self.test else "validation" if names & self.validation else "train"


def load_split(path: str | Path | None = None) -> Split:
    """The split in the file ``path`` (default: the one of the packaged weights).

    Raises :class:`~posepipe.errors.UsageError` for a file that is not a split, and for a brain in both parts.
    """
    path = Path(path) if path else Path(__file__).with_name("split.toml")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: not a split file ({error}); give a TOML file with [validation] and [test]"
        raise UsageError(msg) from error
    sets = []
    for part in ("validation", "test"):
        table = content.get(part, {})
        sets.append(frozenset([*table.get("templates", []), *table.get("subjects", [])]))
    both = sets[0] & sets[1]
    if both:
        msg = f"{path}: {', '.join(sorted(both))} in both validation and test; keep each in one"
        raise UsageError(msg)
    return Split(*sets)


def load_folds(path: str | Path | None = None) -> dict[str, frozenset[str]]:
    """Folds of cross-validation over real scans, name → subjects, of ``path`` (default: posepipe's own, ``scans.toml``)."""
    return {name: frozenset(subjects) for name, subjects in _scans(path)["folds"].items()}


def load_scan_poses(path: str | Path | None = None) -> dict[str, Array]:
    """Name of a real scan → rotation (3, 3) from the canonical frame to its RAS world, accepted by visual inspection."""
    return {name: so3.exp(np.array(turn, dtype=float)) for name, turn in _scans(path)["poses"].items()}


def _scans(path: str | Path | None) -> dict[str, Any]:
    path = Path(path) if path else Path(__file__).with_name("scans.toml")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return {part: content[part] for part in ("folds", "poses")}
    except (OSError, ValueError, KeyError) as error:
        msg = f"{path}: not a file of scans ({error!r}); give a TOML file with [folds] and [poses]"
        raise UsageError(msg) from error
