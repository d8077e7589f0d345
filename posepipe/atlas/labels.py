"""The label maps of a template, and what their labels are called."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import AtlasError
from ..files import name_stem
from .library import Template
from .manifest import load_manifests


@dataclass(frozen=True)
class LabelMap:
    """A label map on a template's grid: ``kind`` (tissues, regions), the file, and the ``names`` of its labels (empty: none)."""

    kind: str
    path: Path
    names: Mapping[int, str]

    def table(self) -> str:
        """The names as a table of BIDS: ``index`` and ``name``."""
        return "index\tname\n" + "".join(f"{index}\t{name}\n" for index, name in sorted(self.names.items()))


def label_maps(template: Template) -> tuple[LabelMap, ...]:
    """The label maps that ``template`` has, tissues first; empty where it has none.

    Names are those of the atlas's manifest; of an atlas without one, those in a table beside the map (``…_dseg.tsv`` with the columns
    ``index`` and ``name``, as TemplateFlow has them). Raises :class:`~posepipe.errors.AtlasError` for a table that is not of that kind.
    """
    manifest = load_manifests().get(template.atlas)
    found = []
    for kind, path in (("tissues", template.tissues), ("regions", template.regions)):
        if path is not None:
            named: Mapping[int, str] = getattr(manifest, kind) if manifest else {}
            found.append(LabelMap(kind, path, named or _names_beside(path)))
    return tuple(found)


def _names_beside(path: Path) -> dict[int, str]:
    table = path.with_name(name_stem(path) + ".tsv")
    if not table.is_file():
        return {}
    try:
        rows = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig")), delimiter="\t")
        return {int(row["index"]): row["name"].strip() for row in rows}
    except (KeyError, ValueError, AttributeError, OSError) as error:
        msg = f"{table}: no table of labels ({error!r}); it needs the columns index and name, separated by tabs, or remove it"
        raise AtlasError(msg) from error
