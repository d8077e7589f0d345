"""The command line of ``posepipe``, and the :class:`~posepipe.settings.Settings` made from it."""

from __future__ import annotations

import argparse
import os
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from .._version import __version__
from ..errors import UsageError
from ..paths import absolute_derivative, absolute_path
from ..settings import (
    AGE_POLICIES,
    AUTO,
    CONTRAST_CHOICES,
    CONVERT_CHOICES,
    DEVICE_CHOICES,
    ESTIMATE,
    INIT_CHOICES,
    LEVELS,
    MASK_CHOICES,
    OUTPUT_LEVELS,
    REFINE_CHOICES,
    SESSION_CHOICES,
    SLICES_CHOICES,
    XFM_FORMATS,
    Settings,
    command_line,
)

_DEFAULT = {f.name: f.default for f in fields(Settings)}


def build_parser() -> argparse.ArgumentParser:
    """The argument parser. Options that are not given are absent from its result, so that a config file can set them."""
    parser = argparse.ArgumentParser(
        prog="posepipe",
        description="Align fetal and newborn brain MRI to the space of an age-matched atlas, for any orientation of the head.",
        argument_default=argparse.SUPPRESS,
        epilog="Exit code: 0 if every image was processed, 1 if any failed (see failures.tsv), 2 for a usage error.",
    )
    parser.add_argument("bids_dir", type=absolute_path, help="root of a BIDS dataset, raw or derivative")
    parser.add_argument("out_dir", type=absolute_path, help="output folder, such as BIDS_DIR/derivatives/posepipe")
    parser.add_argument(
        "analysis_level", choices=LEVELS,
        help="participant: align the images; group: tables and a page of all results in OUT_DIR",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"posepipe {__version__}")
    _add_selection(parser)
    _add_session(add_alignment(parser, several=True))
    add_outputs(parser).add_argument(
        "--level", choices=OUTPUT_LEVELS,
        help=_with_default(
            "level", "what is written: transforms: these with their sidecars; header: the reoriented image too, not interpolated; full: "
            "the image on the atlas's grid, the mask and a conversion too"
        ),
    )  # fmt: skip
    _add_age(parser)
    _add_group(parser)
    _add_run(parser)
    _add_instead(parser)
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which images")
    group.add_argument("--participant-label", nargs="+", metavar="LABEL", help="only these (with or without sub-)")
    group.add_argument("--session-label", nargs="+", metavar="LABEL", help="only these (with or without ses-)")
    group.add_argument("--bids-filter-file", type=absolute_path, metavar="FILE", help="selection by entities, as for fMRIPrep (JSON)")
    group.add_argument(
        "-d", "--derivatives", type=absolute_derivative, nargs="+", action="extend", metavar="[NAME=]PATH",
        help="derivative datasets with brain masks (desc-brain_mask); posepipe=DIR: outputs of an earlier run, whose results are taken if "
        "image, version and settings are the same",
    )  # fmt: skip
    group.add_argument("--skip-bids-validation", action="store_true", help="do not check file names against BIDS")


def add_alignment(parser: argparse.ArgumentParser, *, several: bool = False) -> Any:
    """Add the options of the alignment, shared with ``posepipe-tools align``; returns their group. ``several``: ``--atlas`` takes several
    names."""
    group = parser.add_argument_group("alignment")
    names: dict[str, Any] = {"nargs": "+"} if several else {}
    which = "a name, or several: a pose at each that has a template of the age" if several else "a name"
    group.add_argument("--atlas", metavar="NAME", help=f"auto (one by age), or {which} (default: {AUTO})", **names)
    group.add_argument(
        "--atlas-dir", type=absolute_path, action="append", metavar="DIR",
        help="folder of tpl-NAME folders (repeatable), searched before POSEPIPE_ATLAS_PATH, TemplateFlow's home "
        "and the folder of `posepipe-tools atlas fetch`",
    )  # fmt: skip
    group.add_argument("--age-policy", choices=AGE_POLICIES, help=_with_default("age_policy", "if the age is outside the atlas's range"))
    group.add_argument("--contrast", choices=CONTRAST_CHOICES, help=_with_default("contrast", "contrast of the images; auto: by file name"))
    group.add_argument(
        "--convert", choices=CONVERT_CHOICES,
        help=_with_default(
            "convert", "convert T1w images to T2-like contrast by a network, for the alignment only; auto: if the template is T2w only; "
            "always: and align to the T2w template; never: align them unconverted"
        ),
    )  # fmt: skip
    group.add_argument(
        "--mask", choices=MASK_CHOICES,
        help=_with_default(
            "mask", "brain mask: given, nonzero voxels (brain-extracted images), or found by networks; auto: the first of these that is "
            "available"
        ),
    )  # fmt: skip
    group.add_argument("--init", choices=INIT_CHOICES, help=_with_default("init", "method for the initial pose"))
    group.add_argument("--refine", choices=REFINE_CHOICES, help=_with_default("refine", "method of the refinement"))
    group.add_argument(
        "--slices", choices=SLICES_CHOICES,
        help=_with_default(
            "slices", "estimate a pose for each slice, for heads that moved; auto: for images whose slice distance is at least twice the "
            "pixel size"
        ),
    )  # fmt: skip
    group.add_argument(
        "--weights", type=absolute_path, metavar="DIR", help="folder of network weights that replace those of the package"
    )
    group.add_argument("--device", choices=DEVICE_CHOICES, help=_with_default("device", "device for torch"))
    group.add_argument("--random-seed", type=int, metavar="N", help=_with_default("random_seed", "seed"))
    return group


def _add_session(group: Any) -> None:
    group.add_argument(
        "--session-pose", choices=SESSION_CHOICES,
        help=_with_default(
            "session_pose", "images of one session: independent: each has a pose of its own; consistent: those between which the head lay "
            "still are refined together to one pose"
        ),
    )  # fmt: skip


def add_outputs(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options of the outputs, shared with ``posepipe-tools align``; their group."""
    group = parser.add_argument_group("outputs")
    group.add_argument(
        "--xfm-formats", nargs="+", choices=XFM_FORMATS, metavar="FORMAT",
        help=f"also write transforms in the formats of other tools: {', '.join(XFM_FORMATS)} (default: itk, which is always written)",
    )  # fmt: skip
    group.add_argument(
        "--labels", action="store_true",
        help="write the atlas's label maps (tissues, regions) on the image's grid, by the rigid pose: approximate, not a segmentation",
    )  # fmt: skip
    return group


def _add_age(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("age")
    group.add_argument(
        "--age", type=age_option, metavar="WEEKS",
        help="gestational (postmenstrual) weeks, for all images; estimate: estimate ages that are in no table from the image",
    )  # fmt: skip
    group.add_argument("--age-column", metavar="NAME", help="column of scans.tsv, sessions.tsv or participants.tsv to read")


def _add_group(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("group level")
    group.add_argument("--ratings", type=absolute_path, metavar="DIR", help="folder of ratings exported from the pages (*.json)")
    group.add_argument(
        "--blind", nargs="+", type=_rater, metavar="RATER",
        help="write a random reading order of the pages for each of these raters, with hidden verdicts",
    )  # fmt: skip


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--nprocs", type=whole_number, metavar="N", help="cores to use (default: all)")
    group.add_argument("--omp-nthreads", type=whole_number, metavar="N", help="threads for each image (default: 1); ANTs always uses one")
    group.add_argument("--mem-gb", type=gigabytes, metavar="GB", help="memory to use; 6, 7.5, 7.5GB or 800MB")
    group.add_argument("-w", "--work-dir", type=absolute_path, metavar="DIR", help="intermediate files (default: ./work)")
    group.add_argument("--nipype-plugin", metavar="NAME", help="Nipype plugin, such as Linear, MultiProc or SLURM")
    group.add_argument("--plugin-args", type=absolute_path, metavar="FILE", help="TOML or JSON file with the plugin's arguments")
    group.add_argument(
        "--config-file", type=absolute_path, metavar="FILE",
        help="TOML file of options, with paths relative to the current folder; options of the command line take precedence",
    )  # fmt: skip
    group.add_argument("--stop-on-first-crash", action="store_true", help="stop as soon as one image fails")
    group.add_argument("--write-graph", action="store_true", help="draw the workflow in the work folder (Graphviz)")
    group.add_argument("-v", "--verbose", action="count", help="more messages; -vv: all messages")


def _add_instead(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("instead of running").add_mutually_exclusive_group()
    group.add_argument("--dry-run", action="store_true", help="print the plan and exit")
    group.add_argument("--reports-only", action="store_true", help="write the pages again, from the outputs")
    group.add_argument("--boilerplate-only", action="store_true", help="write logs/CITATION.md, .bib and .html, and print the first")


def parse_settings(argv: Sequence[str]) -> Settings:
    """Settings from the command line, completed from ``--config-file``.

    Raises :class:`~posepipe.errors.UsageError` for errors that argparse does not detect; argparse itself exits with code 2.
    """
    parser = build_parser()
    given: dict[str, Any] = vars(parser.parse_args(argv))
    if "config_file" in given:
        from .config_file import read_config

        given = read_config(given["config_file"], parser) | given
    given.setdefault("work_dir", absolute_path("work"))
    given["command"] = command_line("posepipe", list(argv))
    return make_settings(given)


def make_settings(given: dict[str, Any]) -> Settings:
    """Settings from options by name; lists become tuples, and the run gets its id."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    values.setdefault("run_id", f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}")
    settings = Settings(**values)
    _check_level(settings)
    if settings.session_pose == "consistent" and settings.refine == "none":
        msg = "--session-pose consistent refines the poses of a session together, which --refine none rules out: give one of the two"
        raise UsageError(msg)
    _check_atlases(settings.atlas)
    if isinstance(settings.age, float) and settings.age_column is not None:
        msg = "--age WEEKS and --age-column exclude each other: give one"
        raise UsageError(msg)
    if settings.bids_dir in (settings.work_dir, settings.out_dir):
        wrong = "work" if settings.work_dir == settings.bids_dir else "output"
        msg = f"{settings.bids_dir}: the {wrong} folder would be the dataset itself; give another"
        raise UsageError(msg)
    return settings


def _check_level(settings: Settings) -> None:
    if settings.analysis_level == "participant" and (settings.ratings or settings.blind):
        option = "--ratings" if settings.ratings else "--blind"
        msg = f"{option} belongs to the group level: posepipe {settings.bids_dir} {settings.out_dir} group {option} …"
        raise UsageError(msg)


def _check_atlases(names: tuple[str, ...]) -> None:
    if AUTO in names and len(names) > 1:
        msg = f"--atlas {' '.join(names)}: {AUTO} chooses one atlas by itself; give {AUTO} alone, or names of atlases alone"
        raise UsageError(msg)
    double = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if double:
        msg = f"--atlas {' '.join(names)}: {double[0]} is named twice; name each atlas once"
        raise UsageError(msg)


def age_option(text: str) -> float | str:
    """Weeks, or the word ``estimate``.

    >>> age_option("29.5"), age_option("estimate")
    (29.5, 'estimate')
    """
    if text == ESTIMATE:
        return text
    try:
        return float(text)
    except ValueError:
        msg = f"{text!r} is not a number of weeks; give weeks such as 29.5, or {ESTIMATE}"
        raise argparse.ArgumentTypeError(msg) from None


def gigabytes(text: str) -> float:
    """Memory in GB from ``7.5``, ``7.5GB`` or ``800MB``.

    >>> gigabytes("7.5"), gigabytes("6 GB"), gigabytes("800MB")
    (7.5, 6.0, 0.8)
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(GB?|MB?)?\s*", text, re.IGNORECASE)
    size = float(found[1]) / (1000 if (found[2] or "G").upper().startswith("M") else 1) if found else 0.0
    if size <= 0:
        msg = f"{text!r} is not an amount of memory; give GB, such as 7.5, 7.5GB or 800MB"
        raise argparse.ArgumentTypeError(msg)
    return size


def cores() -> int:
    """Cores that this process may use (a container or a batch system may allow fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def whole_number(text: str) -> int:
    value = int(text) if text.strip().isdecimal() else 0
    if value < 1:
        msg = f"{text!r} is not a whole number above 0"
        raise argparse.ArgumentTypeError(msg)
    return value


def _rater(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text):
        msg = f"{text!r} cannot be a rater's name, because it becomes part of a file name; use letters, digits, - and _"
        raise argparse.ArgumentTypeError(msg)
    return text


def _with_default(name: str, text: str) -> str:
    return f"{text} (default: {_DEFAULT[name]})"
