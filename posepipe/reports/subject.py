"""The page of one subject (or one of its sessions): verdict first, then what shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import facts
from .drawing import axis_phrases, head_turn
from .page import data_uri, link, render, write_page
from .verdict import FAILED, ORDER, Verdict, headline, verdict_of, worst


@dataclass(frozen=True)
class PageImage:
    """An image that was processed.

    ``name`` is the input's path relative to the dataset; ``sidecar`` the contents of the forward transform's
    ``…_xfm.json``; ``figure`` a JPEG, PNG or WebP picture or its file; ``outputs`` are paths relative to the page.
    """

    name: str
    sidecar: Mapping[str, Any]
    figure: bytes | Path
    outputs: Sequence[str] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Failure:
    """An image that was not processed: where it stopped, the error's whole text, and its log relative to the page."""

    image: str
    stage: str
    error: str
    log: str = ""


@dataclass(frozen=True)
class _Line:
    """A line of the summary at the head of the page."""

    anchor: str
    name: str
    verdict: Verdict
    reasons: Sequence[str]
    rotation: str = "–"
    confidence: str = "–"
    template: str = "–"
    age: str = "–"

    @property
    def file(self) -> str:
        """The file's name without its folders."""
        return self.name.rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class _Section:
    """All that the page shows of one image."""

    line: _Line
    figure: str
    head: str
    phrases: Sequence[str]
    tables: Mapping[str, Sequence[facts.Row]]
    similarity: Sequence[tuple[str, str, str]]
    matrix: str
    command: str
    files: Sequence[tuple[str, str, str]] = field(default_factory=list)
    warnings: Sequence[str] = ()


def write_subject_page(
    path: str | Path,
    *,
    subject: str,
    session: str | None,
    images: Sequence[PageImage],
    failures: Sequence[Failure] = (),
    version: str,
    command: str = "",
    methods: str = "",
) -> Path:
    """Write the page of a subject (and session) to ``path``: one HTML file that needs no network and no script.

    Labels may come with or without ``sub-`` and ``ses-``. ``version`` is posepipe's, ``command`` the command line that
    ran, ``methods`` the text for a paper. Raises ValueError where there is neither an image nor a failure,
    :class:`~posepipe.errors.ImageError` for a figure that is no picture, and
    :class:`~posepipe.errors.TransformError` for a sidecar without a rigid map in its numbers.
    """
    if not images and not failures:
        msg = f"{path}: a page needs at least one image or failure to show"
        raise ValueError(msg)
    title = f"sub-{subject.removeprefix('sub-')}" + (f" ses-{session.removeprefix('ses-')}" if session else "")
    sections = [_section(number, image) for number, image in enumerate(images, start=1)]
    sections.sort(key=lambda section: _calm(section.line))
    stopped = [
        (_Line(f"failure-{n}", f.image, FAILED, [f"stopped in {f.stage}: {_first_line(f.error)}"]), f)
        for n, f in enumerate(failures, start=1)
    ]
    lines = sorted([*(s.line for s in sections), *(line for line, _ in stopped)], key=_calm)
    verdicts = [line.verdict for line in lines]
    first, detail = headline(verdicts)
    html = render(
        "subject.html",
        title=title,
        version=version,
        verdict=worst(verdicts),
        headline=first,
        detail=detail,
        lines=lines,
        sections=sections,
        failures=[(line, f, link(f.log) if f.log else "") for line, f in stopped],
        command=command,
        methods=methods,
    )
    return write_page(path, html)


def _section(number: int, image: PageImage) -> _Section:
    from markupsafe import Markup

    verdict, reasons = verdict_of(image.sidecar)
    pose = facts.pose_of(image.sidecar)
    tables = {
        "Pose, template to image": facts.pose_rows(image.sidecar),
        "Image and template": facts.image_rows(image.sidecar),
        "Method": facts.method_rows(image.sidecar),
        "Seconds": facts.seconds_rows(image.sidecar),
        "Software": facts.software_rows(image.sidecar),
    }
    rows = dict(tables["Pose, template to image"]) | dict(tables["Image and template"])
    line = _Line(
        f"image-{number}", image.name, verdict, reasons, rows["Rotation"],
        rows["Confidence"].split(" (")[0], rows["Template"], rows["Age"],
    )  # fmt: skip
    return _Section(
        line=line,
        figure=data_uri(image.figure),
        head="" if pose is None else Markup(head_turn(pose)),  # numbers and our own words only
        phrases=[] if pose is None else axis_phrases(pose),
        tables={name: table for name, table in tables.items() if table},
        similarity=facts.similarity_rows(image.sidecar),
        matrix="" if pose is None else facts.matrix_text(pose),
        command=facts.apply_command(image.name, image.outputs),
        files=[(link(output), output, facts.describe(output)) for output in image.outputs],
        warnings=list(image.warnings),
    )


def _calm(line: _Line) -> int:
    """Sorts the most urgent to the front."""
    return -ORDER.index(line.verdict)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")
