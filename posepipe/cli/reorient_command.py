"""``posepipe-tools reorient``: an image upright by its header alone."""

from __future__ import annotations

import argparse
from typing import Any

from ..paths import absolute_path


def add_arguments(subparsers: Any) -> None:
    """Add the ``reorient`` command to the subparsers of ``posepipe-tools``."""
    parser = subparsers.add_parser(
        "reorient",
        help="an image upright by its header",
        description="The image's own voxels under a header that puts the head upright, in the atlas's frame; nothing is interpolated. "
        "`posepipe-tools restore` brings back what is made of it.",
    )
    parser.add_argument("image", type=absolute_path, metavar="IMAGE", help="the image, or labels or a mask on its grid")
    parser.add_argument("pose", type=absolute_path, metavar="POSE", help="transform from the image to the atlas, as posepipe writes it")
    parser.add_argument("-o", "--output", type=absolute_path, required=True, metavar="FILE", help="file to write (.nii or .nii.gz)")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed ``args`` ask; 0 on success. Raises :class:`~posepipe.errors.PosepipeError`."""
    from .upright import check_output, forward_pose, write_upright

    check_output(args.output, args.image)
    pose = forward_pose(args.pose, args.image)
    write_upright(args.image, pose, args.output)
    print(f"{args.output}: {args.image.name} turned by {pose.angle_degrees:.1f}° by its header; its voxels are unchanged")
    return 0
