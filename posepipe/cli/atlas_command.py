"""``posepipe-tools atlas {list,fetch,add}``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..paths import absolute_path

if TYPE_CHECKING:
    from ..atlas import AtlasStatus


def add_arguments(subparsers: Any) -> None:
    """Add the ``atlas`` command to the subparsers of ``posepipe-tools``."""
    atlas = subparsers.add_parser(
        "atlas",
        help="list, download or add atlases",
        description="Which atlases are known, where they are, and getting one.",
    )
    actions = atlas.add_subparsers(dest="atlas_action", required=True, metavar="{list,fetch,add}")
    _add_list(actions)
    _add_fetch(actions)
    _add_add(actions)


def _add_list(actions: Any) -> None:
    parser = actions.add_parser("list", help="show every atlas: ages, contrasts, where it is, licence")
    parser.add_argument(
        "--atlas-dir", action="append", default=[], type=absolute_path, metavar="DIR", help="look here first (repeatable)"
    )


def _add_fetch(actions: Any) -> None:
    parser = actions.add_parser("fetch", help="download an atlas, checked by SHA-256; its licence is shown")
    parser.add_argument("name", metavar="NAME", help="atlas, as in `atlas list`")
    parser.add_argument(
        "--accept-license", action="store_true", help="I have read the terms of this atlas and agree to them"
    )
    parser.add_argument("--cohorts", nargs="+", metavar="LABEL", help="only these cohorts (default: all)")
    parser.add_argument("--atlas-dir", type=absolute_path, metavar="DEST", help="put it here (default: posepipe's cache)")
    parser.add_argument(
        "--base-url", metavar="URL", help="download from a mirror that serves /<repository>/<commit>/<path>"
    )
    parser.add_argument("--no-progress", action="store_true", help="say nothing while downloading")


def _add_add(actions: Any) -> None:
    parser = actions.add_parser("add", help="add your own template: one cohort, or a folder in TemplateFlow layout")
    parser.add_argument("name", metavar="NAME", help="name of the atlas, letters and digits")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--image", type=absolute_path, metavar="FILE", help="the template image of one cohort (needs --age)")
    source.add_argument("--folder", type=absolute_path, metavar="DIR", help="a folder that holds tpl-NAME/cohort-X/…")
    parser.add_argument(
        "--age", type=float, metavar="WEEKS", help="age of the cohort, postmenstrual (gestational) weeks"
    )
    parser.add_argument("--mask", type=absolute_path, metavar="FILE", help="brain mask on the image's grid")
    parser.add_argument("--tissues", type=absolute_path, metavar="FILE", help="tissue labels on the image's grid")
    parser.add_argument(
        "--contrast", choices=("T1w", "T2w"), default="T2w", help="contrast of the image (default: T2w)"
    )
    parser.add_argument("--stage", choices=("fetal", "neonatal"), help="default: fetal up to 38 weeks")
    parser.add_argument("--cohort", metavar="LABEL", help="label of the cohort (default: from the age)")
    parser.add_argument("--title", help="a line about the atlas for `atlas list`")
    parser.add_argument("--atlas-dir", type=absolute_path, metavar="DEST", help="put it here (default: posepipe's cache)")
    parser.add_argument("--force", action="store_true", help="replace files that are there already")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed ``args`` ask; 0 on success. Raises :class:`~posepipe.errors.PosepipeError`."""
    return {"list": _list, "fetch": _fetch, "add": _add}[args.atlas_action](args)


def _list(args: argparse.Namespace) -> int:
    from ..atlas import AtlasLibrary

    rows = AtlasLibrary.default(args.atlas_dir).available()
    header = ("atlas", "stage", "weeks", "contrasts", "here", "where", "licence")
    table = [header, *(_row(status) for status in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for status in rows:
        if not status.is_complete:
            how_much = "only partly" if status.found else "not"
            print(f"\n{status.name} is {how_much} on this machine. Get it: {status.how_to_get}")
    return 0


def _row(status: AtlasStatus) -> tuple[str, ...]:
    weeks = "–".join(f"{round(w, 1):g}" for w in status.weeks) if status.weeks else "?"
    where = ", ".join(str(w) for w in status.where) or "-"
    here = f"{len(status.found)}/{status.total}"
    return (status.name, status.stage or "?", weeks, "+".join(status.contrasts), here, where, status.licence or "?")


def _fetch(args: argparse.Namespace) -> int:
    from ..atlas import fetch

    images = fetch(
        args.name,
        args.atlas_dir,
        accept_license=args.accept_license,
        cohorts=args.cohorts,
        base_url=args.base_url,
        progress=not args.no_progress,
    )
    print(f"{args.name}: {len(images)} cohorts in {images[0].parents[2]}")
    return 0


def _add(args: argparse.Namespace) -> int:
    from ..atlas import add, add_folder
    from ..errors import UsageError

    if args.folder is not None:
        single = ("age", "mask", "tissues", "cohort", "title")
        given = [f"--{option}" for option in single if getattr(args, option) is not None]
        if given:
            msg = f"{', '.join(given)} cannot be used with --folder: it names one cohort, --folder adds all"
            raise UsageError(msg)
        added = add_folder(args.name, args.folder, stage=args.stage, dest=args.atlas_dir, force=args.force)
    else:
        if args.age is None:
            msg = "--image needs --age: the age of this cohort in postmenstrual (gestational) weeks"
            raise UsageError(msg)
        options = {
            key: getattr(args, key) for key in ("mask", "tissues", "contrast", "stage", "cohort", "title", "force")
        }
        added = [add(args.name, image=args.image, age=args.age, dest=args.atlas_dir, **options)]
    for template in added:
        print(f"added {template.space} {template.contrast} ({template.age:g} weeks): {template.image}")
    return 0
