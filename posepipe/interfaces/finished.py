"""Finished images, identified by their outputs: the input of the report pages."""

from __future__ import annotations

import glob
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BidsError, PosepipeError

if TYPE_CHECKING:
    from ..atlas import AtlasLibrary
    from ..bids import OutputNames
    from ..reports.views import Views

logger = logging.getLogger(__name__)

_RAW = "bids:raw:"


@dataclass(frozen=True)
class FinishedImage:
    """One image that has a pose: ``sidecar`` is the forward transform's, ``resampled`` that of the image on the
    template's grid, ``mask`` that of the brain mask (empty if they are gone)."""

    names: OutputNames
    sidecar: Mapping[str, Any]
    resampled: Mapping[str, Any]
    mask: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Path of the input below its dataset."""
        return self.names.image.relative.as_posix()

    @property
    def warnings(self) -> list[str]:
        """Warnings of the run, and missing outputs."""
        gone = [f"{self._shown(path)} is gone: run posepipe again for this image" for path in self.missing()]
        return [*gone, *(str(w) for known in (self.sidecar, self.resampled) for w in known.get("Warnings") or [])]

    @property
    def synth(self) -> Path | None:
        """The converted image by which it was aligned; None without a conversion."""
        return self.names.synth if self._converted and self.names.synth.is_file() else None

    @property
    def _converted(self) -> bool:
        return bool(self.sidecar.get("ContrastConversion"))

    @property
    def _files(self) -> tuple[Path, ...]:
        from ..bids.names import requested

        return self.names.files(synth=self._converted, slices=bool(self.sidecar.get("Slices")), **requested(self.sidecar))

    @property
    def slices(self) -> str:
        """The text of the table of slice poses; empty if there is none."""
        path = self.names.slices
        return path.read_text(encoding="utf-8") if self.sidecar.get("Slices") and path.is_file() else ""

    def missing(self) -> list[Path]:
        """Outputs that are missing."""
        return [path for path in self._files if not path.is_file()]

    def outputs(self) -> list[str]:
        """Its existing files, relative to the output dataset; images and transforms before sidecars."""
        files = [path for path in self._files if path.is_file()]
        return [self._shown(path) for path in sorted(files, key=lambda path: path.suffix == ".json")]

    def views(self, library: AtlasLibrary) -> Views:
        """Its pictures before and after, made again from its outputs and the template, none of which is changed.

        Raises :class:`~posepipe.errors.PosepipeError` if one of them is missing.
        """
        import numpy as np

        from ..bids import read_json
        from ..bids.names import LEVEL_KEY
        from ..geometry import read_itk
        from ..imaging.volume import load_volume
        from ..matching.target import Target
        from ..reports.views import make_views

        names = self.names
        if LEVEL_KEY in self.sidecar:
            msg = f"{names.forward}: written with --level {self.sidecar[LEVEL_KEY]}, without the images that pictures are made of"
            raise BidsError(msg)
        contrast = str(self.resampled.get("TemplateContrast", "T2w"))
        target = Target.load(library.template(self.sidecar["Atlas"], self.sidecar["Cohort"], contrast))
        # the reoriented image differs from the input only in its affine, which its transform restores
        turned = read_json(names.sidecar(names.reoriented)).get("Transform", "")
        used = names.out_dir / turned.removeprefix("bids::") if turned else names.forward
        image = load_volume(names.reoriented).moved(read_itk(used))
        mask = load_volume(names.mask, np.uint8)
        synth = load_volume(self.synth) if self.synth else None
        return make_views(image, mask, target.volume, target.mask, read_itk(names.forward), synth=synth)

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.names.out_dir).as_posix()


def finished_images(out_dir: Path, bids_dir: Path, subject: str, session: str | None) -> list[FinishedImage]:
    """The images of a participant and session that have a pose in the output dataset ``out_dir``, sorted by name;
    superseded results are left out."""
    from ..bids import current, read_json, results_in

    unit = out_dir / f"sub-{subject}"
    folder = (unit / f"ses-{session}" if session else unit) / "anat"
    found = []
    for result in current(results_in(out_dir, folder))[0]:
        path = result.sidecar
        try:
            sidecar = read_json(path)
            if "RotationMatrix" in sidecar:
                found.append(_finished(path, sidecar, out_dir, bids_dir))
        except (PosepipeError, KeyError, IndexError) as error:
            logger.warning("%s: left out of the page (%s)", path, error)
    return found


def _finished(path: Path, sidecar: dict[str, Any], out_dir: Path, bids_dir: Path) -> FinishedImage:
    from ..bids import InputImage, OutputNames, read_json
    from ..bids.entities import split_name
    from ..bids.names import as_written
    from ..bids.results import written_instead

    relative = Path(str(sidecar["Sources"][0]).removeprefix(_RAW))
    split = split_name(relative.name)
    if split is None:
        msg = f"{path}: its source {relative} is no BIDS name; run posepipe again for this image"
        raise BidsError(msg)
    image = InputImage(bids_dir / relative, relative, split.entities, split.suffix)
    names = as_written(OutputNames(out_dir, image, (sidecar["Atlas"], sidecar["Cohort"])), sidecar)
    others = [names.sidecar(path) for path in (names.resampled, names.mask)]
    return FinishedImage(names, sidecar, *(written_instead(sidecar) or (read_json(path) if path.is_file() else {} for path in others)))


def sessions_of(out_dir: Path, subject: str | None = None) -> list[tuple[str, str | None]]:
    """Participants and sessions that have outputs or failures in ``out_dir``, sorted; with ``subject`` those of one participant, and no
    other folder is read."""
    from ..bids import Failures

    rows = [row for row in Failures(out_dir).rows() if subject is None or row["subject"] == f"sub-{subject}"]
    found = {(row["subject"][4:], None if row["session"] == "n/a" else row["session"][4:]) for row in rows}
    of = "sub-*" if subject is None else f"sub-{glob.escape(subject)}"
    for anat in (*out_dir.glob(f"{of}/anat"), *out_dir.glob(f"{of}/ses-*/anat")):
        parts = anat.relative_to(out_dir).parts
        found.add((parts[0][4:], parts[1][4:] if len(parts) == 3 else None))
    return sorted(found, key=lambda unit: (unit[0], unit[1] or ""))
