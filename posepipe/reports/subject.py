"""The page of one subject (or one of its sessions): verdict, pictures and tables, and a rating form for each image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import facts
from .drawing import axis_phrases, head_turn
from .embed import embedded
from .motion import motion_plot
from .page import json_block, link, render, write_page
from .prose import prose
from .ratings import ARTEFACTS
from .verdict import FAILED, ORDER, PASS, Verdict, headline, verdict_of, worst
from .views import Views

_FIRST = 6  # reasons shown in the banner, at most; the table below it has all


@dataclass(frozen=True)
class PageImage:
    """An image that was processed.

    ``name`` is the input's path relative to the dataset; ``sidecar`` the contents of the forward transform's
    ``…_xfm.json``; ``views`` its pictures, or the reason why there are none; ``outputs`` are paths relative to the page;
    ``grid`` the contents of the sidecar of the image on the template's grid, ``mask`` of the brain mask's; ``slices`` the table of the
    poses of its slices, if it is a stack.
    """

    name: str
    sidecar: Mapping[str, Any]
    views: Views | str
    outputs: Sequence[str] = ()
    warnings: Sequence[str] = ()
    grid: Mapping[str, Any] = field(default_factory=dict)
    mask: Mapping[str, Any] = field(default_factory=dict)
    slices: str = ""

    @property
    def stem(self) -> str:
        """The name in ratings: :func:`~posepipe.reports.facts.rated_name`."""
        return facts.rated_name(self.name.rstrip("/"), self.sidecar)


@dataclass(frozen=True)
class Failure:
    """An image that was not processed: the stage at which it failed, the full error text, and the path of its log relative to the page."""

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
    contrast: str = "–"

    @property
    def file(self) -> str:
        """The file's name without its folders."""
        return self.name.rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class _Section:
    """The content of the page for one image."""

    line: _Line
    image: PageImage
    layers: Sequence[tuple[str, str, bool]]
    head: str
    motion: str
    phrases: Sequence[str]
    tables: Mapping[str, Sequence[facts.Row]]
    similarity: Sequence[tuple[str, str, str]]
    matrix: str
    command: str
    pose_id: str
    contrast_note: str
    files: Sequence[tuple[str, str, str]]


def write_subject_page(
    path: str | Path,
    *,
    subject: str,
    session: str | None,
    images: Sequence[PageImage],
    failures: Sequence[Failure] = (),
    sessions: Sequence[tuple[str, str]] = (),
    version: str,
    command: str = "",
    methods: str = "",
) -> Path:
    """Write the page of a subject (and session) to ``path``: one HTML file that needs no network.

    Labels may come with or without ``sub-`` and ``ses-``. ``sessions`` are labels and pages of the subject's other
    sessions. ``version`` is posepipe's, ``command`` the command line of the run, ``methods`` the text for a paper. Raises
    ValueError if there is neither an image nor a failure, and :class:`~posepipe.errors.TransformError` for a sidecar
    without a rigid map in its numbers.
    """
    if not images and not failures:
        msg = f"{path}: a page needs at least one image or failure to show"
        raise ValueError(msg)
    subject, session = subject.removeprefix("sub-"), (session or "").removeprefix("ses-")
    sections = sorted((_section(n, image) for n, image in enumerate(images, start=1)), key=lambda section: _urgency(section.line))
    stopped = [(_failure_line(n, failure), failure) for n, failure in enumerate(failures, start=1)]
    lines = sorted([*(s.line for s in sections), *(line for line, _ in stopped)], key=_urgency)
    verdicts = [line.verdict for line in lines]
    first, detail = headline(verdicts)
    views, thinned = embedded({s.line.anchor: s.image.views for s in sections if isinstance(s.image.views, Views)})
    html = render(
        "subject.html",
        styles=("page.css", "subject.css"),
        scripts=("viewer.js", "rating.js"),
        title=f"sub-{subject}" + (f" ses-{session}" if session else ""),
        subject=subject,
        session=session,
        sessions=[(label, link(page)) for label, page in sessions],
        version=version,
        verdict=worst(verdicts),
        headline=first,
        detail=detail,
        reasons=[(line.file, reason) for line in lines if line.verdict is not PASS for reason in line.reasons],
        max_reasons=_FIRST,
        lines=lines,
        sections=sections,
        failures=[(line, f, link(f.log) if f.log else "") for line, f in stopped],
        artefacts=ARTEFACTS,
        views=json_block(views),
        thinned=thinned,
        command=command,
        methods=prose(methods),
    )
    return write_page(path, html)


def _section(number: int, image: PageImage) -> _Section:
    from markupsafe import Markup

    verdict, reasons = verdict_of(image.sidecar)
    pose = facts.pose_of(image.sidecar)
    tables = {
        "Pose, template to image": facts.pose_rows(image.sidecar),
        "Image and template": facts.image_rows(image.sidecar, image.grid, image.mask),
        "Method": facts.method_rows(image.sidecar),
        "Session": facts.session_rows(image.sidecar),
        "Slices": facts.slices_rows(image.sidecar),
        "Seconds": facts.seconds_rows(image.sidecar),
        "Software": facts.software_rows(image.sidecar),
    }
    rows = dict(tables["Pose, template to image"]) | dict(tables["Image and template"])
    line = _Line(
        f"image-{number}", image.name, verdict, reasons, rows["Rotation"],
        rows["Confidence"].split(" (")[0], rows["Template"], rows["Age"], str(image.sidecar.get("Contrast") or "–"),
    )  # fmt: skip
    return _Section(
        line=line,
        image=image,
        layers=[] if isinstance(image.views, str) else _layers(image),
        head="" if pose is None else Markup(head_turn(pose)),  # contains only numbers and fixed words
        motion=Markup(motion_plot(image.slices)) if image.slices else "",
        phrases=[] if pose is None else axis_phrases(pose),
        tables={name: table for name, table in tables.items() if table},
        similarity=facts.similarity_rows(image.sidecar),
        matrix="" if pose is None else facts.matrix_text(pose),
        command=facts.apply_command(image.name, image.outputs),
        pose_id=pose_id(image.sidecar),
        contrast_note=facts.contrast_note(image.sidecar, image.grid),
        files=[(link(output), output, facts.describe(output)) for output in image.outputs],
    )


def _failure_line(number: int, failure: Failure) -> _Line:
    return _Line(f"failure-{number}", failure.image, FAILED, [f"stopped in {failure.stage}: {_first_line(failure.error)}"])


def _layers(image: PageImage) -> list[tuple[str, str, bool]]:
    """Rows that the viewer can show: name, title, and whether it is shown at first."""
    assert isinstance(image.views, Views)
    contrast = str(image.sidecar.get("Contrast") or "")
    other = f"After, {contrast}" if "synth" in image.views.layers and contrast else "After"
    titles = {"before": "Before", "after": other, "synth": "After, synthetic T2w", "atlas": "Atlas"}
    return [(name, title, name != "atlas") for name, title in titles.items() if name in image.views.layers]


def pose_id(sidecar: Mapping[str, Any]) -> str:
    """Identifier of a pose, so that a rating of an earlier pose is not used for this one."""
    known = [sidecar.get(key) for key in ("RotationMatrix", "TranslationMM", "Atlas", "Cohort")]
    return hashlib.sha256(json.dumps(known, default=str).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _urgency(line: _Line) -> int:
    """Sort key: most urgent verdict first."""
    return -ORDER.index(line.verdict)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")
