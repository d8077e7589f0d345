"""Progress of a run: lines on the terminal, records of failures, and report pages."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bids import Failures, read_json
from ..errors import PosepipeError, advised
from ..plan import ImagePlan, Plan, PlanFailure, SessionPlan
from ..settings import AUTO, Settings
from .resource_table import ResourceTable
from .stopping import Stopped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

FOUND_NODE, LAST_NODE = "quality", "outputs"
"""Nodes after which the pose that an image has alone is known, and after which an image is done."""
_OF_CRASH_FILE = re.compile(r"^(?:When creating|During the creation of) this crashfile", re.MULTILINE)
NO_MESSAGE = "RuntimeError: stopped without a message; see the crash file"


@dataclass
class _Crash:
    """A node that failed, until its crash file is there."""

    image: ImagePlan
    session: SessionPlan
    node: str
    stage: str
    text: str


@dataclass
class Monitor:
    """Nipype's status callback: called with a node and ``start``, ``end`` or ``exception``, in the main process.

    A line is printed when an image is done or has failed; when all images of a session are, its page is written. Nipype writes a crash file
    only after the callback, so that failures are recorded at the next call, or by :meth:`finish`.

    ``together``: workflow of a session and node → the images that the node gives one pose. ``found``: those of them whose pose alone is
    known, for the second round. ``others``: images that another run is working on, whose files are left alone.
    """

    plan: Plan
    settings: Settings
    methods: str
    image_of: Mapping[str, tuple[SessionPlan, ImagePlan]]
    together: Mapping[tuple[str, str], tuple[SessionPlan, tuple[ImagePlan, ...]]] = field(default_factory=dict)
    say: Callable[[str], None] = print
    failed: dict[Path, str] = field(default_factory=dict)  # by forward transform; of images that could not be planned by their path
    finished: set[Path] = field(default_factory=set)
    found: set[Path] = field(default_factory=set)
    others: set[Path] = field(default_factory=set)
    pages: dict[Path, None] = field(default_factory=dict)  # in order
    page_errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._failures = Failures(self.settings.out_dir)
        now = datetime.now(timezone.utc).replace(tzinfo=None).isoformat()
        self.resources = ResourceTable(self.settings.out_dir, self.settings.run_id, now)
        self._crashes: list[_Crash] = []
        self._superseded: set[Path] = set()
        self._ended: set[str] = set()
        self._figures: dict[str, str] = {}
        self._left = {session.label: len(session.pending) for session in self.plan.sessions}
        self._ready: list[SessionPlan] = []
        self._sessions: dict[str, list[str]] = defaultdict(list)
        for session in self.plan.sessions:
            self._sessions[session.subject] += [session.session] if session.session else []
        self._planned = {image.names.forward for image in self.plan.pending}
        self._over: set[Path] = set()
        self._total = len(self.plan.pending)

    def __call__(self, node: Any, status: str) -> None:
        """Process the ``status`` of ``node``."""
        if isinstance(sys.exc_info()[1], KeyboardInterrupt):
            return  # the run is being stopped: Nipype's Linear plugin reports "end" for nodes that were interrupted
        Stopped.check()  # Nipype treats an exception raised in a node as an error of the image, and would continue
        try:
            self._record_failures()
            for session, image in self._images_of(node):
                if image.names.forward in self.failed or image.names.forward in self.finished:
                    continue  # Nipype's Linear plugin reports "end" for nodes that it skips
                if status in {"end", "exception"} and node.fullname not in self._ended:  # the second round takes the first's
                    self._ended.add(node.fullname)
                    self.resources.add(session, image, node, failed=status == "exception")
                if status == "exception":
                    for one in self._waiting_for(image, node.name):
                        self._fail(session, one, node)
                elif status == "end" and node.name == LAST_NODE:
                    self._succeed(session, image, node)
                elif status == "end" and node.name == FOUND_NODE and image.alone_hash and image.names.forward not in self.found:
                    self.found.add(image.names.forward)
                    self.say(f"{image.image.path.name}: its own pose at {image.space} found; next that of its session's images")
        except Exception:  # an error here must not end the run of the other images
            logger.exception("posepipe could not process the status of %s (%s)", node.fullname, status)

    def _images_of(self, node: Any) -> list[tuple[SessionPlan, ImagePlan]]:
        """The image of a node; of a node that several share, these."""
        names = node.fullname.split(".")
        if names[2] in self.image_of:
            return [self.image_of[names[2]]]
        session, images = self.together[names[1], names[2].partition("_of_")[0]]
        return [(session, image) for image in images if image.names.forward in self.found]

    def refuse(self, failures: Sequence[PlanFailure]) -> None:
        """Record the images that could not be planned."""
        for failure in failures:
            self.failed[failure.image.path / failure.atlas] = str(failure.error)
            self._failures.record(failure.image, failure.stage, failure.error, atlas=failure.atlas, merge=False)
            at = f" at {failure.atlas}" if failure.atlas else ""
            self.say(f"{failure.image.path.name}: FAILED ({failure.stage}{at}): {failure.error}")
        if failures:
            self._failures.merge()

    def stop(self) -> None:
        """Record the remaining failures and the resources; the next run writes the pages."""
        self._record_failures(pages=False)
        self.resources.write()

    def finish(self) -> None:
        """Record the remaining failures and the resources, and write the remaining pages."""
        self._record_failures()
        self.resources.write()
        for session in self.plan.sessions:
            self._write_page(session)

    def supersede(self, image: ImagePlan) -> None:
        """Remove superseded results of ``image``: those at other cohorts of the atlas, and those at other atlases unless the atlas was
        given by name and age and contrast are the same. What this run makes at other atlases has its own turn."""
        from ..bids import remove_superseded

        own, plans = image.choice.template.atlas, self.plan.at(image.image)
        others = {one.choice.template.atlas for one in plans} - {own}

        def is_superseded(atlas: str, sidecar: Mapping[str, Any]) -> bool:
            same = (sidecar.get("Age"), sidecar.get("Contrast")) == (image.age.weeks, image.contrast)
            return atlas not in others and (self.settings.atlas == (AUTO,) or atlas == own or not same)

        try:
            gone = remove_superseded(image.names, [path for one in plans for path in one.files], is_superseded)
        except OSError as error:
            logger.warning("%s: this superseded result could not be removed (%s); remove it", error.filename, error.strerror)
            return
        for space in gone:
            self.say(f"{image.image.path.name}: its earlier result at {space} is superseded by that at {image.space}, and removed")
            self._superseded.add(image.image.path)

    def _waiting_for(self, image: ImagePlan, node: str) -> list[ImagePlan]:
        """The plans that cannot go on without the result of the ``node`` of ``image``: the image's others too, if it works for all."""
        others = [one for one in self.plan.at(image.image) if not one.done and one.names.forward not in self.finished]
        shared = {"mask": others, "conversion": [one for one in others if one.converted]}.get(node, [])
        return [image, *(one for one in shared if one is not image and one.names.forward not in self.failed)]

    def _succeed(self, session: SessionPlan, image: ImagePlan, node: Any) -> None:
        self.finished.add(image.names.forward)
        self._failures.clear(image.image, image.choice.template.atlas, self.settings.atlas)
        self.supersede(image)
        self._figures[image.names.forward.name] = node.result.outputs.figure
        sidecar = read_json(image.names.sidecar(image.names.forward))
        seconds = sum(sidecar["Seconds"].values())
        self.say(
            f"[{self._count(image)}/{self._total}] {image.image.path.name}: {sidecar['QC']}, turned "
            f"{sidecar['RotationAngleDegrees']:.1f}° from {image.space}, {seconds:.1f} s"
        )
        self._done_with(session)

    def _fail(self, session: SessionPlan, image: ImagePlan, node: Any) -> None:
        text = error_text(node, self._log_of(session, node.fullname))
        self.failed[image.names.forward] = text
        self._crashes.append(_Crash(image, session, node.fullname, node.name, text))
        first = text.strip().splitlines()[0]
        at = f" at {image.space}" if self._atlas_of(image) else ""
        self.say(f"[{self._count(image)}/{self._total}] {image.image.path.name}: FAILED ({node.name}{at}): {first}")

    def _record_failures(self, *, pages: bool = True) -> None:
        """Record the failures whose crash files exist now; write the pages of finished sessions."""
        crashes, self._crashes = self._crashes, []
        for crash in crashes:
            log = self._log_of(crash.session, crash.node)
            if crash.text == NO_MESSAGE:  # other plugins report errors only in the crash file
                crash.text = advised(_cause(_trace_in(log)))
            self._failures.record(crash.image.image, crash.stage, crash.text, log, self._atlas_of(crash.image))
            self._done_with(crash.session)
        ready, self._ready = self._ready, []
        for session in ready if pages else ():
            self._write_page(session)

    def _atlas_of(self, image: ImagePlan) -> str:
        """The atlas at which an image failed, if it may have a pose at another."""
        return image.choice.template.atlas if len(self.settings.atlas) > 1 else ""

    def _log_of(self, session: SessionPlan, node: str) -> Path | None:
        return crash_file(session.log_dir(self.settings.out_dir, self.settings.run_id), node)

    def _done_with(self, session: SessionPlan) -> None:
        self._left[session.label] -= 1
        if self._left[session.label] == 0:
            self._ready.append(session)

    def _tell_spread(self, session: SessionPlan) -> None:
        """Write to the sidecars how far the poses of the session's images are apart."""
        from ..interfaces.spread import record_spread

        own = [image.names for image in session.images if self._is_there(image) and image.image.path not in self.others]
        try:
            record_spread([names.sidecar(names.forward) for names in own])
        except OSError as error:
            logger.warning("%s: the spread of the session's poses could not be written (%s)", error.filename, error.strerror)

    def _is_there(self, image: ImagePlan) -> bool:
        return image.done or image.names.forward in self.finished

    def _write_page(self, session: SessionPlan) -> None:
        self._tell_spread(session)
        page = _page(self.settings.out_dir, session)
        if page in self.pages:
            return
        as_shown = not session.pending and not session.failures and _shows_all(page, session)
        if as_shown and not any(image.image.path in self._superseded for image in session.images):
            self.pages[page] = None  # as an earlier run left it
            return
        shown = [image for image in session.images if self._is_there(image)]
        if not shown and not session.failures and not any(i.names.forward in self.failed for i in session.images):
            return  # stopped before any of its images
        try:
            figures = {name: self._figures[name] for i in session.images if (name := i.names.forward.name) in self._figures}
            write_page(self.settings, session.subject, session.session, figures, self.methods, self._sessions[session.subject])
        except (PosepipeError, OSError, ValueError) as error:
            message = advised(f"{page}: not written ({error})")
            if message not in self.page_errors:  # it is tried again at the end
                self.page_errors.append(message)
                self.say(message)
        else:
            self.pages[page] = None

    def _count(self, image: ImagePlan) -> int:
        """How many of the planned images are done or have failed, with ``image``, which just has."""
        self._over |= {image.names.forward} & self._planned
        return len(self._over)


def write_page(
    settings: Settings,
    subject: str,
    session: str | None,
    figures: Mapping[str, str],
    methods: str,
    sessions: Sequence[str] = (),
) -> Path:
    """Write the page of a participant and session by way of its interface; ``sessions`` will have pages too."""
    from ..interfaces.page import SubjectPage

    page = SubjectPage(
        out_dir=str(settings.out_dir),
        bids_dir=str(settings.bids_dir),
        subject=subject,
        session=session or "",
        figures=dict(figures),
        sessions=list(sessions),
        atlas_dir=[str(folder) for folder in settings.atlas_dir],
        command=settings.command,
        methods=methods,
    )
    return Path(page.run().outputs.out_file)


def error_text(node: Any, log: Path | None = None) -> str:
    """Reason why a node failed: type and message of the error.

    ``log`` is its crash file, which is the only source for a node that could not start.
    """
    trace = getattr(node, "_traceback", None) or ""
    with contextlib.suppress(OSError, AttributeError):  # no result: the worker died, or the node could not start
        trace = node.result.runtime.traceback or trace
    return advised(_cause("".join(trace) or _trace_in(log)))


def _trace_in(log: Path | None) -> str:
    """The trace that a crash file holds; empty where there is none."""
    text = log.read_text(encoding="utf-8", errors="replace") if log is not None and log.is_file() else ""
    start = text.find("Traceback (most recent call last)")
    return "" if start < 0 else _OF_CRASH_FILE.split(text[start:])[0]


def _cause(trace: str) -> str:
    lines = [line for line in trace.splitlines() if line.strip()]
    starts = [n for n, line in enumerate(lines) if not line.startswith((" ", "\t", "Traceback"))]
    if not starts:
        return NO_MESSAGE
    # the error message may have several lines; it starts after the last frame of the traceback
    frames = [n for n, line in enumerate(lines) if line.startswith('  File "')]
    first = next((n for n in starts if not frames or n > frames[-1]), starts[-1])
    text = "\n".join(lines[first:])
    return text.removeprefix("posepipe.errors.")


def crash_file(folder: Path, node: str) -> Path | None:
    """The crash file that Nipype wrote for the node with this full name; its folder if it cannot be identified."""
    for path in sorted(folder.glob("crash-*.txt")):
        with path.open(encoding="utf-8", errors="replace") as stream:
            if stream.readline().strip() == f"Node: {node}":
                return path
    return folder if folder.is_dir() else None


def _shows_all(page: Path, session: SessionPlan) -> bool:
    """Whether a page was written after all images of its session; a run may have been stopped in between."""
    sidecars = (image.names.sidecar(image.names.forward) for image in session.images)
    return page.is_file() and all(page.stat().st_mtime_ns >= sidecar.stat().st_mtime_ns for sidecar in sidecars)


def _page(out_dir: Path, session: SessionPlan) -> Path:
    from ..bids import subject_page

    return subject_page(out_dir, session.subject, session.session)
