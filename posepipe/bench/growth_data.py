"""Datasets of any size for ``posepipe-tools bench growth``, made of one phantom.

An atlas and one participant are written as for the demonstration. Datasets with more participants hold the same image under other names, as
hard links where the file system has them: what is read and computed for each does not depend on the others.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..bids import read_json, write_json
from ..files import write_text
from ..imaging.volume import Volume, load_volume, save_volume
from ..phantom.demo_data import ATLAS, DemoDataset, write_demo

WEEKS = (23, 24, 25)
"""Cohorts of the atlas. The demonstration's first participant, 24.3 weeks old, is in their middle; they are the ages of the others."""
ONE = "sub-01"


@dataclass(frozen=True)
class Study:
    """The atlas and the participant that all are made of: ``folder`` of both, ``image`` (a path), ``atlas_dir``, ``bids_dir``."""

    folder: Path
    image: Path
    atlas_dir: Path
    bids_dir: Path

    @property
    def options(self) -> list[str]:
        """Options with which posepipe finds the atlas."""
        return ["--atlas-dir", str(self.atlas_dir), "--atlas", ATLAS]


def write_study(folder: Path, spacing: float) -> Study:
    """The study in ``folder``, with voxels of ``spacing`` mm; written if it is not there."""
    demo = DemoDataset(folder / "bids", folder / "atlas", folder / "truth.tsv", None, ())
    if not demo.truth_tsv.is_file():  # which is written last
        demo = write_demo(folder, n_subjects=1, weeks=WEEKS, spacing=spacing)
    (image,) = (demo.bids_dir / ONE / "anat").glob("*_T2w.nii.gz")
    return Study(folder, image, demo.atlas_dir, demo.bids_dir)


def write_dataset(study: Study, folder: Path, number: int) -> Path:
    """A BIDS dataset of ``number`` participants with one image each, of the ages :data:`WEEKS` in turn."""
    shutil.copytree(study.bids_dir, folder, ignore=shutil.ignore_patterns("sub-*", "participants.tsv"))
    names = participants(number)
    for name in names:
        _copy_tree(study.bids_dir / ONE, folder / name, name)
    rows = [f"{name}\t{WEEKS[k % len(WEEKS)]}" for k, name in enumerate(names)]
    write_text(folder / "participants.tsv", "\n".join(["participant_id\tga_weeks", *rows]) + "\n")
    return folder


def participants(number: int) -> list[str]:
    """Names of ``number`` participants.

    >>> participants(2)
    ['sub-00001', 'sub-00002']
    """
    return [f"sub-{k:05d}" for k in range(1, number + 1)]


def write_outputs(study: Study, finished: Path, folder: Path, number: int) -> Path:
    """The output dataset of ``number`` participants, from ``finished``, that of the study's one. Ages and similarities differ, as the
    page compares them."""
    folder.mkdir(parents=True)
    for name in ("dataset_description.json", ".bidsignore", "failures.tsv"):
        shutil.copy(finished / name, folder / name)
    rng = np.random.default_rng(0)
    for name in participants(number):
        _copy_tree(finished / ONE, folder / name, name)
        _link(finished / f"{ONE}.html", folder / f"{name}.html")
        (sidecar,) = (folder / name).glob("anat/*_from-T2w_to-*_xfm.json")
        known = read_json(sidecar)
        known["Age"] = round(float(rng.uniform(WEEKS[0], WEEKS[-1])), 2)
        for measure in known["Similarity"].values():
            measure["after"] = round(measure["after"] * float(rng.uniform(0.9, 1.0)), 4)
        write_json(sidecar, known)
    return folder


def _copy_tree(source: Path, target: Path, name: str) -> None:
    """Copy the participant's folder ``source`` under another ``name``, which replaces the old one in names and in JSON."""
    for path in sorted(source.rglob("*")):
        if path.is_dir():
            continue
        inside = path.relative_to(source)
        place = target / inside.parent / inside.name.replace(ONE, name)
        if path.suffix == ".json":
            write_text(place, path.read_text(encoding="utf-8").replace(ONE, name))
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            _link(path, place)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy(source, target)


def write_regridded(study: Study, path: Path, shape: tuple[int, int, int]) -> Path:
    """The study's image on a grid of ``shape`` that covers the same field of view, by linear interpolation."""
    image = load_volume(study.image)
    step = np.array(image.shape) / shape
    first = (step - 1) / 2
    data = ndimage.affine_transform(image.data, np.diag(step), first, shape, order=1, output=np.float32, mode="nearest")
    inside = np.eye(4)
    inside[:3, :3], inside[:3, 3] = np.diag(step), first
    save_volume(Volume(data, image.affine @ inside), path, np.int16)
    return path
