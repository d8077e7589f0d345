"""``posepipe-tools restore``: labels or images from the atlas's frame back onto the image's own grid."""

from __future__ import annotations

import argparse
from typing import Any

from ..paths import absolute_path


def add_arguments(subparsers: Any) -> None:
    """Add the ``restore`` command to the subparsers of ``posepipe-tools``."""
    parser = subparsers.add_parser(
        "restore",
        help="map labels or images in the atlas's frame back to the original image",
        description="Map labels or an image, made from the reoriented image or from the image on the atlas's grid, back to the grid of the "
        "original image. Data on the reoriented image's grid get the original header, without interpolation.",
    )
    parser.add_argument("volume", type=absolute_path, metavar="LABELS_OR_IMAGE", help="labels or image in the atlas's frame")
    parser.add_argument("pose", type=absolute_path, metavar="POSE", help="transform from the image to the atlas, as posepipe writes it")
    parser.add_argument("--like", type=absolute_path, required=True, metavar="ORIGINAL", help="the original image")
    parser.add_argument(
        "--order", type=int, choices=(0, 1, 3),
        help="interpolation: 0 nearest, 1 linear, 3 cubic (default: 0 for integers, which are assumed to be labels, else 3)",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=absolute_path, required=True, metavar="FILE", help="file to write (.nii or .nii.gz)")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed ``args`` ask; 0 on success. Raises :class:`~posepipe.errors.PosepipeError`."""
    from ..imaging.restore import ORDERS, is_reoriented, order_for, restore
    from ..imaging.volume import load_volume, save_volume, stored_type
    from .upright import check_output, forward_pose, tell

    check_output(args.output, args.volume, args.like)
    pose = forward_pose(args.pose, args.like)
    volume, original = load_volume(args.volume, None), load_volume(args.like, None)
    tell(volume)
    restored = restore(volume, original, pose, args.order)
    save_volume(restored, args.output, stored_type(restored.data.dtype))
    if is_reoriented(volume, original, pose):
        how = "the header alone; its voxels are unchanged"
    elif args.order is not None:
        how = ORDERS[args.order]
    elif order_for(volume.data) == 0:
        how = f"{ORDERS[0]}, as for labels, since all its values are whole numbers ({volume.data.dtype}); for an image give --order 3"
    else:
        how = f"{ORDERS[3]}, as for images, since its values are not whole numbers ({volume.data.dtype})"
    print(f"{args.output}: {args.volume.name} on the grid of {args.like.name}, by {how}")
    return 0
