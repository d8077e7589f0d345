"""Outputs that are written on request only: transforms in other formats, and the atlas's label maps on the image's grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..atlas import LabelMap
    from ..geometry import Rigid
    from ..imaging.grid import Grid

NOT_A_SEGMENTATION = (
    "Labels of the atlas's template on the image's grid, transformed by the rigid pose. They show structures approximately, and are not a "
    "segmentation of this brain."
)


def write_formats(pose: Rigid, path: Path, formats: Iterable[str], moving: Grid, reference: Grid) -> dict[str, dict[str, Any]]:
    """Write ``pose`` (points of the reference → points of the moving image) beside its ITK file ``path`` in each of ``formats``.

    Returns their entry in the sidecar: format → File, Format, Maps, NeedsGeometryOf; empty if there is no format besides ITK's.
    """
    from ..bids.names import in_format
    from ..imaging.transform_files import format_named, write_transform

    entries: dict[str, dict[str, Any]] = {}
    for form in formats:
        if form != "itk":
            file = write_transform(pose, in_format(path, form), form, moving, reference)
            images = (Path(moving.source).name, Path(reference.source).name)
            entries[form] = {"File": file.name, **format_named(form).describe(*images)}
    return entries


def label_request(maps: Iterable[LabelMap], digest: Any) -> dict[str, dict[str, str]]:
    """The sidecar's entry of the requested label ``maps``, which shows whether the written ones are up to date; ``digest`` returns the
    SHA-256 of a file."""
    import hashlib

    return {
        one.kind: {
            "TemplateFile": one.path.name,
            "SHA256": digest(one.path),
            **({"NamesSHA256": hashlib.sha256(one.table().encode()).hexdigest()} if one.names else {}),
        }
        for one in maps
    }


def label_sidecar(known: Mapping[str, Any], kind: str, request: Mapping[str, str], forward: str) -> dict[str, Any]:
    """The sidecar of the label map ``kind``; ``forward`` names the transform."""
    return {
        "Description": NOT_A_SEGMENTATION,
        "Manual": False,
        "Sources": [*known["Sources"][:1], forward],
        "Transform": forward,
        "Interpolation": "nearest neighbour",
        "Atlas": known["Atlas"],
        "Cohort": known["Cohort"],
        "LabelMap": kind,
        "TemplateFiles": {request["TemplateFile"]: request["SHA256"]},
    }


def no_labels(space: str) -> str:
    """The note if labels are requested and the template has none."""
    return f"--labels: the template {space} has no label map, so none was written"
