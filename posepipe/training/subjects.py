"""Training subjects' own poses: images and label maps registered to the atlas, so that they stand upright in the canonical frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..atlas import AtlasLibrary, Template
from ..errors import UsageError
from ..geometry.so3 import Array
from ..imaging.mask import nonzero_mask
from ..imaging.volume import Volume, load_volume
from ..registration.comparison import Comparison
from ..registration.initial import initial_pose
from ..registration.target import Target
from .sources import Collector, subject_ages


def add_imaged_subjects(collector: Collector, library: AtlasLibrary, folder: Path, atlas: str, group: str) -> int:
    """Skull-stripped subjects of a BIDS ``folder`` with their T2w, T1w and manual label maps (``derivatives``); returns how many."""
    count = 0
    for name, age in subject_ages(folder):
        images = {k: folder / f"{name}/anat/{name}_{k}.nii.gz" for k in ("T2w", "T1w")}
        volumes = {k: load_volume(p) for k, p in images.items() if p.is_file()}
        if not volumes:
            continue
        first = next(iter(volumes.values()))
        mask = nonzero_mask(first).volume
        labels = {p.name: load_volume(p) for p in sorted(folder.glob(f"derivatives/*/{name}/anat/*_dseg.nii.gz"))}
        labels = {k: v for k, v in labels.items() if v.same_grid(first)}
        upright = _own_rotation(first, mask, nearest(library, atlas, age, "T2w"))
        collector.add(name, group, age, mask, upright, volumes, labels)
        count += 1
    return count


def add_label_maps(collector: Collector, library: AtlasLibrary, folder: Path, atlas: str, group: str) -> int:
    """Label maps without images (``*_desc-tissues_dseg``), in the key of ``atlas``; returns how many.

    The pose comes from a stand-in image that gives each tissue its mean brightness in the atlas.
    """
    count = 0
    for name, age in subject_ages(folder):
        path = folder / f"{name}/anat/{name}_desc-tissues_dseg.nii.gz"
        if not path.is_file():
            continue
        labels = load_volume(path)
        template = nearest(library, atlas, age, "T2w")
        mask = labels.with_data(labels.data > 0)
        upright = _own_rotation(_stand_in(labels, template), mask, template)
        collector.add(name, group, age, mask, upright, {}, {"tissues": labels})
        count += 1
    return count


def nearest(library: AtlasLibrary, atlas: str, age: float, contrast: str) -> Template:
    """The cohort of ``atlas`` nearest to ``age`` weeks."""
    return min(library.templates(atlas, contrast), key=lambda t: abs(t.age - age))


def _stand_in(labels: Volume, template: Template) -> Volume:
    if template.tissues is None:
        msg = f"{template.image}: no tissue labels beside it; label maps need an atlas that has them"
        raise UsageError(msg)
    image, tissues = load_volume(template.image).data, load_volume(template.tissues).data
    out = np.zeros_like(labels.data)
    for value in np.unique(labels.data[labels.data > 0]):
        here = tissues == value
        out[labels.data == value] = image[here].mean() if here.any() else image[image > 0].mean()
    return labels.with_data(out)


def _own_rotation(image: Volume, mask: Volume, template: Template) -> Array:
    """Rotation (3, 3) of the image's RAS world to the canonical frame, by search and refinement against ``template``."""
    if template.to_canonical is None:
        msg = f"{template.space}: its rotation to the canonical frame is not known; train with another atlas"
        raise UsageError(msg)
    target = Target.load(template)
    compare = Comparison.of(image, mask, target)
    found = compare.refined(initial_pose(image, mask, target, method="search", compare=compare).pose)
    return template.to_canonical @ found.rotation.T
