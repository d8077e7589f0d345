"""Collection of source volumes from atlases, imaged subjects and label maps, each rotated to the canonical frame.

The rotations of the known atlases to that frame are stored. Everything else is registered to the cohort nearest in age of a *reference*
atlas (:mod:`posepipe.training.reference`), and left out if its pose is in doubt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..atlas import AtlasLibrary, Template
from ..bids import AgeReader, InputImage, find_images, read_json
from ..bids.entities import split_name
from ..errors import AgeError, ImageError, MaskError, UsageError
from ..geometry.so3 import Array
from ..imaging.mask import given_mask, nonzero_mask
from ..imaging.volume import Volume, load_logged, load_volume
from ..matching.target import Target
from .reference import reference_pose
from .reference_table import ReferenceRow, References
from .sources import Collector


@dataclass(frozen=True)
class Reference:
    """The atlas ``name`` in ``library`` that other brains are registered to. If its rotation to the canonical frame is not stored, the
    identity is used."""

    library: AtlasLibrary
    name: str

    def nearest(self, age: float, contrast: str = "T2w") -> Template:
        """The cohort nearest in age to ``age`` weeks, in ``contrast`` if the atlas has it, with its rotation to the canonical frame."""
        contrasts = self.library.contrasts(self.name)
        templates = self.library.templates(self.name, contrast if contrast in contrasts or not contrasts else contrasts[-1])
        return _with_rotation(min(templates, key=lambda t: abs(t.age - age)))

    def upright(self, image: Volume, mask: Volume, age: float, contrast: str = "T2w") -> Array:
        """Rotation (3, 3) of the image's RAS world to the canonical frame, from its reference pose against the nearest cohort.

        Raises :class:`~posepipe.errors.ImageError` if that pose is in doubt (:attr:`~.reference.ReferencePose.doubt`), and
        :class:`~posepipe.errors.MaskError` for an empty mask.
        """
        template = self.nearest(age, contrast)
        found = reference_pose(image, mask, Target.load(template)).checked(image.source)
        return _canonical(template, found.pose.rotation)

    def accepted(self, row: ReferenceRow) -> Array:
        """Rotation (3, 3) of an image's RAS world to the canonical frame, from its ``row`` in a table of reference poses.

        Raises :class:`~posepipe.errors.AtlasError` if the template of the row is not on this machine.
        """
        atlas, _, cohort = row.template.rpartition("+")
        contrasts = self.library.contrasts(atlas)
        template = self.library.template(atlas, cohort, contrasts[-1] if contrasts else "T2w")
        return _canonical(_with_rotation(template), row.matrix)


def _with_rotation(template: Template) -> Template:
    return replace(template, to_canonical=np.eye(3)) if template.to_canonical is None else template


def _canonical(template: Template, rotation: Array) -> Array:
    """Rotation (3, 3) of the image's world to the canonical frame, from the ``rotation`` (3, 3) of its pose, template → image."""
    assert template.to_canonical is not None
    turned: Array = template.to_canonical @ rotation.T
    return turned


def add_templates(collector: Collector, library: AtlasLibrary, names: Sequence[str], reference: Reference | None = None) -> None:
    """Add every cohort of the atlases ``names``. A cohort whose rotation to the canonical frame is not stored is registered to
    ``reference``, or left out without one. Raises :class:`~posepipe.errors.AtlasError` for an atlas that is not on this machine."""
    for name in names:
        cohorts: dict[str, list[Template]] = {}
        contrasts = library.contrasts(name)
        for contrast in contrasts or ("T2w",):  # for an atlas that is not on this machine the library raises, naming its folders
            for template in library.templates(name, contrast):
                cohorts.setdefault(template.cohort, []).append(template)
        collector.terms(name, library.status(name).licence or "not stated")
        for templates in sorted(cohorts.values(), key=lambda t: t[0].age):
            if collector.accepts(templates[0].space):
                _add_cohort(collector, templates, reference)


def _add_cohort(collector: Collector, templates: list[Template], reference: Reference | None) -> None:
    first = templates[0]
    images = {t.contrast: load_logged(t.image) for t in templates}
    image = next(iter(images.values()))
    mask = given_mask(load_volume(first.mask), image).volume if first.mask else nonzero_mask(image).volume
    rotation = first.to_canonical
    if rotation is None:
        if reference is None:
            collector.leave_out(first.space, "its rotation to the canonical frame is not known; name a --reference to register it to")
            return
        own = reference.name == first.atlas
        try:
            rotation = np.eye(3) if own else reference.upright(image, mask, first.age, first.contrast)
        except ImageError as error:
            collector.leave_out(first.space, str(error))
            return
    labels = {"tissues": load_logged(first.tissues)} if first.tissues else {}
    collector.add(first.space, first.atlas, first.age, mask, rotation, images, labels)


def add_imaged_subjects(
    collector: Collector, folder: Path, reference: Reference, derivatives: Sequence[Path] = (), accepted: References | None = None
) -> int:
    """Add the T2w and T1w images of a BIDS ``folder``, one of each contrast a subject and session; returns the number of sessions.

    Masks come from ``derivatives``; images without one must be skull-stripped. Label maps on the image's grid
    (``derivatives/*/sub-*/[ses-*/]anat/*_dseg``) are added too. Poses come from the table ``accepted``; without it each is computed, and
    a session whose pose is in doubt is left out. Raises what :func:`~posepipe.bids.find_images` does.
    """
    folder = folder.resolve()
    sessions: dict[str, list[InputImage]] = {}
    for image in find_images(folder, derivatives=derivatives):
        sessions.setdefault(_session_name(image), []).append(image)
    ages = AgeReader(folder)
    collector.terms(folder.name, _terms(folder))
    count = 0
    for name, images in sessions.items():
        if not collector.accepts(name):
            continue
        try:
            _add_session(collector, name, images, ages.age_of(images[0]).weeks, reference, accepted)
        except (AgeError, ImageError, MaskError) as error:
            collector.leave_out(name, str(error))
        else:
            count += 1
    return count


def _add_session(
    collector: Collector, name: str, images: list[InputImage], age: float, reference: Reference, accepted: References | None
) -> None:
    # T2w first: the contrast of the reference
    ordered = sorted(images, key=lambda i: (i.suffix != "T2w", i.mask is None, i.relative))
    row = None
    if accepted is not None:
        ordered, row = _accepted(collector, ordered, accepted)
    first = load_logged(ordered[0].path)
    mask = (given_mask(load_volume(ordered[0].mask), first) if ordered[0].mask else nonzero_mask(first)).volume
    volumes = {ordered[0].suffix: first}
    for image in ordered[1:]:
        if image.suffix in volumes:
            collector.leave_out(image.relative.name, f"another {image.suffix} of {name} is used")
        elif not (volume := load_logged(image.path)).same_grid(first):
            collector.leave_out(image.relative.name, f"it is not on the grid of {ordered[0].relative.name}")
        else:
            volumes[image.suffix] = volume
    root, inside = ordered[0].root, ordered[0].relative.parent
    labels = {p.name: load_logged(p) for p in sorted(root.glob(f"derivatives/*/{inside.as_posix()}/*_dseg.nii*"))}
    for file in [k for k, v in labels.items() if not v.same_grid(first)]:
        collector.leave_out(file, f"it is not on the grid of {ordered[0].relative.name}")
        del labels[file]
    rotation = reference.accepted(row) if row else reference.upright(first, mask, age, ordered[0].suffix)
    collector.add(name, root.name, age, mask, rotation, volumes, labels)


def _accepted(collector: Collector, images: list[InputImage], accepted: References) -> tuple[list[InputImage], ReferenceRow]:
    """The accepted ``images`` of a session, the one whose pose is used first, and that one's row.

    They share one grid, so one pose holds for all. Raises :class:`~posepipe.errors.ImageError` if none may be used for training.
    """
    problems = []
    for image in images:
        try:
            row = accepted.of(image)
        except ImageError as error:
            problems.append(str(error))
            continue
        others = [other for other in images if other is not image]
        for other in others:
            if accepted.refused(other):
                collector.leave_out(other.relative.name, "its reference pose is not accepted")
        return [image, *(other for other in others if not accepted.refused(other))], row
    raise ImageError("; ".join(problems))


def add_label_maps(collector: Collector, folder: Path, reference: Reference) -> int:
    """Add label maps without images (``*_desc-tissues_dseg``) with the labels of the ``reference`` atlas; returns their number.

    The pose is computed from a synthetic image in which each tissue has its mean intensity in the atlas. Raises
    :class:`~posepipe.errors.UsageError` if there is no such file, or if the reference has no tissue labels.
    """
    folder = folder.resolve()
    ages = AgeReader(folder)
    collector.terms(folder.name, _terms(folder))
    count = 0
    for found in _label_files(folder):
        name = _session_name(found)
        if not collector.accepts(name):
            continue
        try:
            age = ages.age_of(found).weeks
        except AgeError as error:
            collector.leave_out(name, str(error))
            continue
        labels = load_logged(found.path)
        mask = labels.with_data(labels.data > 0)
        stand_in = _stand_in(labels, reference.nearest(age))
        try:
            rotation = reference.upright(stand_in, mask, age)
        except ImageError as error:
            collector.leave_out(name, str(error))
            continue
        collector.add(name, folder.name, age, mask, rotation, {}, {"tissues": labels})
        count += 1
    return count


def _label_files(folder: Path) -> Iterator[InputImage]:
    paths = sorted([*folder.glob("sub-*/anat/*_dseg.nii*"), *folder.glob("sub-*/ses-*/anat/*_dseg.nii*")])
    tissues = [(p, s) for p in paths if (s := split_name(p.name)) and s.entities.get("desc") == "tissues"]
    if not tissues:
        msg = f"{folder}: no label maps sub-*/[ses-*/]anat/*_desc-tissues_dseg.nii.gz"
        raise UsageError(msg)
    for path, split in tissues:
        yield InputImage(path, path.relative_to(folder), split.entities, split.suffix)


def _session_name(image: InputImage) -> str:
    return f"sub-{image.subject}" + (f"_ses-{image.session}" if image.session else "")


def _terms(folder: Path) -> str:
    """Terms of use of a dataset: ``License`` of its description."""
    path = folder / "dataset_description.json"
    stated = read_json(path).get("License") if path.is_file() else None
    return str(stated) if stated else "not stated"


def _stand_in(labels: Volume, template: Template) -> Volume:
    if template.tissues is None:
        msg = f"{template.image}: no tissue labels beside it; label maps need a reference atlas that has them"
        raise UsageError(msg)
    image, tissues = load_logged(template.image).data, load_logged(template.tissues).data
    out = np.zeros_like(labels.data)
    for value in np.unique(labels.data[labels.data > 0]):
        here = tissues == value
        out[labels.data == value] = image[here].mean() if here.any() else image[image > 0].mean()
    return labels.with_data(out)
