"""Provenance of the outputs, derived from the outputs: the methods text, and hashes of atlases and weights.

It does not depend on the run that writes it, because tasks of a job array, and runs with different options, share one output folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..reports.group_rows import GroupRow


def write_provenance(out_dir: Path, rows: Iterable[GroupRow] | None = None) -> str:
    """Write ``logs/CITATION.md``, ``.bib`` and ``.html``, and hashes and terms in ``dataset_description.json``; the text, empty where no
    image has a pose.

    ``rows`` are those of the whole output dataset, read if they are not given. Raises
    :class:`~posepipe.errors.BidsError` for a description that is missing or broken.
    """
    from posepipe.workflows.methods import Methods, citation_of  # type: ignore[import-not-found]

    from ..bids import record_hashes
    from ..reports.group_rows import collect

    done = [row for row in (collect(out_dir).rows if rows is None else rows) if row.has_pose]
    if not done:
        return ""
    citation = citation_of(
        (Methods.ran(row.sidecar, row.resampled_sidecar) for row in done),
        map(_versions, done),
        ((str(row.sidecar.get("Atlas", "")), str(row.sidecar.get("Cohort", ""))) for row in done),
    )
    citation.write(out_dir / "logs")
    atlases: dict[str, str] = {}
    weights: dict[str, str] = {}
    for row in done:
        for found, value in ((atlases, row.resampled_sidecar.get("TemplateFiles")), (weights, row.sidecar.get("Weights"))):
            for name, digest in value.items() if isinstance(value, dict) else ():
                known = found.get(str(name), "")
                if str(digest) not in known:  # another edition under the same name
                    found[str(name)] = ", ".join(filter(None, (known, str(digest))))
    record_hashes(out_dir, atlases=atlases, weights=weights, terms=_terms(str(row.sidecar.get("Atlas", "")) for row in done))
    return str(citation.markdown)


def _terms(atlases: Iterable[str]) -> list[str]:
    """The terms of these atlases, a sentence each."""
    from ..atlas import load_manifests

    manifests = load_manifests()
    names = sorted(set(atlases))
    return [f"Atlas {name}: {manifests[name].licence if name in manifests else 'terms not known to posepipe'}." for name in names]


def _versions(row: GroupRow) -> dict[str, Any]:
    versions = row.sidecar.get("SoftwareVersions")
    return versions if isinstance(versions, dict) else {}
