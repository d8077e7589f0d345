"""The page of a participant and session, from the outputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits

from .base import DigestInputSpec

if TYPE_CHECKING:
    from ..atlas import AtlasLibrary
    from ..reports.subject import Failure
    from ..reports.views import Views
    from .finished import FinishedImage

logger = logging.getLogger(__name__)


class _SubjectPageInputSpec(DigestInputSpec):
    out_dir = traits.Str(mandatory=True, desc="root of the output dataset")
    bids_dir = traits.Str(mandatory=True, desc="root of the input dataset")
    subject = traits.Str(mandatory=True, desc="participant label without sub-")
    session = traits.Str("", usedefault=True, desc="session label without ses-; empty for a dataset without sessions")
    figures = traits.Dict(
        traits.Str, traits.Str, usedefault=True,
        desc="name of a forward transform → its pictures; those that are not here are made from the outputs",
    )  # fmt: skip
    sessions = traits.List(
        traits.Str, usedefault=True, desc="labels of the participant's sessions that have a page, or will have one"
    )
    atlas_dir = traits.List(traits.Str, usedefault=True, desc="folders of atlases, looked in first")
    command = traits.Str("", usedefault=True, desc="command line of the run")
    methods = traits.Str("", usedefault=True, desc="text for a paper")


class _SubjectPageOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="the page")


class SubjectPage(SimpleInterface):
    """One self-contained page with every finished and every failed image of a participant and session."""

    input_spec = _SubjectPageInputSpec
    output_spec = _SubjectPageOutputSpec
    # the page depends on the output folder, which is not a hashed input
    always_run = True

    def _run_interface(self, runtime: Any) -> Any:
        i = self.inputs
        page = write_page_of(
            Path(i.out_dir), Path(i.bids_dir), i.subject, i.session or None,
            figures={name: Path(path) for name, path in i.figures.items()},
            sessions=list(i.sessions), atlas_dirs=[Path(path) for path in i.atlas_dir], command=i.command, methods=i.methods,
        )  # fmt: skip
        self._results = {"out_file": str(page)}
        return runtime


def write_page_of(
    out_dir: Path,
    bids_dir: Path,
    subject: str,
    session: str | None,
    *,
    figures: Mapping[str, Path],
    sessions: Sequence[str] = (),
    atlas_dirs: list[Path],
    command: str,
    methods: str,
) -> Path:
    """Write the page of a participant and session; an image whose last run failed is shown as failed, without the earlier result.

    ``sessions`` are labels that the page links to besides those with outputs. Raises ValueError where there is nothing
    to show. An image whose pictures cannot be made is shown without them, and the page says why.
    """
    from .._version import __version__
    from ..atlas import AtlasLibrary
    from ..bids import Failures, subject_page
    from ..reports.subject import PageImage, write_subject_page
    from .finished import finished_images, sessions_of

    unit = (f"sub-{subject}", f"ses-{session}" if session else "n/a")
    rows = [row for row in Failures(out_dir).rows() if (row["subject"], row["session"]) == unit]
    failed = {(row["image"], row.get("atlas", "")) for row in rows}
    library = AtlasLibrary.default(atlas_dirs)
    images = [
        PageImage(
            done.name, done.sidecar, _views(done, figures.get(done.names.forward.name), library), done.outputs(),
            done.warnings, done.resampled, done.mask, done.slices,
        )
        for done in finished_images(out_dir, bids_dir, subject, session)
        if not failed & {(done.name, ""), (done.name, done.sidecar["Atlas"])}
    ]  # fmt: skip
    others = {other for _, other in sessions_of(out_dir, subject) if other} | set(sessions)
    return write_subject_page(
        subject_page(out_dir, subject, session),
        subject=subject,
        session=session,
        images=images,
        failures=[_failure(row, out_dir) for row in rows],
        sessions=[(f"ses-{o}", subject_page(out_dir, subject, o).name) for o in sorted(others - {session or ""})],
        version=__version__,
        command=command,
        methods=methods,
    )


def _views(done: FinishedImage, figure: Path | None, library: AtlasLibrary) -> Views | str:
    """The pictures of an image: from the run, else generated from the outputs; or the reason why there are none."""
    from ..errors import PosepipeError
    from ..reports.views import read_views

    try:
        return read_views(figure) if figure is not None else done.views(library)
    except (PosepipeError, OSError, ValueError) as error:
        logger.warning("%s: no picture in the page (%s)", done.name, error)
        return f"It could not be made: {error}"


def _failure(row: Mapping[str, str], out_dir: Path) -> Failure:
    """A failure with its text: the message of one of posepipe's errors; for other errors, the crash file is appended."""
    from .. import errors
    from ..reports.subject import Failure

    text, log = row["error"], "" if row["log"] == "n/a" else row["log"]
    foreseen = hasattr(errors, text.partition(":")[0])
    if log and not foreseen and (out_dir / log).is_file():
        text += "\n\n" + (out_dir / log).read_text(encoding="utf-8", errors="replace")
    return Failure(row["image"], row["stage"], text, log)
