"""The group level, from settings to exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BidsError, PosepipeError
from ..settings import Settings
from .parser import cores

if TYPE_CHECKING:
    from ..reports.group_page import GroupContent
    from ..reports.group_ratings import Ratings
    from ..reports.group_rows import Collected, GroupRow


def run_group(settings: Settings) -> int:
    """Write the tables and the page of all results in the output folder; 0, or 1 if a file could not be read or written.

    Raises :class:`~posepipe.errors.PosepipeError` for what makes the whole run impossible.
    """
    from ..reports.group_ratings import Ratings, gather

    collected, notes = _collect(settings)
    if not collected.rows:
        msg = f"{settings.out_dir}: no outputs of posepipe here; run the participant level first"
        raise BidsError(msg)
    print(f"{len(collected.rows)} images in {settings.out_dir}", flush=True)
    if settings.dry_run:
        print("\n".join(_plan(settings, collected, notes)))
        return 1 if collected.problems else 0
    if settings.boilerplate_only:
        from .provenance import write_provenance

        print(write_provenance(settings.out_dir))
        return 1 if collected.problems else 0
    ratings = gather(settings.ratings) if settings.ratings else Ratings()
    content = _content(settings, collected, ratings, notes)
    try:
        _write(settings, content)
    except OSError as error:
        msg = f"{settings.out_dir}: cannot be written to ({error.strerror}); make it writable"
        raise PosepipeError(msg) from error
    return _summary(settings, content)


def _collect(settings: Settings) -> tuple[Collected, list[str]]:
    """The rows, and notes on inputs that could not be listed."""
    from ..bids import find_images, read_filter_file
    from ..bids.entities import bare_label
    from ..reports.group_rows import collect

    notes = []
    inputs = []
    labels = [bare_label(label, "sub") for label in settings.participant_label]
    sessions = [bare_label(label, "ses") for label in settings.session_label]
    try:  # only needed to list images without outputs; the dataset may have been moved
        inputs = find_images(
            settings.bids_dir,
            participants=labels,
            sessions=sessions,
            filters=read_filter_file(settings.bids_filter_file) if settings.bids_filter_file else None,
        )
    except (PosepipeError, OSError) as error:
        notes.append(f"images without outputs are not listed: {error}")
    return collect(settings.out_dir, inputs=inputs, subjects=labels, sessions=sessions), notes


def _plan(settings: Settings, collected: Collected, notes: list[str]) -> list[str]:
    """What would be done, in lines of text."""
    lines = [f"  {row.image}: {row.verdict.word.lower()}" for row in collected.rows]
    lines += [f"  PROBLEM {problem}" for problem in collected.problems]
    lines += [f"  note: {note}" for note in notes]
    written = ["group_pose.tsv", "group_pose.json", "group_pose.html"]
    if settings.ratings:
        written += [f"group_{table}.{kind}" for table in ("ratings", "agreement") for kind in ("tsv", "json")]
    if settings.blind:
        written += ["group_order.tsv", "group_order.json", *(_order_page(settings, rater).name for rater in settings.blind)]
    return [*lines, f"would write to {settings.out_dir}: {', '.join(written)}"]


def _content(settings: Settings, collected: Collected, ratings: Ratings, notes: list[str]) -> GroupContent:
    from ..reports.group_outliers import similarity_z
    from ..reports.group_page import GroupContent
    from ..reports.group_queue import review_queue
    from ..reports.group_thumbnails import make_thumbnails

    rows = collected.rows
    thumbnails, spoiled = make_thumbnails(
        settings.out_dir, rows, workers=settings.nprocs or cores(), progress=_print_progress if len(rows) > 50 else None
    )
    rated = ratings.by_image()
    known = {(row.subject, row.session, row.name) for row in rows}
    unknown = sorted({name for subject, session, name in rated if (subject, session, name) not in known})
    if unknown:
        shown = ", ".join(unknown[:5]) + (" …" if len(unknown) > 5 else "")
        notes = [*notes, f"{len(unknown)} rated images are not in {settings.out_dir.name}: {shown}"]
    methods, unwritten = _methods(settings, rows)
    return GroupContent(
        rows=rows,
        scores=similarity_z(rows),
        queue=review_queue(rows, rated.keys()),
        thumbnails=thumbnails,
        pages=frozenset(row.page for row in rows if (settings.out_dir / row.page).is_file()),
        ratings=ratings,
        agreement=ratings.agreement(),
        problems=(*collected.problems, *spoiled, *ratings.problems, *unwritten),
        notes=(*collected.notes, *notes, *ratings.notes),
        methods=methods,
    )


def _methods(settings: Settings, rows: Sequence[GroupRow]) -> tuple[str, list[str]]:
    """The methods text of the whole output folder, and errors from writing it and the hashes."""
    from .provenance import write_provenance

    some = settings.participant_label or settings.session_label
    try:
        return write_provenance(settings.out_dir, None if some else rows), []
    except BidsError as error:
        citation = settings.out_dir / "logs" / "CITATION.md"
        return citation.read_text(encoding="utf-8") if citation.is_file() else "", [str(error)]


def _print_progress(done: int, total: int) -> None:
    """A line every hundred thumbnails."""
    if done % 100 == 0 or done == total:
        print(f"[{done}/{total}] thumbnails", flush=True)


def _write(settings: Settings, content: GroupContent) -> None:
    from .._version import __version__
    from ..bids import write_bidsignore
    from ..reports import group_page, group_tables
    from ..reports.group_order import reading_order

    out = settings.out_dir
    write_bidsignore(out)
    group_tables.write_pose_table(out, content.rows, content.scores, content.queue, content.ratings)
    if settings.ratings:
        group_tables.write_ratings_tables(out, content.ratings, content.agreement)
    if settings.blind:
        turns = reading_order(content.rows, settings.blind, settings.random_seed)
        group_tables.write_order_table(out, turns)
        for rater in dict.fromkeys(settings.blind):
            mine = [turn for turn in turns if turn.rater == rater]
            if mine:
                print(f"order: {group_page.write_order_page(_order_page(settings, rater), mine, version=__version__)}")
    group_page.write_group_page(out / "group_pose.html", content, version=__version__, command=settings.command)


def _order_page(settings: Settings, rater: str) -> Path:
    return settings.out_dir / f"group_order_{rater}.html"


def _summary(settings: Settings, content: GroupContent) -> int:
    """Print a summary; the exit code."""
    from ..reports.group_page import ORDER
    from ..reports.group_ratings import mean_kappa

    verdicts = [row.verdict for row in content.rows]
    print(", ".join(f"{verdicts.count(v)} {v.word.lower()}" for v in ORDER if v in verdicts))
    if settings.ratings:
        kappas = mean_kappa([pair.quality_kappa for pair in content.agreement])
        agreement = "" if kappas != kappas else f"; weighted kappa of the quality {kappas:.2f}"
        print(f"{len(content.ratings.filed)} ratings by {len(content.ratings.raters)} raters{agreement}")
    elif (settings.out_dir / "group_ratings.tsv").exists():
        print("group_ratings.tsv of an earlier run is left as it is; the page shows ratings only with --ratings")
    for note in content.notes:
        print(f"note: {note}")
    for problem in content.problems:
        print(f"PROBLEM: {problem}", file=sys.stderr)
    print(f"report: {settings.out_dir / 'group_pose.html'}")
    return 1 if content.problems else 0
