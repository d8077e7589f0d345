"""What a run is going to do: for each image its age, template and outputs, settled before any work begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import PosepipeError

if TYPE_CHECKING:
    from .atlas import Choice, LabelMap, VolumeRange
    from .bids import Age, InputImage, OutputNames


def template_contrast(contrast: str, mode: str) -> str:
    """Contrast of the template that is wanted for an image in ``contrast`` by ``--convert`` ``mode``: its own, unless it will be converted
    in any case."""
    return "T2w" if mode == "always" else contrast


def converts(contrast: str, template: str, mode: str) -> bool:
    """Whether an image in ``contrast`` is converted to T2-like contrast for its alignment to a template in contrast ``template``, by
    ``--convert`` ``mode``.

    >>> [converts("T1w", template, mode) for template in ("T2w", "T1w") for mode in ("auto", "always", "never")]
    [True, True, False, False, False, False]
    >>> converts("T2w", "T2w", "always")
    False
    """
    return contrast == "T1w" and template == "T2w" and mode != "never"


SLICE_KEYS = ("SliceTiming", "SliceEncodingDirection", "SliceThickness")
"""Fields of an image's sidecar that tell how its slices were acquired."""
STACK = 2.0
"""An image whose slices are this many times as far apart as its pixels are wide is a stack of slices, of each of which ``--slices auto``
finds a pose."""


def is_stack(spacing: Sequence[float]) -> bool:
    """Whether voxels of these edges (3 mm values, any order) are those of a stack: the longest at least :data:`STACK` times the second.

    >>> is_stack((1.1, 3.3, 1.1)), is_stack((1.0, 1.0, 2.0)), is_stack((2.0, 2.0, 3.5))
    (True, True, False)
    """
    _, middle, longest = sorted(float(s) for s in spacing)
    return longest >= 0.99 * STACK * middle


def wants_slices(spacing: Sequence[float], mode: str) -> bool:
    """Whether by ``--slices`` ``mode`` an image of this voxel ``spacing`` has a pose of each slice found."""
    return mode == "on" or (mode == "auto" and is_stack(spacing))


def planned_mask(image: InputImage, mode: str) -> str:
    """Where the mask of ``image`` will come from by ``--mask`` ``mode``: ``given``, ``nonzero`` or ``network``; ``auto`` where only the
    voxels can tell, since no mask came with the image."""
    return "given" if mode == "auto" and image.mask is not None else mode


def uses_mask_network(image: InputImage, mode: str) -> bool:
    """Whether the networks that find the brain will or may mask ``image``."""
    return planned_mask(image, mode) in {"auto", "network"}


@dataclass(frozen=True)
class ImagePlan:
    """One image that can be processed.

    ``contrast`` is the image's own; ``converted`` says that it is aligned by its conversion to T2-like contrast.
    ``sources`` are the BIDS URIs of the image and of the mask that is used, if any.
    ``parameters`` are what its result depends on, and ``parameters_hash`` is their digest (with the contents of the
    image and its mask). ``template_files`` are the template's files with their SHA-256. ``done`` says
    that an earlier run finished it with the same. ``timing`` is what its sidecar tells of its slices (:data:`SLICE_KEYS`) where a pose of
    each slice is wanted, else None. ``volumes`` are the sizes of brains in the atlases that it may be compared with; ``doubts`` are what of
    its header and its age is reason enough for ``review``. ``voxels`` are how many it has, which tells the memory that it needs.
    ``formats`` are those of its transforms, ``labels`` the label maps that are written, ``label_request`` what its sidecar tells of them,
    and ``notes`` what is to be known of that.
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

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that it has once it is finished."""
        return self.names.files(synth=self.converted, slices=self.timing is not None, formats=self.formats, labels=self.label_request)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be known of its age, its template and what was asked for."""
        return (*self.age.warnings, *self.choice.warnings, *self.notes)

    @property
    def space(self) -> str:
        """Name of the template's space: ``CRL+29``."""
        return self.choice.template.space


@dataclass(frozen=True)
class PlanFailure:
    """One image that cannot be processed, the stage that found it out, and why."""

    image: InputImage
    stage: str
    error: PosepipeError


@dataclass(frozen=True)
class SessionPlan:
    """The images of one participant and session: the unit that has a page and a log folder of its own."""

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

    def log_dir(self, out_dir: Path, run_id: str) -> Path:
        """Folder of one run's settings and crash files."""
        unit = out_dir / f"sub-{self.subject}"
        return (unit / f"ses-{self.session}" if self.session else unit) / "log" / run_id


@dataclass(frozen=True)
class Plan:
    """All sessions of a run, in the order of the dataset.

    ``left_out`` are image-like files that are no inputs, with the reasons; ``lacking`` is what was asked for and has no image.
    """

    sessions: tuple[SessionPlan, ...]
    left_out: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    @property
    def images(self) -> Iterator[ImagePlan]:
        """Every image that can be processed."""
        return (image for session in self.sessions for image in session.images)

    @property
    def pending(self) -> tuple[ImagePlan, ...]:
        """Every image that is not done yet."""
        return tuple(image for session in self.sessions for image in session.pending)

    def without(self, images: Iterable[ImagePlan]) -> Plan:
        """The plan less these images."""
        left_out = {image.image.path for image in images}
        parts = (
            replace(session, images=tuple(image for image in session.images if image.image.path not in left_out))
            for session in self.sessions
        )
        return replace(self, sessions=tuple(session for session in parts if session.images or session.failures))

    @property
    def failures(self) -> tuple[PlanFailure, ...]:
        """Every image that cannot be processed."""
        return tuple(failure for session in self.sessions for failure in session.failures)
