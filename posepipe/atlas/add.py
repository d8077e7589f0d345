"""``atlas add``: copy user-supplied templates into the library's layout."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np

from ..errors import AtlasError, ImageError, UsageError
from ..files import copy_file, replacing
from ..imaging.volume import Volume, load_logged, load_volume, save_volume
from .files import EXTENSIONS, file_name, scan_template
from .library import CONTRASTS, AtlasLibrary, Template, atlas_cache
from .manifest import Cohort, is_age, load_manifests
from .sidecars import ATLAS_TOML, Description, read_description, write_atlas_toml


def add(
    name: str,
    *,
    image: str | Path,
    age: float,
    mask: str | Path | None = None,
    tissues: str | Path | None = None,
    contrast: str = "T2w",
    stage: str | None = None,
    cohort: str | None = None,
    title: str | None = None,
    dest: str | Path | None = None,
    force: bool = False,
) -> Template:
    """Copy one cohort (an image, its mask, its tissue labels) into ``dest``, compressed, and note it in ``atlas.toml``.

    ``age`` is in postmenstrual (gestational) weeks; ``cohort`` is its label, by default the atlas's own for that age,
    else the age itself (``29``, ``29p5``). Call it again to add the other contrast or another cohort. ``dest``
    defaults to the cache.

    Raises :class:`~posepipe.errors.UsageError` for a bad name, age, contrast or stage, and for files already there
    without ``force``; :class:`~posepipe.errors.ImageError` for images that cannot be read or lie on different grids.
    """
    _check(name, age, contrast, stage, cohort)
    root = Path(dest or atlas_cache())
    label = cohort or _label(name, age)
    files = {contrast: image, "desc-brain_mask": mask, "desc-tissues_dseg": tissues}
    sources = {file: Path(path) for file, path in files.items() if path is not None}
    targets = {file: root / file_name(name, label, file) for file in sources}
    there = [t for t in targets.values() if t.exists()]
    if there and not force:
        msg = f"{there[0]}: already there; use --force to replace it, or another --cohort"
        raise UsageError(msg)
    _check_age_kept(root / f"tpl-{name}", label, age, force)
    _check_images(sources, contrast)
    for file in sorted(targets, key=lambda f: f in CONTRASTS):  # the image last: with it the cohort is complete
        _compress(sources[file], targets[file])
    _note(root / f"tpl-{name}", name, Cohort(label, float(age)), stage, title)
    return AtlasLibrary([root]).template(name, label, contrast)


def add_folder(
    name: str,
    folder: str | Path,
    *,
    stage: str | None = None,
    dest: str | Path | None = None,
    force: bool = False,
) -> list[Template]:
    """Add every cohort of a folder in TemplateFlow's layout: a ``tpl-NAME``, or the folder that holds it.

    Ages come from its ``template_description.json`` or ``atlas.toml``, else from posepipe's manifest of that name.
    Raises as :func:`add` does, and :class:`~posepipe.errors.AtlasError` for a folder without usable images or ages.
    """
    folder = Path(folder)
    inner = folder if folder.name == f"tpl-{name}" else folder / f"tpl-{name}"
    if not inner.is_dir():
        msg = (
            f"{folder}: no folder tpl-{name} here; --folder takes TemplateFlow's layout, "
            "tpl-NAME/cohort-X/tpl-NAME_cohort-X_T2w.nii.gz"
        )
        raise AtlasError(msg)
    library = AtlasLibrary([inner.parent])
    templates = [library.template(name, f.cohort, f.contrast) for f in scan_template(inner, name)]
    if not templates:
        library.templates(name, "T2w")  # raises, saying what is missing
    added, done = [], set()
    for t in templates:
        first = t.cohort not in done  # mask and labels come with the cohort's first image
        done.add(t.cohort)
        mask, tissues = (t.mask, t.tissues) if first else (None, None)
        options = {"contrast": t.contrast, "stage": stage, "cohort": t.cohort, "dest": dest, "force": force}
        added.append(add(name, image=t.image, age=t.age, mask=mask, tissues=tissues, **options))  # type: ignore[arg-type]
    return added


def _check(name: str, age: float, contrast: str, stage: str | None, cohort: str | None) -> None:
    if not (name.isascii() and name.isalnum()):
        msg = f"{name!r} cannot name an atlas: letters and digits only, as in file names"
    elif cohort is not None and not (cohort.isascii() and cohort.isalnum()):
        msg = f"{cohort!r} cannot name a cohort: letters and digits only, as in file names"
    elif not is_age(age):
        msg = f"{age} is not an age in weeks"
    elif contrast not in CONTRASTS:
        msg = f"the contrast is {' or '.join(CONTRASTS)}, not {contrast!r}"
    elif stage not in (None, "fetal", "neonatal"):
        msg = f"the stage is fetal or neonatal, not {stage!r}"
    else:
        return
    raise UsageError(msg)


def _label(name: str, age: float) -> str:
    manifest = load_manifests().get(name)
    for cohort in manifest.cohorts if manifest else ():
        if abs(cohort.age - age) < 0.01:
            return cohort.label
    return f"{age:g}".replace(".", "p")


def _check_age_kept(folder: Path, label: str, age: float, force: bool) -> None:
    """Raise if the label already has another age: the existing images would get the new one."""
    manifest = load_manifests().get(folder.name.removeprefix("tpl-"))
    described = read_description(folder) if folder.is_dir() else None
    before = manifest.ages.get(label) if manifest else None
    fixed = before is not None
    if before is None and described is not None and label in described.cohorts:
        before = described.cohorts[label].age
    if before is not None and abs(before - age) > 0.01 and (fixed or not force):
        msg = f"{folder.name} cohort {label} is {before:g} weeks, not {age:g}; give another --cohort"
        raise UsageError(msg if fixed else f"{msg}, or --force to change its age")


def _check_images(sources: dict[str, Path], contrast: str) -> None:
    """Check that all files are readable, labels are integers, and all are on the image's grid; problems with headers and voxels are
    logged."""
    image = load_logged(sources[contrast])
    for file, path in sources.items():
        volume = image if file == contrast else load_logged(path)
        if not volume.same_grid(image, tolerance=1e-2):
            msg = f"{path}: not on the grid of {sources[contrast]} ({volume.shape}, {image.shape}); resample it first"
            raise ImageError(msg)
        if file.endswith("dseg") and not np.array_equal(volume.data, np.round(volume.data)):
            msg = f"{path}: labels must be whole numbers; this looks like an image or a probability map"
            raise ImageError(msg)


def _compress(source: Path, target: Path) -> None:
    """Write ``source`` as ``.nii.gz`` to ``target`` atomically, with 0 for voxels that are not finite."""
    extension = next((e for e in EXTENSIONS if source.name.endswith(e)), None)
    volume: Volume = load_volume(source)
    if extension is None or volume.not_finite:
        save_volume(volume, target)
        return
    if extension == ".nii.gz":
        copy_file(source, target)
        return
    with (
        replacing(target) as temporary,
        source.open("rb") as plain,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,  # the same bytes every time
    ):
        shutil.copyfileobj(plain, packed)


def _note(folder: Path, name: str, cohort: Cohort, stage: str | None, title: str | None) -> None:
    """Add ``cohort`` to the folder's ``atlas.toml``."""
    old = read_description(folder) if (folder / ATLAS_TOML).is_file() else None
    old = old or Description()
    manifest = load_manifests().get(name)
    known_stage = manifest.stage if manifest else ("fetal" if cohort.age <= 38 else "neonatal")
    write_atlas_toml(
        folder,
        Description(
            title=title or old.title or (manifest.title if manifest else name),
            stage=stage or old.stage or known_stage,
            licence=old.licence or (manifest.licence if manifest else "the user's own"),
            cohorts=old.cohorts | {cohort.label: cohort},
        ),
    )
