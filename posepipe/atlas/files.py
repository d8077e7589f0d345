"""Files of one ``tpl-NAME`` folder: names are parsed, empty files skipped, and the finest resolution is chosen."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import AtlasError

logger = logging.getLogger(__name__)

EXTENSIONS = (".nii.gz", ".nii")
_IMAGE_ENTITIES = {"tpl", "cohort", "res"}


@dataclass(frozen=True)
class Found:
    """An image on disk with the mask and the label maps of its grid."""

    cohort: str
    contrast: str
    image: Path
    mask: Path | None
    tissues: Path | None
    regions: Path | None = None


@dataclass(frozen=True)
class _File:
    path: Path
    entities: dict[str, str]
    suffix: str


def file_name(atlas: str, cohort: str, file: str) -> str:
    """Name of a file in TemplateFlow's layout, with its folders, relative to the library.

    >>> file_name("CRL", "29", "desc-brain_mask")
    'tpl-CRL/cohort-29/tpl-CRL_cohort-29_desc-brain_mask.nii.gz'
    """
    return f"tpl-{atlas}/cohort-{cohort}/tpl-{atlas}_cohort-{cohort}_{file}.nii.gz"


def scan_template(folder: Path, atlas: str) -> list[Found]:
    """Usable images in ``folder`` (a ``tpl-NAME``) and its ``cohort-*`` folders; one for each cohort and contrast."""
    files = [f for f in _files(folder) if f.entities.get("tpl") == atlas and "cohort" in f.entities]
    found = []
    images = [f for f in files if f.suffix in {"T1w", "T2w"} and set(f.entities) <= _IMAGE_ENTITIES]
    for cohort, contrast in dict.fromkeys((f.entities["cohort"], f.suffix) for f in images):
        of_cohort = [f for f in images if f.entities["cohort"] == cohort and f.suffix == contrast]
        image = of_cohort[0] if len(of_cohort) == 1 else min(of_cohort, key=lambda f: (_voxel_volume(f.path), f.path))
        beside = [f for f in files if _same_grid(f, image)]
        mask = next((f.path for f in beside if f.suffix == "mask" and _says(f, "brain")), None)
        tissues, regions = (
            next((f.path for f in beside if f.suffix == "dseg" and _says(f, kind)), None) for kind in ("tissues", "regions")
        )
        found.append(Found(cohort, contrast, image.path, mask, tissues, regions))
    return found


def _files(folder: Path) -> Iterator[_File]:
    """Nonempty NIfTI files from ``folder`` and its cohort folders, by name. If a file exists as ``.nii`` and ``.nii.gz``, the latter (which
    posepipe writes) is used, and this is logged."""
    try:
        folders = [folder, *sorted(f for f in folder.glob("cohort-*") if f.is_dir())]
        paths = [p for f in folders for p in sorted(f.iterdir())]
    except OSError as error:
        msg = f"{error.filename or folder}: cannot be read ({error.strerror}); make the atlas readable"
        raise AtlasError(msg) from error
    for path in paths:
        extension = next((e for e in EXTENSIONS if path.name.endswith(e)), None)
        if extension is None or path.name.startswith(".") or not _has_content(path):
            continue
        packed = path.with_name(f"{path.name}.gz")
        if extension == ".nii" and packed.is_file() and _has_content(packed):
            logger.warning("%s: left out, as %s is beside it, the same file by its name; remove one of them", path, packed.name)
            continue
        *pairs, suffix = path.name.removesuffix(extension).split("_")
        entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
        yield _File(path, entities, suffix)


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:  # a link into an archive that was never fetched
        return False


def _same_grid(file: _File, image: _File) -> bool:
    same = all(file.entities.get(key) == image.entities.get(key) for key in ("cohort", "res"))
    return same and file.path.parent == image.path.parent


def _says(file: _File, what: str) -> bool:
    others = set(file.entities) - _IMAGE_ENTITIES
    return others in ({"desc"}, {"label"}) and file.entities[next(iter(others))] == what


def _voxel_volume(path: Path) -> float:
    """Voxel volume from the header, mm³: TemplateFlow's res- numbers are names, not sizes."""
    import nibabel as nib
    import numpy as np

    try:
        return float(np.prod(nib.load(path).header.get_zooms()[:3]))
    except Exception:  # unreadable: chosen last, and reported when it is loaded
        return float("inf")
