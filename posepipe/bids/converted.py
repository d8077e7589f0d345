"""Files that DICOM converters (dcm2niix) put beside an image: which they are, and what they say of it.

The marks are those of dcm2niix's list of file names (its FILENAMING.md). See docs/how-to/dicom.md.
"""

from __future__ import annotations

import re
from pathlib import Path

_MARKS: tuple[tuple[str, str], ...] = (
    (
        r"_Eq(?:_?\d+)?",
        "dcm2niix resampled it to evenly spaced slices, as those of the image without _Eq are not; if slices are missing there, convert "
        "again from all of them, else put this file in its place, under its name",
    ),
    (
        r"_Tilt(?:_?\d+)?",
        "dcm2niix resampled it to undo a tilt of the slices, which the header of the image without _Tilt cannot hold; put this file in its "
        "place, under its name",
    ),
    (r"_ROI\d+", "dcm2niix wrote it from an overlay, a region that was drawn at the scanner; move it out of the dataset"),
    (
        r"_Crop(?:_?\d+)?",
        "dcm2niix cut off the neck (-x y); the image without _Crop is used: convert with -x i, or move this file out of the dataset",
    ),
    (r"_(?:ph|phMag|real|imaginary)", "a part of a complex image; name it with part- (BIDS), or move it out of the dataset"),
    (r"_(?:e|i|t)\d+", "an echo, a slice direction or a trigger time of its own; name it with acq- or run-, if it is to be aligned"),
    (r"(?<=_T[12]w)[a-z]", "dcm2niix adds a letter where two series have one name; name them run-1, run-2 …"),
)
"""End of the name, before its extension → what the file is and what to do."""
_GEOMETRY = (
    ("_Eq", "its slices are unevenly spaced or some are missing, which its header cannot tell: positions between them are wrong"),
    ("_Tilt", "its slices are tilted, which its header cannot tell: its shape is wrong"),
)


def converter_advice(name: str) -> str | None:
    """What a file is that a converter named, and what to do; None for names without such a mark.

    >>> converter_advice("sub-01_T2w_ROI1.nii.gz").partition(";")[0]
    'dcm2niix wrote it from an overlay, a region that was drawn at the scanner'
    >>> converter_advice("sub-01_run-1_T2w.nii.gz") is None
    True
    """
    stem = name.partition(".")[0]
    return next((advice for mark, advice in _MARKS if re.search(rf"{mark}$", stem)), None)


def converter_doubts(image: Path) -> tuple[str, ...]:
    """Reasons for ``review`` that files beside an image tell: dcm2niix resamples an image whose slices NIfTI cannot place, and the image as
    it was acquired then has a wrong header. None for a name that is not of a file."""
    if not image.is_file():
        return ()
    stem = image.name.partition(".")[0]
    found = []
    for mark, why in _GEOMETRY:
        beside = sorted(path.name for path in image.parent.glob(f"{stem}{mark}*.nii*") if converter_advice(path.name))
        if beside:
            found.append(f"{beside[0]} lies beside it: {why}; see docs/how-to/dicom.md")
    return tuple(found)
