"""The plan of a run: the age, template and outputs of each image, determined before any processing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import PosepipeError
from .settings import FULL

if TYPE_CHECKING:
    from .atlas import Choice, LabelMap, Template, VolumeRange
    from .bids import Age, InputImage, OutputNames


def template_contrast(contrast: str, mode: str) -> str:
    """Template contrast to ask for, for an image in ``contrast`` with ``--convert`` ``mode``: the image's own, or T2w with ``always``."""
    return "T2w" if mode == "always" else contrast


def converts(contrast: str, template: str, mode: str) -> bool:
    """Whether an image in ``contrast`` is converted to T2-like contrast before alignment to a ``template`` (its contrast), with
    ``--convert`` ``mode``.

    >>> [converts("T1w", template, mode) for template in ("T2w", "T1w") for mode in ("auto", "always", "never")]
    [True, True, False, False, False, False]
    >>> converts("T2w", "T2w", "always")
    False
    """
    return contrast == "T1w" and template == "T2w" and mode != "never"


SLICE_KEYS = ("SliceTiming", "SliceEncodingDirection", "SliceThickness")
"""Sidecar fields that describe the acquisition of the slices."""
STACK = 2.0
"""Ratio of slice spacing to pixel size from which an image counts as a stack of slices; ``--slices auto`` then estimates a pose for each
slice."""


def is_stack(spacing: Sequence[float]) -> bool:
    """Whether an image with this voxel ``spacing`` (3 values, mm, any order) is a stack: the longest is at least :data:`STACK` times the
    second.

    >>> is_stack((1.1, 3.3, 1.1)), is_stack((1.0, 1.0, 2.0)), is_stack((2.0, 2.0, 3.5))
    (True, True, False)
    """
    _, middle, longest = sorted(float(s) for s in spacing)
    return longest >= 0.99 * STACK * middle


def wants_slices(spacing: Sequence[float], mode: str) -> bool:
    """Whether ``--slices`` ``mode`` estimates a pose for each slice of an image with this voxel ``spacing`` (mm)."""
    return mode == "on" or (mode == "auto" and is_stack(spacing))


def planned_mask(image: InputImage, mode: str) -> str:
    """Source of the mask of ``image`` with ``--mask`` ``mode``: ``given``, ``nonzero`` or ``network``; ``auto`` if no mask was given and
    the choice depends on the voxels, which are not read yet."""
    return "given" if mode == "auto" and image.mask is not None else mode


def uses_mask_network(image: InputImage, mode: str) -> bool:
    """Whether the brain-masking networks are used for ``image``, or may be."""
    return planned_mask(image, mode) in {"auto", "network"}


@dataclass(frozen=True)
class ImagePlan:
    """One image that can be processed.

    ``contrast`` is the image's own; ``converted``: whether it is converted to T2-like contrast for the alignment. ``sources`` are the BIDS
    URIs of the image and of its mask, if one is used. ``parameters`` hold all that the result depends on; ``parameters_hash`` is their
    digest, with the contents of the image and its mask. ``template_files`` map the template's files to their SHA-256. ``done``: whether an
    earlier run finished the image with the same hash. ``timing`` holds the sidecar fields :data:`SLICE_KEYS` if slice poses are estimated,
    else None. ``volumes`` is the range of brain volumes in the atlases; ``doubts`` are problems with the header or the age that lead to the
    verdict ``review``. ``voxels`` is the number of voxels, from which the memory is estimated.
    ``alone_hash`` is the digest of the pose that the image is found to have alone, if it gets one pose with the other images of its session
    at the same template (``--session-pose consistent``), else empty; ``parameters_hash`` then depends on these images too.
    ``level`` is how much is written, ``formats`` are the formats of its transforms, ``labels`` the label maps that are written,
    ``label_request`` their entry in the sidecar, and ``notes`` warnings about what was requested.

    An image has one such plan for each atlas that was asked for and has a template of its age. ``lacks`` tells, in the first of them, of
    the others. ``first`` is the template of that first one, with whose volume the mask is compared; None there. ``earlier`` is the result
    of an earlier run that is taken instead, if there is one, and ``reuse`` tells of it, or why there is none.
    """

    image: InputImage
    names: OutputNames
    age: Age
    choice: Choice
    contrast: str
    sources: tuple[str, ...]
    parameters: Mapping[str, Any] = field(hash=False)
    parameters_hash: str
    done: bool
    template_files: Mapping[str, str] = field(default_factory=dict, hash=False)
    converted: bool = False
    timing: Mapping[str, Any] | None = field(default=None, hash=False)
    volumes: VolumeRange | None = None
    doubts: tuple[str, ...] = ()
    voxels: int = 0
    formats: tuple[str, ...] = ()
    labels: tuple[LabelMap, ...] = ()
    label_request: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()
    alone_hash: str = ""
    level: str = FULL
    lacks: tuple[str, ...] = ()
    first: Template | None = None
    earlier: OutputNames | None = None
    reuse: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """All output files of the image."""
        return self.names.files(
            synth=self.converted, slices=self.timing is not None, formats=self.formats, labels=self.label_request, level=self.level
        )  # fmt: skip

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about its age, its template and what was requested."""
        return (*self.age.warnings, *self.choice.warnings, *self.notes, *self.lacks)

    @property
    def space(self) -> str:
        """Name of the template's space: ``CRL+29``."""
        return self.choice.template.space


@dataclass(frozen=True)
class PlanFailure:
    """One image that cannot be processed, the stage at which this was found, and the error; ``atlas``: it cannot at this one of several."""

    image: InputImage
    stage: str
    error: PosepipeError
    atlas: str = ""


@dataclass(frozen=True)
class SessionPlan:
    """The images of one participant and session. Each such unit has its own report page and log folder."""

    subject: str
    session: str | None
    images: tuple[ImagePlan, ...] = ()
    failures: tuple[PlanFailure, ...] = ()

    @property
    def label(self) -> str:
        """``sub-01`` or ``sub-01_ses-1``."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    @property
    def pending(self) -> tuple[ImagePlan, ...]:
        """The images that are not done yet."""
        return tuple(image for image in self.images if not image.done)

    @property
    def together(self) -> dict[str, tuple[ImagePlan, ...]]:
        """Space of a template → the images that get one pose there where the head lay still; those of ``--session-pose consistent``."""
        found: dict[str, tuple[ImagePlan, ...]] = {}
        for image in self.images:
            if image.alone_hash:
                found[image.space] = (*found.get(image.space, ()), image)
        return found

    def log_dir(self, out_dir: Path, run_id: str) -> Path:
        """Folder of one run's settings and crash files."""
        unit = out_dir / f"sub-{self.subject}"
        return (unit / f"ses-{self.session}" if self.session else unit) / "log" / run_id


@dataclass(frozen=True)
class Plan:
    """All sessions of a run, in the order of the dataset.

    ``left_out`` lists image-like files that are not inputs, with the reasons; ``lacking`` lists requested participants and sessions without
    an image.
    """

    sessions: tuple[SessionPlan, ...]
    left_out: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    @property
    def images(self) -> Iterator[ImagePlan]:
        """Every image that can be processed."""
        return (image for session in self.sessions for image in session.images)

    @cached_property
    def pending(self) -> tuple[ImagePlan, ...]:
        """Every image that is not done yet."""
        return tuple(image for session in self.sessions for image in session.pending)

    @cached_property
    def _by_path(self) -> dict[Path, tuple[ImagePlan, ...]]:
        found: dict[Path, list[ImagePlan]] = {}
        for image in self.images:
            found.setdefault(image.image.path, []).append(image)
        return {path: tuple(images) for path, images in found.items()}

    def with_done(self, images: Iterable[ImagePlan]) -> Plan:
        """The plan with these images done."""
        done = {image.names.forward for image in images}
        parts = (
            replace(session, images=tuple(replace(i, done=True) if i.names.forward in done else i for i in session.images))
            for session in self.sessions
        )
        return replace(self, sessions=tuple(parts))

    def at(self, image: InputImage) -> tuple[ImagePlan, ...]:
        """The plans of one image, at all its atlases."""
        return self._by_path.get(image.path, ())

    def without(self, images: Iterable[ImagePlan]) -> Plan:
        """The plan less these images, and less those that would get one pose with them."""
        left_out = {image.image.path for image in images}
        for session in self.sessions:
            for some in session.together.values():
                if left_out & {image.image.path for image in some}:
                    left_out |= {image.image.path for image in some}
        parts = (
            replace(session, images=tuple(image for image in session.images if image.image.path not in left_out))
            for session in self.sessions
        )
        return replace(self, sessions=tuple(session for session in parts if session.images or session.failures))

    @property
    def failures(self) -> tuple[PlanFailure, ...]:
        """Every image that cannot be processed."""
        return tuple(failure for session in self.sessions for failure in session.failures)
