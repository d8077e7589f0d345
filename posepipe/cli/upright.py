"""What ``align``, ``reorient`` and ``restore`` share: the pose that a file holds, and the image upright by it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..files import name_stem

if TYPE_CHECKING:
    from ..geometry import Rigid
    from ..imaging.volume import Volume


def forward_pose(path: Path, moving: Path) -> Rigid:
    """The pose in a transform file that resamples the image ``moving`` onto the atlas: from points of the atlas to points of the image.

    Raises :class:`~posepipe.errors.UsageError` for one whose sidecar says that it is the inverse, and for a format that depends on both
    images, and :class:`~posepipe.errors.TransformError` for a file that holds no pose.
    """
    from ..bids import read_json
    from ..errors import UsageError
    from ..imaging.grid import Grid
    from ..imaging.transform_files import read_transform

    sidecar = path.with_name(name_stem(path) + ".json")
    inverse_of = str(read_json(sidecar).get("InverseOf", "")) if path.is_file() and sidecar.is_file() else ""
    if inverse_of:
        msg = f"{path}: is the transform from the atlas to the image; give the one from the image to the atlas, {Path(inverse_of).name}"
        raise UsageError(msg)
    try:
        return read_transform(path, moving=Grid.load(moving))
    except UsageError as error:
        msg = f"{path}: this format depends on the atlas's image too; give the ITK file (.txt), or make it: posepipe-tools convert --to itk"
        raise UsageError(msg) from error


def check_output(output: Path, *inputs: Path) -> None:
    """See that ``output`` can be an image and is none of ``inputs``; raises :class:`~posepipe.errors.UsageError`."""
    from ..errors import UsageError

    if not output.name.endswith((".nii", ".nii.gz")):
        msg = f"{output}: is written as NIfTI; give it a name that ends in .nii or .nii.gz"
        raise UsageError(msg)
    for path in inputs:
        if output.exists() and path.exists() and output.samefile(path):
            msg = f"{output}: is an input and would be written over; give another name with -o"
            raise UsageError(msg)


def write_upright(image: Path, pose: Rigid, output: Path) -> Path:
    """Write the voxels of ``image`` as they are stored under a header that puts it into the atlas's frame; folders are made as needed."""
    from ..imaging.apply import reorient
    from ..imaging.volume import load_volume, save_volume, stored_type

    stored = load_volume(image, None)
    tell(stored)
    output.parent.mkdir(parents=True, exist_ok=True)
    return save_volume(reorient(stored, pose), output, stored_type(stored.data.dtype))


def tell(volume: Volume) -> None:
    """Print what of a volume's header and voxels is to be known."""
    for text in (*volume.doubts, *volume.notes):
        print(f"{volume.source}: note: {text}")
