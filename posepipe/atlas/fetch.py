"""``atlas fetch``: download an atlas from its source and lay it out as TemplateFlow does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import AtlasError, UsageError
from ..files import copy_file, write_text
from ..imaging.inside import as_inside
from ..imaging.volume import Volume, load_logged, save_volume
from .download import download
from .files import file_name
from .library import CONTRASTS, atlas_cache
from .manifest import Manifest, SourceFile, load_manifests
from .sidecars import DESCRIPTION, file_sha256, read_fetched, write_fetched

Advance = Callable[[int], object]
TEMPLATEFLOW_FILES = (("T2w", None), ("T1w", None), ("mask", "brain"), ("dseg", "tissues"))


def fetch(
    name: str,
    dest: str | Path | None = None,
    *,
    accept_license: bool = False,
    cohorts: Sequence[str] | None = None,
    base_url: str | None = None,
    progress: bool = True,
    manifest: Manifest | None = None,
    retries: int = 2,
    show: Callable[[str], object] | None = None,
) -> list[Path]:
    """Download the atlas ``name`` into ``dest`` (default: the cache that the library looks in) and return its images.

    The terms are always shown, by ``show`` (default: printed to stderr); where they must be agreed to, nothing is
    downloaded without ``accept_license``. Originals are kept in ``dest/.downloads``, checked by SHA-256 and not
    downloaded twice; images become RAS-ordered NIfTI on their own grid, zero outside the brain mask. ``cohorts``
    picks some; ``base_url`` is a mirror that serves ``/<repository>/<commit>/<path>``; ``manifest`` replaces the one
    that comes with posepipe.

    Raises :class:`~posepipe.errors.UsageError` for terms not accepted or an unknown cohort, and
    :class:`~posepipe.errors.AtlasError` for an unknown atlas, one that cannot be downloaded, or a failed download.
    """
    show = show or (lambda text: print(text, file=sys.stderr))
    manifest = manifest or _manifest(name)
    show(f"{manifest.title}\nLicence: {manifest.licence}\n\n{manifest.terms.strip()}\n\nCite: {manifest.citation}")
    if manifest.source == "none":
        msg = f"{name} has no source posepipe may download from: {manifest.how_to_get}"
        raise AtlasError(msg)
    if manifest.requires_acceptance and not accept_license:
        msg = f"{name} is distributed under terms you must agree to (shown above); if you do, add --accept-license"
        raise UsageError(msg)
    labels = _labels(manifest, cohorts)
    if manifest.source == "templateflow":
        return _fetch_templateflow(manifest, labels, Path(dest) if dest else None)
    return _fetch_files(manifest, labels, Path(dest or atlas_cache()), base_url, progress, retries)


def _manifest(name: str) -> Manifest:
    manifests = load_manifests()
    if name not in manifests:
        msg = f"no atlas named {name!r} to fetch; known: {', '.join(manifests)}"
        raise AtlasError(msg)
    return manifests[name]


def _labels(manifest: Manifest, cohorts: Sequence[str] | None) -> list[str]:
    labels = [c.label for c in manifest.cohorts]
    unknown = [str(c) for c in cohorts or () if str(c) not in labels]
    if unknown:
        msg = f"{manifest.name} has no cohort {', '.join(unknown)}; it has {', '.join(labels)}"
        raise UsageError(msg)
    return [label for label in labels if cohorts is None or label in {str(c) for c in cohorts}]


def _fetch_files(
    manifest: Manifest, labels: list[str], dest: Path, base_url: str | None, progress: bool, retries: int
) -> list[Path]:
    rows = [s for s in manifest.sources if s.cohort in labels]
    images = []
    with _progress(manifest.name, sum(s.size for s in rows), progress) as advance:
        for label in labels:
            images.append(_fetch_cohort(manifest, label, rows, dest, base_url, retries, advance))
    write_text(dest / f"tpl-{manifest.name}" / "LICENSE", manifest.terms)
    write_text(dest / f"tpl-{manifest.name}" / DESCRIPTION, _description(manifest))
    return images


def _fetch_cohort(
    manifest: Manifest,
    label: str,
    rows: list[SourceFile],
    dest: Path,
    base_url: str | None,
    retries: int,
    advance: Advance,
) -> Path:
    """Download and convert one cohort; existing valid files are kept."""
    originals: dict[str, Path] = {}
    changed = False
    for row in (r for r in rows if r.cohort == label):
        target = dest / ".downloads" / manifest.name / f"{row.sha256[:12]}-{Path(row.path).name}"
        url = row.url(base_url) if base_url else row.url()
        came = download(url, target, row.sha256, retries=retries, advance=advance)
        if not came:
            advance(row.size)
        changed |= came
        originals[row.file] = target
    wanted = {*originals, *(["desc-brain_mask"] if manifest.mask_from_tissues else [])}
    targets = {file: dest / file_name(manifest.name, label, file) for file in wanted}
    images = [path for file, path in targets.items() if file in CONTRASTS]
    noted = read_fetched(images[0].parent)
    if changed or not all(t.is_file() and t.stat().st_size for t in targets.values()) or not {*map(file_sha256, images)} <= noted:
        _convert(manifest, originals, targets)
        write_fetched(images)
    return targets["T2w"] if "T2w" in targets else targets["T1w"]


def _convert(manifest: Manifest, originals: dict[str, Path], targets: dict[str, Path]) -> None:
    """Write ``originals`` in the atlas's layout: RAS voxel order, labels on the image's grid, zero outside the mask.

    Images are written last: a cohort whose image is there is complete.
    """
    volumes = {file: _ras(load_logged(path)) for file, path in originals.items()}
    grid = next(v for file, v in volumes.items() if file in {"T1w", "T2w"})
    labels = {f: _on_grid(v, grid) for f, v in volumes.items() if f not in {"T1w", "T2w"}}
    if manifest.mask_from_tissues:
        from scipy import ndimage

        labels["desc-brain_mask"] = grid.with_data(ndimage.binary_fill_holes(labels["desc-tissues_dseg"].data > 0))
    labels |= {file: as_inside(volume) for file, volume in labels.items() if file.endswith("mask")}
    brain = labels["desc-brain_mask"].data if "desc-brain_mask" in labels else None
    for file, volume in labels.items():
        save_volume(volume, targets[file], _label_type(file))
    for file in ("T1w", "T2w"):
        if file in volumes:
            data = volumes[file].data if brain is None else np.where(brain, volumes[file].data, 0)
            save_volume(volumes[file].with_data(data), targets[file], np.float32)


def _label_type(file: str) -> type:
    return np.uint8 if file.endswith("mask") else np.int16


def _ras(volume: Volume) -> Volume:
    """The same image with voxel axes closest to +R, +A, +S: axes permuted and flipped, not resampled."""
    import nibabel as nib

    turns = nib.orientations.io_orientation(volume.affine)
    data = np.ascontiguousarray(nib.orientations.apply_orientation(volume.data, turns))
    return Volume(data, volume.affine @ nib.orientations.inv_ornt_aff(turns, volume.shape), volume.source)


def _on_grid(labels: Volume, grid: Volume) -> Volume:
    """``labels`` on the voxels of ``grid``: nearest neighbour where the two files were stored on different grids."""
    if labels.same_grid(grid, tolerance=1e-2):
        return grid.with_data(labels.data)
    from scipy import ndimage

    step = np.linalg.inv(labels.affine) @ grid.affine
    data = ndimage.affine_transform(labels.data, step[:3, :3], step[:3, 3], output_shape=grid.shape, order=0)
    if not data.any():
        msg = f"{labels.source}: these labels are outside their image {grid.source}; the files are not of the same atlas"
        raise AtlasError(msg)
    return grid.with_data(data)


def _description(manifest: Manifest) -> str:
    """A TemplateFlow-style description of the folder."""
    return json.dumps(
        {
            "Identifier": manifest.name,
            "Name": manifest.title,
            "License": manifest.licence,
            "ReferencesAndLinks": [manifest.citation, f"https://doi.org/{manifest.reference.doi}"],
            "Species": "Homo sapiens",
            "cohort": {c.label: {"age": [c.age], "units": "weeks"} for c in manifest.cohorts},
        },
        indent=2,
        ensure_ascii=False,
    )


def _fetch_templateflow(manifest: Manifest, labels: list[str], dest: Path | None) -> list[Path]:
    """Through TemplateFlow's own client, into its home; copied to ``dest`` when one is given."""
    from templateflow import api

    images = []
    for label in labels:
        for suffix, desc in TEMPLATEFLOW_FILES:
            try:
                got = api.get(
                    manifest.name, cohort=int(label), suffix=suffix, desc=desc, extension=".nii.gz", raise_empty=True
                )
            except Exception as error:  # requests, S3 and pybids raise different exceptions
                msg = (
                    f"TemplateFlow could not give {manifest.name} cohort {label} {suffix} "
                    f"({type(error).__name__}: {error}); check the network and try again, "
                    "or copy the folder from a machine that has it into TEMPLATEFLOW_HOME"
                )
                raise AtlasError(msg) from error
            path = Path(got[0] if isinstance(got, list) else got)
            if dest is not None:
                file = suffix if desc is None else f"desc-{desc}_{suffix}"
                path = copy_file(path, dest / file_name(manifest.name, label, file))
            if suffix == "T2w":
                images.append(path)
    if dest is not None:
        write_text(dest / f"tpl-{manifest.name}" / DESCRIPTION, _description(manifest))
    return images


@contextmanager
def _progress(name: str, total: int, wanted: bool) -> Iterator[Advance]:
    """A progress bar on a terminal; otherwise one line per 10 %."""
    if not wanted:
        yield lambda amount: None
    elif sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=name, unit="B", unit_scale=True) as bar:
            yield bar.update
    else:
        yield _plain_lines(name, total)


def _plain_lines(name: str, total: int) -> Advance:
    done, reported = 0, 0

    def advance(amount: int) -> None:
        nonlocal done, reported
        done += amount
        tenth = min(10, 10 * done // max(total, 1))
        if tenth > reported:
            reported = tenth
            print(f"{name}: {min(done, total) / 1e6:.1f} of {total / 1e6:.1f} MB", file=sys.stderr, flush=True)

    return advance
