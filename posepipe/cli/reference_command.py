"""``posepipe-tools reference``: reference poses by the paper's procedure, to be accepted visually before networks are trained on them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..files import name_stem
from ..paths import absolute_derivative, absolute_path
from .threads import library_threads

if TYPE_CHECKING:
    from ..bids import AgeReader, InputImage
    from ..reports.contact_sheet import Case
    from ..training.reference_table import ReferenceRow
    from ..training.subjects import Reference

TABLE, SHEET = "references.tsv", "references"


def add_arguments(subparsers: Any) -> None:
    """Add the ``reference`` command to the subparsers of ``posepipe-tools``."""
    parser = subparsers.add_parser(
        "reference",
        help="estimate reference poses of training brains, with contact sheets to check them",
        description="Estimate the pose of every T2w and T1w image from the 24 ways to match the axes of its grid to those of the head, "
        "compare it with the result of the search, and write contact sheets and a table in which you accept or reject each pose. See "
        "docs/tutorials/training.md.",
    )
    parser.add_argument("bids_dir", type=absolute_path, metavar="BIDS", help="a dataset of skull-stripped images, or with masks (-d)")
    parser.add_argument(
        "-d", "--derivatives", type=absolute_derivative, action="append", default=[], metavar="[NAME=]PATH",
        help="brain masks of these images (repeatable)",
    )  # fmt: skip
    parser.add_argument("--participant-label", nargs="+", default=[], metavar="LABEL", help="only these (with or without sub-)")
    parser.add_argument("--contrast", choices=("T1w", "T2w"), help="only images of this contrast")
    parser.add_argument("--age-column", metavar="NAME", help="column of scans.tsv, sessions.tsv or participants.tsv to read")
    parser.add_argument("--atlas", required=True, metavar="NAME", help="the atlas to register to")
    parser.add_argument(
        "--atlas-dir", action="append", default=[], type=absolute_path, metavar="DIR", help="look for atlases here first (repeatable)"
    )
    parser.add_argument(
        "-o", "--output", type=absolute_path, required=True, metavar="DIR",
        help=f"folder for {TABLE} and the contact sheets; answers in an existing table are kept",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the command with the parsed ``args``; 0 if every image has a pose, else 1. Raises :class:`~posepipe.errors.PosepipeError`."""
    with library_threads(1):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from ..atlas import AtlasLibrary
    from ..bids import AgeReader, find_images
    from ..errors import UsageError
    from ..reports.contact_sheet import write_sheets
    from ..training.reference_table import read_references, write_references
    from ..training.subjects import Reference

    reference = Reference(AtlasLibrary.default(args.atlas_dir), args.atlas)
    reference.nearest(30.0)  # raises before the work begins if the atlas is missing
    table = args.output / TABLE
    earlier = {(row.dataset, row.image): row for row in (read_references(table) if table.exists() else ())}
    images = find_images(args.bids_dir, participants=args.participant_label, derivatives=args.derivatives)
    images = [image for image in images if args.contrast in (None, image.suffix)]
    if not images:
        msg = f"{args.bids_dir}: no {args.contrast} image of these participants; leave --contrast out, or name others"
        raise UsageError(msg)
    found: list[ReferenceRow] = []
    failed: list[str] = []
    ages = AgeReader(args.bids_dir, column=args.age_column)
    args.output.mkdir(parents=True, exist_ok=True)
    pages = write_sheets(_cases(images, ages, reference, earlier, found, failed), args.output, SHEET)
    write_references(table, found)
    answers = [row.accepted for row in found]
    doubtful = sum(not row.agree for row in found)
    _say(
        f"{table}: {len(found)} poses, {doubtful} in doubt; accepted yes {answers.count('yes')}, no {answers.count('no')}, "
        f"not answered {answers.count('n/a')}"
    )
    for page in pages:
        _say(f"contact sheet: {page}")
    if failed:
        _say(f"{len(failed)} of {len(images)} images have no pose: {', '.join(failed)}")
    return 1 if failed else 0


def _cases(
    images: list[InputImage], ages: AgeReader, reference: Reference, earlier: dict[tuple[str, str], ReferenceRow],
    found: list[ReferenceRow], failed: list[str],
) -> Iterator[Case]:  # fmt: skip
    """The cases of the contact sheets; rows of the table are appended to ``found``, names of images without a pose to ``failed``."""
    from ..errors import AgeError, ImageError, MaskError, TransformError
    from ..reports.contact_sheet import make_case

    for number, image in enumerate(images, start=1):
        try:
            row, views = _reference(image, ages.age_of(image).weeks, reference)
        except (AgeError, ImageError, MaskError, TransformError) as error:
            failed.append(image.relative.name)
            _say(f"[{number}/{len(images)}] {image.relative.name}: no pose, {error}")
            continue
        before = earlier.get((row.dataset, row.image), row)
        row = row.answered_by(before)
        found.append(row)
        if before.accepted != row.accepted:
            _say(f"{image.relative.name}: accepted was {before.accepted!r} for another file, template or pose; it is n/a again")
        verdict = "two ways agree" if row.agree else f"in doubt: {row.doubt}"
        _say(f"[{number}/{len(images)}] {image.relative.name}: {row.template}, criterion {row.criterion:.2f}, {verdict}")
        yield make_case(_title(row), *views, doubt=not row.agree)


def _reference(image: InputImage, age: float, reference: Reference) -> tuple[ReferenceRow, tuple[Any, ...]]:
    """The row of an ``image``, and the data of its figure: image, mask, template, its mask and the pose."""
    from ..imaging.mask import given_mask, nonzero_mask
    from ..imaging.volume import load_logged, load_volume
    from ..matching.target import Target
    from ..training.reference import reference_pose
    from ..training.reference_table import ReferenceRow

    volume = load_logged(image.path)
    mask = (given_mask(load_volume(image.mask), volume) if image.mask else nonzero_mask(volume)).volume
    target = Target.load(reference.nearest(age, image.suffix))
    found = reference_pose(volume, mask, target)
    return ReferenceRow.of(image, age, target.name, found), (volume, mask, target.volume, target.mask, found.pose)


def _title(row: ReferenceRow) -> str:
    margin = "one pose" if row.margin is None else f"margin {row.margin:.2f}"
    name = name_stem(row.image)
    verdict = "agree" if row.agree else "IN DOUBT"
    whose = "" if row.candidate is not None else ", the search's pose"
    scores = f"criterion {row.criterion:.2f}, {margin}, search {row.search_degrees:.0f}° off"
    return f"{name}, {row.age:g} weeks, {row.template}{whose}\n{scores}: {verdict}, accepted: {row.accepted}"


def _say(text: str) -> None:
    print(text, flush=True)
