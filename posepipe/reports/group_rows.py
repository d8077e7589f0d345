"""The rows of the group level: one for each pose in the output dataset, and one for each image without a pose.

A pose is identified by its forward transform's sidecar. An image with an unreadable sidecar gets a row that says so, and the file is listed
among the problems.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..bids import Failures, InputImage, OutputNames, current, read_json, results_in, subject_page
from ..bids.entities import split_name
from ..bids.names import as_written
from ..bids.results import Result, written_instead
from ..errors import BidsError, TransformError
from ..files import name_stem
from .facts import pose_of, rated_name
from .verdict import FAILED, Verdict, verdict_of

UNREADABLE = Verdict(
    "unreadable", "Unreadable", "!", "has outputs that cannot be read", "have outputs that cannot be read"
)
MISSING = Verdict("missing", "Not done", "–", "is in the dataset but has no outputs", "are in the dataset without outputs")
_RAW = "bids:raw:"


@dataclass(frozen=True)
class GroupRow:
    """One pose of one image, or an image without one.

    ``subject`` and ``session`` are labels without prefix; ``image`` is the input's path below its dataset, ``contrast``
    its suffix. ``sidecar`` is that of the forward transform and ``resampled_sidecar`` that of the image on the template's
    grid; both are empty where there is no pose. ``forward``, ``resampled`` and ``mask`` are paths below the output dataset, or
    empty. ``error`` says why there is no pose.
    """

    subject: str
    session: str | None
    image: str
    contrast: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    sidecar: Mapping[str, Any] = field(default_factory=dict, hash=False)
    resampled_sidecar: Mapping[str, Any] = field(default_factory=dict, hash=False)
    forward: str = ""
    resampled: str = ""
    mask: str = ""
    error: str = ""

    @property
    def has_pose(self) -> bool:
        """Whether there is a pose."""
        return bool(self.sidecar)

    @property
    def name(self) -> str:
        """The name in ratings: :func:`~posepipe.reports.facts.rated_name`."""
        return rated_name(self.image, self.sidecar)

    @property
    def label(self) -> str:
        """``sub-01`` or ``sub-01_ses-1``."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    @property
    def page(self) -> str:
        """Name of the subject page."""
        return subject_page("", self.subject, self.session).name

    @property
    def age(self) -> float | None:
        """Weeks."""
        return number(self.sidecar.get("Age"))

    @property
    def angle(self) -> float | None:
        """Rotation angle of the pose, degrees."""
        return number(self.sidecar.get("RotationAngleDegrees"))

    @property
    def confidence(self) -> float | None:
        """Estimated probability that the pose is within 15°, or None where it was not estimated."""
        return number(self.sidecar.get("Confidence"))

    @property
    def spread(self) -> tuple[float | None, float | None]:
        """Largest difference to the poses of the other images of its session, degrees and mm."""
        return number(self.sidecar.get("SessionSpread")), number(self.sidecar.get("SessionSpreadMM"))

    @property
    def shared_by(self) -> int | None:
        """Number of images of its session, this one among them, that have one pose together; None where each has its own."""
        known = self.sidecar.get("SessionPose")
        return len(known.get("SharedBy") or []) if isinstance(known, Mapping) else None

    @property
    def space(self) -> str:
        """The template's space, such as ``CRL+29``; empty where there is no pose."""
        return "+".join(str(part) for part in (self.sidecar.get("Atlas"), self.sidecar.get("Cohort")) if part)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of the alignment and the resampling."""
        return (*texts(self.sidecar.get("Warnings")), *texts(self.resampled_sidecar.get("Warnings")))

    @property
    def seconds(self) -> float | None:
        """Total time of all stages, seconds."""
        stages = self.sidecar.get("Seconds")
        found = [number(v) for v in stages.values()] if isinstance(stages, Mapping) else []
        return math.fsum(v for v in found if v is not None) if found else None

    def similarity(self) -> dict[str, tuple[float | None, float | None]]:
        """Measure → its value before and after refinement."""
        stored = self.sidecar.get("Similarity")
        found = {}
        for name, value in stored.items() if isinstance(stored, Mapping) else ():
            pair = value if isinstance(value, Mapping) else {"after": value}
            found[str(name)] = (number(pair.get("before")), number(pair.get("after")))
        return found

    def after(self, measure: str) -> float | None:
        """A similarity of the pose written."""
        return self.similarity().get(measure, (None, None))[1]


@dataclass(frozen=True)
class Collected:
    """The rows, sorted by image; ``problems`` lists unreadable files, ``notes`` other remarks."""

    rows: tuple[GroupRow, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def number(value: Any) -> float | None:
    """A finite number, or None for anything else.

    >>> number(0.5), number("0.5"), number(True), number(float("nan"))
    (0.5, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def texts(value: Any) -> tuple[str, ...]:
    """The lines of a sidecar's list of texts, whatever it holds."""
    if value is None:
        return ()
    return tuple(str(v) for v in value) if isinstance(value, (list, tuple)) else (str(value),)


def collect(
    out_dir: str | Path, *, inputs: Iterable[InputImage] = (), subjects: Iterable[str] = (), sessions: Iterable[str] = ()
) -> Collected:
    """Read the participant level's sidecars and failures in ``out_dir``; images are not opened.

    ``inputs`` are the images of the input dataset: those without outputs or a failure get a row too. ``subjects`` and
    ``sessions`` (labels without prefix) restrict the rows; all if empty.
    """
    out_dir = Path(out_dir)
    wanted, visits = set(subjects), set(sessions)
    problems: list[str] = []
    failures = Failures(out_dir)
    problems += [str(error) for error in failures.broken()]
    records = failures.rows()
    failed = [_failed(row) for row in records]
    latest = {(row.get("image", ""), row.get("atlas", "")) for row in records}  # what failed last is shown as failed, not as it was before
    notes: list[str] = []
    poses = _poses(out_dir, problems, notes)
    rows = [row for row in poses if not latest & {(row.image, ""), (row.image, str(row.sidecar.get("Atlas")))}]
    known = {_stem(row.image) for row in (*rows, *failed)}
    by_stem = {_stem(i.relative.as_posix()): i for i in inputs}  # one image, though it be there as .nii and as .nii.gz
    missing = [
        GroupRow(i.subject, i.session, i.relative.as_posix(), i.suffix, MISSING, error="no outputs yet")
        for stem, i in by_stem.items()
        if stem not in known
    ]
    found = [
        row
        for row in (*rows, *failed, *missing)
        if (not wanted or row.subject in wanted) and (not visits or row.session in visits)
    ]
    found.sort(key=lambda row: (row.subject, row.session or "", row.image, row.space))
    return Collected(tuple(found), tuple(problems), tuple(notes))


def _stem(image: str) -> str:
    """Path without the extension, which cannot be derived from the name of a transform."""
    path = PurePosixPath(image)
    return (path.parent / name_stem(path.name)).as_posix()


def _failed(row: Mapping[str, str]) -> GroupRow:
    image = str(row.get("image", ""))
    session = str(row.get("session", "n/a"))
    split = split_name(PurePosixPath(image).name)
    return GroupRow(
        str(row.get("subject", "")).removeprefix("sub-"),
        None if session == "n/a" else session.removeprefix("ses-"),
        image,
        split.suffix if split else "",
        FAILED,
        reasons=(f"stopped in {row.get('stage', 'n/a')}",),
        error=str(row.get("error", "")),
    )


def _poses(out_dir: Path, problems: list[str], notes: list[str]) -> Iterator[GroupRow]:
    for anat in sorted([*out_dir.glob("sub-*/anat"), *out_dir.glob("sub-*/ses-*/anat")]):
        kept, older = current(results_in(out_dir, anat))
        notes += [
            f"{result.sidecar.relative_to(out_dir)}: not counted, as {result.stem} has a newer result; the next run for it removes this one"
            for result in older
        ]
        for result in kept:
            path = result.sidecar
            try:
                yield _pose(out_dir, path)
            except (BidsError, TransformError) as error:
                named = str(error) if str(error).startswith(str(out_dir)) else f"{path}: {error}"
                problems.append(named)
                yield _unreadable(result, named)


def _pose(out_dir: Path, path: Path) -> GroupRow:
    """The row of the forward sidecar ``path``. Raises BidsError or TransformError for an invalid one."""
    sidecar = read_json(path)
    sources = sidecar.get("Sources")
    if not isinstance(sources, list) or not sources or not sidecar.get("Atlas") or pose_of(sidecar) is None:
        msg = f"{path}: lacks Sources, Atlas, RotationMatrix or TranslationMM; run posepipe again for this image"
        raise BidsError(msg)
    relative = Path(str(sources[0]).removeprefix(_RAW))
    split = split_name(relative.name)
    if split is None:
        msg = f"{path}: its source {relative} is no BIDS name; run posepipe again for this image"
        raise BidsError(msg)
    cohort = sidecar.get("Cohort")
    image = InputImage(out_dir / relative, relative, split.entities, split.suffix)
    names = as_written(OutputNames(out_dir, image, (str(sidecar["Atlas"]), None if cohort is None else str(cohort))), sidecar)
    instead = written_instead(sidecar)
    images = (names.resampled, names.mask) if instead is None else ()
    verdict, reasons = verdict_of(sidecar)
    return GroupRow(
        image.subject,
        image.session,
        relative.as_posix(),
        split.suffix,
        verdict,
        tuple(reasons),
        sidecar,
        read_json(names.sidecar(names.resampled)) if instead is None else instead[0],
        *(file.relative_to(out_dir).as_posix() for file in (path.with_suffix(".txt"), *images)),
    )


def _unreadable(result: Result, error: str) -> GroupRow:
    """The row of an invalid sidecar, from its name and folder."""
    names, image = result.names, result.names.image
    forward = names.forward.relative_to(names.out_dir).as_posix()
    return GroupRow(
        image.subject, image.session, image.relative.as_posix(), image.suffix, UNREADABLE, forward=forward, error=error
    )  # fmt: skip
