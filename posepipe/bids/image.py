"""An input image of a dataset, as passed to all later stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class InputImage:
    """One T1w or T2w image of a BIDS dataset.

    ``path`` is the file, ``relative`` its path below the dataset's root, ``entities`` its BIDS entities (short name →
    label, in BIDS order, labels as written), ``suffix`` ``"T1w"`` or ``"T2w"``, ``mask`` the brain mask found for it,
    if any.
    """

    path: Path
    relative: Path
    entities: dict[str, str] = field(hash=False)
    suffix: str
    mask: Path | None = None

    @property
    def subject(self) -> str:
        """Participant label without ``sub-``."""
        return self.entities["sub"]

    @property
    def session(self) -> str | None:
        """Session label without ``ses-``; None for a dataset without sessions."""
        return self.entities.get("ses")

    @property
    def root(self) -> Path:
        """The dataset's folder."""
        return self.path.parents[len(self.relative.parts) - 1]

    @property
    def uri(self) -> str:
        """BIDS URI as seen from the image's own dataset, ``bids::sub-01/anat/…``."""
        return f"bids::{self.relative.as_posix()}"

    @property
    def source_uri(self) -> str:
        """BIDS URI for sidecars of the derivative dataset: ``raw`` is named under its ``DatasetLinks``."""
        return f"bids:raw:{self.relative.as_posix()}"
