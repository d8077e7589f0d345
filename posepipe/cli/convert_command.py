"""``posepipe-tools convert``: a transform in the format of another tool."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..paths import absolute_path
from ..settings import XFM_FORMATS


def add_arguments(subparsers: Any) -> None:
    """Add the ``convert`` command to the subparsers of ``posepipe-tools``."""
    parser = subparsers.add_parser(
        "convert",
        help="convert a transform to the format of another tool",
        description="Write a rigid transform in the format of another tool. Both files resample the moving image onto the reference's "
        "grid; for the opposite direction, convert the inverse transform, which posepipe also writes.",
    )
    parser.add_argument("pose", type=absolute_path, metavar="POSE", help="transform file")
    parser.add_argument("--to", required=True, choices=XFM_FORMATS, help="format to write")
    parser.add_argument("--from", dest="source", choices=XFM_FORMATS, help="format of POSE (default: detected from the file)")
    parser.add_argument("--moving", type=absolute_path, metavar="IMAGE", help="image that the transform resamples; fsl and lta need it")
    parser.add_argument("--reference", type=absolute_path, metavar="IMAGE", help="image with the target grid; fsl, lta and x5 need it")
    parser.add_argument("-o", "--output", type=absolute_path, required=True, metavar="FILE", help="file to write")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed ``args`` ask; 0 on success. Raises :class:`~posepipe.errors.PosepipeError`."""
    from ..imaging.grid import Grid
    from ..imaging.transform_files import format_named, guess_format, read_transform, write_transform

    moving, reference = (None if path is None else Grid.load(path) for path in (args.moving, args.reference))
    pose = read_transform(args.pose, args.source, moving, reference)
    source = format_named(args.source or guess_format(Path(args.pose)))
    write_transform(pose, args.output, args.to, moving, reference)
    target = format_named(args.to)
    print(f"{args.output}: {target.title}, from {source.title}; it maps {target.maps}; turned by {pose.angle_degrees:.1f}°")
    return 0
